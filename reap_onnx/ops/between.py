"""Derivatives of the operators that may lie between two layers which are refitted together.

An operator without one costs accuracy alone: the layers around it are refitted one by one. Images are channels last
there, (N, *spatial, C); vectors are (N, C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from reap_onnx.graph.targets import clip_bounds
from reap_onnx.model.network import Network, Node
from reap_onnx.numerics.linearize import Operator, affine, average_pool, depthwise, max_pool, pointwise, reshape
from reap_onnx.numerics.rows import Window
from reap_onnx.ops.conv import window_of


@dataclass(frozen=True)
class Between:
    """A node, its constant inputs by position, without the channels that are gone, and the axis of the channels."""

    network: Network
    node: Node
    constants: Mapping[int, np.ndarray]
    axis: int = 1

    @property
    def before(self) -> tuple[int, ...]:
        """Shape of what the node computes with."""
        return self.network.shapes[self.data]

    @property
    def after(self) -> tuple[int, ...]:
        """Shape of what it makes."""
        return self.network.shapes[self.node.outputs[0]]

    @property
    def data(self) -> str:
        """Its one computed input."""
        return next(name for name in self.node.inputs if name and name not in self.network.constants)

    def number(self, name: str, default: float) -> float:
        """A number among the attributes."""
        return float(self.node.attributes.get(name, default))

    def per_channel(self, position: int) -> np.ndarray | None:
        """A constant as numbers per channel, (C,) or (1,); None where it differs in space."""
        value = self.constants[position]
        sizes = (1,) * (len(self.after) - value.ndim) + value.shape
        if len(self.after) < 2 or any(size > 1 for axis, size in enumerate(sizes) if axis != 1):
            return None
        return value.reshape(-1).astype(np.float32)


Rule = Callable[[Between], Operator | None]
RULES: dict[str, Rule] = {}
_ANYWHERE = ("Identity", "Dropout", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu")


def operator(between: Between) -> Operator | None:
    """The operator of a node with its derivative; None where there is none.

    What treats channels and places apart is known with channels on axis 1 alone.
    """
    rule = RULES.get(between.node.op)
    known = between.axis % len(between.before) == 1 or between.node.op in _ANYWHERE
    return rule(between) if rule is not None and known else None


def _rule(*ops: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


@_rule("Identity", "Dropout")
def _same(_: Between) -> Operator:
    return pointwise(lambda x: x, np.ones_like)


@_rule("Relu", "Clip")
def _clip(it: Between) -> Operator | None:
    bounds = clip_bounds(it.network, it.node)
    if bounds is None:
        return None
    low, high = bounds
    return pointwise(lambda x: np.clip(x, low, high), lambda x: (x > low) & (x < high))


@_rule("LeakyRelu")
def _leaky(it: Between) -> Operator:
    slope = np.float32(it.number("alpha", 0.01))
    return pointwise(lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1, slope))


@_rule("PRelu")
def _prelu(it: Between) -> Operator | None:
    slope = it.per_channel(1) if 1 in it.constants else None
    if slope is None:
        return None
    return pointwise(lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1, slope))


@_rule("Sigmoid")
def _sigmoid(_: Between) -> Operator:
    return pointwise(special.expit, lambda x: special.expit(x) * special.expit(-x))


@_rule("Tanh")
def _tanh(_: Between) -> Operator:
    return pointwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2)


@_rule("HardSigmoid")
def _hard_sigmoid(it: Between) -> Operator:
    alpha, beta = it.number("alpha", 0.2), it.number("beta", 0.5)
    return pointwise(
        lambda x: np.clip(alpha * x + beta, 0, 1), lambda x: alpha * ((alpha * x + beta > 0) & (alpha * x + beta < 1))
    )


@_rule("HardSwish")
def _hard_swish(_: Between) -> Operator:
    return pointwise(
        lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x: np.where(np.abs(x) < 3, x / 3 + 0.5, (x > 0).astype(x.dtype)),
    )


@_rule("Gelu")
def _gelu(it: Between) -> Operator | None:
    if it.node.attributes.get("approximate", b"none") != b"none":
        return None
    density = 1 / np.sqrt(2 * np.pi)
    return pointwise(
        lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * density * np.exp(-0.5 * np.square(x))
    )


@_rule("BatchNormalization")
def _batch_norm(it: Between) -> Operator | None:
    if len(it.constants) < 4 or it.node.attributes.get("training_mode", 0) or not it.node.attributes.get("spatial", 1):
        return None
    gamma, beta, mean, variance = (it.constants[position].astype(float) for position in range(1, 5))
    scale = gamma / np.sqrt(variance + it.number("epsilon", 1e-5))
    return affine(scale, beta - scale * mean)


@_rule("Add", "Sub", "Mul", "Div")
def _arithmetic(it: Between) -> Operator | None:
    position = 1 - it.node.inputs.index(it.data)
    value = it.per_channel(position)
    if value is None or it.before != it.after or (position == 0 and it.node.op in ("Sub", "Div")):
        return None
    if it.node.op in ("Add", "Sub"):
        return affine(1.0, value if it.node.op == "Add" else -value)
    if it.node.op == "Mul":
        return affine(value, 0.0)
    return None if (value == 0).any() else affine(1 / value, 0.0)


@_rule("Conv")
def _depthwise(it: Between) -> Operator | None:
    weight, window = it.constants.get(1), window_of(it.node, it.network)
    if weight is None or weight.shape[1] != 1 or it.before[1] != it.after[1] or not _fits(window, it):
        return None
    if it.node.attributes.get("group", 1) != it.before[1]:
        return None
    bias = it.constants.get(2, np.zeros(len(weight)))
    return depthwise(weight.reshape(len(weight), -1).T.astype(np.float32), bias.astype(np.float32), window)


@_rule("MaxPool", "AveragePool")
def _pool(it: Between) -> Operator | None:
    window = window_of(it.node, it.network)
    if not _fits(window, it):
        return None
    if it.node.op == "MaxPool":
        return max_pool(window)
    return average_pool(window, count_pads=bool(it.node.attributes.get("count_include_pad", 0)))


@_rule("GlobalMaxPool", "GlobalAveragePool")
def _global_pool(it: Between) -> Operator:
    axes = len(it.before) - 2
    window = Window(it.before[2:], (1,) * axes, (0,) * (2 * axes), (1,) * axes)
    return max_pool(window) if it.node.op == "GlobalMaxPool" else average_pool(window, count_pads=True)


@_rule("Flatten", "Reshape", "Squeeze")
def _vector(it: Between) -> Operator | None:
    """A single place in space to a vector."""
    if len(it.before) < 2 or it.after != it.before[:2] or any(size != 1 for size in it.before[2:]):
        return None
    return reshape(lambda shape: (shape[0], shape[-1]))


def _fits(window: Window, it: Between) -> bool:
    try:
        return min(window.pads, default=0) >= 0 and window.output_shape(it.before[2:]) == it.after[2:]
    except ValueError:  # a window larger than what it reads, as ceil_mode allows
        return False
