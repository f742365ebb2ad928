"""MACs, parameters, bytes and elements: of the whole model, and as functions of the widths."""

from __future__ import annotations

import numpy as np

from reap_onnx.graph.channels import Labels
from reap_onnx.graph.groups import Group
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import LAYERS, Network, Node, Slot
from reap_onnx.model.size import byte_size
from reap_onnx.numerics.allocate import BilinearCost, Doubles
from reap_onnx.numerics.tables import Side


def count_macs(network: Network) -> int:
    """Multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul at batch 1, nothing else."""
    return round(sum(node_macs(network, node) for node in network.nodes))


def node_macs(network: Network, node: Node) -> float:
    """Multiply-accumulates of one node at batch 1; 0 for any other operator."""
    if node.op not in (*LAYERS, "com.microsoft.FusedMatMul") or not _computes(network, node):
        return 0.0
    data, weight, output = (network.shapes[n] for n in (node.inputs[0], node.inputs[1], node.outputs[0]))
    if node.op in ("Conv", "ConvTranspose"):
        spatial = output[2:] if node.op == "Conv" else data[2:]
        macs = np.prod(weight, dtype=float) * np.prod(spatial, dtype=float) * output[0]
    else:
        inner = data[-2] if node.attributes.get("transA", 0) else data[-1]
        macs = np.prod(output, dtype=float) * inner
    return float(macs) / network.batch


def count_params(network: Network) -> int:
    """Elements of floating-point constants that the graph's nodes read, each tensor once."""
    return sum(network.constants[name].size for name in _parameters(network))


def _parameters(network: Network) -> list[str]:
    """Names of the floating-point constants that computing nodes and their bodies read, numbers cast to float aside."""
    read = {n for node in network.nodes if _computes(network, node) for n in (*node.inputs, *node.captured) if n}
    return sorted(n for n in read if n in network.constants and _holds_floats(network, n))


def _holds_floats(network: Network, constant: str) -> bool:
    """Whether a constant comes from floating-point numbers of the model."""
    producer = network.producer.get(constant)
    if producer is None or not _is_float(network, constant):
        return _is_float(network, constant)
    floats = [name for name in producer.inputs if name and _is_float(network, name)]
    return any(_holds_floats(network, name) for name in floats) if floats else producer.op != "Cast"


def _is_float(network: Network, tensor: str) -> bool:
    """Whether a tensor holds floating-point numbers, bfloat16 and float8 among them."""
    return tensor in network.dtypes and "float" in network.dtypes[tensor].name


def _computes(network: Network, node: Node) -> bool:
    """Whether a node depends on an input of the model."""
    return any(name and name not in network.fixed for name in node.outputs)


def macs_cost(trace: Trace, groups: list[Group]) -> BilinearCost:
    """MACs as a function of the units kept in each group."""
    counted = [layer for layer in trace.layers if node_macs(trace.network, layer.node)]
    weights = [(layer.uses, trace.cuts[layer.weight], _shape(trace, layer.weight)) for layer in counted]
    weights += [(macs / len(vector), {0: vector}, vector.shape) for macs, vector in _products(trace)]
    fixed = sum(node_macs(trace.network, node) for node in trace.network.nodes)
    fixed -= sum(uses * np.prod(shape, dtype=float) for uses, _, shape in weights)
    return _bilinear(trace, groups, weights, fixed)


def reached_macs(trace: Trace, groups: list[Group]) -> float:
    """MACs of the nodes that make, read or pass channels of ``groups``."""
    nodes = {layer.node.index: layer.node for group in groups for layer in (*group.makers, *group.readers)}
    units = np.concatenate([np.zeros(0, np.int64), *(group.units for group in groups)])
    passed = (macs for macs, vector in _products(trace) if np.isin(trace.channels.roots(vector), units).any())
    return sum(node_macs(trace.network, node) for node in nodes.values()) + sum(passed)


def _products(trace: Trace) -> list[tuple[float, Labels]]:
    """MACs of products without a weight, in proportion to the channels that they pass on."""
    weighted = {layer.node.index for layer in trace.layers}
    nodes = [node for node in trace.network.nodes if node.index not in weighted]
    carried = [(node_macs(trace.network, node), trace.labelled(node.outputs[0])) for node in nodes if node.outputs[0]]
    return [(macs, labels.reshape(-1)) for macs, labels in carried if macs and labels is not None]


def params_cost(trace: Trace, groups: list[Group]) -> BilinearCost:
    """Parameters as a function of the units kept in each group; an upper bound where slots share a constant.

    Slots that cut one constant differently each get a copy of their own once channels go; until then the model
    has less than this says.
    """
    fixed, tensors = 0.0, []
    for name in _parameters(trace.network):
        shape, cuts = trace.shape(name), _distinct_cuts(trace, name)
        fixed += float(np.prod(shape)) * (() in cuts)
        tensors += [(1.0, axes, shape) for axes in cuts.values() if axes]
    return _bilinear(trace, groups, tensors, fixed)


