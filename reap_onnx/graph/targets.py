"""What a layer should produce: its output after affine operators behind it, or after the Add where its branch ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reap_onnx.graph.layer import Layer
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Network, Node, Slot

_TINY = 1e-8  # factors below it hide what is in front of them


@dataclass(frozen=True)
class Intercept:
    """The constant that a refitted intercept goes to.

    ``value + (new - old) / scale``, where ``old`` and ``new`` are constant parts of the target and
    ``scale`` (M,) is what the constant is multiplied with on its way there. The new constant has the
    dtype of ``value``.
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


def clipped_to(network: Network, tensor: str) -> tuple[float, float] | None:
    """Bounds of the activations that alone read a tensor, all the same (0 and inf for a Relu); None for others."""
    bounds = {clip_bounds(network, node) for node in network.readers.get(tensor, ())}
    return next(iter(bounds)) if len(bounds) == 1 and tensor not in network.outputs else None


def clip_bounds(network: Network, node: Node) -> tuple[float, float] | None:
    """What a Relu or Clip clips to; None for other operators, and for bounds that are computed."""
    if node.op == "Relu":
        return 0.0, np.inf
    if node.op != "Clip":
        return None
    low, high = node.attributes.get("min", -np.inf), node.attributes.get("max", np.inf)
    given = [network.constants.get(node.input(position)) for position in (1, 2)]
    if any(name and value is None for name, value in zip(node.inputs[1:], given, strict=False)):
        return None
    return (float(low if given[0] is None else given[0]), float(high if given[1] is None else given[1]))


@dataclass(frozen=True)
class _Step:
    """``output = factor * input + shift`` per feature; ``slot`` holds ``value``, which enters times ``sign``."""

    factor: np.ndarray
    shift: np.ndarray
    slot: Slot | None = None
    value: np.ndarray | None = None
    sign: float = 1.0


def find_target(trace: Trace, layer: Layer) -> Target:
    """Follow a layer's output through affine operators that nothing else reads, up to an Add.

    The target of a layer that shares its weight is its own output, so that one weight can be right for all sharers.
    """
    network, tensor = trace.network, layer.output
    if len(trace.sharers(layer)) > 1:
        return _shared_target(trace, layer)
    scale, shift = np.ones(len(layer.features)), np.zeros(len(layer.features))
    intercepts: list[Intercept] = []
    step: _Step | None = _bias(network, layer)
    while step is not None:
        scale, shift = scale * step.factor, shift * step.factor + step.shift
        intercepts = [Intercept(i.slot, i.value, i.scale * step.factor) for i in intercepts]
        if step.slot is not None and step.value is not None:
            intercepts.append(Intercept(step.slot, step.value, np.full(len(scale), step.sign)))
        node = network.readers[tensor][0] if network.read_once(tensor) else None
        step = None if node is None else _affine(network, layer, node, tensor)
        tensor = tensor if node is None or step is None else node.outputs[0]
    if layer.bias is not None and not layer.has_bias:
        dtype = network.dtypes[layer.node.inputs[layer.weight.input]]
        intercepts.append(Intercept(layer.bias, np.zeros(len(scale), dtype), scale * layer.bias_scale))
    writable = (intercept for intercept in intercepts if (np.abs(intercept.scale) > _TINY).all())
    return Target(tensor, scale, shift, next(writable, None), *_following_add(network, tensor))


def _shared_target(trace: Trace, layer: Layer) -> Target:
    """The layer's own output; its intercept can be written where the bias is shared like the weight."""
    own = _bias(trace.network, layer)
    intercept = None
    if own.slot is not None and own.value is not None:
        biases = {other.node.input(own.slot.input) for other in trace.sharers(layer)}
        intercept = Intercept(own.slot, own.value, own.sign * own.factor) if len(biases) == 1 else None
    return Target(layer.output, own.factor, own.shift, intercept)


def _bias(network: Network, layer: Layer) -> _Step:
    """The layer's own bias, as the first step."""
    ones = np.ones(len(layer.features))
    if layer.bias is None or not layer.has_bias:
        return _Step(ones, 0 * ones)
    value = network.constants[layer.node.inputs[layer.bias.input]]
    shift = layer.bias_scale * ones * value.astype(float).reshape(-1)
    return _Step(ones, shift, layer.bias if value.size == len(ones) else None, value, layer.bias_scale)


def _affine(network: Network, layer: Layer, node: Node, tensor: str) -> _Step | None:
    """An affine operator, per feature; None for any other."""
    if node.op in ("Identity", "Dropout"):
        ones = np.ones(len(layer.features))
        return _Step(ones, 0 * ones)
    if node.op == "BatchNormalization":
        return _normalise(network, layer, node)
    return _arithmetic(network, layer, node, tensor) if node.op in ("Add", "Sub", "Mul", "Div") else None


def _normalise(network: Network, layer: Layer, node: Node) -> _Step | None:
    constants = [network.constants.get(name) for name in node.inputs[1:5]]
    if _feature_axis(network, layer) != 1 or any(value is None for value in constants):
        return None
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1):
        return None
    gamma, beta, mean, variance = (np.asarray(value, float) for value in constants)
    factor = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return _Step(factor, beta - factor * mean, Slot(node.index, 2), constants[1])


def _arithmetic(network: Network, layer: Layer, node: Node, tensor: str) -> _Step | None:
    """Add, Sub, Mul or Div with a constant that holds one number, or one per feature."""
    position = 1 - node.inputs.index(tensor)
    value, shape = network.constants.get(node.inputs[position]), network.shapes[tensor]
    if value is None or (position == 0 and node.op in ("Sub", "Div")) or network.shapes[node.outputs[0]] != shape:
        return None
    sizes = (1,) * (len(shape) - value.ndim) + value.shape
    if any(size != 1 for axis, size in enumerate(sizes) if axis != _feature_axis(network, layer)):
        return None
    ones = np.ones(len(layer.features))
    vector = ones * value.astype(float).reshape(-1)
    if node.op in ("Mul", "Div"):
        factor = vector if node.op == "Mul" else 1 / np.where(vector == 0, np.nan, vector)
        return _Step(factor, 0 * ones) if np.isfinite(factor).all() else None
    sign = 1.0 if node.op == "Add" else -1.0
    return _Step(ones, sign * vector, Slot(node.index, position) if value.size == len(ones) else None, value, sign)


def _feature_axis(network: Network, layer: Layer) -> int:
    """Axis of the layer's features, in its output and in all that affine operators make of it; -1 for none."""
    return -1 if layer.geometry is None else layer.geometry.feature_axis % len(network.shapes[layer.output])


def _following_add(network: Network, tensor: str) -> tuple[str, str]:
    if not network.read_once(tensor):
        return "", ""
    node = network.readers[tensor][0]
    if node.op not in ("Add", "Sum") or len(node.inputs) != 2:
        return "", ""
    other = node.inputs[1 - node.inputs.index(tensor)]
    shapes = {network.shapes[name] for name in (tensor, other, node.outputs[0])}
    return (node.outputs[0], other) if len(shapes) == 1 and other not in network.constants else ("", "")
