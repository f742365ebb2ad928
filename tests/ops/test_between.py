"""Operators between layers: values and derivatives against onnxruntime, the transpose against the derivative."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reap_onnx.model.network import Network
from reap_onnx.numerics.linearize import Operator
from reap_onnx.ops.between import RULES, Between, operator
from reap_onnx.runtime.session import Session, probe

N, C, SIDE = 2, 4, 6
RNG = np.random.default_rng(0)
VECTOR = RNG.uniform(0.5, 1.5, C).astype(np.float32)
MAP = VECTOR.reshape(C, 1, 1)
KERNEL = RNG.standard_normal((C, 1, 3, 3)).astype(np.float32)

CASES: list[tuple[str, list[np.ndarray], dict[str, object]]] = [
    ("Identity", [], {}),
    ("Dropout", [], {}),
    ("Relu", [], {}),
    ("Clip", [np.float32(-0.3), np.float32(0.4)], {}),
    ("LeakyRelu", [], {"alpha": 0.2}),
    ("PRelu", [MAP], {}),
    ("Sigmoid", [], {}),
    ("Tanh", [], {}),
    ("HardSigmoid", [], {"alpha": 0.3}),
    ("HardSwish", [], {}),
    ("Gelu", [], {}),
    ("BatchNormalization", [VECTOR, -VECTOR, 0.3 * VECTOR, VECTOR], {"epsilon": 0.01}),
    ("Add", [MAP], {}),
    ("Sub", [MAP], {}),
    ("Mul", [MAP], {}),
    ("Div", [MAP], {}),
    ("Conv", [KERNEL], {"group": C, "pads": [1, 1, 1, 1], "strides": [2, 1]}),
    ("Conv", [KERNEL, VECTOR], {"group": C, "auto_pad": "SAME_UPPER"}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalMaxPool", [], {}),
    ("GlobalAveragePool", [], {}),
    ("Flatten", [], {}),
    ("Squeeze", [np.array([2, 3])], {}),
    ("Reshape", [np.array([0, -1])], {}),
]


def build(op: str, constants: list[np.ndarray], attributes: dict[str, object]) -> Between:
    side = 1 if op in ("Flatten", "Squeeze", "Reshape") else SIDE
    names = [f"c{i}" for i in range(len(constants))]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, constants, strict=True)]
    shape = ["N", C, side, side]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], **attributes)],
        op,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name="y")],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    network = Network(model, probe(model, {"x": np.zeros((N, C, side, side), np.float32)}))
    [node] = network.nodes
    return Between(network, node, {i: network.constants[n] for i, n in enumerate(node.inputs) if n != "x"})


def last(tensor: np.ndarray) -> np.ndarray:
    return np.moveaxis(tensor, 1, -1)


@pytest.mark.parametrize(("op", "constants", "attributes"), CASES)
def test_values_and_derivatives(op: str, constants: list[np.ndarray], attributes: dict[str, object]) -> None:
    it = build(op, constants, attributes)
    found = operator(it)
    assert found is not None
    session = Session(it.network.proto)
    rng = np.random.default_rng(2)
    x, change = (rng.standard_normal((N, *it.before[1:])).astype(np.float32) for _ in range(2))
    run = lambda tensor: last(session.run({"x": tensor})["y"])  # noqa: E731
    at = found(last(x))
    np.testing.assert_allclose(at.value, run(x), rtol=1e-4, atol=1e-5)
    small = np.float32(1e-3)
    slope = (run(x + small * change).astype(float) - run(x - small * change)) / (2 * small)
    off = np.abs(at.forward(last(change)) - slope)
    assert np.mean(off > 2e-2) < 0.05  # a kink may lie on the way
    adjoint(found, last(x), last(change))


def adjoint(found: Operator, x: np.ndarray, change: np.ndarray) -> None:
    at = found(x)
    gradient = np.random.default_rng(3).standard_normal(at.value.shape).astype(np.float32)
    assert np.vdot(at.forward(change), gradient) == pytest.approx(
        np.vdot(change, at.backward(gradient)), rel=1e-3, abs=1e-3
    )


def test_every_rule_is_tested() -> None:
    assert {op for op, _, _ in CASES} == set(RULES)


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Conv", [RNG.standard_normal((C, C, 1, 1)).astype(np.float32)], {}),
        ("Conv", [RNG.standard_normal((2 * C, 1, 1, 1)).astype(np.float32)], {"group": C}),
        ("Add", [RNG.standard_normal((1, SIDE)).astype(np.float32)], {}),
        ("Div", [np.zeros((C, 1, 1), np.float32)], {}),
        ("Gelu", [], {"approximate": "tanh"}),
        ("MaxPool", [], {"kernel_shape": [4, 4], "strides": [4, 4], "ceil_mode": 1}),
        ("MaxPool", [], {"kernel_shape": [7, 7], "strides": [2, 2], "ceil_mode": 1}),
        ("Softmax", [], {}),
    ],
)
def test_what_has_no_derivative(op: str, constants: list[np.ndarray], attributes: dict[str, object]) -> None:
    assert operator(build(op, constants, attributes)) is None
