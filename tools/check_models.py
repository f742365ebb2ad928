"""Prune models of public collections and print a row for each: how far pruning reaches, what stays and why.

    python tools/check_models.py light [NAME ...]            # the nine networks of the onnx package, seeded weights
    python tools/check_models.py families FOLDER [NAME ...]  # what tools/families.py exported
    python tools/check_models.py wheels FOLDER [NAME ...]    # what tools/fetch_models.py fetched
    python tools/check_models.py files MODEL ...             # any models
    python tools/check_models.py backend [KIND|NAME ...]     # every model of the onnx backend test suite

A model is inspected, pruned to its target (0.8 of the MACs for ``wheels``, else 0.5) or as far as can be, and what was
written is loaded and run. A row: its MACs; the share of them in layers that groups which can be pruned reach; the share
kept; the largest difference of the wiring check; the error of the worst output (root mean square of the difference over
that of the original); seconds of all processors together. Below it: what stays, and why, and why it falls short.

Samples are made up: noise, but for models from wheels, and ``--images`` where they are given. They show that graphs go
through and are wired right, not how accurate they stay. The exit status is 1 where a model fails: it crashes, is wired
wrong, or (``light``, ``families``) misses its target or has groups that stay for lack of a rule.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from reap_onnx import EFFORTS, ImageOptions, PruneOptions, Target, compare, inspect, prune
from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.data.load import load_dataset
from reap_onnx.errors import CheckError, ReapError, TargetError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.model.load import load_model
from reap_onnx.model.network import Network
from reap_onnx.runtime.session import Session, probe
from reap_onnx.runtime.verify import check_wiring, wiring_error

COLLECTION = Path(onnx.backend.test.__file__).parent / "data"
REACH = 0.99  # of the MACs of the nine networks, that groups which can be pruned must reach
STEP = 0.02  # by which a target grows that cannot be met
HEADER = """| model | MMACs | reach | MACs kept | wiring error | output error | inspect, s | prune, s |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """What became of a model; shares are of its MACs, ``short`` says why it was not pruned to its target."""

    model: str
    macs: int = 0
    reach: float = 0.0
    kept: float = 1.0
    wiring: float = 0.0
    error: float = 0.0
    inspect_s: float = 0.0
    prune_s: float = 0.0
    stays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    short: str = ""
    failure: str = ""

    def __str__(self) -> str:
        cells = (
            f"{self.model} | {self.macs / 1e6:.1f} | {self.reach:.1%} | {self.kept:.1%} | {self.wiring:.1e} | "
            f"{self.error:.2%} | {self.inspect_s:.2f} | {self.prune_s:.1f}"
        )
        below = {"stays": self.stays, "note": self.notes, "short": (self.short,), "FAILURE": (self.failure,)}
        lines = [f"    {kind}: {line}" for kind, lines in below.items() for line in lines if line]
        return "\n".join([f"| {cells} |", *lines])


def check(path: Path, macs: float, images: Path | None = None) -> Row:
    """Inspect a model, prune it to a share of its MACs or as far as can be, load and run what was written."""
    row = Row(path.stem)
    try:
        data = samples(path, images)
        start = time.process_time()
        found = inspect(path, data=data).inspection
        frozen = [f"{group.name} ({group.width}): {group.frozen}" for group in found.groups if group.frozen]
        row = replace(
            row,
            macs=found.cost.macs,
            reach=found.reach,
            inspect_s=time.process_time() - start,
            stays=tuple(frozen),
            notes=found.notes,
        )
        for target in np.arange(macs, 1, STEP):
            try:
                row = _pruned(row, path, data, round(float(target), 4))
                break
            except TargetError as error:
                row = replace(row, short=row.short or str(error))
    except CheckError as error:
        row = replace(row, failure=str(error))
    except ReapError as error:
        row = replace(row, short=str(error))
    return row


def _pruned(row: Row, path: Path, data: Dataset, macs: float) -> Row:
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pruned.onnx"
        options = PruneOptions(Target("macs", macs), batch=8, method=EFFORTS["fast"])
        summary = prune(path, data, options, output=output).summary
        seconds = time.process_time() - start
        outputs = compare(path, output, data, latency_batches=()).outputs
    return replace(
        row,
        kept=summary.after.macs / max(summary.before.macs, 1),
        wiring=summary.wiring_error,
        error=max(output.relative for output in outputs),
        prune_s=seconds,
    )


def strict(row: Row) -> Row:
    """The row of a model that must reach its target, with no group that stays for lack of a rule."""
    lacking = next((line for line in row.stays if "no rule" in line), "")
    return replace(row, failure=row.failure or row.short or lacking)


# -- samples -----------------------------------------------------------------------------------------------------------

SIZE = 64  # of an axis that a model leaves open
NOISE, MADE_UP, IMAGES = 8, 24, 200  # how many

Make = Callable[[np.random.Generator, int], np.ndarray]


