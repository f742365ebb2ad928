"""The original network as it is without some channels, in its own shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx

from reap_onnx.graph.channels import Labels, varying
from reap_onnx.graph.layer import Layer
from reap_onnx.model.edit import narrow, with_constants
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import find_rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


def mask_channels(trace: Trace, removed: Iterable[int], weights: Mapping[Slot, np.ndarray]) -> onnx.ModelProto:
    """The original with new weights, in which operators that couple channels run on those that stay alone.

    It is for the weights to ignore removed channels: their values are still there, behind a coupling operator
    those of others.

    Parameters
    ----------
    trace, removed, weights
        As for :class:`reap_onnx.graph.surgery.Surgeon`.
    """
    model = with_constants(trace.network, weights)
    for node, axis, kept in _narrowed(trace, removed):
        narrow(model, node.outputs[0], axis, kept)
    return model


def first_changed(trace: Trace, removed: Iterable[int], layers: Iterable[Layer]) -> int:
    """Index of the first node that makes something else once channels are gone and these layers have new weights."""
    narrowed = [node.index for node, _, _ in _narrowed(trace, removed)]
    return min([*narrowed, *(layer.node.index for layer in layers)], default=0)


def coupled(trace: Trace) -> Labels:
    """Representatives of the channels whose values change when others go."""
    found = [labels.reshape(-1) for _, labels in _coupling(trace)]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def _narrowed(trace: Trace, removed: Iterable[int]) -> list[tuple[Node, int, np.ndarray]]:
    """Nodes that couple channels that go with others; the axis of their first input, and what stays of it, bool."""
    gone = trace.channels.roots(np.fromiter(removed, np.int64))
    found = []
    for node, labels in _coupling(trace):
        kept = ~np.isin(labels.reshape(-1), gone)
        if not kept.all():
            found.append((node, varying(labels)[0], kept))
    return found


def _coupling(trace: Trace) -> list[tuple[Node, Labels]]:
    """Nodes that couple channels, with the labels of what they read."""
    found = []
    for node in trace.network.nodes:
        rule = find_rule(node.op)
        labels = trace.labelled(node.inputs[0]) if rule is not None and rule.couples else None
        if labels is not None and varying(labels):
            found.append((node, labels))
    return found
