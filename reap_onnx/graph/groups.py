"""Groups: channels that live on the same tensors, and so are worth choosing among."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from reap_onnx.graph.channels import Labels
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.trace import Trace


@dataclass(frozen=True)
class Group:
    """Channels found on the same tensors in the same numbers.

    A *unit* is what comes or goes at once: one channel, or several that are tied. All units of a
    group are on the same tensors, so that any number of them may go, but for the last.

    Parameters
    ----------
    name
        Name of the layer that makes them first, or of the first tensor that carries them.
    units
        Representative label of each unit, in the order of the channels.
    channels
        Channels of one unit where it is made.
    makers, readers
        Layers that make and that read them.
    frozen
        Why they cannot be pruned; empty where they can.
    """

    name: str
    units: Labels
    channels: int
    makers: tuple[Layer, ...]
    readers: tuple[Layer, ...]
    frozen: str

    @property
    def width(self) -> int:
        """Channels where they are made."""
        return len(self.units) * self.channels

    @property
    def made_as(self) -> list[str]:
        """Names that patterns know the group by: its own, those of the nodes that make it, and of their outputs."""
        return [self.name, *(name for layer in self.makers for name in (layer.node.name, *layer.node.outputs))]


def find_groups(trace: Trace) -> list[Group]:
    """All groups in the order of the graph, frozen ones included."""
    carriers: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for tensor, labels in trace.labels.items():
        roots, counts = np.unique(trace.channels.roots(labels), return_counts=True)
        for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
            if root > 0:
                carriers[root].append((tensor, count))
    together: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for root, tensors in carriers.items():
        together[(*tensors, trace.channels.reason(root))].append(root)
    makers, readers = _layers_of(trace, "features"), _layers_of(trace, "inputs")
    groups = []
    for signature, units in together.items():
        first = units[0]
        reason = str(signature[-1]) or _reason(len(units), readers[first])
        name, channels = carriers[first][0]
        if makers[first]:
            name = makers[first][0].node.name
            channels = int((trace.channels.roots(makers[first][0].features) == first).sum())
        groups.append(Group(name, np.array(units), channels, tuple(makers[first]), tuple(readers[first]), reason))
    return _with_own_names(groups)


def _reason(units: int, readers: list[Layer]) -> str:
    if not any(layer.geometry is not None for layer in readers):
        return "no layer reads them that could be refitted"
    return "a single unit: its channels are tied to each other" if units == 1 else ""


def _layers_of(trace: Trace, end: str) -> dict[int, list[Layer]]:
    found: dict[int, list[Layer]] = defaultdict(list)
    for layer in trace.layers:
        labels = layer.features if end == "features" else layer.inputs
        for root in np.unique(trace.channels.roots(labels)).tolist():
            found[root].append(layer)
    return found


def _with_own_names(groups: list[Group]) -> list[Group]:
    """A second group of the same maker gets a number behind its name."""
    seen: dict[str, int] = defaultdict(int)
    named = []
    for group in groups:
        seen[group.name] += 1
        name = group.name if seen[group.name] == 1 else f"{group.name} #{seen[group.name]}"
        named.append(Group(name, group.units, group.channels, group.makers, group.readers, group.frozen))
    return named
