"""Shape arithmetic: where each number of a computed shape comes from, and what it sizes.

Exporters leave Shape - Gather - Concat chains in front of Reshape, Expand and Resize. The numbers in
them are followed like channels are: by running the data movement on identities of numbers. A number is
the size of an axis (right by itself once channels are gone), an element of a constant (which can be
rewritten), or computed. Whoever sizes an axis by a number *claims* it; whoever else reads it *computes*
with it. A number that is computed with keeps its value, so that all channels that it counts must stay.
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
        Who computes with it, as a reason to freeze; empty for nobody.
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

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._numbers

    def numbers(self) -> Iterator[Number]:
        """Every number that sizes an axis or is computed with."""
        for number in sorted({*self._sizes, *self._computed}):
            yield Number(self._origins[number], tuple(self._sizes.get(number, ())), self._computed.get(number, ""))

    def claim(self, slot: Slot, index: int, axis: Axis) -> None:
        """Say that element ``index`` of what a slot reads is the size of ``axis``."""
        node = self._network.nodes[slot.node]
        name = node.inputs[slot.input]
        numbers = self._constant(slot) if name in self._network.constants else self._numbers.get(name)
        number = self._unknown(node) if numbers is None else int(numbers.flat[index])
        self._sizes[number].append(axis)

    def copy(self, origin: Axis, axis: Axis) -> None:
        """Say that ``axis`` gets the size of ``origin``."""
        self._sizes[self._add(origin)].append(axis)

    def compute(self, tensor: str, node: Node) -> None:
        """Say that a node computes with the numbers in a tensor."""
        for number in np.unique(self._numbers.get(tensor, ())).astype(int).tolist():
            self._computed.setdefault(number, f"{node.op} {node.name} computes with the number of channels")

    def follow(self, node: Node) -> None:
        """Follow a node of the arithmetic: the numbers of its outputs."""
        shape = self._network.shapes.get(node.inputs[0], ())
        if node.op == "Shape":
            axes = range(len(shape))[node.attributes.get("start", 0) : node.attributes.get("end", len(shape))]
            numbers = [self._add(Axis(node.inputs[0], axis)) for axis in axes]
            self._numbers[node.outputs[0]] = np.array(numbers, np.int64)
            return
        if node.op == "Size":
            for axis in range(len(shape)):
                number = self._add(Axis(node.inputs[0], axis))
                self._computed[number] = f"{node.op} {node.name} computes with the number of channels"
        moving = self._moving(node)
        for position, name in enumerate(node.inputs):
            if position not in moving:
                self.compute(name, node)
        self._numbers |= self._moved(node, moving) if moving else self._results(node)

    def _moving(self, node: Node) -> dict[int, np.ndarray]:
        """Numbers of the inputs that a node of data movement moves, by position; empty where it cannot be followed."""
        if node.op not in MOVEMENT:
            return {}
        found: dict[int, np.ndarray] = {}
        for position in range(len(node.inputs)) if node.op == "Concat" else (0,):
            name = node.inputs[position]
            if name in self._numbers:
                found[position] = self._numbers[name]
            elif name in self._network.constants and self._network.constants[name].size <= SMALL:
                found[position] = self._constant(Slot(node.index, position))
            else:
                return {}
        fixed = (name for position, name in enumerate(node.inputs) if name and position not in found)
        return found if all(self._network.known(name) is not None for name in fixed) else {}

    def _moved(self, node: Node, moving: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
        values = [
            moving[position] if position in moving else self._network.known(name)
            for position, name in enumerate(node.inputs)
        ]
        return run_movement(node, values, self._network.opset)

    def _results(self, node: Node) -> dict[str, np.ndarray]:
        """New numbers for what a node has computed."""
        shapes = {name: self._network.shapes[name] for name in node.outputs if name in self._network.small}
        return {name: np.full(shape, self._unknown(node), np.int64) for name, shape in shapes.items()}

    def _constant(self, slot: Slot) -> np.ndarray:
        if slot not in self._constants:
            value = self._network.constants[self._network.nodes[slot.node].inputs[slot.input]]
            numbers = [self._add(Element(slot, index)) for index in range(value.size)]
            self._constants[slot] = np.array(numbers, np.int64).reshape(value.shape)
        return self._constants[slot]

    def _unknown(self, node: Node) -> int:
        number = self._add(None)
        self._computed[number] = f"{node.op} {node.name} makes or reads a computed size"
        return number

    def _add(self, origin: Axis | Element | None) -> int:
        self._origins.append(origin)
        return len(self._origins) - 1
