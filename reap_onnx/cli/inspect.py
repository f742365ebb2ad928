"""``reap-onnx inspect``."""

from __future__ import annotations

from typing import Annotated

import typer

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.errors import UsageError
from reap_onnx.options import MaxDrop, PruneOptions
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx inspect model.onnx

  reap-onnx inspect model.onnx --freeze '/head/*' --json

  reap-onnx inspect model.onnx --prunability --data samples.npz --eval-data labelled.npz"""

_PRUNABILITY = "Prunability"


def inspect(
    model: flags.Model,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="One sample, for its shape, where the model leaves height or width open; samples as for prune for "
            "--prunability.",
        ),
    ] = None,
    freeze: flags.Freeze = None,
    prunability: Annotated[
        bool,
        typer.Option(
            "--prunability",
            help="Find the smallest share of the parameters that loses no more than --max-drop, measured with layers "
            "refitted quickly, and the fewest channels of each group if cut alone, predicted from its error path.",
            rich_help_panel=_PRUNABILITY,
        ),
    ] = False,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", metavar="SHARE", help="The drop; 1% by default.", rich_help_panel=_PRUNABILITY),
    ] = None,
    metric: flags.Metric = None,
    effort: flags.Effort = "default",
    provider: flags.Providers = None,
    samples: flags.Samples = None,
    seed: flags.Seed = 0,
    batch: flags.Batch = 50,
    eval_data: flags.EvalData = None,
    preset: flags.Preset = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    image_size: flags.ImageSize = None,
    crop: flags.Crop = None,
    layout: flags.Layout = None,
    color: flags.Color = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Show which channels can be pruned, which cannot, and why; how many are needed."""
    given = {"--max-drop": max_drop, "--metric": metric, "--eval-data": eval_data, "--samples": samples}
    if not prunability and (name := next((name for name, value in given.items() if value is not None), None)):
        raise UsageError(f"{name} goes with --prunability", "without it, inspect measures nothing")
    options = PruneOptions(
        MaxDrop.parse(max_drop or "1%", metric),
        max_cut=1.0,
        seed=seed,
        batch=batch,
        providers=tuple(provider or ("cpu",)),
        method=flags.read_effort(effort),
    )
    result = pipeline.inspect(
        model,
        data=data,
        freeze=tuple(freeze or ()),
        prunability=options if prunability else None,
        evaluate=eval_data,
        images=flags.image_options(
            preset=preset, mean=mean, std=std, size=image_size, crop=crop, layout=layout, color=color
        ),
        samples=samples,
        progress=progress_on_stderr(quiet),
    )
    show(result.inspection, json=json)
