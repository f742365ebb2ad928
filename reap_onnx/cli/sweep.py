"""``reap-onnx sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.errors import UsageError
from reap_onnx.options import Kind, PruneOptions, Target, parse_memory
from reap_onnx.overrides import read_overrides
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx sweep model.onnx --data samples.npz --macs 0.3:0.9:7 --report frontier.html

  reap-onnx sweep model.onnx --stats stats.npz --macs 0.3:0.9:7

  reap-onnx sweep model.onnx --data samples.npz --latency 0.4,0.5,0.6 --write models/

Exit status: 0 done; 1 expected failure; 2 wrong usage; 3 no target can be met, or a check failed; 70 a bug."""

MOST = 1000  # targets of a range
_BUDGETS = "a list, 0.3,0.5,0.7, or FROM:TO:NUMBER, 0.3:0.9:7; shares, or absolute values as in prune"
_RANGES: dict[Kind, str] = {"macs": "20M:60M:5", "params": "100k:300k:5", "size": "1MB:4MB:4", "latency": "2ms:4ms:5"}
_PANEL = "Targets, of one kind"


def sweep(
    model: flags.Model,
    *,
    data: flags.DataOrStats = None,
    stats: flags.Stats = None,
    macs: Annotated[
        str | None,
        typer.Option(
            "--macs",
            metavar="KEPT",
            help=f"Multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul at batch 1 kept: {_BUDGETS}.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    params: Annotated[
        str | None, typer.Option("--params", metavar="KEPT", help="Parameters kept.", rich_help_panel=_PANEL)
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="KEPT", help="Bytes of the file kept.", rich_help_panel=_PANEL)
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option("--latency", metavar="KEPT", help="Time of a run kept, measured.", rich_help_panel=_PANEL),
    ] = None,
    latency_batch: flags.LatencyBatch = 1,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FOLDER",
            help="Refit every model in full and write it there; else figures alone, of models refitted quickly.",
            rich_help_panel="Output",
        ),
    ] = None,
    force: flags.Force = False,
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
    report: flags.Report = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Prune to several targets from one calibration: what each costs, and the knee."""
    targets = _targets({"macs": macs, "params": params, "size": size, "latency": latency})
    options = PruneOptions(
        target=targets[0],
        round_to=flags.read_step(round_to),
        freeze=tuple(freeze or ()),
        max_cut=max_cut,
        min_channels=min_channels,
        overrides=() if overrides is None else read_overrides(overrides),
        seed=seed,
        batch=batch,
        latency_batch=latency_batch,
        providers=tuple(provider or ("cpu",)),
        memory=None if memory is None else parse_memory(memory),
        method=flags.read_effort(effort),
    )
    images = flags.image_options(
        preset=preset, mean=mean, std=std, size=image_size, crop=crop, layout=layout, color=color
    )
    frontier = pipeline.sweep(
        model,
        data,
        targets,
        options=options,
        write=write,
        force=force,
        evaluate=eval_data,
        stats=stats,
        images=images,
        samples=samples,
        dask=dask,
        report=tuple(report or ()),
        progress=progress_on_stderr(quiet),
    )
    show(frontier, json=json)


def _targets(texts: dict[Kind, str | None]) -> tuple[Target, ...]:
    given = [(kind, text) for kind, text in texts.items() if text is not None]
    if len(given) != 1:
        names = ", ".join(f"--{kind}" for kind in texts)
        raise UsageError(f"exactly one of {names} is needed", f"it takes {_BUDGETS}")
    kind, text = given[0]
    if ":" not in text:
        return tuple(Target.parse(kind, part) for part in text.split(","))
    hint = f"FROM:TO:NUMBER, 2 to {MOST} of them, as 0.3:0.9:7 or {_RANGES[kind]}"
    try:
        low, high, number = text.split(":")
        if not 2 <= int(number) <= MOST:
            raise ValueError("a range has an end and a beginning")
    except ValueError:
        raise UsageError(f"--{kind} {text!r} is no range", hint) from None
    ends = Target.parse(kind, low), Target.parse(kind, high)
    if ends[0].fraction is not None and ends[1].fraction is not None:
        shares = np.linspace(ends[0].fraction, ends[1].fraction, int(number)).round(6)
        return tuple(Target(kind, fraction=share) for share in shares.tolist())
    if ends[0].absolute is None or ends[1].absolute is None:
        raise UsageError(f"--{kind} {text!r} goes from a share to an absolute value", hint)
    values = np.linspace(ends[0].absolute, ends[1].absolute, int(number))
    return tuple(Target(kind, absolute=v if kind == "latency" else round(v)) for v in values.tolist())
