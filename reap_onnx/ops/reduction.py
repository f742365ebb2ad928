"""Reductions: over space channels pass; over channels they are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.model.network import Node
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
).split()


@rule(*_REDUCTIONS, limits="frozen over the axis of channels")
def reduce(node: Node, trace: Trace) -> None:
    """Axes are reduced; the channels must lie on another."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    axes = _axes(node, trace, labels.ndim)
    if axes is None:
        trace.freeze(node, "its axes are computed")
    else:
        _pass_beside(node, trace, axes, "it reduces over channels")


@rule("ArgMax", "ArgMin", limits="frozen over the axis of channels")
def arg_reduce(node: Node, trace: Trace) -> None:
    """One axis is reduced to an index; the channels must lie on another."""
    labels = trace.labelled(node.inputs[0])
    if labels is None:
        return
    _pass_beside(node, trace, (node.attributes.get("axis", 0) % labels.ndim,), "its index counts channels")


def _pass_beside(node: Node, trace: Trace, axes: tuple[int, ...], why: str) -> None:
    """Channels on other axes than those that are reduced pass."""
    rank = len(trace.shape(node.inputs[0]))
    labels = trace.confined(node.inputs[0], [axis for axis in range(rank) if axis not in axes])
    if labels is None:
        trace.freeze(node, why)
    else:
        trace.put(node.outputs[0], labels if node.attributes.get("keepdims", 1) else labels.squeeze(axes))


def _axes(node: Node, trace: Trace, rank: int) -> tuple[int, ...] | None:
    """Axes reduced, from the attribute or the second input; None where they are computed."""
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        value = trace.constant(node.input(1))
        if value is None:
            return None
        axes = np.atleast_1d(value).tolist()
    if not axes:
        return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(int(axis) % rank for axis in axes)