def noise(*shape: int) -> Make:
    """Normal numbers."""
    return lambda rng, count: rng.standard_normal((count, *shape), np.float32)


def ink(height: int, width: int) -> Make:
    """Dark blocks on a bright ground, coarse as print is: on noise a text detector says nothing at all."""

    def make(rng: np.random.Generator, count: int) -> np.ndarray:
        blocks = np.where(rng.random((count, 1, height // 16, width // 16)) < 0.3, -1, 1)
        return np.tile(blocks.repeat(16, 2).repeat(16, 3), (1, 3, 1, 1)).astype(np.float32)

    return make


def number(value: int) -> Make:
    """One number for all."""
    return lambda rng, count: np.full(count, value, np.int64)


WHEELS: dict[str, dict[str, Make]] = {
    "magika_model": {"bytes": lambda rng, count: rng.integers(0, 257, (count, 2048)).astype(np.int32)},
    "nudenet_320n": {"images": noise(3, 320, 320)},
    "rapidocr_onnxruntime_ch_PP-OCRv4_det_infer": {"x": ink(320, 320)},
    "rapidocr_onnxruntime_ch_PP-OCRv4_rec_infer": {"x": ink(48, 320)},
    "rapidocr_onnxruntime_ch_ppocr_mobile_v2.0_cls_infer": {"x": ink(48, 192)},
    "silero_vad_silero_vad": {"input": noise(288), "state": noise(2, 128), "sr": number(8000)},
    "silero_vad_silero_vad_16k_op15": {"input": noise(576), "state": noise(2, 128), "sr": number(16000)},
    "silero_vad_silero_vad_16k_sequence": {"input": noise(576), "h": noise(1, 128), "c": noise(1, 128)},
    "silero_vad_silero_vad_half": {"input": noise(576), "state": noise(2, 128)},
    "silero_vad_silero_vad_op18_ifless": {"input": noise(576), "state": noise(2, 128), "sr": number(16000)},
    "silero_vad_silero_vad_openvino_16k": {"input": noise(576), "state": noise(1, 128)},
}


def samples(path: Path, images: Path | None) -> Dataset:
    """Seeded samples that suit a model of the wheels; else images, prepared as for ImageNet; else noise."""
    rng, specs = np.random.default_rng(0), input_specs(load_model(path).model)
    if path.stem in WHEELS:
        return load_dataset({name: make(rng, MADE_UP) for name, make in WHEELS[path.stem].items()}, specs)
    if images is not None:
        return load_dataset(images, specs, images=ImageOptions(preset="imagenet"), samples=IMAGES)
    data = {}
    for spec in specs:
        shape = [NOISE * (spec.batch or 1), *(size or SIZE for size in spec.shape[1:])]
        values = rng.standard_normal(shape) if spec.dtype.kind == "f" else np.ones(shape)
        data[spec.name] = values.astype(spec.dtype)
    return load_dataset(data, specs)


# -- the nine networks -------------------------------------------------------------------------------------------------


def seeded(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The model with seeded random weights instead of constants that are all alike, in place.

    Matrices and kernels keep the size of what passes through them; factors and variances lie around 1, everything
    that is added around 0.
    """
    graph, rng = model.graph, np.random.default_rng(seed)
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {name: value.shape for name, value in given.items() if value.dtype.kind == "f"}
    filled = [node for node in graph.node if node.op_type == "ConstantOfShape" and node.input[0] in given]
    shapes |= {node.output[0]: tuple(given[node.input[0]].tolist()) for node in filled}
    for node in filled:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    values = {name: value for name, value in given.items() if name in used}
    values |= {name: _weight(graph, name, shape, rng) for name, shape in shapes.items() if name in used}
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    for value in [value for value in graph.input if value.name not in used]:
        graph.input.remove(value)
    declared = {value.name for value in graph.input}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in declared and model.ir_version < 4
    )
    return model


def _weight(graph: onnx.GraphProto, name: str, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """A weight that suits the first operator that computes with it."""
    node, position = next((n, list(n.input).index(name)) for n in graph.node if name in n.input)
    if node.op_type == "Unsqueeze":
        return _weight(graph, node.output[0], shape, rng)
    if len(shape) > 1:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    around_one = node.op_type == "Mul" or (node.op_type == "BatchNormalization" and position in (1, 4))
    return (rng.uniform(0.5, 1.5, shape) if around_one else 0.1 * rng.standard_normal(shape)).astype(np.float32)


def light(names: Sequence[str], macs: float = 0.5) -> Iterator[Row]:
    """The nine networks."""
    for path in sorted((COLLECTION / "light").glob("*.onnx")):
        name = path.stem.removeprefix("light_")
        if not names or name in names:
            with tempfile.TemporaryDirectory() as folder:
                model = Path(folder) / f"{name}.onnx"
                onnx.save(seeded(onnx.load(path)), model)
                row = strict(check(model, macs))
            short = f"prunable groups reach less than {REACH:.0%}" if row.reach < REACH else ""
            yield replace(row, failure=row.failure or short)


# -- the backend test suite --------------------------------------------------------------------------------------------

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")  # those of kind "real" are the nine networks


def cases(kind: str) -> Iterator[tuple[str, onnx.ModelProto, dict[str, np.ndarray]]]:
    """Name, model and the tensors that its first test feeds, for every model of a kind, sorted by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some tests are about infinities
        found = load_model_tests(kind=kind)
    for case in sorted(found, key=lambda case: str(case.name)):
        model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        values = case.data_sets[0][0] if case.data_sets else [_stored(case.model_dir, n) for n in range(len(inputs))]
        fed = {value.name: _array(given) for value, given in zip(inputs, values, strict=False)}
        yield case.name, model, {name: array for name, array in fed.items() if array is not None}


def _array(given: object) -> np.ndarray | None:
    """A value that a test feeds, None for a sequence."""
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    return None if given is None or isinstance(given, list) else np.asarray(given)


def _stored(folder: str, number: int) -> onnx.TensorProto | None:
    path = Path(folder) / "test_data_set_0" / f"input_{number}.pb"
    try:
        return onnx.load_tensor(str(path))
    except (DecodeError, TypeError):
        return None  # a sequence


def outcome(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> str:
    """What becomes of a model: pruned, or why not. Any other error than a refusal is raised.

    First the engine alone, on the inputs of the test, which cuts half of every group; then ``inspect`` and a dry
    ``prune``, on noise, since many tests have no samples along the first axis.

    Raises
    ------
    CheckError
        The wiring is wrong.
    """
    try:
        Session(model).run(feeds)
    except ReapError as error:
        return _about(error)
    trace = Trace(Network(model, probe(model, feeds)))
    groups = [group for group in find_groups(trace) if not group.frozen]
    removed = [label for group in groups for label in group.units[: len(group.units) // 2].tolist()]
    check_wiring(wiring_error(trace, np.array(removed, np.int64), feeds))
    try:
        inspect(model, data="random")
        pruned = prune(model, "random", PruneOptions(Target.parse("macs", "0.5")), dry_run=True)
    except CheckError:
        raise
    except ReapError as error:
        return _about(error)
    return "pruned" if pruned.summary.after.macs < pruned.summary.before.macs else "no MACs"


def _about(error: ReapError) -> str:
    """A reason without names and numbers, so that equal ones can be counted."""
    return re.sub(r"'[^']*'|\d[\d.,]*", "..", f"{type(error).__name__}: {error}")[:90]


def backend(names: Sequence[str]) -> int:
    """Every model of the suite, or of some kinds: none crashes, none is wired wrong. The number of failures."""
    outcomes: Counter[str] = Counter()
    failures = []
    for kind in KINDS if not set(KINDS).intersection(names) else set(KINDS).intersection(names):
        for name, model, feeds in cases(kind):
            if names and not {kind, name}.intersection(names):
                continue
            try:
                outcomes[outcome(model, feeds)] += 1
            except Exception as error:  # whatever it is, it is what this looks for
                failures.append(f"{kind} {name}: {type(error).__name__}: {error}")
    for reason, count in outcomes.most_common():
        print(f"{count:5}  {reason}")
    print("\n".join([*failures, f"{outcomes.total() + len(failures)} models, {len(failures)} failures"]))
    return len(failures)


# -- the command -------------------------------------------------------------------------------------------------------


def within(folder: Path, names: Sequence[str]) -> list[Path]:
    """The models of a folder, or those whose names begin with one of ``names``."""
    return [path for path in sorted(folder.glob("*.onnx")) if not names or path.name.startswith(tuple(names))]


def run(rows: Iterator[Row]) -> int:
    """Print rows as they come; the number of failures."""
    print(HEADER, flush=True)
    failures: Counter[bool] = Counter()
    for row in rows:
        print(row, flush=True)
        failures[bool(row.failure)] += 1
    print(f"{failures.total()} models, {failures[True]} failures")
    return failures[True]


def main() -> int:
    """Read the arguments, check the collection; the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", choices=["light", "families", "wheels", "files", "backend"])
    parser.add_argument("models", nargs="*", help="a folder, files, names of some models alone")
    parser.add_argument("--macs", type=float, help="share of the MACs that is kept")
    parser.add_argument("--images", type=Path, help="a folder of images for models that are not from the wheels")
    given = parser.parse_args()
    macs = given.macs or (0.8 if given.collection == "wheels" else 0.5)
    if given.collection == "backend":
        return backend(given.models)
    if given.collection == "light":
        return run(light(given.models, macs))
    if not given.models:
        parser.error(f"{given.collection} needs a folder, or files")
    paths = [Path(name) for name in given.models]
    if given.collection != "files":
        paths = within(paths[0], given.models[1:])
    rows = (check(path, macs, given.images) for path in paths)
    return run(map(strict, rows) if given.collection == "families" else rows)


if __name__ == "__main__":
    sys.exit(bool(main()))
