"""The command ``reap-onnx``: its verbs, and the way in."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from reap_onnx.cli import apply, calibrate, compare, demo, inspect, prune, sweep
from reap_onnx.cli.exits import exits
from reap_onnx.version import VERSION

app = typer.Typer(
    name="reap-onnx",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb, _examples in (
    (inspect.inspect, inspect.EXAMPLES),
    (prune.prune, prune.EXAMPLES),
    (calibrate.calibrate, calibrate.EXAMPLES),
    (sweep.sweep, sweep.EXAMPLES),
    (apply.apply, apply.EXAMPLES),
    (compare.compare, compare.EXAMPLES),
    (demo.demo, demo.EXAMPLES),
):
    app.command(epilog=_examples, no_args_is_help=_verb is not demo.demo)(exits(_verb))


def main(argv: list[str] | None = None) -> int:
    """Run the command with ``argv``, the process's own arguments by default, and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot write is no failure
    try:
        app(args=argv, prog_name="reap-onnx")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _say_version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def _command(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version and leave.")
    ] = False,
) -> None:
    """Channel pruning for ONNX models, without training."""
