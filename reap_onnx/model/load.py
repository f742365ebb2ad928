"""Read a model: one clear line for everything that can be wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

from reap_onnx.errors import ModelError
from reap_onnx.model.normalise import normalise
from reap_onnx.model.size import apart, digest, tensors, weights_as_inputs


@dataclass(frozen=True)
class Source:
    """A model and where it came from.

    Parameters
    ----------
    model
        The model, external data loaded, in normal form (see ``reap_onnx.model.normalise``).
    original
        The model as it was given; the same object where it is in normal form.
    name
        Path as given, or "model in memory".
    files
        The file and those of its external data; empty for a model in memory.
    """

    model: onnx.ModelProto
    original: onnx.ModelProto
    name: str
    files: tuple[Path, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Of the model with all its data, hexadecimal."""
        return digest(self.original)

    @property
    def path(self) -> Path | None:
        """The model's own file; None for a model in memory."""
        return self.files[0] if self.files else None

    @property
    def external(self) -> bool:
        """Whether weights were in files of their own."""
        return len(self.files) > 1


def load_model(source: str | Path | onnx.ModelProto) -> Source:
    """Read and check a model.

    Raises
    ------
    ModelError
        The file is missing, cut short, no ONNX model, or not valid.
    """
    if isinstance(source, onnx.ModelProto):
        if _data_files(source, Path()):
            raise ModelError("model in memory: its weights are in files of their own", "give its path, or onnx.load it")
        _check(source, None, "model in memory")
        return Source(normalise(source), source, "model in memory")
    path = Path(source)
    model = _read(path)
    data = _data_files(model, path.parent)
    if data:
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{path}: external data cannot be read: {reason}", "keep its files beside it") from error
    _check(model, str(path), str(path))
    return Source(normalise(model), model, str(path), (path, *data))


def _data_files(model: onnx.ModelProto, folder: Path) -> list[Path]:
    """Files of a model's external data."""
    external = [t for t in tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    names = {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}
    return [folder / name for name in sorted(names)]


def _read(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file", "check the path of the model") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}", "give the path of an .onnx file") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model, or cut short", "is the download or export complete?") from error
    if not model.ir_version or not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model: it has no graph", "give an .onnx file of a trained network")
    return model


def _check(model: onnx.ModelProto, file: str | None, name: str) -> None:
    """The model is valid; only from its path does onnx find external data, and a large one is checked by its graph."""
    try:
        onnx.checker.check_model(weights_as_inputs(model) if apart(model) else file or model)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{name}: not a valid ONNX model: {reason}", "does onnx.checker accept it?") from error
