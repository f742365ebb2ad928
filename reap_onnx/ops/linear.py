"""Matrix products with a constant matrix: they mix the channels on the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.graph.channels import Labels, on_axis
from reap_onnx.graph.layer import Layer
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.elementwise import meet
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace

Axes = tuple[str, ...]


@dataclass(frozen=True)
class LinearGeometry:
    """Rows of a matrix product (see ``reap_onnx.graph.layer.Geometry``): the vectors along one axis, the last one."""

    transposed: bool
    scale: float = 1.0
    data_axis: int = -1
    feature_axis: int = -1
    window: None = None

    @property
    def dense(self) -> bool:
        """Whether dense rows can be had: channels stay on their axis."""
        return self.data_axis == self.feature_axis

    def positions(self, output: tuple[int, ...]) -> int:
        """Vectors in one sample."""
        return int(np.prod(output[1:])) // output[self.feature_axis]

    def rows(self, x: np.ndarray, positions: np.ndarray, output: tuple[int, ...], block: int) -> np.ndarray:
        """Vectors at sampled positions, (N * P, D)."""
        return _take(np.moveaxis(x, self.data_axis, -1), positions)

    def targets(self, y: np.ndarray, positions: np.ndarray, block: int) -> np.ndarray:
        """Features at sampled positions, (N * P, M)."""
        return _take(np.moveaxis(y, self.feature_axis, -1), positions)

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """ONNX weight -> (1, D, M)."""
        return self.scale * (weight.T if self.transposed else weight)[None]

    def weight(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        """(1, D, M) -> ONNX weight."""
        flat = matrix[0] / self.scale
        return np.ascontiguousarray((flat.T if self.transposed else flat).astype(like.dtype))

    def columns(self, vector: Labels) -> Labels:
        """Labels of inputs (D,) -> of columns (1, D)."""
        return vector[None]


def _take(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    return np.take_along_axis(flat, positions[:, :, None], 1).reshape(-1, x.shape[-1])


@rule("Gemm", limits="constant matrix and bias, the bias alike in every row; not transA")
def gemm(node: Node, trace: Trace) -> None:
    """Channels on the last axis in, new channels out: ``alpha * x @ w + beta * c``."""
    alpha, beta = float(node.attributes.get("alpha", 1.0)), float(node.attributes.get("beta", 1.0))
    bias = trace.constant(node.input(2)) if node.input(2) else np.zeros(())
    if node.attributes.get("transA", 0):
        trace.freeze(node, "it transposes its data")
    elif alpha == 0 or beta == 0:
        trace.freeze(node, "one of its factors is zero")
    elif bias is None or (bias.ndim == 2 and len(bias) > 1):
        trace.freeze(node, "its bias is computed" if bias is None else "its bias differs from row to row")
    else:
        geometry = LinearGeometry(bool(node.attributes.get("transB", 0)), alpha)
        features = _product(node, trace, geometry, Slot(node.index, 2), beta)
        if features is not None and node.input(2):
            trace.cut_like(Slot(node.index, 2), node.outputs[0])


@rule("MatMul", reads=(0, 1), limits="frozen where it sums over channels without a constant matrix on the right")
def matmul(node: Node, trace: Trace) -> None:
    """Channels on the last axis in, new channels out: ``x @ w``; other products pass channels that they do not sum."""
    weight = trace.constant(node.inputs[1])
    if weight is not None and weight.ndim == 2 and _mixes_channels(trace, node.inputs[0], -1):
        _product(node, trace, LinearGeometry(transposed=False), None, 1.0)
    else:
        _pass_beside(node, trace, *_matmul_axes(*(len(trace.shape(name)) for name in node.inputs)))


@rule("com.microsoft.FusedMatMul", reads=(0, 1), limits="as MatMul; not transBatchA, transBatchB")
def fused_matmul(node: Node, trace: Trace) -> None:
    """A MatMul whose factors are transposed first and whose product is scaled, as onnxruntime fuses them."""
    transposed = [bool(node.attributes.get(name, 0)) for name in ("transA", "transB")]
    weight, scale = trace.constant(node.inputs[1]), float(node.attributes.get("alpha", 1.0))
    if any(node.attributes.get(name, 0) for name in ("transBatchA", "transBatchB")) or not scale:
        trace.freeze(node, "it transposes its batches, or its factor is zero")
    elif weight is not None and weight.ndim == 2 and not transposed[0] and _mixes_channels(trace, node.inputs[0], -1):
        _product(node, trace, LinearGeometry(transposed[1], scale), None, 1.0)
    else:
        factors, out = _matmul_axes(*(len(trace.shape(name)) for name in node.inputs))
        turned = [(*f[:-2], *f[:-3:-1]) if t else f for f, t in zip(factors, transposed, strict=True)]
        _pass_beside(node, trace, turned, out)


def _mixes_channels(trace: Trace, data: str, axis: int) -> bool:
    """Whether a product along an axis of ``data`` mixes channels: not where they all lie on others."""
    labels = trace.labelled(data)
    return trace.constant(data) is None and (labels is None or labels.shape[axis] > 1)


def _matmul_axes(first: int, second: int) -> tuple[list[Axes], Axes]:
    """Names of the axes of a MatMul's factors, of these ranks, and of its output."""
    batch = tuple(str(axis) for axis in range(max(first, second, 2) - 2))
    left = batch[len(batch) - max(first - 2, 0) :] + ("m", "k")[-first:]
    right = batch[len(batch) - max(second - 2, 0) :] + ("k", "n")[:second]
    return [left, right], batch + ("m",) * (first > 1) + ("n",) * (second > 1)


