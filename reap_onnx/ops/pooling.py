"""Pooling and resizing: space changes, channels on axes 0 and 1 pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


@rule(
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    limits="channels on axis 1; not the indices of MaxPool",
)
def pool(node: Node, trace: Trace) -> None:
    """Windows over space, channel by channel."""
    trace.pass_on(node, (0, 1), "channels lie on an axis that it pools over")


@rule("GridSample", "MaxRoiPool", "RoiAlign", limits="channels on axis 1")
def sample(node: Node, trace: Trace) -> None:
    """Places of the input are looked at, channel by channel; the others say where."""
    trace.pass_on(node, (1,), "channels are not on axis 1")


@rule("Resize", "Upsample", limits="channels on an axis that keeps its size; not tf_crop_and_resize")
def resize(node: Node, trace: Trace) -> None:
    """Space is resampled; the entry of ``sizes`` for the channels is rewritten."""
    before, after = trace.shape(node.inputs[0]), trace.shape(node.outputs[0])
    labels = trace.confined(node.inputs[0], [axis for axis in range(len(before)) if before[axis] == after[axis]])
    if labels is None:
        trace.freeze(node, "it resizes the axis of channels")
        return
    if node.attributes.get("coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        trace.freeze(node, "it crops")
        return
    trace.put(node.outputs[0], labels)
    if node.input(3):
        axes = node.attributes.get("axes", range(labels.ndim))
        trace.list_sizes(Slot(node.index, 3), node.outputs[0], [axis % labels.ndim for axis in axes])
