from __future__ import annotations

import numpy as np
import pytest

from examples import arrivals, shapes
from examples.net import Example, Net, head, stem
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from wiring import read

BY_NAME = {example.name: example for example in (*arrivals.EXAMPLES, *shapes.EXAMPLES)}


def test_labels_by_hand() -> None:
    """An image through a convolution, a pool and a flattening: 4 channels, 2 x 2 places each."""
    net = Net()
    h = stem(net, 4)
    pooled = net.op("MaxPool", h, kernel_shape=[4, 4], strides=[4, 4])
    flat = net.op("Flatten", pooled)
    trace = Trace(read(net.model(net.linear(flat, 16, 3))))
    assert trace.labelled("x") is None
    vector = trace.vector(h, 1)
    assert vector is not None
    assert vector.tolist() == [1, 2, 3, 4]
    labels = trace.labelled(flat)
    assert labels is not None
    assert labels.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]]
    assert trace.vector(h, 2) is None
    assert trace.along(h, 2).tolist() == [0] * 8
    assert trace.vector("x", 1) is not None
    assert {axis: labels.tolist() for axis, labels in trace.cuts[Slot(3, 1)].items()} == {
        0: labels.reshape(-1).tolist(),
        1: [5, 6, 7],
    }


def test_patterns_freeze_makers_by_name_or_output() -> None:
    net = Net()
    h = net.conv(stem(net), 6, 5, name="block.conv1")
    model = net.model(head(net, net.conv(h, 5, 7), 7))
    trace = Trace(read(model), ["block.*", "Conv_?_out", "Relu*"])
    assert trace.matched == {"block.*": 1, "Conv_?_out": 1, "Relu*": 0}
    reasons = {group.name: group.frozen for group in find_groups(trace)}
    assert reasons["stem"] == ""
    assert reasons["block.conv1"] == "--freeze block.*"
    assert reasons["Conv_2"] == "--freeze Conv_?_out"


def test_labels_are_confined_to_axes() -> None:
    """Ties make a box of what is cut; lines that hold plain values too are none."""
    net = Net()
    trace = Trace(read(net.model(head(net, stem(net)))))
    labels = trace.channels.fresh(6).reshape(2, 3)
    trace.put("boxed", labels)
    whole = trace.confined("boxed", (0, 1))
    assert whole is not None
    assert whole.shape == (2, 3)
    boxed = trace.confined("boxed", (1,))
    assert boxed is not None
    assert boxed.shape == (1, 3)
    assert trace.confined("boxed", (0,)) is None
    mixed = trace.channels.fresh(6).reshape(3, 2)
    mixed[1, 0] = 0
    trace.put("mixed", mixed)
    kept = trace.confined("mixed", (0,))
    assert kept is not None
    assert kept.shape == (3, 1)
    assert (kept[:, 0] > 0).tolist() == [True, False, True]
    assert "mixes them" in trace.channels.reason(int(mixed[1, 1]))
    assert trace.channels.reason(int(mixed[0, 0])) == ""


def test_ties_go_along_the_axis_that_is_asked_for() -> None:
    net = Net()
    trace = Trace(read(net.model(head(net, stem(net)))))
    labels = trace.channels.fresh(6).reshape(2, 3)
    trace.put("rows", labels, axis=0)
    rows = trace.labelled("rows")
    assert rows is not None
    assert rows.shape == (2, 1)


def test_a_node_of_constants_is_no_node() -> None:
    """Weights are computed from weights: no rule is asked, nothing is frozen."""
    net = Net()
    kernel = net.op("Einsum", net.noise(6, 3), net.noise(3, 3), equation="ij,jk->ik")
    kernel = net.op("Unsqueeze", kernel, [2, 3])
    h = net.op("Conv", net.input("N", 3, 4, 4), kernel)
    trace = Trace(read(net.model(head(net, h))))
    assert [group.frozen for group in find_groups(trace)][:1] == [""]


def test_every_reason_names_what_holds_the_channels() -> None:
    net = Net()
    h = stem(net)
    net.op("NonZero", h, name="asks")
    model = net.model("asks_out", head(net, h))
    [first, last] = find_groups(Trace(read(model)))
    assert first.frozen == "NonZero asks: no rule"
    assert last.frozen == "output head_out of the model"


def test_the_network_is_read_once_and_left_alone() -> None:
    net = Net()
    network = read(net.model(head(net, stem(net))))
    before = {name: value.copy() for name, value in network.constants.items()}
    Trace(network)
    assert all(np.array_equal(network.constants[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (BY_NAME["layer_in_a_body"], ["If: no rule for bodies, 2 layers in them stay as they are (either)"]),
        (BY_NAME["recurrent"], ["LSTM: no rule, its weights stay as they are (memory)"]),
        (BY_NAME["non_zero"], []),
        (BY_NAME["body_beside"], []),
    ],
)
def test_what_holds_weights_without_a_rule_is_named(example: Example, said: list[str]) -> None:
    assert Trace(read(example.model())).left_alone() == said


def test_a_depthwise_weight_read_with_other_groups_is_left_alone() -> None:
    net = Net()
    weight = net.constant(net.noise(4, 1, 1, 1))
    x = net.input("N", 3, 8, 8)
    wide, narrow = net.conv(x, 3, 4), net.conv(x, 3, 2)
    ends = net.op("Conv", wide, weight, group=4), net.op("Conv", narrow, weight, group=2)
    trace = Trace(read(net.model(*(net.conv(end, 4, 3) for end in ends))))
    assert all(group.frozen for group in find_groups(trace) if "Conv_0" in group.name or "Conv_1" in group.name)
