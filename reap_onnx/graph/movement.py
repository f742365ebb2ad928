"""Run an operator that only moves data on numbers that stand for the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from reap_onnx.model.network import Node

MOVEMENT = frozenset(
    "Cast Concat DepthToSpace Expand Flatten Gather Identity Reshape Slice SpaceToDepth Split Squeeze Tile Transpose "
    "Unsqueeze".split()
)
"""Operators whose outputs are made of elements of their inputs, and of nothing else."""


def run_movement(node: Node, values: Sequence[np.ndarray | None], opset: int) -> dict[str, np.ndarray]:
    """Outputs of ``node``, int64 by name, when its inputs are ``values``; None for an input that is left out."""
    data = values[0]
    assert data is not None
    if node.op in ("Cast", "Identity"):
        return {node.outputs[0]: data}
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    proto.domain = ""
    for attribute in proto.attribute:
        if node.op in ("Squeeze", "Unsqueeze") and attribute.name == "axes":  # onnx's reference goes by their order
            rank = data.ndim + len(attribute.ints) * (node.op == "Unsqueeze")
            attribute.ints[:] = sorted(axis % rank for axis in attribute.ints)
    given = {f"input{position}": value for position, value in enumerate(values) if value is not None}
    del proto.input[:]
    proto.input.extend(f"input{position}" if value is not None else "" for position, value in enumerate(values))
    outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    graph = onnx.helper.make_graph([proto], "movement", [_info(*item) for item in given.items()], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(model).run(None, given)
    return {info.name: np.asarray(result, np.int64) for info, result in zip(outputs, results, strict=True)}


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
