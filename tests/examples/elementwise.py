"""Activations and joins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()

FLOATS = (
    "Abs Acos Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log "
    "Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh "
    "ThresholdedRelu"
).split()
JOINS = "Add Div Max Mean Min Mul PRelu Pow Sub Sum".split()
COMPARISONS = "Equal Greater GreaterOrEqual Less LessOrEqual".split()


def _positive(net: Net, h: str) -> str:
    """Values between 0.1 and 0.9."""
    return net.op("Add", net.op("Mul", net.op("Sigmoid", h), 0.8), 0.1)


def _truth(net: Net, h: str) -> str:
    return net.op("Greater", h, 0.0)


def _integers(net: Net, h: str, kind: int = TensorProto.INT32) -> str:
    return net.op("Cast", net.op("Mul", _positive(net, h), 9.0), to=kind)


def _floats(net: Net, h: str) -> str:
    return net.op("Cast", h, to=TensorProto.FLOAT)


def _activation(kind: str) -> Callable[[Net], str]:
    narrow = kind in ("Acos", "Asin", "Atanh", "Log", "Sqrt")
    return lambda net: head(net, net.op(kind, _positive(net, stem(net)) if narrow else stem(net)))


def _join(kind: str) -> Callable[[Net], str]:
    def build(net: Net) -> str:
        a, b = _positive(net, stem(net)), _positive(net, stem(net, name="other"))
        return head(net, net.op(kind, a, b))

    return build


def _comparison(kind: str) -> Callable[[Net], str]:
    def build(net: Net) -> str:
        a, b = stem(net), stem(net, name="other")
        return head(net, _floats(net, net.op(kind, net.op("Floor", a), net.op("Floor", b))))

    return build


for _kind in FLOATS:
    EXAMPLES.add(6, opset=24 if _kind == "Swish" else 20, ir=10, name=_kind)(_activation(_kind))
for _kind in JOINS:
    EXAMPLES.add(6, name=_kind)(_join(_kind))
for _kind in COMPARISONS:
    EXAMPLES.add(6, name=_kind)(_comparison(_kind))


@EXAMPLES.add(6)
def acosh(net: Net) -> str:
    return head(net, net.op("Acosh", net.op("Add", _positive(net, stem(net)), 1.0)))


@EXAMPLES.add(6, opset=[7, 10, 11, 17])
def clip(net: Net) -> str:
    bounds = {"min": -0.5, "max": 0.5} if net.opset < 11 else {}
    return head(net, net.op("Clip", stem(net), *(() if bounds else (-0.5, 0.5)), **bounds))


@EXAMPLES.add(6)
def clip_at_one_end(net: Net) -> str:
    return head(net, net.op("Clip", stem(net), None, 0.5))


@EXAMPLES.add(6)
def questions(net: Net) -> str:
    """IsInf and IsNaN say no to everything, Not turns that round."""
    h = stem(net)
    no = net.op("Or", net.op("IsInf", h), net.op("IsNaN", h))
    return head(net, net.op("Mul", h, _floats(net, net.op("Not", no))))


@EXAMPLES.add(6)
def truths(net: Net) -> str:
    a, b = _truth(net, stem(net)), _truth(net, stem(net, name="other"))
    return head(net, _floats(net, net.op("Xor", net.op("And", a, b), net.op("Or", a, b))))


@EXAMPLES.add(6)
def choice(net: Net) -> str:
    a, b = stem(net), stem(net, name="other")
    return head(net, net.op("Where", net.op("Greater", a, b), a, net.noise(6, 1, 1)))


@EXAMPLES.add(6, opset=18)
def bits(net: Net) -> str:
    a, b = _integers(net, stem(net)), _integers(net, stem(net, name="other"))
    h = net.op("BitwiseXor", net.op("BitwiseAnd", a, b), net.op("BitwiseNot", net.op("BitwiseOr", a, b)))
    return head(net, _floats(net, net.op("Mod", h, np.int32(5))))


@EXAMPLES.add(6)
def bit_shift(net: Net) -> str:
    a = _integers(net, stem(net), TensorProto.UINT32)
    return head(net, _floats(net, net.op("BitShift", a, np.full((6, 1, 1), 2, np.uint32), direction="LEFT")))


@EXAMPLES.add(6, opset=[7, 10, 12, 13])
def dropout(net: Net) -> str:
    """The mask is used too."""
    if net.opset < 12:
        return head(net, net.op("Dropout", stem(net), ratio=0.3))
    h, mask = net.ops("Dropout", stem(net), 0.3, np.array(False), outputs=2)
    return head(net, net.op("Where", mask, h, net.noise(6, 1, 1)))


@EXAMPLES.add(frozen=["it drops at random"])
def dropout_in_training(net: Net) -> str:
    return head(net, net.op("Dropout", stem(net), 0.0, np.array(True)))


@EXAMPLES.add(6, opset=[7, 9, 16])
def slope_shapes(net: Net) -> str:
    h = net.op("PRelu", stem(net), net.noise(6, 1, 1))
    h = net.op("PRelu", h, net.noise(1, 1, 1))
    h = net.op("PRelu", h, net.noise(1, 8, 8))
    h = net.op("PRelu", h, net.noise(6, 8, 8))
    return head(net, net.op("PRelu", h, net.noise(1)))


@EXAMPLES.add(6)
def slope_computed(net: Net) -> str:
    h = stem(net)
    return head(net, net.op("PRelu", h, net.op("Sigmoid", net.op("GlobalAveragePool", h))))


@EXAMPLES.add(7)
def vectors(net: Net) -> str:
    """Constants of every rank on channels of the last axis."""
    h = net.linear(net.input("N", 4), 4, 7)
    h = net.op("Mul", net.op("Add", h, net.noise(7)), net.noise(1, 7))
    h = net.op("Div", net.op("Sub", 2.0, h), [2.0])
    return net.linear(net.op("Max", h, net.noise(1), 0.25, net.noise(7)), 7, 2)


@EXAMPLES.add(6)
def constant_adds_axes(net: Net) -> str:
    """N x C meets K x 1 x C."""
    h = net.op("Add", net.linear(net.input("N", 4), 4, 6), net.noise(3, 1, 6))
    return net.op("MatMul", h, net.noise(6, 2))


@EXAMPLES.add(frozen=["which carries no channels"])
def with_plain_data(net: Net) -> str:
    h = stem(net, 3)
    return head(net, net.op("Add", h, "x"), 3)


@EXAMPLES.add(6)
def with_plain_map(net: Net) -> str:
    """A map of one channel broadcasts over all."""
    h = stem(net)
    return head(net, net.op("Mul", h, net.op("Slice", "x", [0], [1], [1])))


@EXAMPLES.add(4, frozen=["values that carry no channels"])
def with_half_plain_data(net: Net) -> str:
    a = net.op("Concat", stem(net, 4), "x", axis=1)
    b = net.op("Concat", stem(net, 4, name="other"), stem(net, 3, name="last"), axis=1)
    return head(net, net.op("Add", a, b), 7)


@EXAMPLES.add(6)
def gate(net: Net) -> str:
    """Squeeze and excitation."""
    h = stem(net)
    s = net.op("Relu", net.conv(net.op("GlobalAveragePool", h), 6, 1))
    return head(net, net.op("Mul", h, net.op("Sigmoid", net.conv(s, 1, 6))))


@EXAMPLES.add(frozen=["output MatMul_5_out of the model"])
def rows_meet_columns(net: Net) -> str:
    """Channels on two axes that broadcast together are all one; half of them pass beside the product, to the output."""
    a, b = net.linear(net.input("N", 4), 4, 6), net.linear("x", 4, 5)
    h = net.op("Add", net.op("Unsqueeze", a, [2]), net.op("Unsqueeze", b, [1]))
    return net.op("MatMul", h, net.noise(5, 3))
