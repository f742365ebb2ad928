"""The user's own script: as a source of samples, as a metric."""

from __future__ import annotations

import inspect
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reap_onnx.errors import DataError, ReapError

DEFAULT_FUNCTION = "load_data"
# Not "__main__", whose block is not for us, nor the name of any module that the script may import.
_RUN_NAME = "reap_onnx_samples"


def split_script(text: str, default: str = DEFAULT_FUNCTION) -> tuple[Path, str] | None:
    """``path.py`` or ``path.py:function`` taken apart; None for anything else."""
    if text.endswith(".py"):
        return Path(text), default
    path, separator, function = text.rpartition(":")
    return (Path(path), function) if separator and path.endswith(".py") and function.isidentifier() else None


def load_function(path: Path, function: str) -> Callable[..., Any]:
    """Run the script and take one of its functions; call it inside ``script_errors``.

    Raises
    ------
    DataError
        The script has no such function.
    """
    found: Callable[..., Any] | None = runpy.run_path(str(path), run_name=_RUN_NAME).get(function)
    if not callable(found):
        raise DataError(f"{path} has no function {function!r}", f"define it, or name another: {path}:FUNCTION")
    return found


def call_script(path: Path, function: str) -> object:
    """Run the script and call one of its functions without arguments; call it inside ``script_errors``.

    Raises
    ------
    DataError
        The script has no such function, or it needs arguments.
    """
    loader = load_function(path, function)
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
