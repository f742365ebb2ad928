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
from reap_onnx.model.network import Network, Node, Slot, count_layers, subgraphs
from reap_onnx.model.quantized import find_quantized, find_storage
from reap_onnx.ops import Rule, find_rule, left_alone


class Trace:
    """Channels of a network: labels of every tensor, cuts of every constant, layers, frozen channels.

    1. Every node's rule is asked in the order of the graph; a node without one freezes what it reads.
    2. Layers that share a weight lose the same channels of it.
    3. Where a tensor's labels still vary along several axes, channels are tied until they vary along one.
    4. Channels that an output of the model carries, or whose number it holds, are frozen.
    5. Numbers of shape arithmetic are settled: channels counted by one number come and go together, channels
       counted by a number that something computes with are frozen.
    6. Blocks that must lose equally many channels are balanced.

    Attributes
    ----------
    labels
        Labels of each tensor that carries channels (see ``reap_onnx.graph.channels``); in the end they vary along
        one axis.
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
        self._cut_alike: list[tuple[Slot, str]] = []
        self._blocks: list[Blocks] = []
        for node in network.nodes:
            self._visit(node)
        self._tie_shared()
        self.labels = {name: self._boxed(labels, name) for name, labels in self.labels.items()}
        for slot, name in self._cut_alike:
            self._cut_like(slot, name)
        for name in network.outputs:
            self._freeze_tensor(name, f"output {name} of the model")
            if name in network.producer:
                self.sizes.compute(name, network.producer[name])
        for number in self.sizes.numbers():
            self._settle(number)
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
        """Value of a tensor that is the same for all inputs, shapes of fixed size included; None for any other."""
        value = self.network.constants.get(tensor)
        return self.sizes.constant(tensor) if value is None else value

    def confined(self, tensor: str, axes: Collection[int]) -> Labels | None:
        """Labels of a tensor, tied until they vary along ``axes`` alone; None where they only vary along others."""
        labels = self.labelled(tensor)
        if labels is None or all(axis in axes for axis in varying(labels)):
            return labels
        if not any(axis in axes for axis in varying(labels)):
            return None
        self.labels[tensor] = self._tie_across(labels, axes, tensor)
        return self.labels[tensor]

    def vector(self, tensor: str, axis: int) -> Labels | None:
        """Labels along one axis, (size,), zeros for a tensor without; None where they only vary along another."""
        shape = self.shape(tensor)
        if tensor not in self.labels:
            return np.zeros(shape[axis], np.int64)
        labels = self.confined(tensor, (axis % len(shape),))
        return None if labels is None else np.broadcast_to(labels.reshape(-1), shape[axis]).copy()

    def sharers(self, layer: Layer) -> list[Layer]:
        """Layers that read the weight of a layer, itself included."""
        name = layer.node.inputs[layer.weight.input]
        return [other for other in self.layers if other.node.inputs[other.weight.input] == name]

    def along(self, tensor: str, axis: int) -> Labels:
        """Labels along one axis, (size,), zeros where they do not vary along it."""
        vector = self.vector(tensor, axis)
        return np.zeros(self.shape(tensor)[axis], np.int64) if vector is None else vector

    # -- what rules say ------------------------------------------------------------------------

    def put(self, tensor: str, labels: Labels | None, axis: int | None = None) -> None:
        """Give an output its labels; ties make them vary along ``axis`` alone where it is given.

        Where channels and plain values share an axis and vary along another, the former are frozen at once.
        """
        if labels is None or not tensor:
            return
        labels = self.channels.compact(labels)
        if axis is not None and varying(labels) not in ((), (axis,)):
            labels = self._tie_across(labels, (axis,), tensor)
        elif (labels == 0).any():
            labels = self._boxed(labels, tensor)
        if labels.any():
            self.labels[tensor] = labels

    def cut(self, slot: Slot, labels: dict[int, Labels]) -> None:
        """Say that a constant input shrinks with its channels: axis -> labels along it.

        Labels (blocks, size) cut every block of axis 0 by a row of its own; all rows must lose equally many. They are
        frozen where a quantised constant has its scales along that axis, which all blocks share, and where it is
        stored with its axes in another order.
        """
        name = self.network.nodes[slot.node].input(slot.input)
        for axis, vector in labels.items():
            if vector.ndim > 1:
                storage = find_storage(self.network, slot)
                quantized = find_quantized(self.network, storage.slot)
                if storage.order != tuple(range(len(storage.order))):
                    self.channels.freeze(vector, f"{name} is transposed before it is cut in blocks")
                elif quantized is not None and quantized.axis == axis:
                    self.channels.freeze(vector, f"the scales of {name} are shared by the groups of the convolution")
        self.cuts[slot] = labels

    def cut_like(self, slot: Slot, tensor: str) -> None:
        """Say that a constant broadcast to the shape of ``tensor`` (aligned on the right) shrinks with it."""
        self._cut_alike.append((slot, tensor))

    def list_sizes(self, slot: Slot, tensor: str, axes: Sequence[int], adapting: Collection[int] = ()) -> None:
        """Say that what a slot reads lists the sizes of ``axes`` of ``tensor``; ``adapting`` values need no change."""
        values = self.network.known(self.network.nodes[slot.node].inputs[slot.input])
        self._claimed.add(slot)
        for index, axis in enumerate(axes):
            if values is None or int(values.flat[index]) not in adapting:
                self.sizes.claim(slot, index, Axis(tensor, axis))

    def tie_blocks(self, channels: Labels, groups: int, node: Node) -> None:
        """Say that channels (C,) of one group come and go together; a group with a plain value among them stays."""
        blocks = channels.reshape(groups, -1)
        self.channels.tie(blocks, blocks.max(1, keepdims=True))
        mixed = blocks[(blocks == 0).any(1)]
        self.channels.freeze(mixed, f"they share a group of {node.op} {node.name} with plain values")

    def same_size(self, first: Axis, second: Axis) -> None:
        """Say that one axis gets the size of another."""
        self.sizes.copy(first, second)

    def balance(self, blocks: Labels, reason: str) -> None:
        """Say that blocks of channels, (blocks, size), must lose equally many, or stay because of ``reason``."""
        self._blocks.append((blocks, reason))

    def pass_on(self, node: Node, axes: Collection[int], why: str) -> None:
        """Give the output of a node the labels of its first input along ``axes``; freeze those that lie on others."""
        labels = self.confined(node.inputs[0], axes)
        if labels is None:
            self.freeze(node, why)
        else:
            self.put(node.outputs[0], labels)

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

    def left_alone(self) -> list[str]:
        """A line on each kind of operator that holds weights but has no rule: these weights stay as they are."""
        found: dict[str, list[str]] = defaultdict(list)
        for node in self.network.nodes:
            if all(name in self.network.constants for name in node.outputs if name):
                continue
            bodies = list(subgraphs(node.proto))
            if layers := sum(count_layers(body) for body in bodies):
                found[f"{node.op}: no rule for bodies, {layers} layers in them stay as they are"].append(node.name)
            elif not bodies and find_rule(node.op) is None and self._holds_weights(node):
                hint = "; give the model as it was before onnxruntime optimised it" * node.op.startswith(
                    "com.microsoft"
                )
                found[f"{node.op}: no rule, its weights stay as they are{hint}"].append(node.name)
        return [f"{what} ({_few(names)})" for what, names in found.items()]

    def _holds_weights(self, node: Node) -> bool:
        values = (self.network.constants.get(name) for name in node.inputs)
        return any(value is not None and value.ndim > 1 and value.size > 1 for value in values)

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
            self.freeze(node, left_alone().get(node.op, "no rule"))
        for position in range(len(node.inputs)):
            if Slot(node.index, position) not in self._claimed:
                self.sizes.read(Slot(node.index, position))
        for name in node.captured:
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
                self._tie_all(vectors[0], vector, f"{axes[0].tensor} has a size that never changes")

    def _freeze_tensor(self, tensor: str, reason: str) -> None:
        labels = self.labels.get(tensor)
        if labels is not None:
            self.channels.freeze(labels, reason)

    def _boxed(self, labels: Labels, tensor: str) -> Labels:
        """Labels tied until they vary along one axis alone, the one that leaves most of them apart: cuts are boxes."""
        labels = self.channels.compact(labels)
        axes = varying(labels)
        if len(axes) < 2:
            return labels
        lines = [len(np.unique(_lines(labels, (axis,)), axis=0)) for axis in axes]
        return self._tie_across(labels, (axes[int(np.argmax(lines))],), tensor)

    def _cut_like(self, slot: Slot, tensor: str) -> None:
        labels = self.labelled(tensor)
        if labels is None:
            return
        shape = self.shape(self.network.nodes[slot.node].inputs[slot.input])
        offset = labels.ndim - len(shape)
        axes = [a for a in varying(labels) if a >= offset and shape[a - offset] > 1]
        if axes:
            self.cut(slot, {a - offset: labels.reshape(-1) for a in axes})

    def _tie_across(self, labels: Labels, axes: Collection[int], tensor: str) -> Labels:
        """Tie channels until labels are a function of ``axes`` alone; lines that mix channels with none are frozen."""
        lines = _lines(labels, axes)
        mixed = (lines == 0).any(1)
        self.channels.freeze(lines[mixed], f"{tensor} mixes them with values that carry no channels")
        self.channels.tie(lines, lines.max(1, keepdims=True))
        left = np.where(mixed, 0, lines.max(1))
        return self.channels.compact(left.reshape([n if a in axes else 1 for a, n in enumerate(labels.shape)]))

    def _tie_all(self, first: Labels, second: Labels, reason: str) -> None:
        """Tie channels one by one; those that meet none are frozen."""
        self.channels.tie(first, second)
        self.channels.freeze((first + second)[(first == 0) ^ (second == 0)], reason)

    def _tie_shared(self) -> None:
        """Layers that share a weight lose the same channels of it; where they read it in other ways they stay."""
        for layer in self.layers:
            sharers = self.sharers(layer)
            if sharers[0] is layer:
                continue
            name = layer.node.inputs[layer.weight.input]
            reason = f"weight {name} is shared by {', '.join(other.node.name for other in sharers)}"
            if self._alike(layer, sharers[0]):
                self._tie_all(layer.inputs, sharers[0].inputs, reason)
                self._tie_all(layer.features, sharers[0].features, reason)
            else:
                for labels in (layer.inputs, layer.features, sharers[0].inputs, sharers[0].features):
                    self.channels.freeze(labels, reason)

    def _alike(self, layer: Layer, other: Layer) -> bool:
        """Whether two layers make the same matrix of the weight that they share."""
        if layer.geometry is None or other.geometry is None:
            sizes = [(one.inputs.shape, one.features.shape) for one in (layer, other)]
            return layer.node.op == other.node.op and layer.geometry is other.geometry and sizes[0] == sizes[1]
        weight = self.network.constants[layer.node.inputs[layer.weight.input]]
        return np.array_equal(layer.geometry.matrix(weight), other.geometry.matrix(weight))


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _lines(labels: Labels, axes: Collection[int]) -> Labels:
    """Labels as a matrix whose rows run along ``axes``, in their order."""
    order = sorted(range(labels.ndim), key=lambda axis: axis not in axes)
    rows = int(np.prod([size for axis, size in enumerate(labels.shape) if axis in axes]))
    return labels.transpose(order).reshape(rows, -1)
