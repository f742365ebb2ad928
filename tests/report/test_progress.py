from __future__ import annotations

import io
import re
import sys
import time

import pytest
from rich.console import Console

from reap_onnx.report.progress import Bars, Lines, Progress, Silent, progress_on_stderr


def test_lines_come_while_a_step_takes_long() -> None:
    stream = io.StringIO()
    with Lines(stream, every=0.01).stage("statistics", 40) as advance:
        advance(7)
        advance()
        limit = time.monotonic() + 5
        while "8/40" not in stream.getvalue() and time.monotonic() < limit:
            time.sleep(0.005)
    assert re.search(r"statistics: 8/40, \d+\.\d s\n", stream.getvalue())


def test_short_runs_say_nothing() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    for name in ("load", "save"):
        with lines.stage(name) as advance:
            advance(3)
    assert stream.getvalue() == ""


def test_lines_are_over_with_their_stage() -> None:
    stream = io.StringIO()
    with Lines(stream, every=0.01).stage("refit") as advance:
        advance(1)
    said = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == said


def test_bars_name_the_stage_and_count() -> None:
    stream = io.StringIO()
    bars = Bars(Console(file=stream, force_terminal=True, width=100))
    with bars.stage("[statistics]", 4) as advance:
        advance(3)
    with bars.stage("search") as advance:
        advance(2)
    assert "[statistics]" in stream.getvalue()
    assert "3/4" in stream.getvalue()
    assert "2/?" in stream.getvalue()


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent().stage("load", 1) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "quiet", "kind"),
    [
        (io.StringIO(), "xterm", False, Lines),
        (Terminal(), "xterm", False, Bars),
        (Terminal(), "dumb", False, Lines),
        (Terminal(), "xterm", True, Silent),
    ],
)
def test_which_progress_suits(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, term: str, quiet: bool, kind: type
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # colours alone make no terminal
    monkeypatch.setattr(sys, "stderr", stream)
    progress: Progress = progress_on_stderr(quiet)
    assert type(progress) is kind