def size_cost(trace: Trace, groups: list[Group]) -> BilinearCost:
    """Bytes of the model's file as a function of the units kept in each group.

    What is written besides weights (shapes, metadata) counts as it is in the original, and constants that are
    stored in another way than they are read only nearly: the file itself says what it takes.
    """
    fixed, tensors = float(byte_size(trace.network.proto)), []
    for name in sorted(
        {trace.network.nodes[slot.node].inputs[slot.input] for slot in trace.cuts if _given(trace, slot)}
    ):
        shape, item = trace.shape(name), _stored_bytes(trace.network, name)
        cuts = [axes for axes in _distinct_cuts(trace, name).values() if axes]
        fixed -= item * np.prod(shape, dtype=float) * bool(cuts)
        tensors += [(item, axes, shape) for axes in cuts]
    return _bilinear(trace, groups, tensors, max(fixed, 0.0))


def _given(trace: Trace, slot: Slot) -> bool:
    """Whether a slot reads a constant."""
    return trace.network.nodes[slot.node].input(slot.input) in trace.network.constants


def _stored_bytes(network: Network, constant: str) -> float:
    """Bytes of an element of a constant where it is stored, before it is dequantised or cast."""
    producer = network.producer.get(constant)
    if producer is None or not producer.inputs or producer.inputs[0] not in network.constants:
        return float(network.constants[constant].itemsize)
    return _stored_bytes(network, producer.inputs[0])


def elements_cost(trace: Trace, groups: list[Group]) -> Doubles:
    """Share of the elements of all computed tensors that one unit of each group stands for, (G,)."""
    network = trace.network
    shapes = [n for node in network.nodes if _computes(network, node) for n in node.outputs if n in network.shapes]
    total = sum(float(np.prod(network.shapes[name], dtype=float)) for name in shapes)
    share = np.zeros(len(groups))
    for name in shapes:
        labels = trace.labelled(name)
        if labels is not None:
            each = np.prod(network.shapes[name], dtype=float) / labels.size
            share += each * _side(labels.reshape(-1), _owners(groups), groups, trace)[1]
    return share / max(total, 1.0)


def weight_sides(trace: Trace, groups: list[Group], layer: Layer) -> dict[int, Side]:
    """Sizes of the axes of a layer's weight that shrink with its channels, as functions of the units kept.

    Axes that no group of ``groups`` is on are left out.
    """
    sides = {
        axis: Side(*_side(vector, _owners(groups), groups, trace)) for axis, vector in trace.cuts[layer.weight].items()
    }
    return {axis: side for axis, side in sides.items() if side.per_unit.any()}


def _distinct_cuts(trace: Trace, name: str) -> dict[tuple[object, ...], dict[int, Labels]]:
    """The ways in which computing nodes cut a constant that they read; an empty one is no cut."""
    network, roots = trace.network, trace.channels.roots
    cuts = [trace.cuts.get(s, {}) for s in network.slots(name) if _computes(network, network.nodes[s.node])]
    cuts += [{} for node in network.readers[name] if name in node.captured]
    return {tuple((axis, roots(vector).tobytes()) for axis, vector in axes.items()): axes for axes in cuts}


def _shape(trace: Trace, slot: Slot) -> tuple[int, ...]:
    return trace.shape(trace.network.nodes[slot.node].inputs[slot.input])


def _bilinear(
    trace: Trace,
    groups: list[Group],
    tensors: list[tuple[float, dict[int, Labels], tuple[int, ...]]],
    fixed: float,
) -> BilinearCost:
    """Sum of factor * (size of one axis) * (size of another), the axes being counted by the groups on them."""
    owner = _owners(groups)
    factors, sides = [fixed], [[_side(None, owner, groups, trace)] * 2]
    for uses, axes, shape in tensors:
        cut = list(axes.items())[:2]
        rest = np.prod([size for axis, size in enumerate(shape) if axis not in dict(cut)], dtype=float)
        factors.append(uses * rest)
        vectors = [vector for _, vector in cut] + [None] * (2 - len(cut))
        sides.append([_side(vector, owner, groups, trace) for vector in vectors])
    first, second = zip(*sides, strict=True)
    return BilinearCost(
        factor=np.array(factors),
        in_fixed=np.array([constant for constant, _ in first]),
        in_per_unit=np.array([slope for _, slope in first]).reshape(len(factors), len(groups)),
        out_fixed=np.array([constant for constant, _ in second]),
        out_per_unit=np.array([slope for _, slope in second]).reshape(len(factors), len(groups)),
    )


def _owners(groups: list[Group]) -> dict[int, int]:
    """Index of the group that each unit is of."""
    return {int(root): g for g, group in enumerate(groups) for root in group.units}


def _side(vector: Labels | None, owner: dict[int, int], groups: list[Group], trace: Trace) -> tuple[float, np.ndarray]:
    """Size of an axis: a constant part, and elements per unit of each group."""
    slope = np.zeros(len(groups))
    if vector is None:
        return 1.0, slope
    constant = 0
    roots, counts = np.unique(trace.channels.roots(np.atleast_2d(vector)[0]), return_counts=True)
    for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
        if root in owner:
            slope[owner[root]] += count / len(groups[owner[root]].units)
        else:
            constant += count
    return float(constant), slope
