"""Data movement: the operator is run on channel labels, and what comes out says where every channel went."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.graph.channels import Labels, on_axis, varying
from reap_onnx.graph.movement import run_movement
from reap_onnx.graph.sizes import Axis
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.surgery import Surgeon
    from reap_onnx.graph.trace import Trace


@rule("Flatten", "Tile", "Unsqueeze", limits="constant axes and repeats")
def move(node: Node, trace: Trace) -> None:
    """Channels go where the elements go."""
    _move(node, trace)


@rule("Cast", "Identity", "Transpose")
def turn(node: Node, trace: Trace) -> None:
    """Channels go where the elements go, which stay on their axes."""
    _move(node, trace, acts=())


@rule("CastLike", reads=(0, 1))
def cast_like(node: Node, trace: Trace) -> None:
    """Channels of the first input; of the second the type alone is read."""
    trace.put(node.outputs[0], trace.labelled(node.inputs[0]))


@rule("Squeeze", limits="frozen where no axes are named")
def squeeze(node: Node, trace: Trace) -> None:
    """Channels go where the elements go; without named axes, one left with a single channel would go too."""
    if "axes" in node.attributes or node.input(1):
        _move(node, trace)
    else:
        trace.freeze(node, "it squeezes every axis of size 1")


@rule("DepthToSpace", "SpaceToDepth", limits="channels on axis 1")
def shuffle_space(node: Node, trace: Trace) -> None:
    """Channels and space are exchanged; what is left of the channels stays on axis 1."""
    if trace.vector(node.inputs[0], 1) is None:
        trace.freeze(node, "channels do not lie on axis 1")
    else:
        _move(node, trace, axis=1)


@rule("Reshape", limits="sizes constant or followed")
def reshape(node: Node, trace: Trace) -> None:
    """Elements keep their order; sizes that count channels are rewritten, 0 and -1 adapt by themselves."""
    _move(node, trace)
    copies = not node.attributes.get("allowzero", 0)
    _list_sizes(node, trace, adapting=(-1, 0) if copies else (-1,))
    sizes = trace.network.known(node.inputs[1])
    if sizes is None or not copies:
        return
    for axis in np.flatnonzero(sizes == 0).tolist():
        trace.same_size(Axis(node.inputs[0], axis), Axis(node.outputs[0], axis))


@rule("Expand", limits="sizes constant or followed")
def expand(node: Node, trace: Trace) -> None:
    """Axes of size 1 are repeated; sizes that count channels are rewritten, 1 adapts by itself."""
    _move(node, trace)
    _list_sizes(node, trace, adapting=(1,))


def _list_sizes(node: Node, trace: Trace, adapting: Collection[int]) -> None:
    """The second input lists the sizes of the last axes of the output."""
    rank, listed = len(trace.shape(node.outputs[0])), trace.shape(node.inputs[1])[0]
    trace.list_sizes(Slot(node.index, 1), node.outputs[0], range(rank - listed, rank), adapting)


@rule("Concat", reads=None)
def concat(node: Node, trace: Trace) -> None:
    """Channels of all inputs come together; a constant among them brings channels of its own, which are cut too."""
    _move(node, trace, moving=range(len(node.inputs)), acts=(node.attributes["axis"],))


def _rewrite_split(node: Node, surgeon: Surgeon) -> None:
    axis = node.attributes.get("axis", 0) % len(surgeon.trace.shape(node.inputs[0]))
    if surgeon.unchanged(node.inputs[0], axis):
        return
    parts = [int(surgeon.mask(name, axis).sum()) for name in node.outputs]
    if surgeon.trace.network.opset < 13:
        surgeon.set_attribute(node, "split", parts)
    else:
        surgeon.replace(Slot(node.index, 1), np.array(parts, np.int64))
        surgeon.set_attribute(node, "num_outputs", None)


@rule("Split", rewrite=_rewrite_split, outputs=None, limits="constant sizes; no output left out")
def split(node: Node, trace: Trace) -> None:
    """Every part takes its channels; sizes of parts are rewritten."""
    if all(node.outputs) and (not node.input(1) or trace.constant(node.input(1)) is not None):
        _move(node, trace, acts=(node.attributes.get("axis", 0),))
    else:
        trace.freeze(node, "its sizes are computed, or an output is left out")


def _rewrite_slice(node: Node, surgeon: Surgeon) -> None:
    bounds = _bounds(node, surgeon.trace)
    if not _is_constant(node, surgeon.trace) or all(surgeon.unchanged(node.inputs[0], axis) for axis, _ in bounds):
        return
    starts, ends = [], []
    for axis, bound in bounds:
        mask = surgeon.mask(node.inputs[0], axis)
        first, last, _ = bound.indices(len(mask))
        starts.append(bound.start if mask.all() else int(mask[:first].sum()))
        ends.append(bound.stop if mask.all() else int(mask[:last].sum()))
    for position, (name, numbers) in enumerate((("starts", starts), ("ends", ends)), 1):
        if surgeon.trace.network.opset < 10:
            surgeon.set_attribute(node, name, numbers)
        else:
            dtype = surgeon.trace.network.dtypes[node.inputs[position]]
            surgeon.replace(Slot(node.index, position), np.array(numbers, dtype))


@rule("Slice", rewrite=_rewrite_slice, limits="constant bounds and step 1 along channels")
def cut_out(node: Node, trace: Trace) -> None:
    """Bounds along the axis of channels are rewritten."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    known = all(trace.network.known(name) is not None for name in node.inputs[1:] if name)
    along = [(axis, bound) for axis, bound in _bounds(node, trace) if axis in varying(labels)] if known else []
    sizes = labels.shape
    cuts = any(bound.indices(sizes[axis]) != (0, sizes[axis], 1) for axis, bound in along)
    if not known or (cuts and not _is_constant(node, trace)):
        trace.freeze(node, "its bounds are computed")
    elif any(bound.step != 1 for _, bound in along):
        trace.freeze(node, "it takes every n-th channel, or turns their order")
    else:
        _move(node, trace, acts=[axis for axis, _ in _bounds(node, trace)])


