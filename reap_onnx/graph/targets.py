"""What a layer should produce: its output after the affine operators behind it, or after the Add where its branch ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reap_onnx.graph.layer import Layer
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Network, Node, Slot


@dataclass(frozen=True)
class Intercept:
    """The constant that a refitted intercept goes to.

    ``value + (new - old) / scale``, where ``old`` and ``new`` are constant parts of the target and
    ``scale`` (M,) is what the constant is multiplied with on its way there.
    """

    slot: Slot
    value: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Target:
    """``branch = scale * (rows @ weight) + shift``, and ``total = branch + other`` where an Add follows.

    Parameters
    ----------
    branch
        The tensor at the end of the affine operators (the layer's own output where there are none).
    scale, shift
        Per output feature, float64 (M,).
    intercept
        Where a new ``shift`` can be written; None where nowhere.
    total, other
        The output of the Add and its other operand; empty where no Add follows.
    """

    branch: str
    scale: np.ndarray
    shift: np.ndarray
    intercept: Intercept | None
    total: str = ""
    other: str = ""


def find_target(trace: Trace, layer: Layer) -> Target:
    """Follow a layer's output through affine operators that nothing else reads, up to an Add."""
    network = trace.network
    count = len(layer.features)
    bias = np.zeros(count)
    constants: list[tuple[Slot, np.ndarray, np.ndarray]] = []  # slot, value, its factor so far
    if layer.bias is not None:
        if layer.has_bias:
            value = network.constants[layer.node.inputs[layer.bias.input]]
            bias = np.broadcast_to(layer.bias_scale * value.astype(float).reshape(-1), count).copy()
            if value.size == count:
                constants.append((layer.bias, value, np.full(count, layer.bias_scale)))
    scale, shift, tensor = np.ones(count), bias, layer.output
    while network.read_once(tensor):
        node = network.readers[tensor][0]
        step = _affine(network, layer, node, tensor)
        if step is None:
            break
        factor, added, slot = step
        scale, shift = scale * factor, shift * factor + added
        constants = [(s, value, above * factor) for s, value, above in constants]
        if slot is not None:
            constants.append((slot, network.constants[node.inputs[slot.input]], np.full(count, _sign(node, slot))))
        tensor = node.outputs[0]
    total, other = _following_add(network, tensor)
    return Target(tensor, scale, shift, _intercept(layer, constants, scale), total, other)


def _intercept(layer: Layer, constants: list[tuple[Slot, np.ndarray, np.ndarray]], scale: np.ndarray) -> Intercept | None:
    for slot, value, factor in constants:
        if (np.abs(factor) > 1e-8).all():
            return Intercept(slot, value, factor)
    if layer.bias is not None and not layer.has_bias and (np.abs(scale) > 1e-8).all():
        return Intercept(layer.bias, np.zeros(len(scale)), scale * layer.bias_scale)
    return None


def _affine(network: Network, layer: Layer, node: Node, tensor: str) -> tuple[np.ndarray, np.ndarray, Slot | None] | None:
    """(factor, shift, slot of an additive constant) per feature of an affine operator; None for any other."""
    count = len(layer.features)
    if node.op in ("Identity", "Dropout"):
        return np.ones(count), np.zeros(count), None
    if node.op == "BatchNormalization":
        constants = [network.constants.get(name) for name in node.inputs[1:5]]
        axis = 1 % len(network.shapes[tensor])
        if any(c is None for c in constants) or layer.geometry is None or not _on(layer, axis, network, tensor):
            return None
        gamma, beta, mean, variance = (np.asarray(c, float) for c in constants)
        factor = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
        return factor, beta - factor * mean, Slot(node.index, 2)
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    position = 1 - node.inputs.index(tensor)
    value = network.constants.get(node.inputs[position])
    if value is None or (position == 0 and node.op in ("Sub", "Div")):
        return None
    vector = _per_feature(layer, network, tensor, node, value)
    if vector is None:
        return None
    if node.op in ("Mul", "Div"):
        return (vector if node.op == "Mul" else 1 / vector), np.zeros(count), None
    slot = Slot(node.index, position) if value.size == count else None
    return np.ones(count), (vector if node.op == "Add" else -vector), slot


def _sign(node: Node, slot: Slot) -> float:
    return -1.0 if node.op == "Sub" else 1.0


def _on(layer: Layer, axis: int, network: Network, tensor: str) -> bool:
    assert layer.geometry is not None
    return layer.geometry.feature_axis % len(network.shapes[tensor]) == axis


def _per_feature(layer: Layer, network: Network, tensor: str, node: Node, value: np.ndarray) -> np.ndarray | None:
    """A constant operand as a vector over features; None where it varies along another axis or broadens the tensor."""
    shape = network.shapes[tensor]
    if layer.geometry is None or network.shapes[node.outputs[0]] != shape:
        return None
    axis = layer.geometry.feature_axis % len(shape)
    sizes = (1,) * (len(shape) - value.ndim) + value.shape
    if len(sizes) != len(shape) or any(size != 1 for a, size in enumerate(sizes) if a != axis):
        return None
    return np.broadcast_to(value.astype(float).reshape(-1), len(layer.features)).copy()


def _following_add(network: Network, tensor: str) -> tuple[str, str]:
    if not network.read_once(tensor):
        return "", ""
    node = network.readers[tensor][0]
    if node.op not in ("Add", "Sum") or len(node.inputs) != 2:
        return "", ""
    other = node.inputs[1 - node.inputs.index(tensor)]
    shapes = {network.shapes[name] for name in (tensor, other, node.outputs[0])}
    return (node.outputs[0], other) if len(shapes) == 1 and other not in network.constants else ("", "")
