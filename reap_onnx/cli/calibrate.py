"""``reap-onnx calibrate``."""

from __future__ import annotations

from reap_onnx import pipeline
from reap_onnx.cli import flags
from reap_onnx.cli.show import show
from reap_onnx.errors import UsageError
from reap_onnx.options import PruneOptions, Target, parse_memory
from reap_onnx.report.progress import progress_on_stderr

EXAMPLES = """Examples:

  reap-onnx calibrate model.onnx --data samples.npz -o stats.npz

  reap-onnx prune model.onnx --stats stats.npz --macs 0.5 -o pruned.onnx

  reap-onnx prune model.onnx --stats stats.npz --data samples.npz --macs 0.5 -o pruned.onnx

The second takes seconds; the third refits on the samples, and gives what prune gives without --stats.

Exit status: 0 done; 1 expected failure; 2 wrong usage; 3 nothing can be pruned; 70 a bug."""


def calibrate(
    model: flags.Model,
    *,
    data: flags.Data,
    output: flags.StatsOutput = None,
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
    freeze: flags.Freeze = None,
    effort: flags.Effort = "default",
    memory: flags.Memory = None,
    provider: flags.Providers = None,
    dask: flags.Dask = None,
    force: flags.Force = False,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
) -> None:
    """Measure once what any number of budgets can be read off; goes on from where an interrupted run was."""
    options = PruneOptions(
        target=Target("macs", fraction=1.0),
        freeze=tuple(freeze or ()),
        seed=seed,
        batch=batch,
        providers=tuple(provider or ("cpu",)),
        memory=None if memory is None else parse_memory(memory),
        method=flags.read_effort(effort),
    )
    images = flags.image_options(
        preset=preset, mean=mean, std=std, size=image_size, crop=crop, layout=layout, color=color
    )
    if output is None:
        raise UsageError("no output file", "say where the statistics go with -o FILE")
    result = pipeline.calibrate(
        model,
        data,
        output=output,
        options=options,
        force=force,
        images=images,
        samples=samples,
        dask=dask,
        progress=progress_on_stderr(quiet),
    )
    show(result.report, json=json)