@rule("Einsum", reads=None, limits="a constant mixes one axis into one other; no ellipsis, no diagonals")
def einsum(node: Node, trace: Trace) -> None:
    """A constant factor mixes channels like that of a MatMul; computed ones pass those that are not summed."""
    terms, out = _equation(node.attributes["equation"].decode())
    if any(len(set(term)) < len(term) or "." in term for term in (*terms, out)):
        trace.freeze(node, f"no rule for {node.attributes['equation'].decode()}")
        return
    constants = [position for position, name in enumerate(node.inputs) if trace.constant(name) is not None]
    if len(terms) != 2 or len(constants) != 1:
        _pass_beside(node, trace, terms, out)
        return
    [weight] = constants
    data = 1 - weight
    summed = [axis for axis in terms[weight] if axis not in out]
    made = [axis for axis in terms[weight] if axis not in terms[data]]
    rest = [axis for axis in terms[data] if axis not in summed]
    if len(summed) != 1 or len(made) != 1 or len(terms[weight]) != 2 or rest != [a for a in out if a not in made]:
        _pass_beside(node, trace, terms, out)
        return
    axes = terms[data].index(summed[0]), out.index(made[0])
    if 0 in axes or not _mixes_channels(trace, node.inputs[data], axes[0]):
        _pass_beside(node, trace, terms, out)
        return
    geometry = LinearGeometry(terms[weight] == (made[0], summed[0]), 1.0, *axes)
    _product(node, trace, geometry, None, 1.0, weight)


def _equation(equation: str) -> tuple[list[Axes], Axes]:
    """Letters of each factor, and of the output: where it is not named, those that stand once, in order."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    once = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    return [tuple(term) for term in left.split(",")], tuple(right if arrow else once)


def _pass_beside(node: Node, trace: Trace, terms: Sequence[Axes], out: Axes) -> None:
    """A product without a weight, like those of attention; axes of factors and output by name.

    1. An axis that several factors have (heads) joins their channels; other axes of the output pass them.
    2. Channels that vary along an axis that is summed over as well are tied along it. Those that lie on it alone
       stay: no weight tells what they matter.
    """
    carried: dict[int, Labels] = {}
    for position, name in enumerate(node.inputs):
        free = [
            a for a, axis in enumerate(terms[position]) if axis in out and _meets(node, trace, terms, position, axis)
        ]
        labels = trace.confined(name, free)
        if labels is not None:
            carried[position] = _ordered(labels, terms[position], out)
        elif name in trace.labels:
            trace.freeze(node, "it sums or joins channels without a weight")
            return
    own = [
        any(labels.shape[out.index(axis)] > 1 for axis in set(terms[position]) & set(out) if _owned(terms, axis))
        for position, labels in carried.items()
    ]
    if sum(own) > 1:
        trace.freeze(node, "several of its factors carry channels to its output")
    elif carried:
        trace.put(node.outputs[0], meet(node, trace, list(carried.values())))


def _owned(terms: Sequence[Axes], axis: str) -> bool:
    """Whether one factor alone has an axis."""
    return sum(axis in term for term in terms) == 1


def _meets(node: Node, trace: Trace, terms: Sequence[Axes], position: int, axis: str) -> bool:
    """Whether all other factors carry channels along an axis, or broadcast there."""
    for other, (name, term) in enumerate(zip(node.inputs, terms, strict=True)):
        if other != position and axis in term and trace.shape(name)[term.index(axis)] > 1:
            labels = trace.labelled(name)
            if labels is None or labels.shape[term.index(axis)] == 1:
                return False
    return True


def _ordered(labels: Labels, term: Axes, out: Axes) -> Labels:
    """Labels of a factor with the axes of the output; those that are summed over have size 1."""
    order = sorted(range(len(term)), key=lambda axis: out.index(term[axis]) if term[axis] in out else -1)
    sizes = [labels.shape[term.index(axis)] if axis in term else 1 for axis in out]
    return labels.transpose(order).reshape(sizes)


def _product(
    node: Node, trace: Trace, geometry: LinearGeometry, bias: Slot | None, bias_scale: float, position: int = 1
) -> Labels | None:
    """Register the layer whose weight is the input at ``position``; the labels of its features, None where frozen."""
    data, weight = node.inputs[1 - position], trace.constant(node.inputs[position])
    shape, rank = trace.shape(data), len(trace.shape(data))
    if weight is None or trace.constant(data) is not None:
        trace.freeze(node, "its matrix is computed" if weight is None else "its data are constant")
        return None
    if rank < 2:
        trace.freeze(node, "a product with a vector")
        return None
    channels = trace.vector(data, geometry.data_axis)
    if channels is None:
        trace.freeze(node, "channels do not lie on the axis that it mixes")
        return None
    features = trace.make(node, trace.shape(node.outputs[0])[geometry.feature_axis])
    slot = Slot(node.index, position)
    trace.cut(slot, dict(enumerate((features, channels) if geometry.transposed else (channels, features))))
    uses = float(np.prod(shape)) / len(channels) / trace.network.batch
    trace.layers.append(Layer(node, data, node.outputs[0], slot, bias, channels, features, uses, geometry, bias_scale))
    if bias is not None and not node.input(2):
        trace.cut(bias, {0: features})
    trace.put(node.outputs[0], on_axis(features, geometry.feature_axis % rank, rank))
    return features
