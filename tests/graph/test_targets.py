from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from examples.net import Net, head, stem
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.targets import Target, clipped_to, find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.runtime.session import probe
from wiring import random_feeds, read

Build = Callable[[Net, str], str]


def target_of(build: Build, *, bias: bool = True) -> tuple[Trace, Layer, Target]:
    """Target of the second convolution of a network, what follows it given."""
    net = Net()
    made = net.conv(stem(net, 5), 5, 6, bias=bias, name="layer")
    trace = Trace(read(net.model(head(net, build(net, made)))))
    layer = next(layer for layer in trace.layers if layer.node.name == "layer")
    return trace, layer, find_target(trace, layer)


def _norm(net: Net, h: str) -> str:
    values = [1 + net.noise(6), net.noise(6), net.noise(6), net.noise(6) ** 2 + 0.5]
    return net.op("BatchNormalization", h, *values, epsilon=1e-2)


AFFINE: dict[str, Build] = {
    "nothing": lambda net, h: net.op("Relu", h),
    "norm": lambda net, h: net.op("Relu", _norm(net, h)),
    "scale": lambda net, h: net.op("Tanh", net.op("Mul", net.noise(6, 1, 1), h)),
    "quotient": lambda net, h: net.op("Tanh", net.op("Div", h, net.noise(1, 6, 1, 1))),
    "shift": lambda net, h: net.op("Tanh", net.op("Sub", net.op("Add", net.noise(6, 1, 1), h), 0.5)),
    "difference": lambda net, h: net.op("Tanh", net.op("Sub", h, net.noise(6, 1, 1))),
    "chain": lambda net, h: net.op("Mul", _norm(net, net.op("Add", _norm(net, net.op("Identity", h)), 2.0)), -1.5),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", AFFINE)
def test_scale_and_shift_make_the_branch(name: str, bias: bool) -> None:
    """branch = scale * (rows @ weight) + shift, with what onnxruntime computes at both ends."""
    trace, layer, target = target_of(AFFINE[name], bias=bias)
    values = probe(trace.network.proto, random_feeds(trace.network.proto, batch=2))
    own = trace.network.constants[layer.node.inputs[2]] if bias else np.zeros(6)
    plain = values[layer.output] - own.reshape(6, 1, 1)
    expected = target.scale.reshape(6, 1, 1) * plain + target.shift.reshape(6, 1, 1)
    assert np.allclose(values[target.branch], expected, atol=1e-5)
    assert target.total == ""


@pytest.mark.parametrize(
    ("name", "bias", "slot"),
    [
        ("nothing", True, Slot(1, 2)),
        ("nothing", False, Slot(1, 2)),
        ("norm", True, Slot(1, 2)),
        ("norm", False, Slot(2, 2)),
        ("shift", False, Slot(2, 0)),
        ("difference", False, Slot(2, 1)),
        ("scale", False, Slot(1, 2)),
    ],
)
def test_where_the_intercept_goes(name: str, bias: bool, slot: Slot) -> None:
    """The layer's own bias, else a constant behind it, else a bias that is added."""
    _, _, target = target_of(AFFINE[name], bias=bias)
    assert target.intercept is not None
    assert target.intercept.slot == slot
    assert target.intercept.value.dtype == np.float32
    if name == "difference":
        assert (target.intercept.scale == -1).all()


STOPS: dict[str, Build] = {
    "read twice": lambda net, h: net.op("Mul", net.op("Add", h, 1.0), h),
    "varies in space": lambda net, h: net.op("Add", h, net.noise(6, 8, 8)),
    "grows": lambda net, h: net.op("ReduceSum", net.op("Add", h, net.noise(2, 1, 1, 1)), [0]),
    "divides by zero": lambda net, h: net.op(
        "Atan", net.op("Div", h, np.array([1, 0, 1, 1, 1, 1], np.float32).reshape(6, 1, 1))
    ),
    "turned round": lambda net, h: net.op("Sub", 1.0, h),
    "activation": lambda net, h: net.op("Relu", h),
}


@pytest.mark.parametrize("name", STOPS)
def test_where_the_branch_stops(name: str) -> None:
    _, layer, target = target_of(STOPS[name])
    assert target.branch == layer.output
    assert (target.scale == 1).all()


def test_an_output_of_the_model_is_where_it_stops() -> None:
    net = Net()
    h = net.conv(stem(net, 5), 5, 6, name="layer")
    model = net.model(h, head(net, net.op("Add", h, 1.0)))
    trace = Trace(read(model))
    assert find_target(trace, trace.layers[1]).branch == h


def test_a_hidden_feature_has_no_intercept() -> None:
    """What is multiplied with zero later cannot be repaired in front of it, but behind it."""
    factor = np.array([1, 0, 1, 1, 1, 1], np.float32).reshape(6, 1, 1)
    _, _, target = target_of(lambda net, h: net.op("Relu", net.op("Mul", h, factor)))
    assert target.intercept is None
    _, _, target = target_of(lambda net, h: net.op("Relu", net.op("Add", net.op("Mul", h, factor), net.noise(6, 1, 1))))
    assert target.intercept is not None
    assert target.intercept.slot == Slot(3, 1)


def test_a_new_bias_is_scaled_like_the_old_would_be() -> None:
    net = Net()
    h = net.op("Gemm", net.linear(net.input("N", 4), 4, 5), net.noise(5, 6), beta=0.25, name="layer")
    trace = Trace(read(net.model(net.linear(net.op("Mul", h, 2.0), 6, 3))))
    target = find_target(trace, trace.layers[1])
    assert target.intercept is not None
    assert target.intercept.slot == Slot(1, 2)
    assert target.intercept.scale.tolist() == [0.5] * 6


def test_the_sum_where_the_branch_ends() -> None:
    net = Net()
    h = stem(net, 6)
    branch = _norm(net, net.conv(net.op("Relu", net.conv(h, 6, 5)), 5, 6, name="layer"))
    total = net.op("Add", h, branch)
    trace = Trace(read(net.model(head(net, total))))
    target = find_target(trace, trace.layers[2])
    assert (target.branch, target.total, target.other) == (branch, total, h)


def test_a_gate_is_no_sum() -> None:
    """An operand that broadcasts, or is itself, or a constant, is no residual stream."""
    for build in (
        lambda net, h: net.op("Mul", h, h),
        lambda net, h: net.op("Add", h, net.conv("x", 3, 6, 8, 8)),
        lambda net, h: net.op("Add", h, h),
        lambda net, h: net.op("Add", h, net.noise(6, 8, 8)),
    ):
        assert target_of(build)[2].total == ""


def test_products_have_their_features_last() -> None:
    net = Net()
    h = net.op("MatMul", net.op("MatMul", net.input("N", 6, 4), net.noise(4, 5)), net.noise(5, 6), name="layer")
    shifted = net.op("Add", h, net.noise(6))
    model = net.model(net.op("MatMul", net.op("Tanh", net.op("Mul", shifted, net.noise(6, 1))), net.noise(6, 2)))
    trace = Trace(read(model))
    target = find_target(trace, trace.layers[1])
    assert target.branch == shifted, "the factor behind it varies from row to row"
    assert target.intercept is not None
    assert target.intercept.slot == Slot(2, 1)


@pytest.mark.parametrize(
    ("build", "bounds"),
    [
        (lambda net, h: net.op("Relu", h), (0.0, np.inf)),
        (lambda net, h: net.op("Clip", h, 0.0, 6.0), (0.0, 6.0)),
        (lambda net, h: net.op("Clip", h, None, 1.0), (-np.inf, 1.0)),
        (lambda net, h: net.op("Tanh", h), None),
        (lambda net, h: net.op("Add", net.op("Relu", h), net.op("Relu", h)), (0.0, np.inf)),
        (lambda net, h: net.op("Add", net.op("Relu", h), h), None),
    ],
)
def test_bounds_of_what_reads_it(build: Build, bounds: tuple[float, float] | None) -> None:
    trace, layer, _ = target_of(build)
    assert clipped_to(trace.network, layer.output) == bounds
