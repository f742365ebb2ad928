"""``reap-onnx inspect``."""

from __future__ import annotations

from typing import Annotated

import typer

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx inspect model.onnx

  reap-onnx inspect model.onnx --freeze '/head/*' --json"""


def inspect(
    model: flags.Model,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="One sample, for its shape; needed where the model leaves height or width open.",
        ),
    ] = None,
    freeze: flags.Freeze = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Show which channels can be pruned, which cannot, and why."""
    result = pipeline.inspect(model, data=data, freeze=tuple(freeze or ()), progress=progress_on_stderr(quiet))
    show(result.inspection, json=json)
