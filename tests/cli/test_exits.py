from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from reap_onnx import errors
from reap_onnx.cli.exits import exits


def status_of(error: BaseException) -> int:
    def verb() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        exits(verb)()
    return int(caught.value.exit_code)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.ReapError, 1),
        (errors.ModelError, 1),
        (errors.DataError, 1),
        (errors.PlanError, 1),
        (errors.OutputError, 1),
        (errors.UsageError, 2),
        (errors.TargetError, 3),
        (errors.CheckError, 3),
    ],
)
def test_expected_failures_say_one_line_and_a_hint(
    capsys: pytest.CaptureFixture[str], kind: type[errors.ReapError], status: int
) -> None:
    assert status_of(kind("net.onnx is\n  no model", "export it again")) == status
    assert capsys.readouterr() == ("", "error: net.onnx is no model\nhint: export it again\n")


def test_no_hint_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(errors.DataError("no samples")) == 1
    assert capsys.readouterr().err == "error: no samples\n"


def test_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def from_a_terminal() -> Iterator[None]:
    """As Python starts there: a shell that runs its script in the background has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("from_a_terminal")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_others_make_of_an_interrupt_is_one(capsys: pytest.CaptureFixture[str], sent: signal.Signals) -> None:
    def verb() -> None:
        try:
            signal.raise_signal(sent)
        except KeyboardInterrupt:
            raise errors.DataError("the file is broken") from None

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for _ in range(2):
        with pytest.raises(typer.Exit) as caught:
            exits(verb)()
        assert caught.value.exit_code == 130
        assert capsys.readouterr().err == "error: interrupted; nothing more is written\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.usefixtures("from_a_terminal")
def test_an_interrupt_that_is_ignored_stays_so() -> None:
    seen: list[object] = []

    def verb() -> None:
        signal.raise_signal(signal.SIGINT)
        seen.append(signal.getsignal(signal.SIGINT))

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exits(verb)()
    assert seen == [signal.SIG_IGN]


@pytest.mark.parametrize("text", ["", "Unable to allocate 3.1 TiB for an array with shape (1, 2)"])
def test_no_memory_is_said_in_a_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(MemoryError(text)) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"error: out of memory{': ' if text else ''}{text}"
    assert said[1].startswith("hint: give a smaller --memory")
    assert len(said) == 2


def test_a_bug_shows_its_traceback_and_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(ZeroDivisionError("the heart stopped")) == 70
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "ZeroDivisionError: the heart stopped" in said
    assert said.splitlines()[-1].startswith("error: this is a bug in reap-onnx; please report it")


def test_success_is_passed_through() -> None:
    seen: list[int] = []
    exits(seen.append)(3)
    assert seen == [3]


def test_a_reader_that_left_is_met_with_silence() -> None:
    program = (
        "import typer\nfrom reap_onnx.cli.exits import exits\n"
        "app = typer.Typer()\napp.command()(exits(lambda: print('x' * 1_000_000)))\napp([])"
    )
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
