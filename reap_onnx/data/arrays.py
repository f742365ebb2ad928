"""Files of arrays: .npz, .npy, polygraphy's JSON, folders of TensorProtos; and batches put together."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import onnx

from reap_onnx.data.dataset import Array, InputSpec, show_shape
from reap_onnx.data.fit import UNNAMED
from reap_onnx.data.place import PIECE, pieces, placed
from reap_onnx.errors import DataError

_DAMAGED = "the file is damaged or incomplete: write it again"
_PICKLED = "save plain arrays: numpy.savez(path, name=array) of numbers, all samples of one shape"


def read_npz(path: Path, memory: int | None = None) -> dict[str, Array]:
    """All arrays of an ``.npz`` file; one of more than ``memory`` bytes is mapped, from a copy where it is packed.

    Raises
    ------
    DataError
        Another kind of file, a damaged one, or one with pickled arrays, which are never read.
    """
    _check_magic(path, b"PK", "an .npz file")
    arrays = {}
    with path.open("rb") as stream:
        with _reading(str(path)):
            archive = np.load(stream, allow_pickle=False)
        for name in archive.files:
            where = f"{path}, array {name!r}"
            large = None if memory is None else _mapped(where, archive.zip, path, f"{name}.npy", memory)
            with _reading(where):
                arrays[name] = archive[name] if large is None else large
            if not isinstance(arrays[name], np.ndarray):
                raise DataError(f"{path} holds {name!r}, which is not an array", "write the file with numpy.savez")
    return arrays


def _mapped(where: str, archive: ZipFile, path: Path, member: str, memory: int) -> Array | None:
    """An array of an archive, mapped; None where it is no larger than ``memory``, or not plain rows."""
    info = archive.NameToInfo.get(member)
    if info is None or info.file_size <= memory:
        return None
    with _reading(where):
        stream = archive.open(member)
    with stream:
        with _reading(where):
            read_header = _HEADERS.get(np.lib.format.read_magic(stream))
            shape, columns_first, dtype = ((), True, np.dtype(object)) if read_header is None else read_header(stream)
        if columns_first or dtype.hasobject or min(shape, default=-1) < 0:
            return None
        if stream.tell() + math.prod(shape) * dtype.itemsize > info.file_size:
            return None  # and whoever reads it is told so
        if info.compress_type != ZIP_STORED:
            return placed(_rows(where, stream, shape, dtype), shape, dtype, memory)
        start = _start(path, info) + stream.tell()
        with _reading(where):
            while stream.read(PIECE):  # to the end, where the archive tells whether it is as it was written
                pass
            return np.memmap(path, dtype, "r", start, shape)


def _start(path: Path, info: ZipInfo) -> int:
    """Where the data of a member that is stored as it is lie in its archive."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<HH", file.read(30)[26:])
    return info.header_offset + 30 + int(name) + int(extra)


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _rows(where: str, stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[Array]:
    """The numbers of an array (N, ...), piece by piece."""
    size = math.prod(shape[1:]) * dtype.itemsize
    for some in pieces(shape[0], size):
        count = some.stop - some.start
        with _reading(where):
            part = np.frombuffer(stream.read(count * size), dtype).reshape(count, *shape[1:])
        yield part


def read_npy(path: Path) -> Array:
    """The array of an ``.npy`` file, mapped: samples that are not used are not read.

    Raises
    ------
    DataError
        Another kind of file, a damaged one, or a pickled array.
    """
    _check_magic(path, b"\x93NUMPY", "an .npy file")
    with _reading(str(path)):
        return cast("Array", np.load(path, mmap_mode="r", allow_pickle=False))


def _check_magic(path: Path, magic: bytes, kind: str) -> None:
    with path.open("rb") as stream:
        start = stream.read(len(magic))
    if start[:1] == b"\x80":
        raise DataError(f"{path} is a pickle; pickled arrays are not read", _PICKLED)
    if start != magic:
        raise DataError(f"{path} is not {kind}, whatever its name", "write it with numpy.savez or numpy.save")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Report bytes that are not what they should be; only the call that reads them belongs under it."""
    try:
        yield
    except Exception as error:  # numpy, zipfile, onnx and protobuf raise some twenty kinds between them
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        if "allow_pickle" in reason or "Python objects" in reason:
            raise DataError(f"{where} holds Python objects; pickled arrays are not read", _PICKLED) from error
        raise DataError(f"{where} cannot be read: {reason.splitlines()[0]}", _DAMAGED) from error


def read_polygraphy(path: Path) -> dict[str, Array]:
    """The arrays of a JSON written by ``polygraphy run --save-inputs``.

    The file is a list, one object per iteration, of ``name: {"array": <base64 of an .npy file>}``.

    Raises
    ------
    DataError
        Another kind of JSON, or a damaged one.
    """
    hint = "give what polygraphy run --save-inputs wrote, or an .npz"
    with _reading(str(path)):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DataError(f"{path} is not a list of inputs by name", hint)
    batches = ({name: _decode_array(path, name, value) for name, value in item.items()} for item in content)
    return stack(str(path), batches)


def _decode_array(path: Path, name: str, value: Any) -> Array:
    where = f"{path}, array {name!r}"
    if not isinstance(value, dict) or not isinstance(value.get("array"), str):
        raise DataError(f"{where} is not a numpy array as polygraphy writes it", "save the inputs as numpy arrays")
    with _reading(where):
        data = io.BytesIO(base64.b64decode(value["array"], validate=True))
        return np.lib.format.read_array(data, allow_pickle=False)


def is_test_data(folder: Path) -> bool:
    """Whether ``folder`` holds ``test_data_set_*`` folders, or is one: ``input_*.pb``."""
    return bool(_numbered(folder, r"test_data_set_(\d+)") or _numbered(folder, r"input_(\d+)\.pb"))


def read_test_data(folder: Path, specs: tuple[InputSpec, ...]) -> dict[str, Array]:
    """The inputs in ``test_data_set_*`` folders of ``input_*.pb``, or in a single such folder.

    A tensor is for the input that it is named after; where it has another name or none, ``input_K.pb`` is for the
    K-th input.

    Raises
    ------
    DataError
        A file is not a TensorProto, or K is past the last input.
    """
    folders = [path for _, path in _numbered(folder, r"test_data_set_(\d+)")] or [folder]
    return stack(str(folder), (_read_set(path, specs) for path in folders))


def _read_set(folder: Path, specs: tuple[InputSpec, ...]) -> dict[str, Array]:
    names = [spec.name for spec in specs]
    arrays = {}
    for number, path in _numbered(folder, r"input_(\d+)\.pb"):
        with _reading(str(path)):
            tensor = onnx.load_tensor(str(path))
            array = onnx.numpy_helper.to_array(tensor, base_dir=str(folder))
        if tensor.name not in names and number >= len(names):
            listing = "; ".join(map(str, specs))
            raise DataError(
                f"{path} is for input number {number}, the model has {len(names)}", f"its inputs are {listing}"
            )
        arrays[tensor.name if tensor.name in names else names[number]] = array
    if not arrays:
        raise DataError(f"{folder} holds no input_*.pb", "write one TensorProto per input: input_0.pb, input_1.pb ...")
    return arrays


def _numbered(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    """Entries of ``folder`` whose whole name matches, by their number."""
    matches = ((re.fullmatch(pattern, path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match is not None)


def stack(where: str, batches: Iterable[Mapping[str, Any]]) -> dict[str, Array]:
    """Batches of arrays (B, ...) by name, put together along the first axis; B may differ.

    Raises
    ------
    DataError
        Nothing came, something else than mappings came, or the batches differ in names, types or shapes.
    """
    parts: dict[str, list[Array]] = {}
    for number, batch in enumerate(batches):
        if not isinstance(batch, Mapping):
            raise DataError(
                f"{where}: batch {number} is a {type(batch).__name__}",
                "yield one dict of input name to array per batch",
            )
        if number and batch.keys() != parts.keys():
            raise DataError(
                f"{where}: batch {number} holds {', '.join(map(repr, batch))}, the first {', '.join(map(repr, parts))}",
                "every batch must hold the same names",
            )
        for name, value in batch.items():
            array = as_array(f"{where}, batch {number}", name, value)
            same = parts.setdefault(name, [])
            if same and (array.shape[1:] != same[0].shape[1:] or array.dtype != same[0].dtype):
                raise DataError(
                    f"{where}: {name!r} is {array.dtype} {show_shape(array.shape)} in batch {number}, "
                    f"{same[0].dtype} {show_shape(same[0].shape)} in the first",
                    "bring all samples to one shape and type",
                )
            same.append(array)
    if not parts:
        raise DataError(f"{where}: no samples", "give at least one batch; an iterator that was read before is empty")
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def as_array(where: str, name: str, value: Any) -> Array:
    """What numpy makes of ``value``, with at least the batch axis.

    Raises
    ------
    DataError
        Not an array, or a scalar.
    """
    label = f"{where}: {name!r}" if name != UNNAMED else where
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{label} is not an array: {said}", "give numpy arrays, all samples of one shape") from error
    if array.ndim == 0:
        raise DataError(
            f"{label} is a single {type(value).__name__}, not an array", "give numpy arrays with the batch axis first"
        )
    return array