def _bounds(node: Node, trace: Trace) -> list[tuple[int, slice]]:
    """Axis and slice of every axis that a Slice cuts; computed numbers as the probe run had them."""
    rank = len(trace.shape(node.inputs[0]))
    if trace.network.opset < 10:
        numbers = [list(node.attributes.get(name, ())) for name in ("starts", "ends", "axes")] + [[]]
    else:
        values = [trace.network.known(node.input(position)) for position in range(1, 5)]
        numbers = [[] if value is None else value.tolist() for value in values]
    starts, ends, axes, steps = numbers
    entries = zip(axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True)
    return [(axis % rank, slice(start, end, step)) for axis, start, end, step in entries]


def _is_constant(node: Node, trace: Trace) -> bool:
    """Whether every number of the node is a constant."""
    return all(trace.constant(name) is not None for name in node.inputs[1:] if name)


def _rewrite_gather(node: Node, surgeon: Surgeon) -> None:
    axis = node.attributes.get("axis", 0) % len(surgeon.trace.shape(node.inputs[0]))
    if surgeon.unchanged(node.inputs[0], axis):
        return
    mask = surgeon.mask(node.inputs[0], axis)
    indices = surgeon.trace.constant(node.inputs[1])
    assert indices is not None
    places = indices % len(mask)
    moved = (np.cumsum(mask) - 1)[places]
    surgeon.replace(Slot(node.index, 1), np.asarray(moved if indices.ndim == 0 else moved[mask[places]], indices.dtype))


@rule("Gather", rewrite=_rewrite_gather, limits="constant indices, one axis of them, along channels")
def gather(node: Node, trace: Trace) -> None:
    """Indices along the axis of channels are rewritten; a channel taken by itself stays."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    axis = node.attributes.get("axis", 0) % labels.ndim
    indices = trace.constant(node.inputs[1])
    if axis not in varying(labels):
        _move(node, trace, acts=(axis,))
    elif indices is None or indices.ndim > 1:
        trace.freeze(node, "its indices are not a constant list")
    else:
        others = [a for a in range(labels.ndim) if a != axis]
        if indices.ndim == 0 and trace.confined(node.inputs[0], others) is None:
            trace.channels.freeze(labels.reshape(-1)[int(indices)], f"Gather {node.name} takes this one channel")
        _move(node, trace, acts=(axis,))


@rule("GatherND", limits="constant indices; frozen along the axes that they name")
def gather_nd(node: Node, trace: Trace) -> None:
    """Channels on axes behind those that the indices name pass."""
    first = node.attributes.get("batch_dims", 0) + trace.shape(node.inputs[1])[-1]
    rank = len(trace.shape(node.inputs[0]))
    if node.inputs[0] in trace.labels and trace.confined(node.inputs[0], range(first, rank)) is None:
        trace.freeze(node, "it picks among channels")
    elif trace.constant(node.inputs[1]) is None or node.attributes.get("batch_dims", 0):
        trace.freeze(node, "its indices are computed")
    else:
        _move(node, trace)


def _rewrite_pad(node: Node, surgeon: Surgeon) -> None:
    pads, before, after = _pads(node, surgeon.trace), node.inputs[0], node.outputs[0]
    if not _is_constant(node, surgeon.trace) or all(
        surgeon.unchanged(before, axis) and surgeon.unchanged(after, axis) for axis, _, _ in pads
    ):
        return
    begins, ends = [], []
    for axis, begin, end in pads:
        inside, outside = surgeon.mask(before, axis), surgeon.mask(after, axis)
        begins.append(_kept_pad(begin, inside, outside))
        ends.append(_kept_pad(end, inside[::-1], outside[::-1]))
    if surgeon.trace.network.opset < 11:
        surgeon.set_attribute(node, "pads", begins + ends)
    else:
        surgeon.replace(Slot(node.index, 1), np.array(begins + ends, np.int64))


def _kept_pad(pad: int, before: np.ndarray, after: np.ndarray) -> int:
    """How much of a pad is left: surviving new channels, or minus the surviving cropped ones."""
    return int(after[:pad].sum()) if pad >= 0 else -int(before[:-pad].sum())


@rule("Pad", rewrite=_rewrite_pad, limits="constant pads and constant mode along channels")
def pad(node: Node, trace: Trace) -> None:
    """Padding along channels makes new ones, which hold a constant; elsewhere channels pass."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    known = all(trace.network.known(name) is not None for name in node.inputs[1:2] + node.inputs[3:] if name)
    along = [entry for entry in _pads(node, trace) if entry[0] in varying(labels) and any(entry[1:])] if known else []
    mode = node.attributes.get("mode", b"constant")
    if not known or (along and not _is_constant(node, trace)):
        trace.freeze(node, "its pads are computed")
    elif along and mode != b"constant":
        trace.freeze(node, f"it pads channels in mode {mode.decode()}")
    else:
        for axis, begin, end in along:
            labels = _padded(on_axis(trace.along(node.inputs[0], axis), axis, labels.ndim), axis, begin, end, trace)
        trace.put(node.outputs[0], labels)


