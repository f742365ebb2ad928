"""Data movement: the operator is run on channel labels, and what comes out says where every channel went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.graph.channels import Labels, varying
from reap_onnx.graph.movement import run_movement
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.surgery import Surgeon
    from reap_onnx.graph.trace import Trace

_SIZES = {"Reshape": 1, "Expand": 1}
"""Operators with an input that lists the sizes of their output, and its position."""


@rule(
    "Cast",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
def move(node: Node, trace: Trace) -> None:
    """The first input is moved by numbers known beforehand."""
    _move(node, trace, {0})
    if node.op in _SIZES and len(node.inputs) > 1:
        trace.list_sizes(Slot(node.index, _SIZES[node.op]), node.outputs[0])


@rule("Concat")
def concat(node: Node, trace: Trace) -> None:
    """All inputs are moved; constants among them are cut like the channels beside them."""
    _move(node, trace, set(range(len(node.inputs))))


def _rewrite_split(node: Node, surgeon: Surgeon) -> None:
    axis = node.attributes.get("axis", 0) % len(surgeon.trace.shape(node.inputs[0]))
    if surgeon.unchanged(node.inputs[0], axis):
        return
    parts = [int(surgeon.mask(name, axis).sum()) for name in node.outputs]
    if surgeon.trace.network.opset < 13:
        surgeon.set_attribute(node, "split", parts)
        return
    surgeon.replace(Slot(node.index, 1), np.array(parts, np.int64))
    surgeon.drop_attribute(node, "num_outputs")


@rule("Split", rewrite=_rewrite_split, limits="every part is read")
def split(node: Node, trace: Trace) -> None:
    """One input, several parts; their sizes are rewritten."""
    _move(node, trace, {0})


def _rewrite_slice(node: Node, surgeon: Surgeon) -> None:
    numbers = _slice_numbers(node, surgeon.trace)
    if numbers is None:
        return
    starts, ends, axes, _ = numbers
    shape = surgeon.trace.shape(node.inputs[0])
    changed = False
    for i, axis in enumerate(axes):
        if not surgeon.unchanged(node.inputs[0], axis):
            mask = surgeon.mask(node.inputs[0], axis)
            first, last, _ = slice(starts[i], ends[i]).indices(shape[axis])
            starts[i], ends[i] = int(mask[:first].sum()), int(mask[:last].sum())
            changed = True
    if not changed:
        return
    if surgeon.trace.network.opset < 10:
        surgeon.set_attribute(node, "starts", starts)
        surgeon.set_attribute(node, "ends", ends)
        return
    for position, numbers in ((1, starts), (2, ends)):
        surgeon.replace(
            Slot(node.index, position), np.array(numbers, surgeon.trace.network.constants[node.inputs[position]].dtype)
        )


@rule("Slice", rewrite=_rewrite_slice, limits="constant bounds and step 1 along channels")
def cut_out(node: Node, trace: Trace) -> None:
    """Bounds along the axis of channels are rewritten."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    numbers = _slice_numbers(node, trace)
    if numbers is None:
        if varying(labels) and any(trace.constant(name) is None for name in node.inputs[1:] if name):
            shape, after = trace.shape(node.inputs[0]), trace.shape(node.outputs[0])
            if any(shape[axis] != after[axis] for axis in varying(labels)):
                trace.freeze(node, "its bounds are computed")
                return
    else:
        _, _, axes, steps = numbers
        if any(axis in varying(labels) and step != 1 for axis, step in zip(axes, steps, strict=True)):
            trace.freeze(node, "it takes every n-th channel")
            return
    _move(node, trace, {0})


def _slice_numbers(node: Node, trace: Trace) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Starts, ends, axes and steps of a Slice; None where one of them is computed."""
    rank = len(trace.shape(node.inputs[0]))
    if trace.network.opset < 10:
        starts, ends = list(node.attributes["starts"]), list(node.attributes["ends"])
        axes, steps = list(node.attributes.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        values = [trace.constant(node.input(p)) if node.input(p) else np.zeros(0, np.int64) for p in range(1, 5)]
        if any(value is None for value in values):
            return None
        starts, ends, axes, steps = ([int(x) for x in np.ravel(value)] for value in values if value is not None)
        axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    return starts, ends, [axis % rank for axis in axes], steps


def _rewrite_gather(node: Node, surgeon: Surgeon) -> None:
    axis = node.attributes.get("axis", 0) % len(surgeon.trace.shape(node.inputs[0]))
    if surgeon.unchanged(node.inputs[0], axis):
        return
    mask = surgeon.mask(node.inputs[0], axis)
    indices = surgeon.trace.network.constants[node.inputs[1]]
    indices = np.where(indices < 0, indices + len(mask), indices)
    moved = (np.cumsum(mask) - 1)[indices]
    surgeon.replace(Slot(node.index, 1), (moved if indices.ndim == 0 else moved[mask[indices]]).astype(np.int64))


@rule("Gather", rewrite=_rewrite_gather, limits="constant indices, one axis of them, along channels")
def gather(node: Node, trace: Trace) -> None:
    """Indices along the axis of channels are rewritten."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        if node.input(1) in trace.labels:
            trace.freeze(node, "its indices are computed from channels")
        return
    axis = node.attributes.get("axis", 0) % labels.ndim
    indices = trace.constant(node.inputs[1])
    if axis in varying(labels) and (indices is None or indices.ndim > 1):
        trace.freeze(node, "its indices are not a constant list")
        return
    _move(node, trace, {0})
    if axis in varying(labels) and indices is not None and indices.ndim == 0:
        trace.channels.freeze(labels.reshape(-1)[int(indices)], f"Gather {node.name} takes this one channel")


