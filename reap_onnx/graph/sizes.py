"""Shape arithmetic: where each number of a computed shape comes from.

Exporters leave Shape - Gather - Concat chains in front of Reshape, Expand and Resize. The numbers in
them are followed like channels are: by running the data movement on identities of numbers. A number is
the size of an axis (right by itself once channels are gone), an element of a constant (which can be
rewritten), or computed (then the channels it counts must stay).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reap_onnx.graph.movement import MOVEMENT, run_movement
from reap_onnx.model.network import Network, Node, Slot


@dataclass(frozen=True)
class AxisSize:
    """The size of an axis of a tensor."""

    tensor: str
    axis: int


@dataclass(frozen=True)
class Element:
    """An element of a constant, where the arithmetic reads it."""

    slot: Slot
    index: int


class Sizes:
    """Origins of the numbers in shape arithmetic; number 0 means computed."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._origins: list[AxisSize | Element | None] = [None]
        self._numbers: dict[str, np.ndarray] = {}

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._numbers

    def origin(self, tensor: str, index: int) -> AxisSize | Element | None:
        """Where element ``index`` of a shape comes from; None where it is computed."""
        numbers = self._numbers.get(tensor)
        return None if numbers is None else self._origins[int(numbers.flat[index])]

    def rewritable(self, tensor: str, index: int) -> bool:
        """Whether element ``index`` follows the number of channels, by itself or by a rewritten constant."""
        if tensor in self._network.constants:
            return True
        return self.origin(tensor, index) is not None

    def counts(self, tensor: str) -> list[tuple[str, int]]:
        """Axes whose sizes stand in a shape tensor."""
        numbers = self._numbers.get(tensor)
        if numbers is None:
            return []
        origins = [self._origins[int(n)] for n in np.unique(numbers)]
        return [(o.tensor, o.axis) for o in origins if isinstance(o, AxisSize)]

    def follow(self, node: Node) -> list[tuple[str, int]]:
        """Follow a node of the arithmetic; returns the axes whose sizes it computes with, rather than moves."""
        output = node.outputs[0]
        if node.op == "Shape":
            rank = len(self._network.shapes[node.inputs[0]])
            axes = range(rank)[slice(node.attributes.get("start", 0), node.attributes.get("end", rank))]
            self._numbers[output] = np.array([self._add(AxisSize(node.inputs[0], a)) for a in axes], np.int64)
            return []
        if node.op == "Size":
            self._numbers[output] = np.zeros((), np.int64)
            return [(node.inputs[0], a) for a in range(len(self._network.shapes[node.inputs[0]]))]
        moved = self._move(node) if node.op in MOVEMENT else None
        if moved is not None:
            self._numbers.update(moved)
            return []
        for name in node.outputs:
            if name and name in self._network.small:
                self._numbers[name] = np.zeros(self._network.shapes[name], np.int64)
        return [axis for name in node.inputs for axis in self.counts(name)]

    def _move(self, node: Node) -> dict[str, np.ndarray] | None:
        values: dict[str, np.ndarray] = {}
        moving = range(len(node.inputs)) if node.op == "Concat" else (0,)
        for position, name in enumerate(node.inputs):
            if not name:
                continue
            if position in moving:
                if name not in self._numbers and name in self._network.constants:
                    values[name] = self._constant(Slot(node.index, position), self._network.constants[name])
                elif name in self._numbers:
                    values[name] = self._numbers[name]
                else:
                    return None
            elif name in self._network.constants:
                values[name] = self._network.constants[name]
            elif name in self._network.small:
                values[name] = self._network.small[name]
            else:
                return None
        return run_movement(node, values, self._network.opset)

    def _constant(self, slot: Slot, value: np.ndarray) -> np.ndarray:
        numbers = [self._add(Element(slot, index)) for index in range(value.size)]
        return np.array(numbers, np.int64).reshape(value.shape)

    def _add(self, origin: AxisSize | Element) -> int:
        self._origins.append(origin)
        return len(self._origins) - 1