def _padded(labels: Labels, axis: int, begin: int, end: int, trace: Trace) -> Labels:
    kept = labels.take(range(max(-begin, 0), labels.shape[axis] - max(-end, 0)), axis)
    shape = [-1 if a == axis else 1 for a in range(labels.ndim)]
    first, last = (trace.channels.fresh(max(count, 0)).reshape(shape) for count in (begin, end))
    return np.concatenate([first, kept, last], axis)


def _pads(node: Node, trace: Trace) -> list[tuple[int, int, int]]:
    """Axis, begin and end of every axis that is padded; computed numbers as the probe run had them."""
    rank = len(trace.shape(node.inputs[0]))
    by_input = trace.network.opset >= 11
    pads = trace.network.known(node.inputs[1]) if by_input else np.array(node.attributes["pads"])
    axes = trace.network.known(node.input(3)) if by_input else None
    assert pads is not None
    places = np.arange(rank) if axes is None else axes % rank
    return [(int(a), int(b), int(e)) for a, (b, e) in zip(places, pads.reshape(2, -1).T, strict=True)]


def _move(
    node: Node,
    trace: Trace,
    moving: Collection[int] = (0,),
    axis: int | None = None,
    acts: Collection[int] | None = None,
) -> None:
    """Run the node on labels: inputs in ``moving`` carry them, the others are the node's own numbers.

    Axes other than those that it ``acts`` on (None: all) and that channels lie on are run as if they had size 1.
    """
    carried = {position: trace.labelled(node.inputs[position]) for position in moving}
    known = [labels for labels in carried.values() if labels is not None]
    if not known:
        return
    fixed = {p: trace.network.known(name) for p, name in enumerate(node.inputs) if name and p not in moving}
    if any(value is None for value in fixed.values()):
        trace.freeze(node, "its numbers are computed")
        return
    rank = known[0].ndim
    thin = [] if acts is None else set(range(rank)).difference((a % rank for a in acts), *map(varying, known))
    values: list[np.ndarray | None] = []
    for position, name in enumerate(node.inputs):
        if position in moving:
            labels = carried[position]
            labels = _labels_beside(node, trace, position, known) if labels is None else labels
            sizes = [1 if a in thin else size for a, size in enumerate(trace.shape(name))]
            values.append(np.ascontiguousarray(np.broadcast_to(labels, sizes)))
        else:
            values.append(fixed.get(position))
    results = run_movement(node, values, trace.network.opset)
    if any(not _fits(moved.shape, trace.shape(name), thin=bool(thin)) for name, moved in results.items()):
        trace.freeze(node, "onnxruntime and onnx disagree on what it does")
        return
    for name, moved in results.items():
        trace.put(name, moved, axis)


def _fits(found: tuple[int, ...], shape: tuple[int, ...], *, thin: bool) -> bool:
    """Whether labels have the shape of their tensor, or 1 for sizes where that may be."""
    return len(found) == len(shape) and all(
        n == size or (thin and n == 1) for n, size in zip(found, shape, strict=True)
    )


def _labels_beside(node: Node, trace: Trace, position: int, others: list[Labels]) -> Labels:
    """New labels for a constant in a Concat, along the axis where its neighbours vary; zeros for plain data."""
    name = node.inputs[position]
    rank = len(trace.shape(name))
    axes = sorted({axis for labels in others for axis in varying(labels)})
    if trace.constant(name) is None or len(axes) != 1:
        return np.zeros((1,) * rank, np.int64)
    vector = trace.channels.fresh(trace.shape(name)[axes[0]])
    trace.cut(Slot(node.index, position), {axes[0]: vector})
    return vector.reshape([-1 if axis == axes[0] else 1 for axis in range(rank)])
