"""Shape arithmetic: where each number of a computed shape comes from, and what it sizes.

Exporters leave Shape - Gather - Concat chains in front of Reshape, Expand and Resize. The numbers in
them are followed like channels are: by running the data movement on identities of numbers. A number is
the size of an axis (right by itself once channels are gone), an element of a constant (which can be
rewritten), or computed. Whoever sizes an axis by a number *claims* it; whoever else reads it *computes*
with it. A number that is the same for inputs of any size is *fixed*: what is computed with fixed numbers
alone is as good as a constant, and its reader is given the value that it had. Any other number that is
computed with keeps its value, so that all channels that it counts must stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reap_onnx.graph.movement import MOVEMENT, run_movement
from reap_onnx.model.network import SMALL, Network, Node, Slot


@dataclass(frozen=True)
class Axis:
    """An axis of a tensor."""

    tensor: str
    axis: int


@dataclass(frozen=True)
class Element:
    """An element of a constant, where the arithmetic reads it."""

    slot: Slot
    index: int


@dataclass(frozen=True)
class Number:
    """A number that stands in a shape.

    Parameters
    ----------
    origin
        The axis whose size it is, the element of a constant, or None where it is computed.
    sizes
        The axes that it sizes.
    computed
        Who computes with it as it will be, as a reason to freeze; empty for nobody.
    """

    origin: Axis | Element | None
    sizes: tuple[Axis, ...]
    computed: str


class Sizes:
    """The numbers of shape arithmetic."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._origins: list[Axis | Element | None] = []
        self._numbers: dict[str, np.ndarray] = {}
        self._constants: dict[Slot, np.ndarray] = {}
        self._sizes: dict[int, list[Axis]] = defaultdict(list)
        self._computed: dict[int, str] = {}
        self._fixed: set[int] = set()
        self._results: set[str] = set()
        self._kept: list[Slot] = []

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._numbers or tensor in self._results

    def constant(self, tensor: str) -> np.ndarray | None:
        """Value of a tensor that holds fixed numbers alone, or what was computed with them; None for any other."""
        return self._network.small.get(tensor) if self._is_fixed(tensor) else None

    def kept(self) -> dict[Slot, list[Axis]]:
        """Slots that compute with fixed numbers, which they read as before; axes that these are the sizes of."""
        return {slot: [axis for n in self._read_by(slot) for axis in self._axes(n)] for slot in self._kept}

    def original(self, slot: Slot) -> np.ndarray:
        """What a slot that computes with fixed numbers read before."""
        name = self._network.nodes[slot.node].inputs[slot.input]
        values = [self._value(number) for number in self._read_by(slot)]
        return np.array(values).astype(self._network.dtypes[name]).reshape(self._network.shapes[name])

    def numbers(self) -> Iterator[Number]:
        """Every number that sizes an axis or is computed with."""
        for number in sorted({*self._sizes, *self._computed}):
            yield Number(self._origins[number], tuple(self._sizes.get(number, ())), self._computed.get(number, ""))

    def claim(self, slot: Slot, index: int, axis: Axis) -> None:
        """Say that element ``index`` of what a slot reads is the size of ``axis``."""
        node = self._network.nodes[slot.node]
        name = node.inputs[slot.input]
        numbers = self._constant(slot) if self._is_fixed(name) else self._numbers.get(name)
        number = self._unknown(node) if numbers is None else int(numbers.flat[index])
        self._sizes[number].append(axis)

    def copy(self, origin: Axis, axis: Axis) -> None:
        """Say that ``axis`` gets the size of ``origin``."""
        self._sizes[self._add(origin)].append(axis)

    def read(self, slot: Slot) -> None:
        """Say that a slot computes with the numbers that it reads."""
        node = self._network.nodes[slot.node]
        tensor = node.inputs[slot.input]
        if tensor in self._numbers and self._is_fixed(tensor):
            self._kept.append(slot)
        else:
            self.compute(tensor, node)

    def compute(self, tensor: str, node: Node) -> None:
        """Say that a node computes with the numbers in a tensor, and cannot be given what it read before."""
        for number in np.unique(self._numbers.get(tensor, ())).astype(int).tolist():
            self._computed.setdefault(number, f"{node.op} {node.name} computes with the number of channels")

    def follow(self, node: Node) -> None:
        """Follow a node of the arithmetic: the numbers of its outputs."""
        shape = self._network.shapes.get(node.inputs[0], ())
        if node.op == "Shape":
            axes = range(len(shape))[node.attributes.get("start", 0) : node.attributes.get("end", len(shape))]
            numbers = [self._add(Axis(node.inputs[0], axis)) for axis in axes]
            self._numbers[node.outputs[0]] = np.array(numbers, np.int64)
            larger = self._network.sizes.get(node.outputs[0], np.zeros(0))
            same = zip(numbers, axes, larger.tolist(), strict=False)
            self._fixed.update(number for number, axis, size in same if size == shape[axis])
            return
        if node.op == "Size":
            for axis in range(len(shape)):
                number = self._add(Axis(node.inputs[0], axis))
                self._computed[number] = f"{node.op} {node.name} computes with the number of channels"
        if node.op == "Equal" and self._asks_for_negative(node):
            self._results.update(node.outputs)
            return
        if node.op == "Where" and (chosen := self._chosen(node)) is not None:
            self._numbers[node.outputs[0]] = chosen
            return
        moving = self._moving(node) or self._beside_one(node)
        for position in range(len(node.inputs)):
            if position not in moving:
                self.read(Slot(node.index, position))
        if moving:
            self._numbers |= self._moved(node, moving)
        elif all(self._is_fixed(name) for name in node.inputs if name):
            self._results.update(name for name in node.outputs if name)
        else:
            self._numbers |= self._unknowns(node)

    def _moving(self, node: Node) -> dict[int, np.ndarray]:
        """Numbers of the inputs that a node of data movement moves, by position; empty where it cannot be followed."""
        if node.op not in MOVEMENT:
            return {}
        found: dict[int, np.ndarray] = {}
        for position in range(len(node.inputs)) if node.op == "Concat" else (0,):
            numbers = self._read(Slot(node.index, position))
            if numbers is None:
                return {}
            found[position] = numbers
        fixed = (name for position, name in enumerate(node.inputs) if name and position not in found)
        if any(self._network.known(name) is None for name in fixed):
            return {}
        if not all(self._is_fixed(node.inputs[position]) for position in found):  # fixed numbers among others
            found = {
                p: self._constant(Slot(node.index, p)) if self._is_fixed(node.inputs[p]) else n
                for p, n in found.items()
            }
        return found

    def _beside_one(self, node: Node) -> dict[int, np.ndarray]:
        """The fixed factor of an open size that was 1, as that of a batch: so many for each sample."""
        for position, name in enumerate(node.inputs if node.op == "Mul" else ()):
            other = node.inputs[1 - position]
            size, value = self._network.known(other), self._network.known(name)
            if size is None or value is None or not self._is_fixed(name) or self._is_fixed(other):
                continue
            if (size == 1).all() and value.shape == self._network.shapes[node.outputs[0]] and value.size <= SMALL:
                numbers = self._constant(Slot(node.index, position))
                self._fixed.difference_update(numbers.ravel().tolist())
                return {position: numbers}
        return {}

    def _asks_for_negative(self, node: Node) -> bool:
        """Whether sizes are compared with numbers that none has: -1, say, by which an Expand leaves a size as it is."""
        fixed = [self._network.known(name) for name in node.inputs if self._is_fixed(name)]
        return any(value is not None and value.size and (value < 0).all() for value in fixed)

    def _chosen(self, node: Node) -> np.ndarray | None:
        """Numbers that a Where takes, which asks for negative ones; None where it asks for anything else."""
        asked = self._network.producer.get(node.inputs[0])
        if asked is None or asked.op != "Equal" or not self._asks_for_negative(asked):
            return None
        first, second = (self._network.known(name) for name in asked.inputs)
        yes, no = (self._read(Slot(node.index, position)) for position in (1, 2))
        if first is None or second is None or yes is None or no is None:
            return None
        return np.asarray(np.where(first == second, yes, no))

    def _read(self, slot: Slot) -> np.ndarray | None:
        """Numbers that a slot reads, those of a constant included; None where there are none."""
        name = self._network.nodes[slot.node].inputs[slot.input]
        if name in self._numbers:
            return self._numbers[name]
        known = self._network.known(name) if self._is_fixed(name) else None
        return None if known is None or known.size > SMALL else self._constant(slot)

    def _is_fixed(self, tensor: str) -> bool:
        """Whether a tensor is the same for inputs of any size."""
        if tensor in self._numbers:
            return self._fixed.issuperset(self._numbers[tensor].ravel().tolist())
        return tensor in self._results or tensor in self._network.constants

    def _moved(self, node: Node, moving: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
        if node.op not in MOVEMENT:
            return {node.outputs[0]: next(iter(moving.values()))}
        values = [
            moving[position] if position in moving else self._network.known(name)
            for position, name in enumerate(node.inputs)
        ]
        return run_movement(node, values, self._network.opset)

    def _unknowns(self, node: Node) -> dict[str, np.ndarray]:
        """New numbers for what a node has computed."""
        shapes = {name: self._network.shapes[name] for name in node.outputs if name in self._network.small}
        return {name: np.full(shape, self._unknown(node), np.int64) for name, shape in shapes.items()}

    def _constant(self, slot: Slot) -> np.ndarray:
        if slot not in self._constants:
            name = self._network.nodes[slot.node].inputs[slot.input]
            value = self._network.known(name)
            assert value is not None
            if name in self._numbers:
                self._kept.append(slot)
            numbers = [self._add(Element(slot, index)) for index in range(value.size)]
            self._fixed.update(numbers)
            self._constants[slot] = np.array(numbers, np.int64).reshape(value.shape)
        return self._constants[slot]

    def _read_by(self, slot: Slot) -> list[int]:
        numbers = self._numbers[self._network.nodes[slot.node].inputs[slot.input]]
        return [int(number) for number in numbers.flat]

    def _axes(self, number: int) -> list[Axis]:
        """Axes whose size a number is."""
        origin = self._origins[number]
        return [*self._sizes.get(number, ()), *([origin] if isinstance(origin, Axis) else [])]

    def _value(self, number: int) -> int:
        """A fixed number in the model as it was."""
        origin = self._origins[number]
        assert origin is not None
        if isinstance(origin, Axis):
            return self._network.shapes[origin.tensor][origin.axis]
        known = self._network.known(self._network.nodes[origin.slot.node].inputs[origin.slot.input])
        assert known is not None
        return int(known.flat[origin.index])

    def _unknown(self, node: Node) -> int:
        number = self._add(None)
        self._computed[number] = f"{node.op} {node.name} makes or reads a computed size"
        return number

    def _add(self, origin: Axis | Element | None) -> int:
        self._origins.append(origin)
        return len(self._origins) - 1
