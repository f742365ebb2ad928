"""One way to write a network: functions inlined, decided branches taken, fused operators spelt out."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, inliner, numpy_helper

from reap_onnx.model.edit import all_names, copy_model, unused_name
from reap_onnx.model.network import subgraphs

_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
_PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Clip": ("min", "max")}


def normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in standard operators of one graph, as far as that goes; ``model`` itself where it is that.

    1. Functions that the model defines are inlined.
    2. An If whose condition is a constant becomes the branch that it takes.
    3. A convolution or product that onnxruntime has fused with an addition and an activation becomes these again;
       onnxruntime fuses them anew when it loads the result.

    Inputs, outputs and all other nodes stay as they are.
    """
    result = inliner.inline_local_functions(model) if model.functions else model
    while (index := _decided(result)) is not None:
        result = copy_model(result) if result is model else result
        _take_branch(result, index)
    if any(_is_fused(node) for node in result.graph.node):
        result = copy_model(result) if result is model else result
        _spell_out(result)
    return result


# -- branches ---------------------------------------------------------------------------------------


def _decided(model: onnx.ModelProto) -> int | None:
    """Index of the first If with a constant condition."""
    known = _conditions(model)
    found = (i for i, node in enumerate(model.graph.node) if node.op_type == "If" and node.input[0] in known)
    return next(found, None)


def _conditions(model: onnx.ModelProto) -> dict[str, bool]:
    """Constant truth values by name; from IR version 4 on an initializer that is an input is a default alone."""
    graph = model.graph
    given = {value.name for value in graph.input} if model.ir_version >= 4 else set()
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
    for node in (node for node in graph.node if node.op_type == "Constant"):
        tensors.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
    truths = {name: tensor for name, tensor in tensors.items() if tensor.data_type == onnx.TensorProto.BOOL}
    return {name: bool(numpy_helper.to_array(tensor).all()) for name, tensor in truths.items()}


def _take_branch(model: onnx.ModelProto, index: int) -> None:
    """Put the nodes of the branch that an If takes in its place; what they make gets new names where it must."""
    graph = model.graph
    node = graph.node[index]
    wanted = "then_branch" if _conditions(model)[node.input[0]] else "else_branch"
    branch = onnx.GraphProto()
    branch.CopyFrom(next(attribute.g for attribute in node.attribute if attribute.name == wanted))
    outputs, after = list(node.output), list(graph.node)[index + 1 :]
    del graph.node[index:]
    names = {name for later in after for name in (*later.input, *later.output)} | all_names(graph)
    names.update(name for later in after for body in subgraphs(later) for name in all_names(body))
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in branch.initializer]
    nodes += [helper.make_node("Constant", [], [t.values.name], sparse_value=t) for t in branch.sparse_initializer]
    nodes += branch.node
    made = [name for inner in nodes for name in inner.output if name]
    renamed = {name: unused_name(name, names) for name in made}
    renamed |= {result.name: output for result, output in zip(branch.output, outputs, strict=True)}
    for inner in nodes:
        _rename(inner, renamed)
    graph.node.extend([*nodes, *after])


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """New names for tensors, in the bodies of a node too."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for body in subgraphs(node):
        for output in body.output:
            output.name = names.get(output.name, output.name)
        for inner in body.node:
            _rename(inner, names)


# -- fused operators --------------------------------------------------------------------------------


def _is_fused(node: onnx.NodeProto) -> bool:
    if node.domain != "com.microsoft" or node.op_type not in _FUSED:
        return False
    activation = _activation(node)
    return not activation or activation in _PARAMETERS or onnx.defs.has(activation)


def _activation(node: onnx.NodeProto) -> str:
    return next((a.s.decode() for a in node.attribute if a.name == "activation"), "")


def _spell_out(model: onnx.ModelProto) -> None:
    """Replace every fused node by the standard ones that it stands for."""
    names = all_names(model.graph)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    nodes = [part for node in model.graph.node for part in (_parts(node, names, opset) if _is_fused(node) else [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _parts(node: onnx.NodeProto, names: set[str], opset: int) -> list[onnx.NodeProto]:
    """The layer with the node's own name, the addition, the activation."""
    layer, activation = onnx.NodeProto(), _activation(node)
    layer.CopyFrom(node)
    layer.domain, layer.op_type = "", _FUSED[node.op_type]
    del layer.attribute[:]
    layer.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    parts = [layer]

    def follow(op: str, *others: str, **attributes: object) -> None:
        before = parts[-1]
        after = helper.make_node(op, [before.output[0], *others], list(before.output), name=f"{node.name}/{op}")
        after.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        before.output[0] = unused_name(f"{node.output[0]}/{before.op_type}", names)
        after.input[0] = before.output[0]
        parts.append(after)

    if node.op_type == "FusedConv" and len(node.input) > 3:
        added = layer.input.pop()
        while layer.input and not layer.input[-1]:
            layer.input.pop()
        follow("Add", added)
    if activation == "Clip" and opset >= 11:
        bounds = []
        for name, value in _parameters(node).items():
            bounds.append(unused_name(f"{node.output[0]}/{name}", names))
            tensor = helper.make_tensor(bounds[-1], onnx.TensorProto.FLOAT, (), [value])
            parts.insert(0, helper.make_node("Constant", [], [bounds[-1]], value=tensor))
        follow("Clip", *bounds)
    elif activation:
        follow(activation, **_parameters(node))
    return parts


def _parameters(node: onnx.NodeProto) -> dict[str, float]:
    """Attributes of the activation by name."""
    activation, given = _activation(node), {a.name: a for a in node.attribute if a.name.startswith("activation_")}
    if "activation_params" in given:
        return dict(zip(_PARAMETERS.get(activation, ()), given["activation_params"].floats, strict=False))
    known = onnx.defs.get_schema(activation).attributes
    values = {name.removeprefix("activation_"): attribute.f for name, attribute in given.items()}
    return {name: value for name, value in values.items() if name in known}
