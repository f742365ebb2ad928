"""Write files so that an interrupted or failed run leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from reap_onnx.errors import OutputError

EXTERNAL_FROM = 1_900_000_000  # bytes; protobuf ends at 2 GB


def check_output(output: Path, sources: list[Path], *, force: bool) -> None:
    """Refuse an output that is an input, exists already, or cannot be written, before any work is done.

    Raises
    ------
    OutputError
        With the reason.
    """
    if any(source.exists() and output.exists() and source.samefile(output) for source in sources):
        raise OutputError(f"{output}: is also an input, which is never overwritten", "choose another name")
    if output.is_dir():
        raise OutputError(f"{output}: is a folder", "give the name of a file in it")
    if output.exists() and not force:
        raise OutputError(f"{output}: exists already", "overwrite it with --force, or choose another name")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: the folder {output.parent} does not exist", "make it first")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output}: the folder {output.parent} cannot be written to")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with _replacing(path) as folder:
        (folder / path.name).write_text(text, encoding="utf-8")


def write_model(model: onnx.ModelProto, path: Path, *, external: bool, check: Callable[[Path], None]) -> None:
    """Write a model beside its place, check the written file, then put it there.

    Parameters
    ----------
    external
        Keep the weights in a file of their own, ``NAME.data``; done anyway from 1.9 GB.
    check
        Called with the path of the written file; what it raises leaves nothing behind.

    Raises
    ------
    OutputError
        The file cannot be written (no room, no permission).
    """
    with _replacing(path) as folder:
        target = folder / path.name
        if external or model.ByteSize() > EXTERNAL_FROM:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            onnx.save_model(copy, target, save_as_external_data=True, location=f"{path.name}.data")
        else:
            target.write_bytes(model.SerializeToString(deterministic=True))
        check(target)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A folder beside ``path``; its files move to their places if all goes well, and go with it if not."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}", "is the disk full or read-only?") from error
    try:
        yield folder
        for file in sorted(folder.iterdir(), key=lambda f: f.name == path.name):  # the model after its data
            file.replace(path.parent / file.name)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}", "is the disk full?") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def model_size(model: onnx.ModelProto) -> int:
    """Bytes of the serialised model."""
    return model.ByteSize()
