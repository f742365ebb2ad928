"""Arrays of many samples: in memory where there is room, else in a file that has no name."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from reap_onnx.errors import DataError

Array = npt.NDArray[Any]

PIECE = 32_000_000  # bytes that are worked on at a time
SCATTERED = 16  # samples of a mapped array at a time, out of their order: each may bring 2 MB around it into memory
_WHAT = "samples"


def placed(parts: Iterable[Array], shape: tuple[int, ...], dtype: npt.DTypeLike, memory: int | None = None) -> Array:
    """An array put together from its parts; it is mapped from a file where it would take more than ``memory``.

    Parameters
    ----------
    parts
        Arrays (n, ...), consecutive along the first axis, which add up to ``shape``.
    shape, dtype
        Of the whole.
    memory
        Bytes; None: however many it takes.

    Returns
    -------
    array
        C-contiguous. From a file it can be read alone; the file goes with the process, however that ends.

    Raises
    ------
    DataError
        There is no room for the file.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if memory is None or kind.hasobject or size <= memory:
        whole, done = np.empty(shape, kind), 0
        for part in parts:
            whole[done : done + len(part)] = part
            done += len(part)
        assert done == shape[0]
        return whole
    with nameless_file(_WHAT) as file:
        for part in parts:
            append(file, part.astype(kind, copy=False), _WHAT)
        assert file.tell() == size
        try:
            return np.asarray(np.memmap(file, kind, "r", shape=shape))
        except OSError as error:
            raise _no_room(_WHAT, error) from error


def pieces(count: int, size: int, most: int | None = None) -> Iterator[slice]:
    """``count`` samples of ``size`` bytes in their order: ``PIECE`` bytes at a time, ``most`` samples, one at least."""
    step = max(1, min(most or count, PIECE // max(size, 1)))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def taken(array: Array, indices: npt.NDArray[np.intp]) -> Iterator[Array]:
    """The samples at ``indices``, piece by piece."""
    scattered = in_file(array) and array.nbytes > PIECE and bool((np.diff(indices) != 1).any())
    for some in pieces(len(indices), array[:1].nbytes, SCATTERED if scattered else None):
        yield array[indices[some]]
        let_go([array])


def read(array: Array) -> Iterator[tuple[int, Array]]:
    """All samples in their order, piece by piece, and the number of the first of each piece."""
    for some in pieces(len(array), array[:1].nbytes):
        yield some.start, array[some]
        let_go([array])


def let_go(arrays: Iterable[object]) -> None:
    """Give back the memory that mapped arrays have taken by being read; they can be read again."""
    advice = getattr(mmap, "MADV_DONTNEED", None)
    for found in map(_map, arrays):
        if advice is not None and found is not None:
            with suppress(OSError):  # it is no more than advice
                found.madvise(advice)


def in_file(array: object) -> bool:
    """Whether an array lies in a file, from which it can be read alone."""
    return _map(array) is not None


def _map(array: object) -> mmap.mmap | None:
    """The map of a file that an array lies in; None in memory, and where it could have been written to."""
    read_only = False
    while isinstance(array, np.ndarray):
        read_only = isinstance(array, np.memmap) and array.mode == "r"
        array = array.base
    return array if read_only and isinstance(array, mmap.mmap) else None


def nameless_file(what: str) -> IO[bytes]:
    """A file that goes with the process, in ``TMPDIR``; without a buffer, so that nothing waits to be written.

    Raises
    ------
    DataError
        There is no place for it.
    """
    try:
        return tempfile.TemporaryFile(prefix="reap-onnx-", buffering=0)
    except OSError as error:
        raise _no_room(what, error) from error


def append(file: IO[bytes], array: Array, what: str) -> None:
    """Write an array where a file without a buffer is.

    Raises
    ------
    DataError
        The disk is full.
    """
    try:
        left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _no_room(what, error) from error


def _no_room(what: str, error: OSError) -> DataError:
    return DataError(
        f"{what} do not fit into memory nor into a file of their own: {error.strerror}",
        "name a larger disk in TMPDIR, give fewer samples, or raise --memory",
    )
