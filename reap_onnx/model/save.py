"""Write files so that an interrupted or failed run leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx

from reap_onnx.errors import OutputError
from reap_onnx.model.size import is_large, save_with_data


def data_file(output: Path) -> Path:
    """Where the weights of a model go that keeps them in a file of their own."""
    return output.with_name(f"{output.name}.data")


def check_output(output: Path, sources: Sequence[Path], *, force: bool) -> None:
    """Refuse an output that is an input, exists already, or cannot be written, before any work is done.

    Parameters
    ----------
    output
        The file to be written.
    sources
        Files that are read, and so must stay as they are.
    force
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        With the reason.
    """
    try:
        _check_output(output, sources, force)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}", "choose another place") from error


def _check_output(output: Path, sources: Sequence[Path], force: bool) -> None:
    if not output.name:
        raise OutputError(f"{str(output)!r} names no file", "give the name of a file")
    if output.exists():
        if any(source.exists() and source.samefile(output) for source in sources):
            raise OutputError(f"{output}: is also an input, which is never overwritten", "choose another name")
        if not output.is_file():
            raise OutputError(f"{output}: exists and is no file", "choose another name")
        if not force:
            raise OutputError(f"{output}: exists already", "overwrite it with --force, or choose another name")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: there is no folder {output.parent}", "make it first")
    with tempfile.TemporaryFile(dir=output.parent):
        pass  # what it raises is the reason why nothing can be written there


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written (no room, no permission).
    """
    with _replacing(path) as folder:
        (folder / path.name).write_text(text, encoding="utf-8")


def write_model(model: onnx.ModelProto, path: Path, *, external: bool, check: Callable[[Path], None]) -> None:
    """Write a model beside its place, check the written file, then put it there.

    Parameters
    ----------
    model
        The model; not changed.
    path
        Its place. Whether it may be written there is for :func:`check_output` to say.
    external
        Keep the weights in a file of their own, :func:`data_file`; done anyway from 1.9 GB.
    check
        Called with the path of the written file; what it raises leaves nothing behind.

    Raises
    ------
    OutputError
        The file cannot be written (no room, no permission).
    """
    with _replacing(path) as folder:
        draft = folder / path.name
        if external or is_large(model):
            save_with_data(model, draft, data_file(draft))
        else:
            draft.write_bytes(model.SerializeToString(deterministic=True))
        check(draft)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A folder beside ``path``; its files move to their places if all goes well, and go with it if not."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".reap-onnx-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}", "is the disk full or read-only?") from error
    try:
        yield folder
        for file in sorted(folder.iterdir(), key=lambda f: f.name == path.name):  # the model after its data
            file.replace(path.parent / file.name)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise OutputError(f"{path}: cannot be written: {reason}", "is the disk full?") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
