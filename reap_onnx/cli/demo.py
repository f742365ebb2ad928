"""``reap-onnx demo``."""

from __future__ import annotations

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx demo

  reap-onnx demo -o pruned.onnx"""


def demo(
    *,
    output: flags.Output = None,
    force: flags.Force = False,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Prune a small model that comes with the package, on data that comes with it."""
    show(pipeline.demo(output, force=force, progress=progress_on_stderr(quiet)).summary, json=json)
