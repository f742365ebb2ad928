"""Quantisation: activations on their way to and from integers keep their channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


@rule(
    "QuantizeLinear",
    "DequantizeLinear",
    "com.microsoft.QuantizeLinear",
    "com.microsoft.DequantizeLinear",
    limits="constant scales and zero points; not in blocks",
)
def quantize(node: Node, trace: Trace) -> None:
    """The same channels; scales and zero points that lie along them are cut."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    if any(name and trace.constant(name) is None for name in node.inputs[1:]):
        trace.freeze(node, "its scale is computed")
        return
    if len(trace.shape(node.inputs[1])) > 1 or node.attributes.get("block_size", 0):
        trace.freeze(node, "it has a scale for each block")
        return
    if trace.shape(node.inputs[1]) not in ((), (1,)):
        vector = trace.vector(node.inputs[0], node.attributes.get("axis", 1))
        for position in range(1, len(node.inputs)):
            if vector is not None and node.input(position):
                trace.cut(Slot(node.index, position), {0: vector})
    trace.put(node.outputs[0], trace.labelled(node.inputs[0]))
