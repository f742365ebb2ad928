from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from examples.net import Net, head, stem
from examples.networks import EXAMPLES
from reap_onnx.errors import CheckError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.runtime.verify import (
    TOLERANCE,
    check_file,
    check_wiring,
    difference,
    masked_weights,
    passes_in_full,
    wiring_error,
)
from wiring import cut, pruned, random_feeds, read

BY_NAME = {example.name: example for example in EXAMPLES}


def trace_of(name: str) -> Trace:
    return Trace(read(BY_NAME[name].model()))


def test_masks_by_hand() -> None:
    """Readers lose what they read of the removed channels, and nothing else."""
    trace = trace_of("residual")
    stream, inside = (group.units for group in find_groups(trace)[:2])
    masks = masked_weights(trace, np.array([stream[1], inside[0]]))
    readers = {"Conv_1": [1], "Conv_3": [0], "head": [1]}
    assert {trace.network.nodes[slot.node].name for slot in masks} == set(readers)
    for slot, weight in masks.items():
        node = trace.network.nodes[slot.node]
        expected = trace.network.constants[node.inputs[1]].copy()
        expected[:, readers[node.name]] = 0
        assert np.array_equal(weight, expected)


def test_nothing_removed_nothing_masked() -> None:
    trace = trace_of("residual")
    assert masked_weights(trace, np.zeros(0, np.int64)) == {}
    assert wiring_error(trace, np.zeros(0, np.int64), random_feeds(trace.network.proto)) == 0


@pytest.mark.parametrize("example", ["residual", "inverted_residual", "shuffle_unit"])
def test_a_wrong_wire_is_found(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check with a surgeon who keeps the wrong channels in one constant."""
    trace = trace_of(example)
    groups = [group for group in find_groups(trace) if not group.frozen]
    removed = cut(groups, [len(group.units) // 2 for group in groups])
    feeds = random_feeds(trace.network.proto, batch=4)
    assert wiring_error(trace, removed, feeds) < TOLERANCE
    head_slot = trace.layers[-1].weight
    cuts = trace.cuts[head_slot]
    monkeypatch.setitem(trace.cuts, head_slot, cuts | {1: cuts[1][::-1]})
    assert wiring_error(trace, removed, feeds) > 10 * TOLERANCE


def test_a_graph_that_does_not_run_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of("residual")
    monkeypatch.delitem(trace.cuts, trace.layers[-1].weight)
    with pytest.raises(CheckError, match="not sound"):
        wiring_error(trace, find_groups(trace)[0].units[:2], random_feeds(trace.network.proto))


def through_bytes(net: Net, h: str) -> str:
    grid = [net.constant(np.float32(0.05)), net.constant(np.array(128, np.uint8))]
    return net.op("DequantizeLinear", net.op("QuantizeLinear", h, *grid), *grid)


def test_what_onnxruntime_makes_of_quantised_activations_does_not_count() -> None:
    """It rounds floating-point weights between them itself, by a scale that depends on which of them are left."""
    net = Net()
    h = through_bytes(net, net.input("N", 3, 8, 8))
    for before, after in ((3, 32), (32, 40)):
        h = through_bytes(net, net.op("Relu", net.conv(h, before, after, 3, 3, pads=[1, 1, 1, 1])))
    trace = Trace(read(net.model(net.conv(h, 40, 8))))
    removed = np.concatenate([group.units[::3] for group in find_groups(trace) if not group.frozen])
    assert wiring_error(trace, removed, random_feeds(trace.network.proto, batch=8)) < 1e-5


def test_tolerance() -> None:
    check_wiring(TOLERANCE)
    for error in (2 * TOLERANCE, np.inf, np.nan):
        with pytest.raises(CheckError, match="wiring check"):
            check_wiring(error)


@pytest.mark.parametrize(
    ("expected", "actual", "error"),
    [
        (np.array([1.0, -4.0]), np.array([1.0, -3.0]), 0.25),
        (np.array([0.0, 0.0]), np.array([0.0, 0.5]), 0.5),
        (np.array([np.inf, np.nan, 2.0]), np.array([np.inf, np.nan, 1.0]), 0.5),
        (np.array([np.inf, 1.0]), np.array([-np.inf, 1.0]), np.inf),
        (np.array([np.nan, 1.0]), np.array([1.0, 1.0]), np.inf),
        (np.array([1.0, 1.0]), np.array([np.nan, 1.0]), np.inf),
        (np.array([1, 2]), np.array([1, 2]), 0.0),
        (np.array([1, 2]), np.array([1, 3]), 0.5),
        (
            np.arange(5000, dtype=np.uint8),
            np.arange(5000, dtype=np.uint8) + (np.arange(5000) == 7).astype(np.uint8),
            2e-4,
        ),
        (np.array(["a"]), np.array(["b"]), 1.0),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0.0),
        (np.array([1e30], np.float32), np.array([1.5e30], np.float32), 0.5),
        ([np.array([1.0]), np.array([2.0])], [np.array([1.0]), np.array([1.0])], 0.5),
        ([{1: 0.5}], [{1: 0.25}], 0.5),
    ],
)
def test_difference_by_hand(expected: object, actual: object, error: float) -> None:
    assert difference({"y": expected}, {"y": actual}) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("actual", [np.zeros(3, np.float32), np.zeros(2), [np.zeros(2, np.float32)] * 2])
def test_another_shape_or_type_is_a_failed_check(actual: object) -> None:
    with pytest.raises(CheckError, match=r"output y: float32 \(2,\) became"):
        difference({"y": np.zeros(2, np.float32)}, {"y": actual})


def test_a_written_file(tmp_path: Path) -> None:
    trace = trace_of("residual")
    feeds = random_feeds(trace.network.proto)
    path = tmp_path / "pruned.onnx"
    onnx.save(pruned(trace, find_groups(trace)[0].units[:2]), path)
    check_file(path, feeds, full=True)
    onnx.save(Surgeon(trace, [], {Slot(0, 1): np.ones((6, 3, 5, 5), np.float32)}).operate(), path)
    with pytest.raises(CheckError, match="the written model is not valid"):
        check_file(path, feeds, full=True)
    path.write_bytes(b"")
    with pytest.raises(CheckError, match="the written model is not valid"):
        check_file(path, feeds, full=False)


def test_whether_a_model_passes_in_full() -> None:
    net = Net()
    model = net.model(head(net, stem(net)))
    assert passes_in_full(model)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    assert not passes_in_full(model)
