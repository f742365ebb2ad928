"""Matrix products with a constant matrix: they mix the channels on the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.graph.channels import Labels, on_axis
from reap_onnx.graph.layer import Layer
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


@dataclass(frozen=True)
class LinearGeometry:
    """Rows of a matrix product (see ``reap_onnx.graph.layer.Geometry``): the vectors along the last axis."""

    transposed: bool
    scale: float = 1.0
    feature_axis: int = -1
    window: None = None
    dense: bool = True

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
            trace.cut_like(Slot(node.index, 2), features.reshape(1, -1))


@rule("MatMul", reads=(0, 1), limits="constant matrix on the right; products of two computed tensors are frozen")
def matmul(node: Node, trace: Trace) -> None:
    """Channels on the last axis in, new channels out: ``x @ w`` with a matrix ``w``."""
    _product(node, trace, LinearGeometry(transposed=False), None, 1.0)


def _product(node: Node, trace: Trace, geometry: LinearGeometry, bias: Slot | None, bias_scale: float) -> Labels | None:
    """Register the layer; the labels of its features, None where it is frozen."""
    data, weight = node.inputs[0], trace.constant(node.inputs[1])
    shape, rank = trace.shape(data), len(trace.shape(data))
    if weight is None or trace.constant(data) is not None:
        trace.freeze(
            node, "its left factor is a constant" if trace.constant(data) is not None else "both factors are computed"
        )
        return None
    if weight.ndim != 2 or rank < 2:
        trace.freeze(node, f"a product of shapes {shape} and {weight.shape}")
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