def _rewrite_pad(node: Node, surgeon: Surgeon) -> None:
    known = _pads(node, surgeon.trace)
    if known is None:
        return
    pads, axes = known
    changed = False
    for i, axis in enumerate(axes):
        if surgeon.unchanged(node.outputs[0], axis) and surgeon.unchanged(node.inputs[0], axis):
            continue
        changed = True
        for side, end in ((i, False), (i + len(axes), True)):
            pads[side] = _kept_pad(
                pads[side], surgeon.mask(node.inputs[0], axis), surgeon.mask(node.outputs[0], axis), end=end
            )
    if not changed:
        return
    if surgeon.trace.network.opset < 11:
        surgeon.set_attribute(node, "pads", pads)
    else:
        surgeon.replace(Slot(node.index, 1), np.array(pads, np.int64))


def _kept_pad(pad: int, before: np.ndarray, after: np.ndarray, *, end: bool) -> int:
    """How much of a pad is left: surviving new channels, or minus the surviving cropped ones."""
    if end:
        before, after = before[::-1], after[::-1]
    return int(after[:pad].sum()) if pad >= 0 else -int(before[:-pad].sum())


@rule("Pad", rewrite=_rewrite_pad, limits="constant pads and constant mode along channels")
def pad(node: Node, trace: Trace) -> None:
    """Padding along channels makes new ones, which hold a constant; elsewhere channels pass."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    known = _pads(node, trace)
    if known is None:
        before, after = trace.shape(node.inputs[0]), trace.shape(node.outputs[0])
        if any(before[axis] != after[axis] for axis in varying(labels)):
            trace.freeze(node, "its pads are computed")
        else:
            trace.put(node.outputs[0], labels)
        return
    pads, axes = known
    for i, axis in enumerate(axes):
        begin, end = pads[i], pads[i + len(axes)]
        if axis not in varying(labels) or not (begin or end):
            continue
        mode = node.attributes.get("mode", b"constant")
        if mode != b"constant":
            trace.freeze(node, f"it pads channels in mode {mode.decode()}")
            return
        labels = _padded(labels, axis, begin, end, trace)
    trace.put(node.outputs[0], labels)


def _padded(labels: Labels, axis: int, begin: int, end: int, trace: Trace) -> Labels:
    kept = labels.take(range(max(-begin, 0), labels.shape[axis] - max(-end, 0)), axis)
    rank = labels.ndim
    pieces = [
        trace.channels.fresh(max(n, 0)).reshape([-1 if a == axis else 1 for a in range(rank)]) for n in (begin, end)
    ]
    return np.concatenate([pieces[0], kept, pieces[1]], axis)


def _pads(node: Node, trace: Trace) -> tuple[list[int], list[int]] | None:
    """Pads (begins, then ends) and the axes they are for; None where they are computed."""
    rank = len(trace.shape(node.inputs[0]))
    if trace.network.opset < 11:
        return [int(p) for p in node.attributes["pads"]], list(range(rank))
    pads = trace.constant(node.inputs[1])
    axes = trace.constant(node.input(3)) if node.input(3) else np.arange(rank)
    if pads is None or axes is None:
        return None
    return [int(p) for p in pads], [int(a) % rank for a in np.ravel(axes)]


def _move(node: Node, trace: Trace, moving: set[int]) -> None:
    """Run the node on labels: inputs in ``moving`` carry them, the others are the node's own numbers."""
    known = {p: trace.labelled(name) for p, name in enumerate(node.inputs) if p in moving and name}
    if all(labels is None for labels in known.values()):
        return
    values: dict[str, np.ndarray] = {}
    for position, name in enumerate(node.inputs):
        if not name:
            continue
        if position not in moving:
            value = trace.constant(name)
            values[name] = trace.network.small[name] if value is None else value
            continue
        labels = known[position]
        if labels is None:
            labels = _labels_beside(node, trace, position, [other for other in known.values() if other is not None])
        values[name] = np.ascontiguousarray(np.broadcast_to(labels, trace.shape(name)))
    for name, moved in run_movement(node, values, trace.network.opset).items():
        trace.put(name, moved)


def _labels_beside(node: Node, trace: Trace, position: int, others: list[Labels]) -> Labels:
    """New labels for a constant in a Concat, along the axis where its neighbours vary; zeros for plain data."""
    name = node.inputs[position]
    rank = len(trace.shape(name))
    if trace.constant(name) is None:
        return np.zeros((1,) * rank, np.int64)
    axes = sorted({axis for labels in others for axis in varying(labels)})
    if len(axes) != 1:
        return np.zeros((1,) * rank, np.int64)
    vector = trace.channels.fresh(trace.shape(name)[axes[0]])
    trace.cut(Slot(node.index, position), {axes[0]: vector})
    return vector.reshape([-1 if axis == axes[0] else 1 for axis in range(rank)])
