from __future__ import annotations

import numpy as np
import onnx
import pytest

from examples.net import Net
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.model.operator import Operator, find_operator
from reap_onnx.runtime.session import Session
from wiring import read


def kinds() -> onnx.ModelProto:
    """Every kind of layer with a weight, grouped and depthwise ones among them."""
    net = Net()
    h = net.op("Relu", net.conv(net.input("N", 3, 8, 8), 3, 16, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2]))
    h = net.op("Relu", net.conv(h, 16, 16, 3, 3, pads=[1, 1, 1, 1], group=16))
    h = net.op("Relu", net.conv(h, 16, 16, 1, 1, group=2))
    h = net.op("Relu", net.conv(h, 16, 12, 2, 2, kind="ConvTranspose", strides=[2, 2], bias=False))
    h = net.op("Flatten", net.op("GlobalAveragePool", net.conv(h, 12, 10, 1, 1)))
    h = net.op("Relu", net.op("Gemm", h, net.noise(14, 10), net.noise(14), transB=1))
    return net.model(net.op("MatMul", h, net.noise(14, 5)))


def layers(model: onnx.ModelProto, batch: int = 1) -> tuple[Trace, dict[str, Operator]]:
    trace = Trace(read(model))
    found = {layer.node.outputs[0]: find_operator(trace.network, layer.node, batch) for layer in trace.layers}
    assert all(found.values())
    return trace, {name: operator for name, operator in found.items() if operator is not None}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_layer_alone_makes_what_it_makes_in_its_network(batch: int) -> None:
    trace, operators = layers(kinds(), batch)
    assert len(operators) == 7
    for name, operator in operators.items():
        made = Session(operator.model()).run(operator.feeds())["y"]
        assert made.shape == (batch, *trace.shape(name)[1:])
        assert made.dtype == np.float32


def test_a_resized_layer_is_that_of_the_pruned_network() -> None:
    model = kinds()
    trace, operators = layers(model)
    gone = [group.units[: len(group.units) // 2] for group in find_groups(trace) if not group.frozen]
    _, pruned = layers(Surgeon(trace, np.concatenate(gone), {}).operate())
    changed = {name for name, operator in pruned.items() if operator.weight != operators[name].weight}
    assert len(changed) >= 6
    for name, operator in pruned.items():
        assert operators[name].resized(operator.weight) == operator
        assert operators[name].resized(operator.weight).key == operator.key


def test_keys_tell_operators_apart() -> None:
    _, operators = layers(kinds())
    assert len({operator.key for operator in operators.values()}) == len(operators)
    first = next(iter(operators.values()))
    assert first.resized((8, 3, 3, 3)).key != first.key


def test_what_cannot_stand_alone() -> None:
    net = Net()
    x = net.input("N", 6, 4)
    model = net.model(net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1])))
    network = read(model)
    assert [find_operator(network, node, 1) for node in network.nodes] == [None, None]
