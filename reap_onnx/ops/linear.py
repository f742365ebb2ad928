"""Matrix products with a constant matrix: they mix the channels on the last axis."""

from __future__ import annotations

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


@dataclass(frozen=True)
class LinearGeometry:
    """Rows of a matrix product (see ``reap_onnx.graph.layer.Geometry``): the vectors along the last axis."""

    transposed: bool
    scale: float = 1.0
    feature_axis: int = -1

    def positions(self, output: tuple[int, ...]) -> int:
        """Vectors in one sample."""
        return int(np.prod(output[1:-1]))

    def rows(self, x: np.ndarray, positions: np.ndarray, output: tuple[int, ...], block: int) -> np.ndarray:
        """Vectors at sampled positions, (N * P, D)."""
        return _take(x, positions)

    def targets(self, y: np.ndarray, positions: np.ndarray, block: int) -> np.ndarray:
        """Features at sampled positions, (N * P, M)."""
        return _take(y, positions)

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
    if weight is not None and weight.ndim == 2 and trace.constant(node.inputs[0]) is None:
        _product(node, trace, LinearGeometry(transposed=False), None, 1.0)
    else:
        _pass_beside(node, trace)


def _pass_beside(node: Node, trace: Trace) -> None:
    """A product without a weight, like those of attention.

    1. Axes in front of the matrices (heads) broadcast like those of a join; rows of the first factor and columns of
       the second pass.
    2. Channels that vary along the axis that is summed over as well are tied along it. Those that lie on it alone
       stay: no weight tells what they matter.
    """
    rank = len(trace.shape(node.outputs[0]))
    shapes = [(1,) * (rank - len(trace.shape(name))) + trace.shape(name) for name in node.inputs]
    if min(rank, *(len(trace.shape(name)) for name in node.inputs)) < 2:
        trace.freeze(node, "a product with a vector")
        return
    carried = []
    for name, summed, other, shape in zip(
        node.inputs, (rank - 1, rank - 2), node.inputs[::-1], shapes[::-1], strict=True
    ):
        meets = _aligned(trace.labelled(other), rank)
        free = [a for a in range(rank) if a != summed and (a >= rank - 2 or meets.shape[a] == shape[a])]
        offset = rank - len(trace.shape(name))
        labels = trace.confined(name, [a - offset for a in free])
        if labels is not None:
            carried.append(_aligned(labels, rank))
        elif name in trace.labels:
            trace.freeze(node, "it sums or joins channels without a weight")
            return
    if len(carried) == 2 and carried[0].shape[-2] > 1 and carried[1].shape[-1] > 1:
        trace.freeze(node, "both of its factors carry channels to its output")
    elif carried:
        trace.put(node.outputs[0], meet(node, trace, carried))


def _aligned(labels: Labels | None, rank: int) -> Labels:
    """Labels with ``rank`` axes, aligned on the right; a single zero for none."""
    shape = () if labels is None else labels.shape
    return (np.zeros((), np.int64) if labels is None else labels).reshape((1,) * (rank - len(shape)) + shape)


def _product(node: Node, trace: Trace, geometry: LinearGeometry, bias: Slot | None, bias_scale: float) -> Labels | None:
    """Register the layer; the labels of its features, None where it is frozen."""
    data, weight = node.inputs[0], trace.constant(node.inputs[1])
    shape, rank = trace.shape(data), len(trace.shape(data))
    if weight is None or trace.constant(data) is not None:
        trace.freeze(node, "its matrix is computed" if weight is None else "its data are constant")
        return None
    if rank < 2:
        trace.freeze(node, "a product with a vector")
        return None
    channels = trace.vector(data, -1)
    if channels is None:
        trace.freeze(node, "channels do not lie on its last axis")
        return None
    features = trace.make(node, trace.shape(node.outputs[0])[-1])
    trace.cut(
        Slot(node.index, 1), dict(enumerate((features, channels) if geometry.transposed else (channels, features)))
    )
    uses = float(np.prod(shape[:-1])) / trace.network.batch
    trace.layers.append(
        Layer(node, data, node.outputs[0], Slot(node.index, 1), bias, channels, features, uses, geometry, bias_scale)
    )
    if bias is not None and not node.input(2):
        trace.cut(bias, {0: features})
    trace.put(node.outputs[0], on_axis(features, rank - 1, rank))
    return features
