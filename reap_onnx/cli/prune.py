"""``reap-onnx prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.errors import UsageError
from reap_onnx.options import EFFORTS, Method, PruneOptions, Target, parse_memory
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx prune model.onnx -o pruned.onnx --data samples.npz --macs 0.5

  reap-onnx prune model.onnx -o pruned.onnx --data photos/ --preset imagenet --macs 1.2G --round-to 8

  reap-onnx prune model.onnx --data samples.npz --params 50% --dry-run --plan plan.json

Exit status: 0 done; 1 expected failure; 2 wrong usage; 3 a check failed or the target cannot be met; 70 a bug."""

_TARGET, _LIMITS, _OUTPUT = "Target, exactly one", "Limits", "Output"


def prune(
    model: flags.Model,
    *,
    data: flags.Data,
    macs: Annotated[
        str | None,
        typer.Option(
            "--macs",
            metavar="KEPT",
            help="Multiply-accumulates kept, of Conv, ConvTranspose, Gemm and MatMul at batch 1: 0.5, 50% or 1.2G.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option("--params", metavar="KEPT", help="Parameters kept: 0.5, 50% or 4M.", rich_help_panel=_TARGET),
    ] = None,
    output: flags.Output = None,
    samples: flags.Samples = None,
    seed: flags.Seed = 0,
    batch: flags.Batch = 50,
    eval_data: Annotated[
        str | None,
        typer.Option(
            "--eval-data",
            metavar="SOURCE",
            help="Samples to report on, best with labels; those of --data by default.",
            rich_help_panel="Samples",
        ),
    ] = None,
    preset: flags.Preset = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    size: flags.Size = None,
    crop: flags.Crop = None,
    layout: flags.Layout = None,
    color: flags.Color = None,
    freeze: flags.Freeze = None,
    round_to: Annotated[
        int,
        typer.Option("--round-to", min=1, metavar="N", help="Keep multiples of N channels.", rich_help_panel=_LIMITS),
    ] = 1,
    max_cut: Annotated[
        float,
        typer.Option(
            "--max-cut",
            metavar="SHARE",
            help="Largest share of a group's channels that may go.",
            rich_help_panel=_LIMITS,
        ),
    ] = 0.9,
    min_channels: Annotated[
        int,
        typer.Option("--min-channels", min=1, metavar="N", help="Fewest channels of a group.", rich_help_panel=_LIMITS),
    ] = 1,
    effort: Annotated[
        str,
        typer.Option(
            "--effort",
            metavar="NAME",
            help=f"{', '.join(EFFORTS)}: how much time to spend on accuracy.",
            rich_help_panel=_LIMITS,
        ),
    ] = "default",
    memory: flags.Memory = None,
    provider: flags.Providers = None,
    force: flags.Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no model.", rich_help_panel=_OUTPUT)] = False,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Save the plan, for apply to replay.", rich_help_panel=_OUTPUT),
    ] = None,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Write the model even if a check fails.", rich_help_panel=_OUTPUT)
    ] = False,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            "--report", metavar="FILE", help="Write a report, .html or .json; repeatable.", rich_help_panel=_OUTPUT
        ),
    ] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Remove channels and refit the layers that read them, without training."""
    options = PruneOptions(
        target=_target(macs, params),
        round_to=round_to,
        freeze=tuple(freeze or ()),
        max_cut=max_cut,
        min_channels=min_channels,
        seed=seed,
        batch=batch,
        providers=tuple(provider or ("cpu",)),
        memory=None if memory is None else parse_memory(memory),
        method=_method(effort),
    )
    images = flags.image_options(preset=preset, mean=mean, std=std, size=size, crop=crop, layout=layout, color=color)
    if output is None and not dry_run:
        raise UsageError("no output file", "say where the pruned model goes with -o FILE, or use --dry-run")
    result = pipeline.prune(
        model,
        data,
        options,
        output=output,
        force=force,
        plan=plan,
        dry_run=dry_run,
        keep_failed=keep_failed,
        evaluate=eval_data,
        images=images,
        samples=samples,
        report=tuple(report or ()),
        progress=progress_on_stderr(quiet),
    )
    show(result.summary, json=json)


def _method(effort: str) -> Method:
    if effort not in EFFORTS:
        raise UsageError(f"no --effort {effort!r}", f"use one of {', '.join(EFFORTS)}")
    return EFFORTS[effort]


def _target(macs: str | None, params: str | None) -> Target:
    if macs is not None and params is None:
        return Target.parse("macs", macs)
    if params is not None and macs is None:
        return Target.parse("params", params)
    raise UsageError("exactly one of --macs and --params is needed", "half of the multiply-accumulates is --macs 0.5")
