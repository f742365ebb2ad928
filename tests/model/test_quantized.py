from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from examples import arrivals
from examples.quantization import DATA_SCALE, EXAMPLES
from nets import images, residual_net
from reap_onnx import PruneOptions, Target, prune
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.model.edit import with_constants
from reap_onnx.model.network import Network, Slot
from reap_onnx.model.quantized import find_quantized, stored
from reap_onnx.runtime.session import Session
from reap_onnx.runtime.verify import difference
from wiring import cut, pruned, random_feeds, read

BY_NAME = {example.name: example for example in EXAMPLES}
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def layers(network: Network) -> Iterator[Slot]:
    """Weights of all layers."""
    yield from (Slot(node.index, 1) for node in network.nodes if node.op in LAYERS)


def types(model: onnx.ModelProto) -> list[tuple[int, tuple[int, ...]]]:
    """Types and shapes of the constants that DequantizeLinear and QuantizeLinear nodes read as their data."""
    constants = {t.name: (t.data_type, tuple(t.dims)) for t in model.graph.initializer}
    return [constants[n.input[0]] for n in model.graph.node if "Linear" in n.op_type and n.input[0] in constants]


def test_integers_by_hand() -> None:
    trace = Trace(read(BY_NAME["per_channel"].model()))
    groups = [group for group in find_groups(trace) if not group.frozen]
    after = pruned(trace, cut(groups, [2, 3]))
    shapes = [(2, 3, 3, 3), (2,), (3, 2, 3, 3), (3,), (4, 3, 3, 3), (4,)]
    kinds = [TensorProto.INT8, TensorProto.INT32] * 3
    assert types(after) == list(zip(kinds, shapes, strict=True))
    scales = {t.name: tuple(t.dims) for t in after.graph.initializer}
    found = [scales[n.input[1]] for n in after.graph.node if n.op_type == "DequantizeLinear" and scales[n.input[1]]]
    assert found == [(2,), (2,), (3,), (3,), (4,), (4,)]


def test_floats_in_front_of_integers_by_hand() -> None:
    trace = Trace(read(BY_NAME["imitated"].model()))
    groups = [group for group in find_groups(trace) if not group.frozen]
    after = pruned(trace, cut(groups, [2, 3]))
    assert types(after) == [(TensorProto.FLOAT, (3, 2, 1, 1)), (TensorProto.FLOAT, (4, 3, 1, 1))]


def test_what_is_stored_in_another_type_or_order_stays_so() -> None:
    """Refitted and cut: integers behind a Transpose, half precision behind a Cast, bfloat16 as well."""
    for name, kinds in (
        ("stored_transposed", {("int8", (3, 2)), ("float16", (4, 3))}),
        ("stored_as_bfloat16", {("bfloat16", (2, 3, 1, 1)), ("bfloat16", (3, 2, 1, 1)), ("bfloat16", (4, 3, 1, 1))}),
    ):
        trace = Trace(read(next(e for e in (*EXAMPLES, *arrivals.EXAMPLES) if e.name == name).model()))
        groups = [group for group in find_groups(trace) if not group.frozen]
        slots = [slot for slot in layers(trace.network) if slot.input < len(trace.network.nodes[slot.node].inputs)]
        new = {slot: 0.5 * trace.network.constants[trace.network.nodes[slot.node].inputs[1]] for slot in slots}
        after = Surgeon(trace, cut(groups, [2, 3, 4][: len(groups)]), new).operate()
        found = {(str(value.dtype), value.shape) for value in map(numpy_helper.to_array, after.graph.initializer)}
        assert kinds <= found
        plain = Surgeon(trace, cut(groups, [2, 3, 4][: len(groups)]), {}).operate()
        weights = [read(model).constants[read(model).nodes[slots[-2].node].inputs[1]] for model in (plain, after)]
        np.testing.assert_allclose(weights[1], 0.5 * weights[0], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["per_channel", "per_tensor", "residual", "linear", "transposed", "imitated"])
