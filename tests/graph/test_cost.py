from __future__ import annotations

import numpy as np
import pytest

from examples.net import Net, head, stem
from reap_onnx.graph.cost import count_macs, count_params, macs_cost, node_macs, params_cost
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from wiring import read


def test_convolutions_by_hand() -> None:
    net = Net()
    h = net.conv(net.input("N", 3, 8, 8), 3, 6, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2])
    h = net.conv(h, 6, 12, 3, 3, group=6)
    h = net.conv(h, 12, 5, 2, 2, kind="ConvTranspose", strides=[2, 2], bias=False)
    h = net.op("Relu", net.conv(h, 5, 4, group=1))
    network = read(net.model(h))
    by_hand = [4 * 4 * 6 * 27, 2 * 2 * 12 * 9, 2 * 2 * 12 * 5 * 4, 4 * 4 * 5 * 4, 0]
    assert [node_macs(network, node) for node in network.nodes] == by_hand
    assert count_macs(network) == sum(by_hand)
    assert count_params(network) == 6 * 27 + 6 + 12 * 9 + 12 + 12 * 5 * 4 + 5 * 4 + 4


def test_products_by_hand() -> None:
    net = Net()
    x = net.input("N", 5, 4)
    h = net.op("MatMul", x, net.noise(4, 6))
    scores = net.op("MatMul", h, net.op("Transpose", h, perm=[0, 2, 1]))
    rows = net.op("Reshape", scores, [-1, 25])
    model = net.model(net.op("Gemm", rows, net.noise(3, 25), net.noise(3), transB=1))
    network = read(model)
    assert [node_macs(network, node) for node in network.nodes] == [5 * 4 * 6, 0, 5 * 6 * 5, 0, 25 * 3]
    assert count_params(network) == 24 + 75 + 3


def test_at_batch_one() -> None:
    net = Net()
    h = net.conv(net.input(4, 3, 8, 8), 3, 6)
    assert count_macs(read(net.model(h))) == 64 * 18


def test_products_of_constants_cost_nothing() -> None:
    net = Net()
    kernel = net.op("MatMul", net.noise(4, 2), net.noise(2, 6))
    network = read(net.model(net.op("MatMul", net.input("N", 4), kernel)))
    assert count_macs(network) == 24
    assert count_params(network) == 24


def test_both_costs_are_functions_of_the_widths() -> None:
    """A block on a stream: w stream channels, m inside, the whole in numbers."""
    net = Net()
    h = stem(net, 6)
    inside = net.conv(net.op("Relu", net.conv(h, 6, 5, 3, 3, pads=[1, 1, 1, 1])), 5, 6)
    model = net.model(head(net, net.op("Add", h, inside)))
    trace = Trace(read(model))
    groups = [group for group in find_groups(trace) if not group.frozen]
    macs, params = macs_cost(trace, groups), params_cost(trace, groups)
    for w, m in ((6, 5), (1, 1), (4, 2), (3, 5)):
        assert round(macs(np.array([w, m]))) == 64 * (27 * w + 9 * w * m + w * m + 4 * w)
        assert round(params(np.array([w, m]))) == 27 * w + w + 9 * w * m + m + w * m + w + 4 * w + 4


def test_a_shared_constant_is_counted_for_each_way_it_is_cut() -> None:
    """Whole, the model has it once; cut in two ways it has it twice."""
    net = Net()
    bias = net.constant(net.noise(6), "bias")
    h = net.op("Conv", net.input("N", 3, 4, 4), net.noise(6, 3, 1, 1), bias)
    h = net.op("Conv", h, net.noise(6, 6, 1, 1), bias)
    trace = Trace(read(net.model(head(net, h))))
    groups = [group for group in find_groups(trace) if not group.frozen]
    assert count_params(trace.network) == 18 + 36 + 6 + 24 + 4
    assert params_cost(trace, groups)(np.array([6, 6])) == pytest.approx(18 + 36 + 6 + 6 + 24 + 4)
    assert params_cost(trace, groups)(np.array([2, 3])) == pytest.approx(6 + 6 + 2 + 3 + 12 + 4)


def test_no_groups_cost_what_the_model_costs() -> None:
    net = Net()
    trace = Trace(read(net.model(head(net, stem(net)))))
    assert macs_cost(trace, [])(np.zeros(0, np.int64)) == count_macs(trace.network)
    assert params_cost(trace, [])(np.zeros(0, np.int64)) == count_params(trace.network)
