"""``reap-onnx compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx compare model.onnx pruned.onnx --data test.npz

  reap-onnx compare model.onnx pruned.onnx --data photos/ --preset imagenet --latency-batch 1 --latency-batch 32"""


def compare(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The model before.")],
    pruned: Annotated[Path, typer.Argument(metavar="PRUNED", help="The model after.")],
    *,
    data: flags.Data,
    samples: flags.Samples = None,
    seed: flags.Seed = 0,
    batch: flags.Batch = 50,
    preset: flags.Preset = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    image_size: flags.ImageSize = None,
    crop: flags.Crop = None,
    layout: flags.Layout = None,
    color: flags.Color = None,
    latency_batch: Annotated[
        list[int] | None,
        typer.Option(
            "--latency-batch", min=1, metavar="N", help="Measure latency at batch N; repeatable; 1 by default."
        ),
    ] = None,
    provider: flags.Providers = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Compare outputs, top classes, accuracy and latency of two models."""
    images = flags.image_options(
        preset=preset, mean=mean, std=std, size=image_size, crop=crop, layout=layout, color=color
    )
    comparison = pipeline.compare(
        original,
        pruned,
        data,
        images=images,
        samples=samples,
        seed=seed,
        batch=batch,
        providers=tuple(provider or ("cpu",)),
        latency_batches=tuple(latency_batch or (1,)),
        progress=progress_on_stderr(quiet),
    )
    show(comparison, json=json)
