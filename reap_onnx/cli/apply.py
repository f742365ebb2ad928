"""``reap-onnx apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.errors import UsageError
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx prune model.onnx --data samples.npz --macs 0.5 --dry-run --plan plan.json

  reap-onnx apply model.onnx plan.json -o pruned.onnx"""


def apply(
    model: flags.Model,
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan that prune has saved for this model.")],
    *,
    output: flags.Output = None,
    force: flags.Force = False,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Replay a saved plan, bit for bit."""
    if output is None:
        raise UsageError("no output file", "say where the pruned model goes with -o FILE")
    result = pipeline.apply(model, plan, output=output, force=force, progress=progress_on_stderr(quiet))
    show(result.summary, json=json)
