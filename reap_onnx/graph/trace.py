"""The engine: every node's rule in turn, from which labels, layers and frozen channels follow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from reap_onnx.graph.balance import Blocks, balance
from reap_onnx.graph.channels import Channels, Labels, varying
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.sizes import Axis, Number, Sizes
from reap_onnx.model.network import Network, Node, Slot, subgraphs
from reap_onnx.ops import Rule, find_rule


class Trace:
    """Channels of a network: labels of every tensor, cuts of every constant, layers, frozen channels.

    1. Every node's rule is asked in the order of the graph; a node without one freezes what it reads.
    2. Channels that an output of the model carries, or whose number it holds, are frozen.
    3. Numbers of shape arithmetic are settled: channels counted by one number come and go together, channels
       counted by a number that something computes with are frozen.
    4. Channels of layers that share a weight are frozen.
    5. Blocks that must lose equally many channels are balanced.

    Attributes
    ----------
    labels
        Labels of each tensor that carries channels (see ``reap_onnx.graph.channels``); they vary along one axis.
    cuts
        For each constant input that shrinks with its channels: axis -> labels along it (see ``cut``).
    layers
        Layers in the order of the graph.
    sizes
        Where the numbers in shapes come from.
    matched
        For each pattern of ``freeze``, how many nodes that make channels it named.
    """

    def __init__(self, network: Network, freeze: Iterable[str] = ()) -> None:
        self.network = network
        self.channels = Channels()
        self.labels: dict[str, Labels] = {}
        self.cuts: dict[Slot, dict[int, Labels]] = {}
        self.layers: list[Layer] = []
        self.sizes = Sizes(network)
        self.matched: dict[str, int] = dict.fromkeys(freeze, 0)
        self._claimed: set[Slot] = set()
        self._blocks: list[Blocks] = []
        for node in network.nodes:
            self._visit(node)
        for name in network.outputs:
            self._freeze_tensor(name, f"output {name} of the model")
            if name in network.producer:
                self.sizes.compute(name, network.producer[name])
        for number in self.sizes.numbers():
            self._settle(number)
        self._freeze_shared()
        balance(self.channels, self._blocks)

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
        if any(a != axis % labels.ndim for a in varying(labels)):
            return None
        return np.broadcast_to(labels.reshape(-1), size).copy()

    def along(self, tensor: str, axis: int) -> Labels:
        """Labels along one axis, (size,), zeros where they do not vary along it."""
        vector = self.vector(tensor, axis)
        return np.zeros(self.shape(tensor)[axis], np.int64) if vector is None else vector

    # -- what rules say ------------------------------------------------------------------------

    def put(self, tensor: str, labels: Labels | None, axis: int | None = None) -> None:
        """Give an output its labels.

        Ties make them vary along one axis alone, so that cuts stay boxes: along ``axis`` where it is given, else
        along the one that leaves most channels apart.
        """
        if labels is None or not tensor:
            return
        labels = self.channels.compact(labels)
        axes = varying(labels)
        if len(axes) > 1 or (axis is not None and axes not in ((), (axis,))):
            lines = [len(np.unique(_lines(labels, a), axis=0)) for a in axes]
            labels = self._tie_across(labels, axes[int(np.argmax(lines))] if axis is None else axis, tensor)
        if labels.any():
            self.labels[tensor] = labels

    def cut(self, slot: Slot, labels: dict[int, Labels]) -> None:
        """Say that a constant input shrinks with its channels: axis -> labels along it.

        Labels (blocks, size) cut every block of axis 0 by a row of its own; all rows must lose equally many.
        """
        self.cuts[slot] = labels

    def cut_like(self, slot: Slot, labels: Labels) -> None:
        """Say that a constant broadcast against labels (aligned on the right) shrinks with them."""
        shape = self.shape(self.network.nodes[slot.node].inputs[slot.input])
        offset = labels.ndim - len(shape)
        axes = [a for a in varying(labels) if a >= offset and shape[a - offset] > 1]
        if axes:
            self.cut(slot, {a - offset: labels.reshape(-1) for a in axes})

    def list_sizes(self, slot: Slot, tensor: str, axes: Sequence[int], adapting: Collection[int] = ()) -> None:
        """Say that what a slot reads lists the sizes of ``axes`` of ``tensor``; ``adapting`` values need no change."""
        values = self.network.known(self.network.nodes[slot.node].inputs[slot.input])
        self._claimed.add(slot)
        for index, axis in enumerate(axes):
            if values is None or int(values.flat[index]) not in adapting:
                self.sizes.claim(slot, index, Axis(tensor, axis))

    def balance(self, blocks: Labels, reason: str) -> None:
        """Say that blocks of channels, (blocks, size), must lose equally many, or stay because of ``reason``."""
        self._blocks.append((blocks, reason))

    def freeze(self, node: Node, why: str) -> None:
        """Freeze all channels that a node reads; its outputs carry none."""
        for name in (*node.inputs, *node.captured):
            self._freeze_tensor(name, f"{node.op} {node.name}: {why}")

    def make(self, node: Node, count: int) -> Labels:
        """New channels made by ``node``, (count,); frozen where the user asked; none for a single one."""
        if count < 2:
            return np.zeros(count, np.int64)
        labels = self.channels.fresh(count)
        for pattern in self.matched:
            if any(fnmatchcase(name, pattern) for name in (node.proto.name, *node.outputs)):
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
            self.sizes.follow(node)
            return
        elif (rule := find_rule(node.op)) is not None:
            self._apply(rule, node)
        else:
            self.freeze(node, "no rule")
        for position, name in enumerate((*node.inputs, *node.captured)):
            if Slot(node.index, position) not in self._claimed:
                self.sizes.compute(name, node)

    def _apply(self, rule: Rule, node: Node) -> None:
        """Ask a rule, but for inputs that it expects no channels on and outputs that it knows nothing of."""
        if rule.outputs is not None and any(self.network.is_read(name) for name in node.outputs[rule.outputs :]):
            self.freeze(node, f"no rule for its output {rule.outputs + 1}")
            return
        for position, name in enumerate(node.inputs):
            if rule.reads is not None and position not in rule.reads:
                self._freeze_tensor(name, f"{node.op} {node.name}: no rule for channels on input {position + 1}")
        rule.propagate(node, self)

    def _settle(self, number: Number) -> None:
        """Tie or freeze the channels that a number counts."""
        axes = [*number.sizes, number.origin] if isinstance(number.origin, Axis) else number.sizes
        vectors = [self.along(axis.tensor, axis.axis) for axis in axes]
        if number.computed or len({len(vector) for vector in vectors}) > 1:
            reason = number.computed or f"one number is the size of {', '.join(axis.tensor for axis in axes)}"
            for vector in vectors:
                self.channels.freeze(vector, reason)
            return
        for vector in vectors[1:]:
            if not self.channels.alike(vectors[0], vector):
                self.channels.tie(vectors[0], vector)
                alone = (vectors[0] == 0) ^ (vector == 0)
                self.channels.freeze((vectors[0] + vector)[alone], f"{axes[0].tensor} has a size that never changes")

    def _freeze_tensor(self, tensor: str, reason: str) -> None:
        labels = self.labels.get(tensor)
        if labels is not None:
            self.channels.freeze(labels, reason)

    def _tie_across(self, labels: Labels, axis: int, tensor: str) -> Labels:
        """Tie channels until labels are a function of ``axis`` alone; lines that mix channels with none are frozen."""
        lines = _lines(labels, axis)
        mixed = (lines == 0).any(1)
        self.channels.freeze(lines[mixed], f"{tensor} mixes them with values that carry no channels")
        self.channels.tie(lines, lines.max(1, keepdims=True))
        vector = np.where(mixed, 0, lines.max(1))
        return self.channels.compact(vector.reshape([-1 if a == axis else 1 for a in range(labels.ndim)]))

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


def _lines(labels: Labels, axis: int) -> Labels:
    """Labels as a matrix whose rows run along ``axis``."""
    return np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
