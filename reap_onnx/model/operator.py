"""One layer of a network on its own, at any width: a model of a single node, to be timed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from reap_onnx.model.network import LAYERS, Network, Node


@dataclass(frozen=True)
class Operator:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight.

    Parameters
    ----------
    op, attributes
        Type of the node; its attributes, each serialised, in order.
    opset, ir_version
        Versions of the model that it is from.
    dtype
        Of data and weight, by numpy's name.
    data, weight
        Shapes of what it reads.
    bias
        Whether it adds a vector; a Gemm without one is rarely met.
    """

    op: str
    attributes: tuple[bytes, ...]
    opset: int
    ir_version: int
    dtype: str
    data: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool

    @property
    def key(self) -> str:
        """SHA-256 of everything that decides how long it takes, hexadecimal."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def resized(self, weight: tuple[int, ...]) -> Operator:
        """The same layer with a weight of another shape; its data and its groups follow."""
        attributes, data = self._attributes(), list(self.data)
        groups = attributes.get("group", 1)
        if self.op == "Conv":
            whole = groups > 1 and groups >= self.data[1] // groups  # groups go whole, as the rule of Conv has it
            left = max(1, groups * weight[0] // self.weight[0]) if whole else groups
            data[1] = weight[1] * left
        elif self.op == "ConvTranspose":
            whole = groups > 1 and groups >= self.data[1] // groups
            left, data[1] = max(1, groups * weight[0] // self.weight[0]) if whole else groups, weight[0]
        else:
            left, inner = groups, weight[1 if attributes.get("transB", 0) else 0]
            data[0 if attributes.get("transA", 0) else -1] = inner
        changed = self.attributes
        if left != groups:
            others = [a for a in self.attributes if onnx.AttributeProto.FromString(a).name != "group"]
            changed = _serialised([helper.make_attribute("group", left)], others)
        return replace(self, attributes=changed, data=tuple(data), weight=weight)

    def model(self) -> onnx.ModelProto:
        """The layer as a model; its numbers are made up."""
        node = onnx.NodeProto(op_type=self.op, input=["x", "w"] + ["b"] * self.bias, output=["y"])
        node.attribute.extend(onnx.AttributeProto.FromString(attribute) for attribute in self.attributes)
        elements = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        weights = [numpy_helper.from_array(np.full(self.weight, 0.01, self.dtype), "w")]
        if self.bias:
            weights.append(numpy_helper.from_array(np.full(self._features(), 0.01, self.dtype), "b"))
        graph = helper.make_graph(
            [node],
            "operator",
            [helper.make_tensor_value_info("x", elements, self.data)],
            [onnx.helper.make_tensor_value_info("y", elements, None)],
            weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)

    def feeds(self) -> dict[str, np.ndarray]:
        """Inputs of :meth:`model`."""
        return {"x": np.full(self.data, 0.5, self.dtype)}

    def _features(self) -> int:
        attributes = self._attributes()
        if self.op == "ConvTranspose":
            return int(self.weight[1] * attributes.get("group", 1))
        return self.weight[0] if self.op == "Conv" or attributes.get("transB", 0) else self.weight[1]

    def _attributes(self) -> dict[str, int]:
        found = (onnx.AttributeProto.FromString(attribute) for attribute in self.attributes)
        return {a.name: a.i for a in found if a.type == onnx.AttributeProto.INT}


def find_operator(network: Network, node: Node, batch: int) -> Operator | None:
    """A node of a network as an operator that reads ``batch`` samples; None for what cannot stand on its own."""
    if node.op not in LAYERS or node.inputs[0] in network.constants or node.inputs[1] not in network.constants:
        return None
    data, weight = network.shapes[node.inputs[0]], network.shapes[node.inputs[1]]
    dtype = network.dtypes[node.inputs[0]]
    if len(weight) < 2 or (node.op == "MatMul" and len(weight) > 2) or dtype.kind != "f" or not data:
        return None
    return Operator(
        op=node.op,
        attributes=_serialised(node.proto.attribute),
        opset=network.opset,
        ir_version=max(network.proto.ir_version, 4),  # older ones list weights as inputs
        dtype=dtype.name,
        data=(max(1, data[0] * batch // network.batch), *data[1:]),
        weight=tuple(weight),
        bias=node.op != "MatMul",
    )


def _serialised(attributes: Iterable[onnx.AttributeProto], others: Sequence[bytes] = ()) -> tuple[bytes, ...]:
    return tuple(sorted([*(a.SerializeToString(deterministic=True) for a in attributes), *others]))
