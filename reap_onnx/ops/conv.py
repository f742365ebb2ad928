"""Convolutions of any rank: they mix channels, within groups where they have groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.graph.channels import Labels, on_axis
from reap_onnx.graph.layer import Layer
from reap_onnx.model.network import Network, Node, Slot
from reap_onnx.numerics.rows import Window, conv_rows, conv_transpose_rows, feature_rows
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.surgery import Surgeon
    from reap_onnx.graph.trace import Trace


@dataclass(frozen=True)
class ConvGeometry:
    """Rows of a convolution with ``groups`` blocks (see ``reap_onnx.graph.layer.Geometry``)."""

    window: Window
    groups: int
    transposed: bool
    feature_axis: int = 1

    @property
    def dense(self) -> bool:
        """Whether dense rows can be had."""
        return self.groups == 1 and not self.transposed and min(self.window.pads, default=0) >= 0

    def positions(self, output: tuple[int, ...]) -> int:
        """Output positions of one sample."""
        return int(np.prod(output[2:]))

    def rows(self, x: np.ndarray, positions: np.ndarray, output: tuple[int, ...], block: int) -> np.ndarray:
        """im2col rows of one block at sampled positions, (N * P, C / groups * K)."""
        size = x.shape[1] // self.groups
        part = x[:, block * size : (block + 1) * size]
        if self.transposed:
            return conv_transpose_rows(part, self.window, output[2:], positions)
        return conv_rows(part, self.window, positions)

    def targets(self, y: np.ndarray, positions: np.ndarray, block: int) -> np.ndarray:
        """Features of one block at sampled positions, (N * P, M / groups)."""
        size = y.shape[1] // self.groups
        return feature_rows(y[:, block * size : (block + 1) * size], positions)

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """ONNX weight -> (groups, C / groups * K, M / groups)."""
        g, taps = self.groups, int(np.prod(weight.shape[2:]))
        if self.transposed:  # (C, M / g, *kernel)
            blocks = weight.reshape(g, weight.shape[0] // g, weight.shape[1], taps).transpose(0, 1, 3, 2)
        else:  # (M, C / g, *kernel)
            blocks = weight.reshape(g, weight.shape[0] // g, weight.shape[1], taps).transpose(0, 2, 3, 1)
        return blocks.reshape(g, -1, blocks.shape[-1])

    def weight(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        """(groups, C / groups * K, M / groups) -> ONNX weight."""
        taps = int(np.prod(like.shape[2:]))
        blocks = matrix.reshape(self.groups, -1, taps, matrix.shape[-1])
        order = (0, 1, 3, 2) if self.transposed else (0, 3, 1, 2)
        return np.ascontiguousarray(blocks.transpose(order).reshape(like.shape).astype(like.dtype))

    def columns(self, vector: Labels) -> Labels:
        """Labels of input channels (C,) -> of columns (groups, C / groups * K)."""
        taps = int(np.prod(self.window.kernel))
        return np.repeat(vector.reshape(self.groups, -1), taps, axis=1)


def _rewrite_groups(node: Node, surgeon: Surgeon) -> None:
    """Whole groups may be gone."""
    groups = node.attributes.get("group", 1)
    if groups == 1:
        return
    channels = surgeon.trace.shape(node.inputs[0])[1]
    if groups >= channels // groups:
        left = int(surgeon.mask(node.inputs[0], 1).sum()) * groups // channels
        surgeon.set_attribute(node, "group", left)


@rule("Conv", "ConvTranspose", rewrite=_rewrite_groups, limits="constant weight; groups shrink alike or go whole")
def conv(node: Node, trace: Trace) -> None:
    """Channels in, new channels out.

    1. One group: every channel read is free, every channel made is new.
    2. Fewer groups than channels in a group: groups stay and shrink alike. Channels read are tied until every
       group loses equally many, and so are those made.
    3. Otherwise (depthwise is the limit): whole groups go, their channels in and out together.
    """
    data, weight = node.inputs[0], trace.constant(node.inputs[1])
    channels = trace.vector(data, 1)
    if weight is None or channels is None:
        trace.freeze(node, "its weight is computed" if weight is None else "channels do not lie on axis 1")
        return
    if node.input(2) and trace.constant(node.input(2)) is None:
        trace.freeze(node, "its bias is computed")
        return
    groups, count = node.attributes.get("group", 1), trace.shape(node.outputs[0])[1]
    whole = groups > 1 and groups >= len(channels) // groups
    if whole:
        trace.tie_blocks(channels, groups, node)
        features = np.repeat(trace.channels.roots(channels).reshape(groups, -1)[:, 0], count // groups)
    else:
        if groups > 1:
            trace.balance(channels.reshape(groups, -1), f"{node.op} {node.name} reads groups that cannot shrink alike")
        features = trace.make(node, count)
        if groups > 1:
            trace.balance(features.reshape(groups, -1), f"{node.op} {node.name} makes groups that cannot shrink alike")
    channels = trace.channels.roots(channels)
    transposed = node.op == "ConvTranspose"
    first_axis, second_axis = (channels, features) if transposed else (features, channels)
    blocks = second_axis if groups == 1 else second_axis.reshape(groups, -1)
    trace.cut(Slot(node.index, 1), {0: first_axis} if whole else {0: first_axis, 1: blocks})
    bias = Slot(node.index, 2)
    trace.cut(bias, {0: features})
    uses = (
        np.prod(trace.shape(data if transposed else node.outputs[0])[2:]) * trace.shape(data)[0] / trace.network.batch
    )
    geometry = None if whole else ConvGeometry(window_of(node, trace.network), groups, transposed)
    trace.layers.append(
        Layer(node, data, node.outputs[0], Slot(node.index, 1), bias, channels, features, float(uses), geometry)
    )
    trace.put(node.outputs[0], on_axis(features, 1, len(trace.shape(node.outputs[0]))))


def window_of(node: Node, network: Network) -> Window:
    """Window of a convolution or pooling, with every default, ``auto_pad`` and ``output_shape`` resolved."""
    spatial_in, spatial_out = network.shapes[node.inputs[0]][2:], network.shapes[node.outputs[0]][2:]
    rank = len(spatial_in)
    kernel = tuple(node.attributes.get("kernel_shape", ()) or network.shapes[node.inputs[1]][2:])
    strides = tuple(node.attributes.get("strides", (1,) * rank))
    dilations = tuple(node.attributes.get("dilations", (1,) * rank))
    pads = tuple(node.attributes.get("pads", (0,) * (2 * rank)))
    auto = node.attributes.get("auto_pad", b"NOTSET")
    if auto == b"VALID":
        pads = (0,) * (2 * rank)
    elif auto != b"NOTSET" or "output_shape" in node.attributes:
        transposed = node.op == "ConvTranspose"
        large, small = (spatial_out, spatial_in) if transposed else (spatial_in, spatial_out)
        extra = node.attributes.get("output_padding", (0,) * rank)
        sizes = zip(large, small, kernel, strides, dilations, extra, strict=True)
        total = [max((n - 1) * s + (k - 1) * d + 1 + e - size, 0) for size, n, k, s, d, e in sizes]
        pads = _share(total, upper=auto == b"SAME_UPPER")
    return Window(kernel, strides, pads, dilations)


def _share(total: list[int], *, upper: bool) -> tuple[int, ...]:
    """Split pads between begins and ends; an odd one goes to the end where ``upper``."""
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return tuple(less + more if upper else more + less)
