"""Saying how far a long run has come, always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from reap_onnx.report.format import seconds


class Advance(Protocol):
    """Called as steps are done."""

    def __call__(self, n: int = 1) -> None:
        """``n`` more steps are done."""


class Progress(Protocol):
    """Somebody to tell. Stages follow one another and do not nest."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Open a stage of ``total`` steps, None where nobody knows; yields what to call as steps are done."""


class Silent:
    """Says nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Open a stage that nobody hears of."""

        def advance(n: int = 1) -> None:
            del n

        yield advance


class Bars:
    """A bar for each stage, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Draw a bar; without a total it only shows that something moves."""
        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with RichProgress(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total)

            def advance(n: int = 1) -> None:
                bars.advance(task, n)

            yield advance


class Lines:
    """A line every so often, for logs; a run shorter than that says nothing.

    Parameters
    ----------
    stream
        Where to write.
    every
        Seconds between lines.
    """

    def __init__(self, stream: TextIO, every: float = 10.0) -> None:
        self._stream = stream
        self._every = every
        self._due = time.monotonic() + every

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Report from a thread of its own, so that one long step does not look like a hang."""
        start, done, over = time.monotonic(), 0, threading.Event()

        def advance(n: int = 1) -> None:
            nonlocal done
            done += n

        def report() -> None:
            while not over.wait(max(0.0, self._due - time.monotonic())):
                steps = f"{done}/{total}" if total is not None else str(done)
                print(f"{name}: {steps}, {seconds(time.monotonic() - start)}", file=self._stream, flush=True)
                self._due = time.monotonic() + self._every

        thread = threading.Thread(target=report, daemon=True)
        thread.start()
        try:
            yield advance
        finally:
            over.set()
            thread.join()


def progress_on_stderr(quiet: bool = False) -> Progress:
    """Bars on a terminal, lines elsewhere, nothing when ``quiet``."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    return Bars(console) if sys.stderr.isatty() and not console.is_dumb_terminal else Lines(sys.stderr)
