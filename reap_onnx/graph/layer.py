"""A layer that mixes channels: what it reads and makes, and the least-squares problems hidden in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reap_onnx.graph.channels import Labels
from reap_onnx.model.network import Node, Slot
from reap_onnx.numerics.rows import Window


class Geometry(Protocol):
    """How a kind of layer turns tensors into rows. ``B`` blocks, ``D`` columns and ``M`` features each."""

    @property
    def feature_axis(self) -> int:
        """Axis of the output that its features lie on."""
        ...

    def positions(self, output: tuple[int, ...]) -> int:
        """Output positions of one sample, given the shape of the layer's output."""
        ...

    def rows(self, x: np.ndarray, positions: np.ndarray, output: tuple[int, ...], block: int) -> np.ndarray:
        """What the layer reads at ``positions`` (N, P), float32 (N * P, D)."""
        ...

    def targets(self, y: np.ndarray, positions: np.ndarray, block: int) -> np.ndarray:
        """A tensor of the output's shape at ``positions``, float32 (N * P, M)."""
        ...

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight as matrices (B, D, M), so that output = rows @ matrix."""
        ...

    def weight(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        """The inverse of ``matrix``, in the shape and dtype of ``like``."""
        ...

    def columns(self, vector: Labels) -> Labels:
        """Labels of the input channels -> labels of the columns, (B, D)."""
        ...

    @property
    def window(self) -> Window | None:
        """How dense rows are read, channels last: patches, for None the vectors themselves."""
        ...

    @property
    def dense(self) -> bool:
        """Whether rows can be had at all positions at once; of a single block."""
        ...


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight.

    Parameters
    ----------
    node, data, output
        The node, the tensor it reads, the tensor it makes.
    weight, bias
        The slots of its constants; ``bias`` is None for an operator that has none, and a slot past
        the node's inputs where a bias could be added.
    inputs
        Labels of the channels it reads, (C,); all 0 where they carry none.
    features
        Labels of the channels it makes, (all features,).
    uses
        Multiply-accumulates per element of the weight at batch 1.
    geometry
        Rows and matrices; None where the layer only passes channels through (depthwise).
    bias_scale
        What the bias is multiplied with (``beta`` of a Gemm).
    """

    node: Node
    data: str
    output: str
    weight: Slot
    bias: Slot | None
    inputs: Labels
    features: Labels
    uses: float
    geometry: Geometry | None
    bias_scale: float = 1.0

    @property
    def has_bias(self) -> bool:
        """Whether the node has its bias input."""
        return self.bias is not None and bool(self.node.input(self.bias.input))
