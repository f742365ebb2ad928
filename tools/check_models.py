"""Prune models of public collections and print a row for each: how far pruning reaches, what stays and why.

    python tools/check_models.py light             # the nine networks of the onnx package, seeded random weights
    python tools/check_models.py backend           # every model of the onnx backend test suite
    python tools/check_models.py files a.onnx ...  # any models

Data are seeded noise: this shows that graphs go through and are wired right, not how accurate they stay. The exit
status is 1 where a model fails: it crashes, is wired wrong, or (``light``) is not pruned to its target.
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

from reap_onnx import PruneOptions, Target, inspect, prune
from reap_onnx.data.dataset import input_specs
from reap_onnx.errors import CheckError, ReapError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Network
from reap_onnx.runtime.session import Session, probe
from reap_onnx.runtime.verify import check_wiring, wiring_error

COLLECTION = Path(onnx.backend.test.__file__).parent / "data"
SIZE = 64  # of an axis that a model leaves open
REACH = 0.99  # of the MACs, that groups which can be pruned must reach


@dataclass(frozen=True)
class Row:
    """What became of a model; shares are of its MACs."""

    model: str
    macs: int = 0
    reach: float = 0.0
    kept: float = 1.0
    wiring: float = 0.0
    inspect_s: float = 0.0
    prune_s: float = 0.0
    frozen: tuple[str, ...] = ()
    failure: str = ""

    def __str__(self) -> str:
        text = (
            f"{self.model:28} {self.macs / 1e6:8.1f} MMACs  reach {self.reach:6.1%}  kept {self.kept:6.1%}  "
            f"wiring {self.wiring:.1e}  inspect {self.inspect_s:4.1f} s  prune {self.prune_s:5.1f} s"
        )
        lines = [f"    stays: {line}" for line in self.frozen]
        return "\n".join([f"{text}  {self.failure}".rstrip(), *lines])


def noise(model: onnx.ModelProto, samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded samples for a model: normal numbers, ones for integers and truth values."""
    rng = np.random.default_rng(seed)
    data = {}
    for spec in input_specs(model):
        count = samples if spec.shape[0] is None else spec.shape[0] * samples
        values = rng.standard_normal([count, *(size or SIZE for size in spec.shape[1:])])
        data[spec.name] = (values if spec.dtype.kind == "f" else np.ones_like(values)).astype(spec.dtype)
    return data


def check(path: Path, name: str, target: str = "0.5", samples: int = 8) -> Row:
    """Inspect a model, prune it on noise, load and run what was written.

    A target that cannot be met is no failure, and neither is a model without channels to prune: both leave a reason.
    """
    row = Row(name)
    try:
        model = onnx.load(path)
        data = noise(model, samples)
        start = time.perf_counter()
        found = inspect(path, data=data).inspection
        row = replace(
            row,
            macs=found.cost.macs,
            reach=found.reach,
            inspect_s=time.perf_counter() - start,
            frozen=tuple(f"{group.name} ({group.width}): {group.frozen}" for group in found.groups if group.frozen),
        )
        options = PruneOptions(Target.parse("macs", target))
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "pruned.onnx"
            summary = prune(path, data, options, output=output).summary
            row = replace(
                row,
                kept=summary.after.macs / max(summary.before.macs, 1),
                wiring=summary.wiring_error,
                prune_s=time.perf_counter() - start,
            )
            Session(output).run({key: value[: len(value) // samples] for key, value in data.items()})
    except ReapError as error:
        row = replace(row, failure=f"{type(error).__name__}: {error}")
    return row


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


def light(names: Sequence[str]) -> Iterator[Row]:
    """The nine networks: all must reach their target."""
    for path in sorted((COLLECTION / "light").glob("*.onnx")):
        name = path.stem.removeprefix("light_")
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / f"{name}.onnx"
            onnx.save(seeded(onnx.load(path)), model)
            row = check(model, name)
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
        fed = zip(inputs, values, strict=False)
        yield case.name, model, {value.name: array for value, array in fed if isinstance(array, np.ndarray)}


def _stored(folder: str, number: int) -> np.ndarray | None:
    path = Path(folder) / "test_data_set_0" / f"input_{number}.pb"
    try:
        return numpy_helper.to_array(onnx.load_tensor(str(path)))
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


def files(names: Sequence[str]) -> Iterator[Row]:
    """Models by their paths."""
    for name in names:
        yield check(Path(name), Path(name).name)


def run(rows: Iterator[Row]) -> int:
    """Print rows as they come; the number of failures."""
    failures: Counter[bool] = Counter()
    for row in rows:
        print(row, flush=True)
        failures[bool(row.failure)] += 1
    print(f"{failures.total()} models, {failures[True]} failures")
    return failures[True]


if __name__ == "__main__":
    COLLECTIONS: dict[str, Callable[[Sequence[str]], int]] = {
        "light": lambda names: run(light(names)),
        "files": lambda names: run(files(names)),
        "backend": backend,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", choices=COLLECTIONS)
    parser.add_argument("models", nargs="*", help="some models of the collection alone")
    given = parser.parse_args()
    sys.exit(bool(COLLECTIONS[given.collection](given.models)))
