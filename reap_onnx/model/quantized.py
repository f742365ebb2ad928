"""Constants behind a DequantizeLinear, Cast or Transpose: cut and written anew where they are stored, as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from reap_onnx.model.network import Network, Node, Slot

T = TypeVar("T")

_SUPPORTED = ("int8", "uint8", "int16", "uint16", "int32")
_MICROSOFT = "com.microsoft."  # whose operators had 16 bits before ONNX's did
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_EXACT = 1e-3  # of a step: a value as near as this to one that can be stored is that one


@dataclass(frozen=True)
class Quantized:
    """A constant as ``(stored - zero_point) * scale``; where a QuantizeLinear stands in front, the float is stored.

    Parameters
    ----------
    nodes
        The DequantizeLinear; behind the QuantizeLinear where there is one.
    integers
        What the DequantizeLinear reads.
    scale, zero_point
        One number, or a vector along ``axis``.
    axis
        Axis that the scales lie along; None for a single scale.
    """

    nodes: tuple[Node, ...]
    integers: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None

    def places(self, axes: Mapping[int, T]) -> Iterator[tuple[Slot, dict[int, T]]]:
        """Every stored tensor with what lies along its axes, given what lies along those of the constant."""
        yield Slot(self.nodes[0].index, 0), dict(axes)
        for node in self.nodes:
            for position in (1, 2):
                if self.axis is not None and self.axis in axes and node.input(position):
                    yield Slot(node.index, position), {0: axes[self.axis]}

    def fitting_scale(self, value: np.ndarray) -> np.ndarray:
        """The scale as it is where it stores ``value`` exactly, else the smallest by which the integers in use span it.

        32-bit integers, those of biases, keep their scale.
        """
        steps = value / self._along(self.scale)
        if self.integers.dtype == np.int32 or np.abs(self._round(value, self.scale) - steps).max(initial=0.0) < _EXACT:
            return self.scale
        low, high = (self._along(end - self.zero_point.astype(float)) for end in self._range())
        needed = np.maximum(value / high, value / low)
        others = tuple(axis for axis in range(value.ndim) if axis != self.axis)
        scale = needed.max(others, initial=0.0).reshape(self.scale.shape)
        return np.where(scale > 0, scale, self.scale).astype(self.scale.dtype)

    def store(self, value: np.ndarray, scale: np.ndarray) -> dict[Slot, np.ndarray]:
        """What is stored for a new ``value`` of the whole constant."""
        rounded = self._round(value, scale) + self._along(self.zero_point)
        data = value if len(self.nodes) > 1 else rounded.astype(self.integers.dtype)
        changed = not np.array_equal(scale, self.scale)
        return {Slot(self.nodes[0].index, 0): data} | {Slot(n.index, 1): scale for n in self.nodes if changed}

    def _range(self) -> tuple[float, float]:
        """Ends of the integers in use (some quantisers leave one bit out), or of their type where they do not do."""
        low, high = float(self.integers.min()), float(self.integers.max())
        zero = self.zero_point.astype(float)
        if (low < zero).all() and (zero < high).all():
            return low, high
        info = np.iinfo(self.integers.dtype)
        return float(info.min), float(info.max)

    def _round(self, value: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Steps away from the zero point, within what the type holds."""
        info, zero = np.iinfo(self.integers.dtype), self._along(self.zero_point.astype(float))
        steps: np.ndarray = np.rint(value.astype(float) / self._along(scale))
        return np.clip(steps, info.min - zero, info.max - zero, out=steps)

    def _along(self, vector: np.ndarray) -> np.ndarray:
        """Scales or zero points, to be broadcast against the constant."""
        if self.axis is None:
            return vector.reshape(())
        return vector.reshape([-1 if axis == self.axis else 1 for axis in range(self.integers.ndim)])


def find_quantized(network: Network, slot: Slot) -> Quantized | None:
    """How the constant that a slot reads is quantised; None where it is not, or others read it too.

    None as well for what cannot be cut and written anew in place: scales in blocks, types of fewer than 8 bits, zero
    points at an end of their type.
    """
    name = network.nodes[slot.node].input(slot.input)
    node = network.producer.get(name)
    if (
        node is None
        or node.op.removeprefix(_MICROSOFT) != "DequantizeLinear"
        or name not in network.constants
        or not network.read_once(name)
    ):
        return None
    integers, scale = network.constants[node.inputs[0]], network.constants[node.inputs[1]]
    if str(integers.dtype) not in _SUPPORTED or scale.ndim > 1:
        return None
    axis = _axis(node, integers, scale)
    zero_point = network.constants[node.inputs[2]] if node.input(2) else np.zeros(scale.shape, integers.dtype)
    info, front = np.iinfo(integers.dtype), network.producer.get(node.inputs[0])
    if (zero_point == info.min).any() or (zero_point == info.max).any():
        return None
    if front is None or front.op.removeprefix(_MICROSOFT) != "QuantizeLinear" or not network.read_once(node.inputs[0]):
        return Quantized((node,), integers, scale, zero_point, axis)
    same = np.array_equal(network.constants[front.inputs[1]], scale) and _axis(front, integers, scale) == axis
    return Quantized((front, node), integers, scale, zero_point, axis) if same else None


