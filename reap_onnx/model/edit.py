"""Edits of a model: constants replaced per slot, parts taken out. Names, order and metadata stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.logger import G_LOGGER

from reap_onnx.model.network import Network, Slot, subgraphs
from reap_onnx.model.quantized import stored

G_LOGGER.severity = G_LOGGER.ERROR  # its warnings go to stdout, which is for data


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that shares nothing with ``model``."""
    copy: onnx.ModelProto = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def part(
    model: onnx.ModelProto, outputs: Sequence[str], inputs: Mapping[str, tuple[np.dtype[Any], int]] | None = None
) -> onnx.ModelProto:
    """The part of ``model`` that computes the tensors ``outputs`` from ``inputs``; inputs not needed are dropped.

    Parameters
    ----------
    inputs
        Tensors inside the graph that become inputs, each with its dtype and rank, besides those of the model.
    """
    model = _needed(model, outputs, inputs or {})
    graph = gs.import_onnx(model)
    tensors = graph.tensors()
    graph.outputs = [tensors[name] for name in dict.fromkeys(outputs)]
    graph.cleanup(
        remove_unused_graph_inputs=True, recurse_subgraphs=False
    )  # bodies keep the inputs that they must have
    exported: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    exported.ir_version = model.ir_version
    del exported.graph.value_info[:]
    known = {i.name for i in exported.graph.input} | {o for n in exported.graph.node for o in n.output}
    for output in exported.graph.output:
        if not output.type.WhichOneof("value") or output.name in known:
            output.ClearField("type")
    return exported


def _needed(
    model: onnx.ModelProto, outputs: Sequence[str], inputs: Mapping[str, tuple[np.dtype[Any], int]]
) -> onnx.ModelProto:
    """A copy of ``model``, parameters as for :func:`part`, without nodes and initializers that are not needed.

    To read a whole deep network into a graph takes longer than to run a block of it.
    """
    graph = model.graph
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed, read, pending = set[int](), set[str](), list(outputs)
    while pending:
        name = pending.pop()
        if name in read:
            continue
        read.add(name)
        index = producer.get(name)
        if index is not None and index not in needed and name not in inputs:
            needed.add(index)
            node = graph.node[index]
            pending += [*node.input, *(inner for body in subgraphs(node) for inner in all_names(body))]
    copy = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    copy.graph.name = graph.name
    copy.graph.input.extend(graph.input)
    for name in (name for name in inputs if name in read):
        dtype, rank = inputs[name]
        kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        copy.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * rank))
    copy.graph.node.extend(graph.node[index] for index in sorted(needed))
    copy.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    copy.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in read)
    return copy


def with_constants(
    network: Network, constants: Mapping[Slot, np.ndarray], attributes: Mapping[tuple[int, str], Any] | None = None
) -> onnx.ModelProto:
    """A copy of the model in which the constant inputs ``constants`` have new values.

    An initializer whose every reader gets the same new value is replaced under its own name; otherwise
    the slot gets an initializer of its own. A slot past the end of a node's inputs adds an input (a
    bias). Quantised constants stay quantised. Constants and nodes that were read and are read no longer are removed.

    Parameters
    ----------
    attributes
        New values of attributes, by the index of their node and their name; None removes one.
    """
    model, constants = copy_model(network.proto), stored(network, constants)
    initializers = {t.name: t for t in model.graph.initializer}
    taken = all_names(model.graph)
    done: set[Slot] = set()
    for slot, value in constants.items():
        if slot in done:
            continue
        node = model.graph.node[slot.node]
        name = node.input[slot.input] if slot.input < len(node.input) else ""
        same = [s for s in network.slots(name) if s in constants and _equal(constants[s], value)] if name else [slot]
        done.update(same)
        if name in initializers and _read_only_by(network, name, same):
            _set_initializer(model, initializers[name], value)
            continue
        fresh = unused_name(name or f"{network.nodes[slot.node].name}_bias", taken)
        _add_initializer(model, fresh, value)
        for other in same:
            _set_input(model.graph.node[other.node], other.input, fresh)
    for (index, name), value in (attributes or {}).items():
        _set_attribute(model.graph.node[index], name, value)
    _remove_unread(model, network)
    return model


