"""What a run costs, over one plain onnxruntime pass of the same samples; selection over one inverse.

    python tools/bench_speed.py run --results speed.jsonl --models resnet56_cifar10.onnx --images calibration.npz
    python tools/bench_speed.py run --results speed.jsonl --models resnet56_cifar10.onnx --images calibration.npz \
        --efforts fast
    python tools/bench_speed.py run --results speed.jsonl --models resnet50.onnx --samples 256 --efforts default fast
    python tools/bench_speed.py run --results speed.jsonl --models resnet:20 --samples 256 512 1024 2048 --efforts fast
    python tools/bench_speed.py run --results speed.jsonl --samples 512 --models resnet:20 resnet:32 resnet:44 \
        resnet:56 --efforts default fast
    python tools/bench_speed.py run --results speed.jsonl --samples 512 --efforts fast \
        --models resnet:20:32 resnet:20:64 resnet:20:16:16 resnet:20:16:64
    python tools/bench_speed.py run --results speed.jsonl --models resnet:20 --samples 256 2048 \
        --memory 50M --efforts fast
    python tools/bench_speed.py selection --results speed.jsonl
    python tools/bench_speed.py store --results speed.jsonl --models resnet20_cifar10.onnx resnet56_cifar10.onnx \
        --images calibration.npz
    python tools/bench_speed.py table speed.jsonl    # the tables of docs/speed.md, whose text is written by hand
    python tools/bench_speed.py plot speed.jsonl docs/speed.svg     # needs matplotlib

A model is a file or ``resnet:DEPTH[:WIDTH[:SIZE]]``, a residual network for CIFAR-10 made here with seeded random
weights: 16 channels first and images of 32 pixels unless said otherwise. Samples are those of ``--images`` (``images``,
uint8, as for ``tools/measure.py``), else seeded noise. Every run is a process of its own, so that its peak of memory is
its own; in it plain passes come before and after the pruning, in batches of 50, and their median is the unit. What
is in the results already is not made again. Shares of the peak are of the rate at which the same process multiplied
large float32 matrices. Seconds mean something on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench_accuracy import commit, rows
from measure import IMAGENET
from onnx import helper, numpy_helper
from scipy import linalg

from reap_onnx import EFFORTS, Method, PruneOptions, Target, prune
from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.data.load import load_dataset
from reap_onnx.graph.cost import count_macs, node_macs
from reap_onnx.graph.couple import Couple, find_couple
from reap_onnx.graph.groups import Group, find_groups
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import layers_to_refit
from reap_onnx.model.load import load_model
from reap_onnx.model.network import Network
from reap_onnx.numerics.gram import Normal
from reap_onnx.numerics.parallel import one_blas_thread
from reap_onnx.numerics.path import Problem, removal_path, ridge_of
from reap_onnx.numerics.refit import refit
from reap_onnx.options import parse_memory
from reap_onnx.runtime.session import Session, probe
from reap_onnx.runtime.statistics import KEPT_ROWS, Tap, samples_needed

KEY = ("model", "samples", "macs", "effort", "memory")
BATCH = 50
STAGES = ("collecting statistics", "error paths", "sensitivity", "refit", "comparing")
GROWTH = {"samples": 512, "depth": 20, "width": 16, "size": 32}  # what the others are while one of them grows


# -- networks ----------------------------------------------------------------------------------------------------------


def resnet(depth: int, width: int = 16, size: int = 32) -> onnx.ModelProto:
    """A residual network of three stages with seeded random weights, batch norms folded."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def op(kind: str, *inputs: str, **attributes: object) -> str:
        nodes.append(
            helper.make_node(kind, list(inputs), [f"t{len(nodes)}"], name=f"{kind}_{len(nodes)}", **attributes)
        )
        return nodes[-1].output[0]

    def constant(value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def conv(x: str, before: int, after: int, kernel: int = 3, stride: int = 1, gain: float = 2.0) -> str:
        weight = rng.standard_normal((after, before, kernel, kernel)) * np.sqrt(gain / (before * kernel**2))
        pads = [kernel // 2] * 4
        bias = constant(0.1 * rng.standard_normal(after))
        return op("Conv", x, constant(weight), bias, kernel_shape=[kernel] * 2, pads=pads, strides=[stride] * 2)

    x, before = op("Relu", conv("input", 3, width)), width
    for stage in range(3):
        after = width * 2**stage
        for block in range((depth - 2) // 6):
            stride = 2 if stage and not block else 1
            skip = x if before == after else conv(x, before, after, 1, stride, 1.0)
            branch = conv(op("Relu", conv(x, before, after, 3, stride)), after, after, gain=0.2)
            x, before = op("Relu", op("Add", branch, skip)), after
    flat = op("Flatten", op("GlobalAveragePool", x))
    op("Gemm", flat, constant(rng.standard_normal((before, 10)) / np.sqrt(before)), constant(np.zeros(10)))
    graph = helper.make_graph(
        nodes,
        "resnet",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def model_of(name: str) -> onnx.ModelProto | Path:
    """A model by its name."""
    return resnet(*map(int, name.split(":")[1:])) if name.startswith("resnet:") else Path(name)


def samples_of(model: onnx.ModelProto | Path, images: Path | None, count: int) -> Dataset:
    """Samples of a model: images, or noise."""
    specs = input_specs(load_model(model).model)
    if images is not None:
        return load_dataset({specs[0].name: np.load(images)["images"][:count]}, specs, images=IMAGENET)
    rng = np.random.default_rng(0)
    shapes = {spec.name: (count, *[size or 224 for size in spec.shape[1:]]) for spec in specs}
    return load_dataset({name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}, specs)


# -- runs --------------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Measure what is not in the results yet, each in a process of its own."""
    done = {tuple(row[name] for name in KEY) for row in rows(options.results) if row["kind"] == "run"}
    for case in _cases(options):
        if (Path(case["model"]).stem, *(case[name] for name in KEY[1:])) not in done:
            command = [sys.executable, __file__, "one", json.dumps(case)]
            found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
            _keep(options.results, json.loads(found.splitlines()[-1]))


def _cases(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    images = None if options.images is None else str(options.images)
    for model in options.models:
        for samples in options.samples:
            for effort in options.efforts:
                case = {"model": model, "samples": samples, "macs": options.macs, "effort": effort}
                yield {**case, "memory": options.memory, "images": images}


def _keep(results: Path, row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def one(options: argparse.Namespace) -> None:
    """Measure one case, described as JSON, in this process."""
    case = json.loads(options.case)
    model = model_of(case["model"])
    memory = None if case["memory"] is None else parse_memory(case["memory"])
    target = Target.parse("macs", case["macs"])
    wanted = PruneOptions(target, batch=BATCH, memory=memory, method=EFFORTS[case["effort"]])

    def passes() -> list[float]:
        data = samples_of(model, case["images"] and Path(case["images"]), case["samples"])
        np.savez(file, **data.inputs)  # what is measured reads a file, as users have one
        return [plain(model, data) for _ in range(3)]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.npz"
        times = passes()
        before = peak_memory()
        start = time.perf_counter()
        result = prune(model, file, wanted, dry_run=True)
        seconds = time.perf_counter() - start
        peak = peak_memory()
        times += passes()
    kept = {group.name: group.kept / group.width for group in result.summary.groups}
    print(
        json.dumps(
            {
                "kind": "run",
                **{name: case[name] for name in KEY},
                "model": Path(case["model"]).stem,
                "plain": float(np.median(times)),
                "seconds": seconds,
                "stages": result.summary.seconds,
                "arithmetic": arithmetic(model, case["samples"], wanted.method, kept),
                "peak_gb": peak / 1e9,
                "before_gb": before / 1e9,
                "gflops": product_rate() / 1e9,
                "cores": os.cpu_count(),
                "commit": commit(),
            }
        )
    )


def plain(model: onnx.ModelProto | Path, data: Dataset) -> float:
    """Seconds of one pass of the samples through the model."""
    session = Session(model)
    start = time.perf_counter()
    for feeds in data.batches(BATCH):
        session.run(feeds)
    return time.perf_counter() - start


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def product_rate(size: int = 2048) -> float:
    """Floating-point operations a second in a product of large float32 matrices."""
    matrix = np.ones((size, size), np.float32)
    return 2 * size**3 / seconds_of(lambda: matrix @ matrix, 3)


def seconds_of(work: Callable[[], object], times: int) -> float:
    """Least of some timings."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


# -- selection ---------------------------------------------------------------------------------------------------------


def selection(options: argparse.Namespace) -> None:
    """A 3 x 3 Conv of so many channels in and out, half of them removed and the others refitted."""
    for channels in options.channels:
        normal, units = convolution(channels)
        gram, cross = normal.gram / normal.rows, normal.cross / normal.rows
        kept = channels // 2

        def prune_layer() -> None:
            path = removal_path([Problem(gram, cross, units)], channels, 1e-4, stop=kept)  # noqa: B023
            keep = ~np.isin(units, path.order)  # noqa: B023
            refit(normal, keep, ridge_of(normal.scale, 1e-4), np.zeros_like(cross))  # noqa: B023

        ours, inverse = [], []
        for _ in range(options.rounds):
            inverse.append(seconds_of(lambda: linalg.inv(gram), 1))  # noqa: B023
            with one_blas_thread():  # as in a run
                ours.append(seconds_of(prune_layer, 1))
        part = max(1, min(channels, options.candidates))
        root = linalg.cholesky(gram + 1e-4 * np.eye(len(gram)))  # D rows with the Gram matrix of all
        right = linalg.solve_triangular(root, cross, trans="T")
        start = time.perf_counter()
        for unit in range(part):
            others = units != unit
            linalg.lstsq(root[:, others], right, lapack_driver="gelsy", check_finite=False)
        candidate = (time.perf_counter() - start) / part
        row = {
            "kind": "selection",
            "channels": channels,
            "columns": len(gram),
            "removed": channels - kept,
            "seconds": float(np.median(ours)),
            "inverse": float(np.median(inverse)),
            "ratio": float(np.median(np.divide(ours, inverse))),
            "lstsq_each": candidate,
            "lstsq_timed": part,
            "lstsq_all": candidate * sum(range(kept + 1, channels + 1)),
            "commit": commit(),
        }
        _keep(options.results, row)


def convolution(channels: int) -> tuple[Normal, np.ndarray]:
    """Normal equations of a layer whose inputs are correlated and skewed, as after a ReLU; the units of its columns."""
    rng = np.random.default_rng(0)
    count = 18 * channels
    mix = np.eye(channels) + rng.standard_normal((channels, channels)) / np.sqrt(channels)
    x = rng.standard_normal((count, 9, channels), np.float32) @ mix.astype(np.float32)
    x = np.concatenate([np.maximum(x, 0).swapaxes(1, 2).reshape(count, -1), np.ones((count, 1), np.float32)], axis=1)
    noise = rng.standard_normal((count, channels), np.float32)
    y = x[:, :-1] @ rng.standard_normal((9 * channels, channels), np.float32) + 30 * noise
    gram, cross = (x.T @ x).astype(float), (x.T @ y).astype(float)
    units = np.append(np.repeat(np.arange(channels), 9), -1)
    return Normal(gram, cross, np.square(y, dtype=float).sum(0), y.sum(0, dtype=float), count), units


# -- a second budget ---------------------------------------------------------------------------------------------------


def store(options: argparse.Namespace) -> None:
    """Time the whole command: from samples, then another budget from the statistics, without samples and with them."""
    for name in options.models:
        model = Path(name)
        with tempfile.TemporaryDirectory() as folder:
            specs = input_specs(load_model(model).model)
            images = np.load(options.images)["images"][: options.samples]
            data = load_dataset({specs[0].name: images}, specs, images=IMAGENET)
            np.savez(f"{folder}/samples.npz", **data.inputs)
            samples, stats = ["--data", f"{folder}/samples.npz"], f"{folder}/stats.npz"
            row = {
                "kind": "store",
                "model": model.stem,
                "samples": len(data),
                "first": _command("prune", name, *samples, "--macs", "0.5", "--dry-run"),
                "calibrate": _command("calibrate", name, *samples, "-o", stats),
                "second": _command("prune", name, "--stats", stats, "--macs", "0.4", "--dry-run"),
                "refitted": _command("prune", name, "--stats", stats, *samples, "--macs", "0.4", "--dry-run"),
                "stats_mb": Path(stats).stat().st_size / 1e6,
                "commit": commit(),
            }
        _keep(options.results, row)


def _command(*words: str) -> float:
    """Seconds of a command, the start of its process included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "reap_onnx", *words, "-q"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


# -- the arithmetic of a run -------------------------------------------------------------------------------------------


def arithmetic(
    model: onnx.ModelProto | Path, samples: int, method: Method, kept: Mapping[str, float]
) -> dict[str, float]:
    """Operations that each stage cannot do without as it is now, given the share kept of every group, in GFLOP.

    A multiply-accumulate is two operations. Of a layer of D columns, M features and n rows, the Gram matrix takes n D^2
    (its triangle alone), the products with the targets 2 n D M, the inverse with its path 2 D^3, a solve D^3 / 3. Pairs
    are counted with one round of all the conjugate gradients that they may take: most end earlier.
    """
    proto = load_model(model).model
    feeds = {spec.name: np.zeros([BATCH, *spec.shape[1:]], spec.dtype) for spec in input_specs(proto)}
    trace = Trace(Network(proto, probe(proto, {name: array[:1] for name, array in feeds.items()})))
    groups = [group for group in find_groups(trace) if not group.frozen]
    one_pass = 2 * count_macs(trace.network)
    total = dict.fromkeys(("collecting statistics", "error paths", "sensitivity", "refit"), 0.0)
    taps = [Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(groups)]
    enough = min(samples, samples_needed(taps, trace.network, method.selection_rows, BATCH))
    for layer in layers_to_refit(groups):
        assert layer.geometry is not None
        columns, features = layer.geometry.columns(layer.inputs).shape[1], len(layer.features)
        positions = layer.geometry.positions(trace.network.shapes[layer.output])
        share = float(np.mean([kept[group.name] for group in groups if layer in group.readers]))
        left = share * columns
        chosen = enough * min(positions, max(1, round(method.selection_rows / enough)))
        rows_used = min(method.refit_rows, samples * positions)
        total["collecting statistics"] += chosen * columns * (columns + 2 * features)
        total["error paths"] += 2 * columns**3 + 2 * columns**2 * features
        total["sensitivity"] += (columns / 2) ** 3 / 3 + (columns / 2) ** 2 * 2 * features
        if share < 1:
            seen = min(KEPT_ROWS, rows_used) * left * features
            total["refit"] += rows_used * columns * (columns + 2 * features) + left**3 / 3
            total["refit"] += 2 * columns**3 + 4 * method.clipped_rounds * seen
    total["collecting statistics"] += enough * one_pass
    runs = one_pass + sum(_from_its_readers(trace, group) for group in groups)
    total["sensitivity"] += min(samples, method.sensitivity_samples) * runs
    total["refit"] += 2 * samples * one_pass
    for couple in filter(None, (find_couple(trace, group) for group in groups)) if method.pairs else ():
        total["refit"] += _pair(trace, couple, kept, groups, samples, method)
    return {stage: operations / 1e9 for stage, operations in total.items()}


def _from_its_readers(trace: Trace, group: Group) -> float:
    """Operations of a pass from the first layer on that reads a group."""
    first = min((layer.node.index for layer in group.readers), default=0)
    return 2 * sum(node_macs(trace.network, node) for node in trace.network.nodes[first:])


def _pair(
    trace: Trace, couple: Couple, kept: Mapping[str, float], groups: Sequence[Group], samples: int, method: Method
) -> float:
    """Operations of one round of a couple: its conjugate gradients, each there and back, and two evaluations."""
    shares = {node.index: 1.0 for node in trace.network.nodes}
    for group in groups:
        shares |= {layer.node.index: kept[group.name] for layer in group.readers}
    work, layers = [], (couple.maker, couple.reader)
    weights = sum(trace.network.constants[layer.node.inputs[layer.weight.input]].size for layer in layers)
    most = min(method.pair_rows, method.pair_work // weights)
    for layer in layers:
        assert layer.geometry is not None
        columns = layer.geometry.columns(layer.inputs).shape[1] * shares[layer.node.index]
        positions = layer.geometry.positions(trace.network.shapes[layer.output])
        work.append((min(most, samples * positions), columns, len(layer.features)))
    (n, d, k), (m, e, f) = work
    k *= shares[couple.reader.node.index]
    if shares[couple.reader.node.index] == 1:
        return 0.0
    step = 2 * n * d * k * 2 + 2 * m * e * f * 4
    return method.pair_steps * step + 2 * (2 * n * d * k + 2 * m * e * f) + n * d * d + m * e * e


# -- the page ----------------------------------------------------------------------------------------------------------


def table(options: argparse.Namespace) -> None:
    """Print the page."""
    found = rows(options.results)
    runs = [row for row in found if row["kind"] == "run"]
    print(PAGE.format(commits=", ".join(sorted({row["commit"] for row in found}))))
    heads = ["network", "samples", "effort", "memory", "one pass, s", *STAGES, "other", "whole", "peak, GB"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in runs:
        parts = [row["stages"].get(stage, 0.0) / row["plain"] for stage in STAGES]
        whole = row["seconds"] / row["plain"]
        numbers = [f"{part:.1f}" for part in (*parts, whole - sum(parts), whole)]
        cells = [row["model"], row["samples"], row["effort"], row["memory"] or "", f"{row['plain']:.2f}", *numbers]
        print(f"| {' | '.join(map(str, cells))} | {row['peak_gb']:.2f} |")
    print(ACCOUNT)
    heads = ["network", "effort", "samples", "memory", "stage", "GFLOP", "s", "GFLOP/s", "of the peak"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in runs:
        for stage, operations in row["arithmetic"].items():
            seconds = row["stages"].get(stage, 0.0)
            rate = operations / max(seconds, 1e-9)
            case = f"{row['model']} | {row['effort']} | {row['samples']} | {row['memory'] or ''}"
            print(f"| {case} | {stage} | {operations:.1f} | {seconds:.2f} | {rate:.0f} | {rate / row['gflops']:.0%} |")
    print(SELECTION)
    for row in (row for row in found if row["kind"] == "selection"):
        cells = [f"{row['columns']:,}", row["removed"], f"{row['seconds']:.2f}", f"{row['inverse']:.2f}"]
        cells += [f"{row['ratio']:.2f}", f"{row['lstsq_each']:.2f} s of {row['lstsq_timed']} timed"]
        print(f"| {' | '.join(map(str, cells))} | {row['lstsq_all'] / row['seconds']:,.0f} |")
    print(STORE)
    for row in (row for row in found if row["kind"] == "store"):
        timed = [row.get(name) for name in ("first", "calibrate", "second", "refitted")]
        seconds = ["" if one is None else f"{one:.1f}" for one in timed]
        shares = ["" if one is None else f"{one / row['first']:.1%}" for one in timed[2:]]
        cells = [row["model"], row["samples"], *seconds, *shares, f"{row['stats_mb']:.0f}"]
        print(f"| {' | '.join(map(str, cells))} |")


PAGE = """# Speed

Made by `tools/bench_speed.py` on commit {commits}; its docstring has the commands. The unit is one plain onnxruntime
pass over the same samples in the same process, in batches of 50, the median of three before and three after. Two cores.

![passes of every stage; growth with samples, depth, width and size](speed.svg)

## Stages

`resnet:DEPTH:WIDTH:SIZE` are residual networks with random weights, samples of noise; the others have theirs.
"""
ACCOUNT = """
## The account

Operations that a stage must do as the method is, over the seconds that it took and over the rate at which the same
process multiplies large float32 matrices (`arithmetic` in the tool says what is counted; pairs with all the conjugate
gradients that they may take, of which most do not take the last).
"""
SELECTION = """
## Selection

A 3 x 3 Conv with as many channels in as out, half of them removed one by one, the others refitted, over one
`scipy.linalg.inv` of the Gram matrix, in turns. The last column: how many times longer one `lstsq` for every candidate
at every removal would take, extrapolated from the few that were timed.

| columns | removed | s | inverse, s | ratio | one lstsq | all lstsq over ours |
|---|---|---|---|---|---|---|"""
STORE = """
## A second budget

Seconds of whole commands, the start of Python included: `prune --data` at half of the MACs; `calibrate`, which writes
the statistics; then `prune --stats` at 0.4 of the MACs, from the statistics alone; and `prune --stats --data`, which
is refitted on the samples. From the statistics alone a model loses more (a ResNet-20 has 79.5 % for 87.6 %, README);
with the samples it is as accurate as the first, and its calibration alone is saved.

| network | samples | first | calibrate | second | refitted | second over first | refitted over first | file, MB |
|---|---|---|---|---|---|---|---|---|"""


def plot(options: argparse.Namespace) -> None:
    """Draw the passes that every stage takes, and how seconds and memory grow with samples, depth, width and size."""
    from matplotlib import pyplot

    found = [row for row in rows(options.results) if row["kind"] == "run" and row["memory"] is None]
    given = [row for row in found if not row["model"].startswith("resnet:")]
    figure, axes = pyplot.subplot_mosaic([["stages"] * len(GROWTH), [*GROWTH]], figsize=(11, 7), layout="constrained")
    bars = axes["stages"]
    names, left = [f"{row['model']}, {row['effort']}" for row in given], np.zeros(len(given))
    for stage in STAGES:
        passes = np.array([row["stages"].get(stage, 0.0) / row["plain"] for row in given])
        bars.barh(names, passes, left=left, label=stage)
        left += passes
    bars.set(xlabel="plain passes of the same samples")
    bars.legend()
    for axis in GROWTH:
        panel, others = axes[axis], [other for other in GROWTH if other != axis]
        chosen = [row for row in found if (of := scale_of(row)) and all(of[o] == GROWTH[o] for o in others)]
        for effort, name, style in (
            ("default", "seconds", "C3o-"),
            ("fast", "seconds", "C0s-"),
            ("fast", "plain", "C1s--"),
            ("fast", "peak_gb", "C2s:"),
        ):
            line = sorted((scale_of(row)[axis], row[name]) for row in chosen if row["effort"] == effort)
            if len(line) > 1:
                what = {"seconds": f"{effort}, s", "plain": "one pass, s", "peak_gb": f"{effort}, peak, GB"}[name]
                panel.plot(*zip(*line, strict=True), style, label=what)
        ticks = sorted({scale_of(row)[axis] for row in chosen})
        panel.set(xlabel=axis, xscale="log", yscale="log", xticks=ticks, xticklabels=ticks)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    axes["depth"].legend()
    pyplot.rcParams["svg.hashsalt"] = "speed"
    figure.savefig(options.picture, metadata={"Date": None})


def scale_of(row: Mapping[str, Any]) -> dict[str, int]:
    """Samples, and depth, width and size of a network made here; empty for any other."""
    kind, *numbers = row["model"].split(":")
    if kind != "resnet" or not numbers:
        return {}
    sizes = dict(zip(("depth", "width", "size"), map(int, numbers), strict=False))
    return {**GROWTH, **sizes, "samples": row["samples"]}


def main() -> None:
    """Read the arguments, and run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("run", help=run.__doc__)
    verb.set_defaults(do=run)
    verb.add_argument("--results", type=Path, required=True, help="file that results are added to")
    verb.add_argument("--models", nargs="+", required=True)
    verb.add_argument("--images", type=Path, help=".npz of images; seeded noise by default")
    verb.add_argument("--samples", type=int, nargs="+", default=[1000])
    verb.add_argument("--macs", default="0.5")
    verb.add_argument("--efforts", nargs="+", default=["default"], choices=list(EFFORTS))
    verb.add_argument("--memory", help="as of the command")
    verb = verbs.add_parser("one", help=one.__doc__)
    verb.set_defaults(do=one)
    verb.add_argument("case")
    verb = verbs.add_parser("selection", help=selection.__doc__)
    verb.set_defaults(do=selection)
    verb.add_argument("--results", type=Path, required=True, help="file that results are added to")
    verb.add_argument("--channels", type=int, nargs="+", default=[512])
    verb.add_argument("--rounds", type=int, default=3)
    verb.add_argument("--candidates", type=int, default=2, help="of lstsq, that are timed")
    verb = verbs.add_parser("store", help=store.__doc__)
    verb.set_defaults(do=store)
    verb.add_argument("--results", type=Path, required=True, help="file that results are added to")
    verb.add_argument("--models", nargs="+", required=True, help="files of models")
    verb.add_argument("--images", type=Path, required=True, help=".npz of images")
    verb.add_argument("--samples", type=int, default=1000)
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
