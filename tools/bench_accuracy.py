"""Accuracy after pruning: networks x budgets x variants x seeds, one line of results for each, resumable.

    python tools/bench_accuracy.py run --data package --results accuracy.jsonl \
        --models resnet56_cifar10.onnx models/vgg_cifar10.onnx --macs 0.6 0.5 0.4 0.3 --variants default --seeds 0 1 2
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --macs 0.5 --models resnet20_cifar10.onnx
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --macs 0.7 \
        --models models/mobilenet_cifar10.onnx
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --macs 0.6 \
        --models models/upscale_cifar10.onnx
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --models resnet56_cifar10.onnx \
        --macs 0.5 --samples 128 512 4000 --seeds 0
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --macs 0.5 \
        --models models/alexnet_cifar10.onnx --samples 64 256 1000
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --macs 0.5 \
        --models resnet20_cifar10.onnx --samples 32 128      # and models/vgg_cifar10.onnx --macs 0.3
    python tools/bench_accuracy.py run --data imagenet_like --results accuracy.jsonl --macs 0.7 \
        --models squeezenet11_imagenet.onnx --samples 64 128
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --models resnet56_cifar10.onnx \
        --macs 0.5 --variants "L1 norm" "L2 norm" best
    python tools/bench_accuracy.py run --data package --results accuracy.jsonl --models resnet20_cifar10.onnx \
        --macs 0.5 --variants all
    python tools/bench_accuracy.py run --data imagenet_like --results accuracy.jsonl \
        --models squeezenet11_imagenet.onnx --macs 0.7 --samples 500 --variants default "all class scores"
    python tools/bench_accuracy.py run --data package --results chosen.jsonl --models resnet20_cifar10.onnx --held-out \
        --variants default "ten steps in pairs" "150 samples in the sensitivity" "half of the rows in pairs"
    python tools/bench_accuracy.py run --data package --results chosen.jsonl --models models/vgg_cifar10.onnx \
        --held-out --macs 0.3 --variants default "one round of pairs" "half of the rows in pairs"
    python tools/bench_accuracy.py run --data imagenet_like --results chosen.jsonl --held-out --macs 0.7 --samples 500 \
        --models squeezenet11_imagenet.onnx --variants default "all class scores"
    python tools/bench_accuracy.py table accuracy.jsonl     # the tables of docs/accuracy.md, whose text is by hand
    python tools/bench_accuracy.py plot accuracy.jsonl docs/accuracy.svg      # needs matplotlib

``--data`` is CIFAR-10 as for ``tools/measure.py``: calibration images are drawn from the training images by the seed
and have no labels; accuracy is that of all test images. A network that takes images of
any size, as ``models/upscale_cifar10.onnx``, gets them at half of theirs. Or it is a folder of images with
``labels.csv``: those that are not drawn are judged by.

Variants are to be chosen with ``--held-out``: it judges by the outputs of images that calibrate nothing and are not
those of the test: 5,000 other training images, or half of those drawn from a folder, the other half calibrating.

A run that is in the results already is not made again, whatever commit made it: a file of results is for one state
of the method. Seconds depend on the machine and on what else runs on it: compare those of one table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import IMAGENET, dataset, read_images

from reap_onnx import EFFORTS, Method, PruneOptions, Target, compare, prune
from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.data.load import load_dataset
from reap_onnx.model.load import load_model

DEFAULT = EFFORTS["default"]
VARIANTS: dict[str, Method] = {
    "default": DEFAULT,
    "fast": EFFORTS["fast"],
    "best": EFFORTS["best"],
    "ten steps in pairs": replace(DEFAULT, pair_gain=0.0),
    "150 samples in the sensitivity": replace(DEFAULT, sensitivity_samples=150),
    "all class scores": replace(DEFAULT, sensitivity_scores=0),
    "least ridges": replace(DEFAULT, measured_ridges=False),
    "one round of pairs": replace(DEFAULT, pair_rounds=1),
    "half of the rows in pairs": replace(DEFAULT, pair_rows=32_000),
    "no pairs": replace(DEFAULT, pair_rows=0),
    "no pairs, hidden errors count": replace(DEFAULT, pair_rows=0, clipped_rounds=0),
    "order of the dense network": replace(DEFAULT, reselect=False),
    "branches by themselves": replace(DEFAULT, residual=False),
    "inputs of the dense network": replace(DEFAULT, asymmetric=False),
    "all groups alike": replace(DEFAULT, sensitivity_samples=0),
    "L1 norm": replace(DEFAULT, criterion="l1"),
    "L2 norm": replace(DEFAULT, criterion="l2"),
    "L1 norm, no pairs": replace(DEFAULT, criterion="l1", pair_rows=0),
    "L2 norm, no pairs": replace(DEFAULT, criterion="l2", pair_rows=0),
    "paper": replace(
        DEFAULT,
        pair_rows=0,
        clipped_rounds=0,
        measured_ridges=False,
        reselect=False,
        residual=False,
        asymmetric=False,
        sensitivity_samples=0,
    ),
}
KEY = ("model", "sha256", "macs", "variant", "samples", "held_out", "seed")
HELD_OUT = 5_000  # training images that judge, at most


def run(options: argparse.Namespace) -> None:
    """Make the runs that are not in the results yet."""
    done = {tuple(row[name] for name in KEY) for row in rows(options.results)}
    variants = list(VARIANTS) if options.variants == ["all"] else options.variants
    for seed in options.seeds:
        for model, macs, variant, samples in _product(options.models, options.macs, variants, options.samples):
            sha256 = hashlib.sha256(model.read_bytes()).hexdigest()[:8]  # two networks may share a name
            key = (model.stem, sha256, macs, variant, samples, options.held_out, seed)
            if key in done:
                continue
            split = calibration_and_held_out if options.held_out else calibration_and_test
            given, others = split(model, options.data, samples, seed)
            wanted = PruneOptions(Target.parse("macs", macs), seed=seed, method=VARIANTS[variant])
            start = time.perf_counter()
            result = prune(model, given, wanted)
            seconds = time.perf_counter() - start
            judged = compare(model, result.model, others, latency_batches=())
            before, after = judged.accuracy_original, judged.accuracy_pruned
            row = {
                **dict(zip(KEY, key, strict=True)),
                "dense": None if before is None else round(100 * before, 2),
                "drop": None if before is None or after is None else round(100 * (before - after), 2),
                "output_error": round(judged.outputs[0].relative, 4),
                "seconds": round(seconds, 1),
                "commit": commit(),
            }
            print(json.dumps(row), flush=True)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def calibration_and_test(model: Path, data: Path, samples: int, seed: int) -> tuple[Dataset, Dataset]:
    """Samples without labels, drawn by the seed, and others, with labels, to judge by."""
    draw = np.random.default_rng(seed).permutation
    if (data / "labels.csv").exists():
        photos = load_dataset(data, input_specs(load_model(model).model), images=IMAGENET)
        order = draw(len(photos))
        return photos.subset(np.sort(order[:samples])), photos.subset(np.sort(order[samples:]))
    (train, _), (images, labels) = read_images(data, "train"), read_images(data, "test")
    chosen = train[np.sort(draw(len(train))[:samples])]
    if input_specs(load_model(model).model)[0].shape[2] is None:
        return dataset(model, halved(chosen)), dataset(model, halved(images))
    return dataset(model, chosen), dataset(model, images, labels)


def calibration_and_held_out(model: Path, data: Path, samples: int, seed: int) -> tuple[Dataset, Dataset]:
    """Samples drawn by the seed, and others of the same source to choose a variant by; none of the test, no labels."""
    if (data / "labels.csv").exists():
        drawn, _ = calibration_and_test(model, data, samples, seed)
        order = np.random.default_rng(seed).permutation(len(drawn))
        given, others = (drawn.subset(np.sort(half)) for half in np.array_split(order, 2))
        return given, replace(others, labels=None)
    train, _ = read_images(data, "train")
    order = np.random.default_rng(seed).permutation(len(train))
    parts = (train[np.sort(some)] for some in (order[:samples], order[samples : samples + HELD_OUT]))
    if input_specs(load_model(model).model)[0].shape[2] is None:
        parts = (halved(images) for images in parts)
    given, others = (dataset(model, images) for images in parts)
    return given, others


def halved(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 3) uint8 at half of their height and width, means of 2 x 2 pixels."""
    n, height, width, channels = images.shape
    means = images.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
    return np.asarray(means.round().astype(np.uint8))