def narrow(model: onnx.ModelProto, output: str, axis: int, kept: np.ndarray) -> None:
    """Make the node that makes ``output`` run on some positions of an axis of its first input alone, in place.

    Parameters
    ----------
    kept
        Positions that the node sees, bool (size,); at least one. In ``output``, which keeps its name and shape,
        the other positions repeat one of them.
    """
    index = next(i for i, node in enumerate(model.graph.node) if output in node.output)
    node = model.graph.node[index]
    names = all_names(model.graph)
    seen, places, given, made = (
        unused_name(f"{output}_{suffix}", names) for suffix in ("kept", "places", "input", "narrow")
    )
    numbers = {seen: np.flatnonzero(kept), places: np.maximum(np.cumsum(kept) - 1, 0)}
    before = [
        onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value.astype(np.int64)))
        for name, value in numbers.items()
    ]
    before.append(onnx.helper.make_node("Gather", [node.input[0], seen], [given], axis=axis))
    node.input[0], node.output[list(node.output).index(output)] = given, made
    model.graph.node.insert(index + 1, onnx.helper.make_node("Gather", [made, places], [output], axis=axis))
    for new in reversed(before):
        model.graph.node.insert(index, new)


def _remove_unread(model: onnx.ModelProto, network: Network) -> None:
    """Remove initializers and nodes that were read before and are read no longer, in place."""
    kept = {o.name for o in model.graph.output}
    dead = set()
    for index in reversed(range(len(model.graph.node))):
        node = model.graph.node[index]
        names = [name for name in node.output if name]
        unread = all(network.is_read(name) for name in names)
        if unread and not kept.intersection(names):
            dead.add(index)
        else:
            kept.update(node.input)
            kept.update(name for body in subgraphs(node) for name in all_names(body))
    _delete(model.graph.node, [index in dead for index in range(len(model.graph.node))])
    graph = model.graph
    gone = {name for name in network.constants if network.is_read(name) and name not in kept}
    _delete(graph.initializer, [tensor.name in gone for tensor in graph.initializer])
    _delete(graph.sparse_initializer, [tensor.values.name in gone for tensor in graph.sparse_initializer])
    _delete(graph.input, [value.name in gone for value in graph.input])


def _delete(items: MutableSequence[Any], flags: Sequence[bool]) -> None:
    for index in reversed([i for i, flag in enumerate(flags) if flag]):
        del items[index]


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor in a graph and its bodies."""
    names = {value.name for values in (graph.input, graph.output, graph.initializer) for value in values}
    names.update(tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        names.update((*node.input, *node.output))
        names.update(name for body in subgraphs(node) for name in all_names(body))
    return names


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _read_only_by(network: Network, name: str, slots: Sequence[Slot]) -> bool:
    captured = any(name in node.captured for node in network.readers[name])
    return not captured and name not in network.outputs and set(network.slots(name)) == set(slots)


def _set_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto, value: np.ndarray) -> None:
    doc = tensor.doc_string
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), tensor.name))
    if doc:
        tensor.doc_string = doc
    for declared in model.graph.input:
        if declared.name == tensor.name:
            declared.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, value.shape))


def _add_initializer(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """Add a constant; before IR version 4 it must be an input of the graph too."""
    tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
    model.graph.initializer.append(tensor)
    if model.ir_version < 4:
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, value.shape))


def _set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    for attribute in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(attribute)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))


def _set_input(node: onnx.NodeProto, position: int, name: str) -> None:
    while len(node.input) <= position:
        node.input.append("")
    node.input[position] = name


def unused_name(wish: str, taken: set[str]) -> str:
    """A name that is not taken yet, and is from now on."""
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name
