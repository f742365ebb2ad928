"""Pooling and resizing: space changes, channels on axes 0 and 1 pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reap_onnx.graph.channels import varying
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
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    if any(axis > 1 for axis in varying(labels)):
        trace.freeze(node, "channels lie on an axis that it pools over")
    elif len(node.outputs) > 1 and node.outputs[1]:
        trace.freeze(node, "its indices count channels")
    else:
        trace.put(node.outputs[0], labels)


@rule("Resize", "Upsample", limits="constant or followed sizes; channels on an axis that keeps its size")
def resize(node: Node, trace: Trace) -> None:
    """Space is resampled; the entry of ``sizes`` for the channels is rewritten."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    before, after = trace.shape(node.inputs[0]), trace.shape(node.outputs[0])
    if any(before[axis] != after[axis] for axis in varying(labels)):
        trace.freeze(node, "it resizes the axis of channels")
        return
    trace.put(node.outputs[0], labels)
    if node.input(3) and not node.attributes.get("axes"):
        trace.list_sizes(Slot(node.index, 3), node.outputs[0])