def _axis(node: Node, integers: np.ndarray, scale: np.ndarray) -> int | None:
    return None if scale.size == 1 else int(node.attributes.get("axis", 1)) % integers.ndim


@dataclass(frozen=True)
class Storage:
    """Where a constant comes from, through nodes that cast and transpose it.

    Parameters
    ----------
    slot
        What the first of the nodes reads, or the reader itself.
    nodes
        Those between, the last one first.
    order
        For each axis of the constant, that of what is stored.
    dtype
        Of what is stored, or dequantised.
    """

    slot: Slot
    nodes: tuple[Node, ...]
    order: tuple[int, ...]
    dtype: np.dtype[Any]

    def along(self, axes: Mapping[int, T]) -> dict[int, T]:
        """What lies along the axes of what is stored, given what lies along those of the constant."""
        return {self.order[axis]: value for axis, value in axes.items()} if self.nodes else dict(axes)

    def store(self, value: np.ndarray) -> np.ndarray:
        """What is stored for a new value of the constant."""
        return np.ascontiguousarray(value.transpose(np.argsort(self.order)), self.dtype) if self.nodes else value


def find_storage(network: Network, slot: Slot) -> Storage:
    """Where what a slot reads comes from, as far as it is constant and nothing else reads it on the way.

    Casts from anything but floats are no way back.
    """
    name, nodes = network.nodes[slot.node].input(slot.input), list[Node]()
    value = network.constants.get(name, np.zeros(0))
    order, dtype = tuple(range(value.ndim)), value.dtype
    while (node := network.producer.get(name)) is not None and node.op in ("Cast", "Identity", "Transpose"):
        name = node.inputs[0]
        before = network.constants.get(name)
        if before is None or not network.read_once(node.outputs[0]) or str(before.dtype) not in _FLOATS:
            break
        nodes.append(node)
        order = _in_front(node, order)
        slot, dtype = Slot(node.index, 0), before.dtype
    return Storage(slot, tuple(nodes), order, dtype)


def _in_front(node: Node, order: tuple[int, ...]) -> tuple[int, ...]:
    """Axes in front of a node, where those behind it are given."""
    if node.op != "Transpose":
        return order
    permuted = node.attributes.get("perm", range(len(order))[::-1])
    return tuple(permuted[axis] for axis in order)


def places(network: Network, slot: Slot, axes: Mapping[int, T]) -> Iterator[tuple[Slot, dict[int, T]]]:
    """Where the constant that a slot reads is stored, with what lies along the axes there."""
    storage = find_storage(network, slot)
    quantized = find_quantized(network, storage.slot)
    if quantized is None:
        yield storage.slot, storage.along(axes)
    else:
        yield from quantized.places(storage.along(axes))


def shapes_behind(network: Network, slot: Slot, axes: Mapping[int, T]) -> Iterator[tuple[str, dict[int, T]]]:
    """Tensors between where the constant of a slot is stored and its reader, with what lies along their axes."""
    storage = find_storage(network, slot)
    order = tuple(range(len(storage.order)))
    for node in storage.nodes:
        yield node.outputs[0], {order[axis]: value for axis, value in axes.items()}
        order = _in_front(node, order)
    quantized = find_quantized(network, storage.slot)
    for node in quantized.nodes if quantized is not None else ():
        yield node.outputs[0], storage.along(axes)


def stored(network: Network, constants: Mapping[Slot, np.ndarray]) -> dict[Slot, np.ndarray]:
    """New constants as they are stored: quantised, cast and transposed where they were.

    The bias of a quantised layer is counted in products of two steps, one of the data and one of the weight:
    runtimes that compute with integers take that for granted. So its scale follows that of the weight.
    """
    found: dict[Slot, np.ndarray] = {}
    for slot in sorted(constants, key=lambda slot: -slot.input):  # biases first, their weights may change their scales
        storage = find_storage(network, slot)
        quantized, value = find_quantized(network, storage.slot), storage.store(constants[slot])
        if quantized is None or value.shape != quantized.integers.shape:
            found[storage.slot] = value
            continue
        scale = quantized.fitting_scale(value)
        found |= quantized.store(value, scale)
        if slot.input == 1:
            found |= _bias(network, Slot(slot.node, 2), constants, scale / quantized.scale)
    return found


def _bias(
    network: Network, slot: Slot, constants: Mapping[Slot, np.ndarray], growth: np.ndarray
) -> dict[Slot, np.ndarray]:
    """The bias of a layer whose weight has a new scale."""
    quantized = find_quantized(network, slot)
    if quantized is None or quantized.integers.dtype != np.int32 or quantized.scale.shape != growth.shape:
        return {}
    value = constants.get(slot, network.constants[network.nodes[slot.node].input(slot.input)])
    return quantized.store(value, (quantized.scale * growth).astype(quantized.scale.dtype))
