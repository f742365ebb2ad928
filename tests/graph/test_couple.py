"""Which layers can be refitted together."""

from __future__ import annotations

import onnx
import pytest

from examples.net import Net, head, stem
from nets import residual_net
from reap_onnx.graph.couple import Couple, find_couple
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from wiring import read


def couples(model: onnx.ModelProto) -> dict[str, Couple]:
    trace = Trace(read(model))
    found = {group.name: find_couple(trace, group) for group in find_groups(trace)}
    return {name: couple for name, couple in found.items() if couple is not None}


def chain(*between: tuple[str, dict[str, object]], conv: dict[str, object] | None = None) -> onnx.ModelProto:
    """stem -> operators -> layer -> Relu -> head."""
    net = Net()
    h = stem(net)
    for op, attributes in between:
        h = net.op(op, h, **attributes)
    h = net.conv(h, 6, 6, name="layer", **(conv or {}))
    return net.model(head(net, net.op("Relu", h), 6))


def test_the_inner_channels_of_a_block() -> None:
    """Streams have several makers or readers; the channels inside a block have one of each."""
    found = couples(residual_net())
    assert set(found) == {"block1/conv1", "block2/conv1"}
    couple = found["block1/conv1"]
    assert couple.reader.node.name == "block1/conv2"
    assert [node.op for node in couple.between] == ["Relu"]  # the batch norm belongs to the maker
    assert couple.made.branch == "block1/bn_out"


@pytest.mark.parametrize(
    ("between", "ops"),
    [
        ([], []),
        ([("Relu", {})], ["Relu"]),
        ([("HardSwish", {}), ("MaxPool", {"kernel_shape": [2, 2]})], ["HardSwish", "MaxPool"]),
    ],
)
def test_what_may_lie_between(between: list[tuple[str, dict[str, object]]], ops: list[str]) -> None:
    assert [node.op for node in couples(chain(*between))["stem"].between] == ops


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(chain(("Softsign", {})), id="an operator without derivative"),
        pytest.param(chain(("Relu", {}), conv={"group": 2}), id="a reader with groups"),
    ],
)
def test_what_may_not(model: onnx.ModelProto) -> None:
    assert "stem" not in couples(model)


def test_nothing_else_reads_on_the_way() -> None:
    net = Net()
    h = net.op("Relu", stem(net))
    one, two = net.conv(h, 6, 4, name="one"), net.conv(net.op("GlobalAveragePool", h), 6, 4, name="two")
    model = net.model(head(net, net.op("Relu", net.op("Add", one, two)), 4))
    assert "stem" not in couples(model)


def test_a_depthwise_convolution_on_the_way() -> None:
    net = Net()
    h = net.op("Relu", stem(net))
    weight = net.noise(6, 1, 3, 3)
    h = net.op("Conv", h, weight, group=6, name="depthwise", pads=[1, 1, 1, 1])
    h = net.conv(net.op("Relu", h), 6, 5, name="layer")
    found = couples(net.model(head(net, net.op("Relu", h), 5)))
    assert [node.op for node in found["stem"].between] == ["Relu", "Conv", "Relu"]
    assert len(found["stem"].maker.features) == 6


@pytest.mark.parametrize(("op", "found"), [("Relu", True), ("Mul", False)])
def test_channels_on_the_last_axis(op: str, found: bool) -> None:
    """Behind a product of matrices the second axis holds places: what tells channels from places is not known."""
    net = Net()
    h = net.op("Add", net.op("MatMul", net.input("N", 7, 4), net.noise(4, 6)), net.noise(6))
    h = net.op(op, h, *([net.noise(7, 1)] if op == "Mul" else []))
    h = net.op("Relu", net.op("Add", net.op("MatMul", h, net.noise(6, 5)), net.noise(5)))
    assert (
        any(c.maker.node.index == 0 for c in couples(net.model(net.op("MatMul", h, net.noise(5, 3)))).values()) == found
    )


def test_channels_that_change_their_axis() -> None:
    net = Net()
    h = net.op("Einsum", net.input("N", 6, 7), net.noise(6, 5), equation="bct,cd->btd")
    h = net.op("Relu", net.op("Add", h, net.noise(5)))
    h = net.op("Add", net.op("MatMul", h, net.noise(5, 4)), net.noise(4))
    found = couples(net.model(net.op("MatMul", net.op("Relu", h), net.noise(4, 3))))
    assert [couple.maker.node.op for couple in found.values()] == ["MatMul"]
