"""The user's own script as a source of samples."""

from __future__ import annotations

import inspect
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reap_onnx.errors import DataError, ReapError

DEFAULT_FUNCTION = "load_data"
# Not "__main__", whose block is not for us, nor the name of any module that the script may import.
_RUN_NAME = "reap_onnx_samples"


def split_script(text: str) -> tuple[Path, str] | None:
    """``path.py`` or ``path.py:function`` taken apart; None for anything else."""
    if text.endswith(".py"):
        return Path(text), DEFAULT_FUNCTION
    path, separator, function = text.rpartition(":")
    return (Path(path), function) if separator and path.endswith(".py") and function.isidentifier() else None


def call_script(path: Path, function: str) -> object:
    """Run the script and call one of its functions without arguments; call it inside ``script_errors``.

    Raises
    ------
    DataError
        The script has no such function, or it needs arguments.
    """
    names = runpy.run_path(str(path), run_name=_RUN_NAME)
    loader = names.get(function)
    if not callable(loader):
        raise DataError(f"{path} has no function {function!r}", f"define it, or name another: {path}:FUNCTION")
    try:
        inspect.signature(loader).bind()
    except TypeError as error:
        raise DataError(
            f"{path}: {function} cannot be called without arguments: {error}", "give every argument a default"
        ) from error
    return loader()


@contextmanager
def script_errors(path: Path) -> Iterator[None]:
    """Say what went wrong in the script by its line; its folder is on ``sys.path`` meanwhile, as when it is run.

    Raises
    ------
    DataError
        In place of an exception that passed through the script, or of its ``sys.exit``.
    """
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except ReapError:
        raise
    except (Exception, SystemExit) as error:
        line = _line(path, error)
        if line is None:
            raise
        said = " ".join(str(error).split())
        raise DataError(
            f"{path}, line {line}: {type(error).__name__}: {said}", "run the script by itself to see more"
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _line(path: Path, error: BaseException) -> int | None:
    """The line of the script where ``error`` came through last; None if it never did."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None