def test_what_is_stored_is_as_near_as_a_step(name: str) -> None:
    """Larger weights get larger scales; weights that can be stored as they are keep theirs."""
    network = read(BY_NAME[name].model())
    slots = [slot for slot in layers(network) if find_quantized(network, slot) is not None]
    assert slots
    rng = np.random.default_rng(0)
    old = {slot: network.constants[network.nodes[slot.node].inputs[1]] for slot in slots}
    new = {slot: (value * rng.uniform(0.3, 3, value.shape)).astype(np.float32) for slot, value in old.items()}
    after = read(with_constants(network, new))
    for slot, value in new.items():
        found = find_quantized(after, slot)
        assert found is not None
        apart = np.abs(after.constants[after.nodes[slot.node].inputs[1]] - value)
        assert (apart <= 0.5001 * found._along(found.scale)).all()
        assert found.integers.dtype == find_quantized(network, slot).integers.dtype  # type: ignore[union-attr]
    zeros = {slot: value * (rng.random(value.shape) < 0.5) for slot, value in old.items()}
    kept = stored(network, zeros)
    assert {slot.input for slot in kept} == {0}
    after = read(with_constants(network, zeros))
    for slot, value in zeros.items():
        assert np.array_equal(after.constants[after.nodes[slot.node].inputs[1]], value)


def test_one_bit_left_out_stays_left_out() -> None:
    network = read(BY_NAME["linear"].model())
    slot = next(layers(network))
    node = network.producer[network.nodes[slot.node].inputs[1]]
    network.constants[node.inputs[0]] = network.constants[node.inputs[0]] // 2
    found = find_quantized(network, slot)
    assert found is not None
    value = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    integers = found.store(value, found.fitting_scale(value))[Slot(node.index, 0)]
    assert 60 <= np.abs(integers.astype(int)).max() <= 64


def test_the_bias_follows_the_weight() -> None:
    """onnxruntime computes with integers where it may, and takes the bias to be in products of steps."""
    model = BY_NAME["per_channel"].model()
    network = read(model)
    rng = np.random.default_rng(1)
    slots = list(layers(network))
    weights = {slot: network.constants[network.nodes[slot.node].inputs[1]] for slot in slots}
    new = {slot: (3 * value * rng.uniform(0.5, 1, value.shape)).astype(np.float32) for slot, value in weights.items()}
    after = with_constants(network, new | {Slot(slots[1].node, 2): np.ones(5, np.float32)})
    feeds = random_feeds(model, batch=4)
    integers, floats = (
        Session(after).run(feeds),
        Session(after, expose=[value.name for value in after.graph.output]).run(feeds),
    )
    values = read(after)
    step = DATA_SCALE / max(np.abs(value).max() for value in floats.values())
    assert difference(floats, integers) <= 2.01 * step
    for slot in slots:
        node = values.nodes[slot.node]
        weight, bias = (find_quantized(values, Slot(slot.node, position)) for position in (1, 2))
        assert weight is not None
        assert bias is not None
        assert np.allclose(bias.scale, DATA_SCALE * weight.scale, rtol=1e-6)
        old = network.constants[network.nodes[slot.node].inputs[2]] if slot != slots[1] else np.ones(5)
        assert np.abs(values.constants[node.inputs[2]] - old).max() <= 0.5001 * bias.scale.max()


class _Reader(CalibrationDataReader):
    def __init__(self, samples: np.ndarray) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._samples, None)
        return None if sample is None else {"image": sample[None]}


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_quantised_network_stays_one(tmp_path: Path, per_channel: bool) -> None:
    """Pruned as integers, it is as near to what it was as the network in floats is when it is pruned alike."""
    samples, fresh = images(150), images(100, seed=1)
    quantize_static(
        residual_net(),
        tmp_path / "q.onnx",
        _Reader(samples[:50]),
        per_channel=per_channel,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    integers = onnx.load(tmp_path / "q.onnx")
    assert sum(node.op_type == "DequantizeLinear" for node in integers.graph.node) > 10
    options = PruneOptions(Target("macs", 0.6))
    results = {name: prune(model, samples, options) for name, model in (("q", integers), ("f", residual_net()))}
    summary = results["q"].summary
    assert summary.after.macs <= 0.6 * summary.before.macs
    assert summary.wiring_error < 1e-3
    assert [kind for kind, _ in types(results["q"].model)] == [kind for kind, _ in types(integers)]
    errors = {}
    for name, model in (("q", integers), ("f", residual_net())):
        before, after = Session(model).run({"image": fresh}), Session(results[name].model).run({"image": fresh})
        values = [np.concatenate([v.ravel() for v in outputs.values()]) for outputs in (before, after)]
        errors[name] = np.linalg.norm(values[0] - values[1]) / np.linalg.norm(values[0])
    assert errors["q"] < 1.5 * errors["f"] + 0.02
