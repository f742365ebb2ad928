"""The engine: every node's rule in turn, from which labels, layers and frozen channels follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from reap_onnx.graph.channels import Channels, Labels, varying
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.sizes import Sizes
from reap_onnx.model.network import Network, Node, Slot, subgraphs
from reap_onnx.ops import find_rule


@dataclass(frozen=True)
class Dims:
    """A slot whose value lists the sizes of a tensor's axes (the shape of a Reshape, the sizes of a Resize)."""

    slot: Slot
    tensor: str


class Trace:
    """Channels of a network: labels of every tensor, cuts of every constant, layers, frozen channels.

    Attributes
    ----------
    labels
        Labels of each tensor that carries channels (see ``reap_onnx.graph.channels``).
    cuts
        For each constant input that shrinks with its channels: axis -> labels along it.
    layers
        Layers in the order of the graph.
    dims
        Slots that list sizes of a labelled tensor.
    """

    def __init__(self, network: Network, freeze: Iterable[str] = ()) -> None:
        self.network = network
        self.channels = Channels()
        self.labels: dict[str, Labels] = {}
        self.cuts: dict[Slot, dict[int, Labels]] = {}
        self.layers: list[Layer] = []
        self.dims: list[Dims] = []
        self.sizes = Sizes(network)
        self._patterns = tuple(freeze)
        self.matched: dict[str, int] = dict.fromkeys(self._patterns, 0)
        for node in network.nodes:
            self._visit(node)
        for name in network.outputs:
            self._freeze_tensor(name, f"output {name} of the model")
        self._freeze_shared()

    # -- what rules ask ------------------------------------------------------------------------

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor in the probe run."""
        return self.network.shapes[tensor]

    def labelled(self, tensor: str) -> Labels | None:
        """Labels of a tensor, None where it carries no channels."""
        labels = self.labels.get(tensor)
        return None if labels is None else self.channels.compact(labels)

    def constant(self, tensor: str) -> np.ndarray | None:
        """Value of a tensor that depends on no input, else None."""
        return self.network.constants.get(tensor)

    def vector(self, tensor: str, axis: int) -> Labels | None:
        """Labels along one axis, (size,), zeros for a tensor without; None where they vary along another axis."""
        size = self.shape(tensor)[axis]
        labels = self.labelled(tensor)
        if labels is None:
            return np.zeros(size, np.int64)
        axis %= labels.ndim
        if any(a != axis for a in varying(labels)):
            return None
        return np.broadcast_to(labels.reshape(-1), size).copy()

    # -- what rules say ------------------------------------------------------------------------

    def put(self, tensor: str, labels: Labels | None) -> None:
        """Give an output its labels. Where they vary along several axes, ties leave one, so that cuts stay boxes."""
        if labels is None or not tensor:
            return
        labels = self.channels.compact(labels)
        while len(axes := varying(labels)) > 1:
            lines = [len(np.unique(np.moveaxis(labels, a, 0).reshape(labels.shape[a], -1), axis=0)) for a in axes]
            self._tie_across(labels, axes[int(np.argmax(lines))])
            labels = self.channels.compact(labels)
            if len(varying(labels)) > 1 and (labels == 0).any():
                labels = np.zeros((1,) * labels.ndim, np.int64)
        if labels.any():
            self.labels[tensor] = labels

    def cut(self, slot: Slot, labels: dict[int, Labels]) -> None:
        """Say that a constant input shrinks with its channels: axis -> labels along it."""
        self.cuts[slot] = labels

    def cut_like(self, slot: Slot, labels: Labels) -> None:
        """Say that a constant broadcast against labels (aligned on the right) shrinks with them."""
        shape = self.shape(self.network.nodes[slot.node].inputs[slot.input])
        offset = labels.ndim - len(shape)
        axes = [a for a in varying(labels) if a >= offset and shape[a - offset] > 1]
        if axes:
            self.cut(slot, {a - offset: labels.reshape(-1) for a in axes})

    def list_sizes(self, slot: Slot, tensor: str) -> None:
        """Say that a slot lists the sizes of ``tensor``; channels whose size in it cannot be rewritten are frozen."""
        labels = self.labelled(tensor)
        if labels is None:
            return
        self.dims.append(Dims(slot, tensor))
        name = self.network.nodes[slot.node].inputs[slot.input]
        for axis in varying(labels):
            if not self.sizes.rewritable(name, axis):
                self.channels.freeze(labels, f"a size that {self.network.nodes[slot.node].name} reads is computed")

    def freeze(self, node: Node, why: str) -> None:
        """Freeze all channels that a node reads; its outputs carry none."""
        for name in (*node.inputs, *node.captured):
            self._freeze_tensor(name, f"{node.op} {node.name}: {why}")
            self.use_sizes(name, node)

    def use_sizes(self, tensor: str, node: Node) -> None:
        """Freeze the channels whose number stands in a shape tensor that ``node`` computes with."""
        for counted, axis in self.sizes.counts(tensor):
            self._freeze_axis(counted, axis, node)

    def make(self, node: Node, count: int) -> Labels:
        """New channels made by ``node``, (count,); frozen where the user asked; none for a single one."""
        if count < 2:
            return np.zeros(count, np.int64)
        labels = self.channels.fresh(count)
        names = (node.proto.name, *node.outputs)
        for pattern in self._patterns:
            if any(fnmatchcase(name, pattern) for name in names):
                self.matched[pattern] += 1
                self.channels.freeze(labels, f"--freeze {pattern}")
        return labels

    # -- inside --------------------------------------------------------------------------------

    def _visit(self, node: Node) -> None:
        if all(name in self.network.constants for name in node.outputs if name):
            return
        carries = any(name in self.labels for name in (*node.inputs, *node.captured))
        if any(True for _ in subgraphs(node.proto)):
            self.freeze(node, "no rule for bodies")
        elif node.op in ("Shape", "Size") or (not carries and any(name in self.sizes for name in node.inputs)):
            self._use_sizes_of(node)
        else:
            rule = find_rule(node.op)
            if rule is not None:
                rule.propagate(node, self)
            elif carries:
                self.freeze(node, "no rule")

    def _use_sizes_of(self, node: Node) -> None:
        """A node of the arithmetic on shapes: follow its numbers, freeze the channels whose count it computes with."""
        for tensor, axis in self.sizes.follow(node):
            self._freeze_axis(tensor, axis, node)

    def _freeze_axis(self, tensor: str, axis: int, node: Node) -> None:
        labels = self.labelled(tensor)
        if labels is not None and axis in varying(labels):
            self.channels.freeze(labels, f"{node.op} {node.name} computes with the number of channels")

    def _freeze_tensor(self, tensor: str, reason: str) -> None:
        labels = self.labels.get(tensor)
        if labels is not None:
            self.channels.freeze(labels, reason)

    def _tie_across(self, labels: Labels, axis: int) -> None:
        """Tie channels until labels are a function of ``axis`` alone; lines that mix channels with none are frozen."""
        lines = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        mixed = (lines == 0).any(1)
        self.channels.freeze(lines[mixed], "joined with values that carry no channels")
        self.channels.tie(lines, lines.max(1, keepdims=True))

    def _freeze_shared(self) -> None:
        """Layers that share a weight cannot be refitted apart: their channels stay."""
        sharing: dict[str, list[Layer]] = defaultdict(list)
        for layer in self.layers:
            sharing[layer.node.inputs[layer.weight.input]].append(layer)
        for name, layers in sharing.items():
            if len(layers) > 1:
                reason = f"weight {name} is shared by {', '.join(layer.node.name for layer in layers)}"
                for layer in layers:
                    self.channels.freeze(layer.inputs, reason)
                    self.channels.freeze(layer.features, reason)
