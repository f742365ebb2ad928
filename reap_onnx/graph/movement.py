"""Run an operator that only moves data on numbers that stand for the data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from reap_onnx.model.network import Node

MOVEMENT = frozenset(
    "Cast Concat DepthToSpace Expand Flatten Gather Identity Reshape Slice SpaceToDepth Split Squeeze Tile Transpose "
    "Unsqueeze".split()
)
"""Operators whose outputs are made of elements of their inputs, and of nothing else."""


def run_movement(node: Node, values: Mapping[str, np.ndarray], opset: int) -> dict[str, np.ndarray]:
    """Outputs of ``node`` when its inputs are ``values``, int64, by name."""
    if node.op in ("Cast", "Identity"):
        return {node.outputs[0]: values[node.inputs[0]]}
    inputs = [_value_info(name, value) for name, value in values.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
    graph = onnx.helper.make_graph([node.proto], "movement", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(model).run(None, dict(values))
    return {info.name: np.asarray(result, np.int64) for info, result in zip(outputs, results, strict=True)}


def _value_info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
