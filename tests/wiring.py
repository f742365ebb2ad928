"""The oracle of the engine: onnxruntime runs the pruned graph and the masked original, and both must agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from examples.net import Example
from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.cost import count_macs, count_params, macs_cost, params_cost
from reap_onnx.graph.groups import Group, find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import layers_to_refit, refitted
from reap_onnx.model.edit import with_constants
from reap_onnx.model.network import Network, Slot
from reap_onnx.model.normalise import normalise
from reap_onnx.numerics.gram import Normal
from reap_onnx.runtime.session import Session, probe, probe_sizes
from reap_onnx.runtime.statistics import Tap, collect_dense, normals
from reap_onnx.runtime.verify import difference, masked_weights, wiring_error


def random_feeds(model: onnx.ModelProto, batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in input_specs(model):
        noise = rng.standard_normal([spec.batch or batch, *(size or 8 for size in spec.shape[1:])][: len(spec.shape)])
        feeds[spec.name] = (noise if spec.dtype.kind == "f" else np.ones_like(noise)).astype(spec.dtype)
    return feeds


def read(model: onnx.ModelProto) -> Network:
    feeds = random_feeds(model)
    return Network(model, probe(model, feeds), probe_sizes(model, feeds))


def pruned(trace: Trace, removed: Labels) -> onnx.ModelProto:
    return Surgeon(trace, removed, {}).operate()


def cut(groups: Sequence[Group], kept: Sequence[int], seed: int = 0) -> Labels:
    """Labels of randomly chosen units, so that ``kept`` of each group are left."""
    rng = np.random.default_rng(seed)
    gone = [rng.permutation(group.units)[k:] for group, k in zip(groups, kept, strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *gone])


def prove(example: Example, cuts: int = 2) -> None:
    """All that holds for any model.

    1. Its groups are those expected.
    2. Cut to single units, and at random: the pruned graph equals the masked original, on another batch size too;
       it passes the checker in full; MACs and parameters are those predicted.
    3. The model itself is unchanged; with nothing removed its copy equals it.
    """
    model = normalise(example.model())
    onnx.checker.check_model(model, full_check=True)
    before = model.SerializeToString(deterministic=True)
    trace = Trace(read(model))
    groups = find_groups(trace)
    prunable = [group for group in groups if not group.frozen]
    assert tuple(len(group.units) for group in prunable) == example.units, [(g.name, g.frozen) for g in groups]
    for words in example.frozen:
        assert any(words in group.frozen for group in groups), [group.frozen for group in groups]
    rng = np.random.default_rng(1)
    for number in range(cuts if prunable else 0):
        kept = [1 if number == 0 else int(rng.integers(1, len(group.units) + 1)) for group in prunable]
        if number == 0:
            prove_mask(trace, cut(prunable, kept))
        prove_cut(trace, prunable, kept, seed=number)
    assert pruned(trace, np.zeros(0, np.int64)).SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before


def prove_mask(trace: Trace, removed: Labels) -> None:
    """Masking changes the outputs, so that agreement with the masked original says something."""
    feeds = random_feeds(trace.network.proto)
    masked = Session(with_constants(trace.network, masked_weights(trace, removed)))
    assert difference(Session(trace.network.proto).run(feeds), masked.run(feeds)) > 1e-4


def prove_cut(trace: Trace, groups: Sequence[Group], kept: Sequence[int], seed: int = 0) -> None:
    removed = cut(groups, kept, seed)
    model = trace.network.proto
    feeds = random_feeds(model, batch=3, seed=seed)
    assert wiring_error(trace, removed, feeds) < 1e-5
    result = pruned(trace, removed)
    onnx.checker.check_model(result, full_check=True)
    after, count = read(result), np.array(kept)
    assert count_macs(after) == round(macs_cost(trace, list(groups))(count))
    expected = round(params_cost(trace, list(groups))(count))
    assert count_params(after) <= expected
    assert count_params(after) == expected or _shares(trace)
    surgeon = Surgeon(trace, removed, {})
    for tensor in trace.labels:
        if tensor in after.shapes:
            axes = range(len(trace.shape(tensor)))
            stays = tuple(int(surgeon.mask(tensor, axis).sum()) for axis in axes)
            assert after.shapes[tensor] == stays


def _shares(trace: Trace) -> bool:
    """Whether two inputs that are cut read one constant."""
    names = [trace.network.nodes[slot.node].input(slot.input) for slot in trace.cuts]
    return len(set(names)) < len(names)


def prove_refit(model: onnx.ModelProto, samples: int = 12) -> bool:
    """Nothing removed, every layer that reads a prunable group is refitted, and makes what it made before.

    Where the rows span all columns, weights and biases come out as they were. Returns whether they do in all layers.
    """
    trace = Trace(read(model))
    layers = layers_to_refit([group for group in find_groups(trace) if not group.frozen])
    targets = [find_target(trace, layer) for layer in layers]
    taps = [Tap(layer, target) for layer, target in zip(layers, targets, strict=True)]
    fixed = next(spec.shape[0] for spec in input_specs(model))
    dataset = Dataset(_noise(model, samples * (fixed or 1)))
    sums = [True]
    residual = [Tap(tap.layer, tap.target, True) for tap in taps if tap.target.other]
    for chosen in filter(None, (taps, residual)):
        measured = normals(collect_dense(trace.network, chosen, dataset, batch=fixed or 5, rows=4000, seed=0))
        for tap in chosen:
            new = refitted(trace, tap, measured[tap.layer.node.index], np.zeros(0, np.int64))
            sums += [_spans(normal) for normal in measured[tap.layer.node.index]]
            _compare(trace, new, exact=sums[-1])
            feeds = {name: array[: fixed or 5] for name, array in dataset.inputs.items()}
            outputs = Session(with_constants(trace.network, new)).run(feeds)
            assert difference(Session(model).run(feeds), outputs) < 1e-3
    return all(sums)


def _spans(normal: Normal) -> bool:
    values = np.linalg.eigvalsh(normal.gram)
    return bool(values[0] > 1e-2 * values.mean())


def _compare(trace: Trace, new: dict[Slot, np.ndarray], *, exact: bool) -> None:
    for slot, value in new.items():
        node = trace.network.nodes[slot.node]
        old = trace.constant(node.input(slot.input)) if node.input(slot.input) else np.zeros_like(value)
        assert old is not None
        assert (value.shape, value.dtype) == (old.shape, old.dtype)
        if exact:
            assert np.abs(value - old).max() < 1e-3 * max(1.0, np.abs(old).max()), node.name


def _noise(model: onnx.ModelProto, samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = {spec.name: (samples, *(size or 8 for size in spec.shape[1:])) for spec in input_specs(model)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
