"""Arguments and flags that several verbs share, and what becomes of their text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from reap_onnx.data.images import PRESETS, ImageOptions
from reap_onnx.errors import UsageError
from reap_onnx.options import EFFORTS, Method

_TARGET, _DATA, _IMAGES, _OUTPUT = "Targets", "Samples", "Images", "Output"
_LIMITS = "Limits"
_SAMPLES = (
    "Samples: a .npz or .npy file, a folder of images, test_data_set_* folders, a polygraphy JSON of inputs, "
    "script.py:function, or random"
)

Model: TypeAlias = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model; it is never changed.")]
Data: TypeAlias = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help=f"{_SAMPLES}.",
        rich_help_panel=_DATA,
    ),
]
DataOrStats: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help=f"{_SAMPLES}. May be left out with --stats.",
        rich_help_panel=_DATA,
    ),
]
Stats: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        metavar="FILE",
        help="Statistics of reap-onnx calibrate, in place of calibrating; without --data layers are refitted from them "
        "alone: seconds, and less accurate.",
        rich_help_panel=_DATA,
    ),
]
Samples: TypeAlias = Annotated[
    int | None,
    typer.Option("--samples", min=1, metavar="N", help="Use N of the samples; all by default.", rich_help_panel=_DATA),
]
Seed: TypeAlias = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of every random choice.", rich_help_panel=_DATA)
]
Batch: TypeAlias = Annotated[
    int,
    typer.Option("--batch", min=1, metavar="N", help="Samples in one run of the model at most.", rich_help_panel=_DATA),
]
Providers: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="Execution provider of onnxruntime, or a part of its name; repeatable, the preferred one first; "
        "cpu by default.",
    ),
]
Dask: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        help="Dask scheduler, as tcp://host:8786, whose workers run the samples, for calibration and refit; see "
        "docs/distributed.md.",
    ),
]
Memory: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="BYTES",
        help="Memory for samples, for what lies between layers, and for the rows and equations of a layer, as 8G. What "
        "goes beyond of the former lies in a file; with less for the latter, wide layers are refitted on fewer rows. "
        "By default half of what is free, and 8G for rows and equations.",
        rich_help_panel="Limits",
    ),
]
Preset: TypeAlias = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME", help=f"Usual recipe: {', '.join(PRESETS)}.", rich_help_panel=_IMAGES),
]
Mean: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="R,G,B", help="Subtracted from pixel / 255; one or three numbers.", rich_help_panel=_IMAGES
    ),
]
Std: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--std", metavar="R,G,B", help="Divides what --mean leaves; one or three numbers.", rich_help_panel=_IMAGES
    ),
]
ImageSize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="H,W",
        help="Pixels, one number for a square; the model's by default.",
        rich_help_panel=_IMAGES,
    ),
]
Crop: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--crop",
        metavar="SHARE",
        help="Share kept by the centre crop, as 0.875; 0 for no crop.",
        rich_help_panel=_IMAGES,
    ),
]
Layout: TypeAlias = Annotated[
    str | None, typer.Option("--layout", metavar="NAME", help="nchw or nhwc.", rich_help_panel=_IMAGES)
]
Color: TypeAlias = Annotated[
    str | None,
    typer.Option("--color", metavar="NAME", help="What the model reads: rgb, bgr or gray.", rich_help_panel=_IMAGES),
]
Freeze: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze",
        metavar="GLOB",
        help="Leave alone what nodes with such names make; repeatable, as '/head/*'.",
        rich_help_panel=_LIMITS,
    ),
]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Where the pruned model goes.", rich_help_panel=_OUTPUT),
]
StatsOutput: TypeAlias = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Where the statistics go.", rich_help_panel=_OUTPUT),
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace files that exist.", rich_help_panel=_OUTPUT)]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON instead of tables.", rich_help_panel=_OUTPUT)
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("-q", "--quiet", help="No progress on stderr.", rich_help_panel=_OUTPUT)
]

LatencyBatch: TypeAlias = Annotated[
    int,
    typer.Option(
        "--latency-batch", min=1, metavar="N", help="Samples in a run that is timed.", rich_help_panel=_TARGET
    ),
]

MaxDrop: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="SHARE",
        help="The smallest model, by MACs, whose metric falls by no more, 1% or 0.01, on samples held out: those of "
        "--eval-data, else half of --data. Half of them decide, the other half gives a bound at 95% confidence.",
        rich_help_panel=_TARGET,
    ),
]
Metric: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="What --max-drop is about: accuracy, agreement (of the top class with the original), error (1 less the "
        "relative output error), or script.py:function of outputs and labels. The first that the samples allow.",
        rich_help_panel=_TARGET,
    ),
]

LatencyTable: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--latency-table",
        metavar="FILE",
        help="Times of the layers on another device, which --latency is predicted for: a CSV with the columns name,ms, "
        "a JSON of trtexec --exportProfile, or a profile of onnxruntime.",
        rich_help_panel=_TARGET,
    ),
]

EvalData: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--eval-data",
        metavar="SOURCE",
        help="Samples to report on, best with labels; those of --data by default.",
        rich_help_panel=_DATA,
    ),
]

RoundTo: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--round-to",
        metavar="N",
        help="Keep multiples of N channels; auto: steps that timing shows to be worth it. Default with --latency, "
        "where other widths are tried as well.",
        rich_help_panel=_LIMITS,
    ),
]

MaxCut: TypeAlias = Annotated[
    float,
    typer.Option(
        "--max-cut",
        metavar="SHARE",
        help="Largest share of a group's channels that may go.",
        rich_help_panel=_LIMITS,
    ),
]

MinChannels: TypeAlias = Annotated[
    int,
    typer.Option("--min-channels", min=1, metavar="N", help="Fewest channels of a group.", rich_help_panel=_LIMITS),
]

Overrides: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--overrides",
        metavar="FILE",
        help="TOML: limits for some layers, by patterns of node names: freeze, max_cut, min_channels, round_to, keep.",
        rich_help_panel=_LIMITS,
    ),
]

Effort: TypeAlias = Annotated[
    str,
    typer.Option(
        "--effort",
        metavar="NAME",
        help=f"{', '.join(EFFORTS)}: how much time to spend on accuracy.",
        rich_help_panel=_LIMITS,
    ),
]

Report: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="FILE", help="Write a report, .html or .json; repeatable.", rich_help_panel=_OUTPUT
    ),
]


def image_options(
    *,
    preset: str | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    crop: float | None,
    layout: str | None,
    color: str | None,
) -> ImageOptions:
    """Image flags as options.

    Raises
    ------
    UsageError
        A text is not made of numbers, or the numbers fit no recipe.
    """
    return ImageOptions(
        preset=preset,
        mean=None if mean is None else _numbers("mean", mean),
        std=None if std is None else _numbers("std", std),
        size=None if size is None else _pixels(size),
        crop=crop,
        layout=layout,
        color=color,
    )


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--{flag} {text!r} is not made of numbers", "part them by commas: 0.5,0.5,0.5") from None


def _pixels(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:[x,](\d+))?", text)
    if match is None:
        raise UsageError(
            f"--image-size {text!r} is not a height and a width", "one or two numbers of pixels: 224 or 224,320"
        )
    return int(match[1]), int(match[2] or match[1])


def read_effort(effort: str) -> Method:
    """How much work goes into a run, by its name."""
    if effort not in EFFORTS:
        raise UsageError(f"no --effort {effort!r}", f"use one of {', '.join(EFFORTS)}")
    return EFFORTS[effort]


def read_step(text: str | None) -> int | Literal["auto"] | None:
    """What widths are multiples of."""
    if text is None or text == "auto":
        return "auto" if text else None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--round-to {text!r} is not a positive number, nor auto", "multiples of 8 are --round-to 8")
    return int(text)
