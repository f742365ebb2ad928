"""Normalisation: per channel it passes channels on; across channels it freezes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.surgery import Surgeon
    from reap_onnx.graph.trace import Trace


@rule("BatchNormalization", "InstanceNormalization", limits="constant parameters; not in training mode")
def per_channel(node: Node, trace: Trace) -> None:
    """Axis 1 is normalised channel by channel; the parameters are cut with it."""
    vector = trace.vector(node.inputs[0], 1)
    if vector is None:
        trace.freeze(node, "its channels are not on axis 1")
    elif any(trace.constant(name) is None for name in node.inputs[1:]):
        trace.freeze(node, "its parameters are computed")
    elif node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1):
        trace.freeze(node, "it does not normalise channel by channel with fixed statistics")
    elif vector.any():
        for position in range(1, len(node.inputs)):
            trace.cut(Slot(node.index, position), {0: vector})
        trace.put(node.outputs[0], trace.labelled(node.inputs[0]))


def _rewrite_groups(node: Node, surgeon: Surgeon) -> None:
    left = surgeon.mask(node.inputs[0], 1)
    surgeon.set_attribute(node, "num_groups", int(left.sum()) * node.attributes["num_groups"] // len(left))


@rule("GroupNormalization", rewrite=_rewrite_groups, limits="constant parameters; groups go whole")
def per_group(node: Node, trace: Trace) -> None:
    """Axis 1 is normalised group by group: channels of one group come and go together."""
    vector, groups = trace.vector(node.inputs[0], 1), node.attributes["num_groups"]
    if vector is None or any(trace.constant(name) is None for name in node.inputs[1:]):
        trace.freeze(node, "its channels are not on axis 1" if vector is None else "its parameters are computed")
        return
    trace.tie_blocks(vector, groups, node)
    for position in (1, 2):
        size = trace.shape(node.inputs[position])[0]
        trace.cut(Slot(node.index, position), {0: vector.reshape(size, -1)[:, 0]})
    trace.put(node.outputs[0], trace.labelled(node.inputs[0]))


@rule("LRN", couples=True, limits="over the neighbours that are left")
def over_neighbours(node: Node, trace: Trace) -> None:
    """Every channel is divided by the squares of its neighbours on axis 1; those that are left close ranks."""
    trace.put(node.outputs[0], trace.labelled(node.inputs[0]))


@rule(
    "LpNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
    limits="frozen where it runs over channels",
)
def over_axes(node: Node, trace: Trace) -> None:
    """Passes channels on where they lie on other axes than those it normalises over."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    rank = labels.ndim
    old_softmax = node.op in ("Softmax", "LogSoftmax", "Hardmax") and trace.network.opset < 13
    axis = node.attributes.get("axis", 1 if old_softmax else -1) % rank
    several = old_softmax or node.op in ("LayerNormalization", "RMSNormalization")
    over = range(axis, rank) if several else (axis,)
    labels = trace.confined(node.inputs[0], [a for a in range(rank) if a not in over])
    if labels is None:
        trace.freeze(node, "it normalises over channels")
        return
    for position, name in enumerate(node.inputs[1:], 1):
        if name and trace.constant(name) is None and len(trace.shape(name)) > rank - axis:
            trace.freeze(node, "its parameters are computed")
            return
        if name:
            trace.cut_like(Slot(node.index, position), node.outputs[0])
    trace.put(node.outputs[0], labels)


@rule("MeanVarianceNormalization", limits="frozen where it runs over channels")
def over_listed_axes(node: Node, trace: Trace) -> None:
    """Passes channels on where they lie on other axes than those it normalises over."""
    rank = len(trace.shape(node.inputs[0]))
    over = {axis % rank for axis in node.attributes.get("axes", (0, 2, 3))}
    trace.pass_on(node, [axis for axis in range(rank) if axis not in over], "it normalises over channels")