def _product(
    models: list[Path], macs: list[str], variants: list[str], samples: list[int]
) -> Iterator[tuple[Path, str, str, int]]:
    return ((m, k, v, n) for m in models for k in macs for v in variants for n in samples)


def rows(results: Path) -> list[dict[str, Any]]:
    """Results so far."""
    lines = results.read_text().splitlines() if results.exists() else []
    return [json.loads(line) for line in lines]


def commit() -> str:
    """The commit that this runs on, with a plus where files differ from it; empty outside of a repository."""
    folder = Path(__file__).parent
    done = [
        subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False).stdout.strip()
        for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    return done[0] + ("+" if done[1] else "")


def table(options: argparse.Namespace) -> None:
    """Print the page: mean and spread over the seeds for every network, budget, variant and number of samples."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows(options.results):
        if not row["held_out"]:
            found[tuple(row[name] for name in KEY[:-1])].append(row)
    commits = ", ".join(sorted({row["commit"] for group in found.values() for row in group}))
    print(f"# Accuracy after pruning\n\nMade by `tools/bench_accuracy.py` on commit {commits}; its docstring has the")
    print(
        "commands. Points of top-1 below the dense network on all 10,000 test images, mean and standard deviation over"
    )
    print("the seeds, each with its own calibration images; nothing trained after pruning, no labels seen.")
    print(
        "Output error: root mean square of the change of the outputs, over that of the outputs. Seconds are those of a"
    )
    print("shared machine.\n")
    print("![drop over MACs kept](accuracy.svg)\n")
    print("| network | dense | MACs kept | variant | images | drop | output error | seeds | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for key, group in sorted(found.items(), key=lambda item: _order(item[0])):
        model, _, macs, variant, samples, _ = key
        before = [row["dense"] for row in group]
        dense = "-" if None in before else f"{np.mean(before):.2f}"
        drop, error, seconds = ([row[name] for row in group] for name in ("drop", "output_error", "seconds"))
        spread = f" ± {np.std(drop, ddof=1):.2f}" if len(group) > 1 and None not in drop else ""
        points = "-" if None in drop else f"{np.mean(drop):.2f}{spread}"
        cells = (model, dense, macs, variant, samples, points, f"{np.mean(error):.3f}", len(group))
        print(f"| {' | '.join(map(str, cells))} | {np.mean(seconds):.0f} |")


def plot(options: argparse.Namespace) -> None:
    """Draw the drop of every network over the MACs it keeps, by the default method, mean and all seeds."""
    from matplotlib import pyplot

    found: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows(options.results):
        if row["variant"] == "default" and row["drop"] is not None and row["samples"] in (500, 1000):
            found[row["model"], row["sha256"]][float(row["macs"])].append(row["drop"])
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for (model, _), budgets in sorted(found.items()):
        kept = sorted(budgets)
        [line] = axes.plot(kept, [np.mean(budgets[share]) for share in kept], "o-", label=model)
        every = [(share, drop) for share in kept for drop in budgets[share]]
        axes.plot(*zip(*every, strict=True), ".", color=line.get_color(), alpha=0.4)
    axes.set(xlabel="share of MACs kept", ylabel="points of top-1 below the dense network", ylim=(0, None))
    axes.invert_xaxis()
    axes.legend()
    axes.grid(alpha=0.3)
    pyplot.rcParams["svg.hashsalt"] = "accuracy"
    figure.savefig(options.picture, metadata={"Date": None})


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    model, sha256, macs, variant, samples, _ = key
    return model, sha256, macs, list(VARIANTS).index(variant), samples


def main() -> None:
    """Read the arguments, and run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("run", help=run.__doc__)
    verb.set_defaults(do=run)
    verb.add_argument("--data", type=Path, required=True, help="CIFAR-10, or a folder of images")
    verb.add_argument("--results", type=Path, required=True, help="file that results are added to")
    verb.add_argument("--models", type=Path, nargs="+", required=True)
    verb.add_argument("--macs", nargs="+", default=["0.5"])
    verb.add_argument("--variants", nargs="+", default=["default"], choices=[*VARIANTS, "all"])
    verb.add_argument("--samples", type=int, nargs="+", default=[1000])
    verb.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    verb.add_argument("--held-out", action="store_true", help="judge by images that are not those of the test")
    verb = verbs.add_parser("table", help=table.__doc__)
    verb.set_defaults(do=table)
    verb.add_argument("results", type=Path)
    verb = verbs.add_parser("plot", help=plot.__doc__)
    verb.set_defaults(do=plot)
    verb.add_argument("results", type=Path)
    verb.add_argument("picture", type=Path, help="an SVG")
    options = parser.parse_args()
    options.do(options)


if __name__ == "__main__":
    main()
