"""``reap-onnx prune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.errors import UsageError
from reap_onnx.options import Kind, MaxDrop, PruneOptions, Target, parse_memory
from reap_onnx.overrides import read_overrides
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx prune model.onnx -o pruned.onnx --data samples.npz --macs 0.5

  reap-onnx prune model.onnx -o pruned.onnx --data photos/ --preset imagenet --macs 1.2G --round-to 8

  reap-onnx prune model.onnx -o pruned.onnx --data samples.npz --latency 0.6 --size 4MB

  reap-onnx prune model.onnx -o pruned.onnx --stats stats.npz --macs 0.4

  reap-onnx prune model.onnx -o pruned.onnx --data samples.npz --max-drop 1% --eval-data labelled.npz

  reap-onnx prune model.onnx --data samples.npz --params 50% --dry-run --plan plan.json

Exit status: 0 done; 1 expected failure; 2 wrong usage; 3 a check failed or the target cannot be met; 70 a bug."""

_TARGET, _OUTPUT = "Targets", "Output"


def prune(
    model: flags.Model,
    *,
    data: flags.DataOrStats = None,
    stats: flags.Stats = None,
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
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="KEPT", help="Bytes of the file: 0.5, 50% or 4MB.", rich_help_panel=_TARGET),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            "--latency",
            metavar="KEPT",
            help="Time of a run kept, measured in turns with the original on this machine: 0.6, 60% or 4ms.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    latency_batch: flags.LatencyBatch = 1,
    latency_table: flags.LatencyTable = None,
    max_drop: flags.MaxDrop = None,
    metric: flags.Metric = None,
    output: flags.Output = None,
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
    freeze: flags.Freeze = None,
    round_to: flags.RoundTo = None,
    max_cut: flags.MaxCut = 0.9,
    min_channels: flags.MinChannels = 1,
    overrides: flags.Overrides = None,
    effort: flags.Effort = "default",
    memory: flags.Memory = None,
    provider: flags.Providers = None,
    dask: flags.Dask = None,
    force: flags.Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no model.", rich_help_panel=_OUTPUT)] = False,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Save the plan, for apply to replay.", rich_help_panel=_OUTPUT),
    ] = None,
    keep_failed: Annotated[
        bool,
        typer.Option(
            "--keep-failed",
            help="Write the model, and nothing else, even if the check of its wiring fails.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    report: flags.Report = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Remove channels and refit the layers that read them, without training."""
    options = PruneOptions(
        target=_targets({"macs": macs, "params": params, "size": size, "latency": latency}, max_drop, metric),
        round_to=flags.read_step(round_to),
        freeze=tuple(freeze or ()),
        max_cut=max_cut,
        min_channels=min_channels,
        overrides=() if overrides is None else read_overrides(overrides),
        seed=seed,
        batch=batch,
        latency_batch=latency_batch,
        latency_table=None if latency_table is None else str(latency_table),
        providers=tuple(provider or ("cpu",)),
        memory=None if memory is None else parse_memory(memory),
        method=flags.read_effort(effort),
    )
    images = flags.image_options(
        preset=preset, mean=mean, std=std, size=image_size, crop=crop, layout=layout, color=color
    )
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
        stats=stats,
        images=images,
        samples=samples,
        dask=dask,
        report=tuple(report or ()),
        progress=progress_on_stderr(quiet),
    )
    show(result.summary, json=json)


def _targets(
    texts: Mapping[Kind, str | None], max_drop: str | None, metric: str | None
) -> tuple[Target | MaxDrop, ...]:
    given: list[Target | MaxDrop] = [Target.parse(kind, text) for kind, text in texts.items() if text is not None]
    if max_drop is not None:
        given.append(MaxDrop.parse(max_drop, metric))
    elif metric is not None:
        raise UsageError("--metric goes with --max-drop", "one point of it is --max-drop 1%")
    if not given:
        flags_of = ", ".join(f"--{kind}" for kind in (*texts, "max-drop"))
        raise UsageError(f"no target: one of {flags_of} is needed", "half of the multiply-accumulates is --macs 0.5")
    return tuple(given)
