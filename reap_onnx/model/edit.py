"""Edits of a model: constants replaced per slot, parts taken out. Names, order and metadata stay as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from reap_onnx.model.network import Network, Slot, subgraphs


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that shares nothing with ``model``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def part(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of ``model`` that computes the tensors ``outputs``, which become its outputs.

    Inputs that the part does not need are dropped.
    """
    graph = gs.import_onnx(model)
    tensors = graph.tensors()
    graph.outputs = [tensors[name] for name in dict.fromkeys(outputs)]
    graph.cleanup(remove_unused_graph_inputs=True)
    exported = gs.export_onnx(graph, do_type_check=False)
    exported.ir_version = model.ir_version
    del exported.graph.value_info[:]
    known = {i.name for i in exported.graph.input} | {o for n in exported.graph.node for o in n.output}
    for output in exported.graph.output:
        if not output.type.WhichOneof("value") or output.name in known:
            output.ClearField("type")
    return exported


def with_constants(network: Network, constants: Mapping[Slot, np.ndarray]) -> onnx.ModelProto:
    """A copy of the model in which the constant inputs ``constants`` have new values.

    An initializer whose every reader gets the same new value is replaced under its own name; otherwise
    the slot gets an initializer of its own. A slot past the end of a node's inputs adds an input (a
    bias). Constants that nothing reads any longer are removed.
    """
    model = copy_model(network.proto)
    initializers = {t.name: t for t in model.graph.initializer}
    taken = set(initializers) | set(network.shapes) | {i.name for i in model.graph.input}
    done: set[Slot] = set()
    for slot, value in constants.items():
        if slot in done:
            continue
        node = model.graph.node[slot.node]
        name = node.input[slot.input] if slot.input < len(node.input) else ""
        same = [s for s in network.slots(name) if s in constants and _equal(constants[s], value)] if name else [slot]
        done.update(same)
        everywhere = name in initializers and _read_only_by(network, name, same)
        if everywhere:
            _set_initializer(model, initializers[name], value)
            continue
        fresh = _unused_name(name or f"{network.nodes[slot.node].name}_bias", taken)
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), fresh))
        for other in same:
            _set_input(model.graph.node[other.node], other.input, fresh)
    remove_unread_constants(model, network.constants.keys())
    return model


def remove_unread_constants(model: onnx.ModelProto, constants: Collection[str]) -> None:
    """Remove initializers and constant nodes that were read before and are read no longer, in place."""
    kept = {o.name for o in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        fixed = bool(node.output) and all(name in constants for name in node.output if name)
        if not fixed or any(name in kept for name in node.output):
            nodes.append(node)
            kept.update(node.input)
            for body in subgraphs(node):
                kept.update(_names(body))
    if len(nodes) < len(model.graph.node):
        remaining = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(nodes)]
        del model.graph.node[:]
        model.graph.node.extend(remaining)
    unread = [t for t in model.graph.initializer if t.name not in kept]
    for tensor in unread:
        model.graph.initializer.remove(tensor)
    gone = {t.name for t in unread}
    for inputs in [i for i in model.graph.input if i.name in gone]:
        model.graph.input.remove(inputs)


def _names(graph: onnx.GraphProto) -> set[str]:
    names = {o.name for o in graph.output}
    for node in graph.node:
        names.update(node.input)
        for body in subgraphs(node):
            names |= _names(body)
    return names


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _read_only_by(network: Network, name: str, slots: Sequence[Slot]) -> bool:
    captured = any(name in node.captured for node in network.readers[name])
    return not captured and name not in network.outputs and set(network.slots(name)) == set(slots)


def _set_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto, value: np.ndarray) -> None:
    doc = tensor.doc_string
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    if doc:
        tensor.doc_string = doc
    for declared in model.graph.input:
        if declared.name == tensor.name:
            declared.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, value.shape))


def _set_input(node: onnx.NodeProto, position: int, name: str) -> None:
    while len(node.input) <= position:
        node.input.append("")
    node.input[position] = name


def _unused_name(wish: str, taken: set[str]) -> str:
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name
