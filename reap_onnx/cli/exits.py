"""The one place that turns errors into exit statuses."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

import typer

from reap_onnx.errors import ReapError

INTERRUPTED = 130
BROKEN_PIPE = 1
BUG = 70

P = ParamSpec("P")


def exits(verb: Callable[P, None]) -> Callable[P, None]:
    """Make a verb leave with the exit status of its error, said on stderr; see ``reap_onnx.errors`` for the statuses.

    A request to terminate (SIGTERM) is an interrupt, and so is what other code makes of one: a library that was reading
    a file may say that the file is broken. A reader of stdout that went away is no reason to say anything; anything
    unexpected keeps its traceback.
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with _signals_to_end() as asked:
            try:
                verb(*args, **kwargs)
                sys.stdout.flush()
            except (Exception, KeyboardInterrupt) as error:
                raise typer.Exit(_said(KeyboardInterrupt() if asked else error)) from None

    return run


@contextmanager
def _signals_to_end() -> Iterator[list[int]]:
    """Signals that asked the verb to end, so far: each is added as it comes, and raises ``KeyboardInterrupt``."""
    asked, before = list[int](), dict[signal.Signals, Any]()

    def end(number: int, _: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, end)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _said(error: BaseException) -> int:
    """Exit status of an error, which is said on stderr."""
    if isinstance(error, ReapError):
        _say("error", str(error))
        if error.hint:
            _say("hint", error.hint)
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        _say("error", "interrupted; nothing more is written")
        return INTERRUPTED
    if isinstance(error, MemoryError):
        _say("error", f"out of memory: {error}" if str(error) else "out of memory")
        _say("hint", "give a smaller --memory or --batch, or fewer --samples")
        return ReapError.exit_status
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush complains
        return BROKEN_PIPE
    traceback.print_exception(error)
    _say("error", "this is a bug in reap-onnx; please report it with the command and the traceback above")
    return BUG


def _say(kind: str, text: str) -> None:
    print(f"{kind}: {' '.join(text.split())}", file=sys.stderr)
