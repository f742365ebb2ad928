"""How much memory a run may take, and the place for what goes beyond it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reap_onnx.data.place import append, nameless_file

UNKNOWN = 8_000_000_000  # bytes taken as available where the machine does not say
REUSED = 32 * 2**20 - 2**16  # bytes up to which glibc uses memory again; larger tensors are new to the system each time
ROWS = 8_000_000_000  # bytes for rows and normal equations where nothing is said
SAMPLES = 4  # one part in so many of the memory is for samples, before they lie in a file,
STREAM = 4  # for what a stream keeps between pieces,
TENSORS = 4  # and for the tensors of a run; these seldom need theirs at once
_WHAT = "tensors between layers"


def batch_within(most: int, tensors: Sequence[int], memory: int) -> int:
    """Samples of a run, of each of which tensors of so many bytes are left behind.

    At most ``most``, and what keeps the largest tensor within ``REUSED`` and all of them within a share of ``memory``.
    """
    largest, together = max([1, *tensors]), max(1, sum(tensors))
    return max(1, min(most, REUSED // largest, memory // TENSORS // together))


def memory_limit(wanted: int | None) -> int:
    """Bytes that samples and tensors between layers share: ``wanted``, by default half of what the machine has left."""
    return available_memory() // 2 if wanted is None else wanted


def memory_for_samples(wanted: int | None) -> int:
    """Bytes that samples may take before they lie in a file."""
    return memory_limit(wanted) // SAMPLES


def memory_for_stream(wanted: int | None) -> int:
    """Bytes that a stream may keep between pieces before they lie in a file."""
    return memory_limit(wanted) // STREAM


def memory_for_rows(wanted: int | None) -> int:
    """Bytes that rows and normal equations may take; by default a constant, since what they leave out is missed."""
    return ROWS if wanted is None else wanted


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without pushing others out, nor being ended for it, as far as the machine says."""
    try:
        lines = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        return max(0, min([free, *_left_in_groups(root)]))
    except (OSError, ValueError, KeyError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return UNKNOWN


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left in the control groups of this process and those around them, of version 2 and of version 1.

    What a group caches of files counts as left: it is given back first.
    """
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, most, used, cached = _VERSION_1 if controllers else _VERSION_2
        own = root / top / path.lstrip("/")
        for group in (own, *own.parents):
            with suppress(OSError, ValueError, KeyError):  # a group without a limit, or seen from inside of it
                limit = int((group / most).read_text())
                told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield limit - int((group / used).read_text()) + int(told[cached])
            if group == root / top:
                break


_VERSION_1 = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
_VERSION_2 = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"


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
        self._file, self.size = nameless_file(_WHAT), 0

    def put(self, array: np.ndarray) -> Spilled:
        """Append an array.

        Raises
        ------
        DataError
            The disk is full.
        """
        place = Spilled(self.size, array.shape, array.dtype)
        self._file.seek(self.size)
        append(self._file, array, _WHAT)
        self.size += array.nbytes
        return place

    def get(self, place: Spilled) -> np.ndarray:
        """Read an array back."""
        self._file.seek(place.start)
        return np.fromfile(self._file, place.dtype, math.prod(place.shape)).reshape(place.shape)

    def close(self) -> None:
        """Give the file up."""
        self._file.close()
