"""How much memory a run may take, and the place for what goes beyond it."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reap_onnx.errors import DataError

UNKNOWN = 8_000_000_000  # bytes taken as available where the machine does not say
REUSED = 32 * 2**20 - 2**16  # bytes up to which glibc uses memory again; larger tensors are new to the system each time
ROWS = 8_000_000_000  # bytes for rows and normal equations where nothing is said


def batch_within(most: int, largest: int) -> int:
    """Samples of a run: at most ``most``, and what keeps tensors of ``largest`` bytes a sample within ``REUSED``."""
    return max(1, min(most, REUSED // max(largest, 1)))


def memory_limit(wanted: int | None) -> int:
    """Bytes that tensors between layers may take: ``wanted``, by default half of what the machine has left."""
    return available_memory() // 2 if wanted is None else wanted


def memory_for_rows(wanted: int | None) -> int:
    """Bytes that rows and normal equations may take; by default a constant, since what they leave out is missed."""
    return ROWS if wanted is None else wanted


def available_memory() -> int:
    """Bytes that can be taken without pushing others out, as far as the machine says."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        group = Path("/sys/fs/cgroup/memory.max")
        limit = group.read_text().strip() if group.exists() else "max"
        return free if limit == "max" else min(free, int(limit))
    except (OSError, ValueError, KeyError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return UNKNOWN


@dataclass(frozen=True)
class Spilled:
    """An array in a :class:`Spill`."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Spill:
    """Arrays in a file that has no name, so that it goes with the process however that ends.

    Raises
    ------
    DataError
        There is no place for the file.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="reap-onnx-")  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error
        self.size = 0

    def put(self, array: np.ndarray) -> Spilled:
        """Append an array.

        Raises
        ------
        DataError
            The disk is full.
        """
        place = Spilled(self.size, array.shape, array.dtype)
        try:
            self._file.seek(self.size)
            self._file.write(np.ascontiguousarray(array).data)
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error
        self.size += array.nbytes
        return place

    def get(self, place: Spilled) -> np.ndarray:
        """Read an array back."""
        self._file.seek(place.start)
        return np.fromfile(self._file, place.dtype, math.prod(place.shape)).reshape(place.shape)

    def close(self) -> None:
        """Give the file up."""
        self._file.close()


def _no_room(error: OSError) -> DataError:
    return DataError(
        f"tensors between layers do not fit into memory nor into a file of their own: {error.strerror}",
        "raise --memory, use fewer --samples, or name a larger disk in TMPDIR",
    )
