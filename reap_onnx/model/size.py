"""Models larger than a protobuf may be: 2 GB of them can be held in memory, but not serialised in one piece."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import onnx

from reap_onnx.model.network import subgraphs

EXTERNAL_FROM = 1_900_000_000  # bytes; a protobuf ends at 2 GB


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a graph stores: initializers, attributes, those of its bodies."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in subgraphs(node):
            yield from tensors(body)


def is_large(model: onnx.ModelProto) -> bool:
    """Whether a model has to keep its weights in a file of their own."""
    return stored(model) > EXTERNAL_FROM or (stored(model) > EXTERNAL_FROM // 2 and model.ByteSize() > EXTERNAL_FROM)


def stored(model: onnx.ModelProto) -> int:
    """Bytes that the tensors of a model take, from their shapes: looking at the data would copy them."""
    return sum(math.prod(tensor.dims) * _itemsize(tensor.data_type) for tensor in tensors(model.graph))


def byte_size(model: onnx.ModelProto) -> int:
    """Bytes of a model; for a large one those of its weights, which are as good as all of it."""
    return stored(model) if is_large(model) else model.ByteSize()


def _itemsize(data_type: int) -> int:
    return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize if data_type else 0


def digest(model: onnx.ModelProto) -> str:
    """SHA-256 of a model with all its data, hexadecimal: of the weights one by one, then of the rest."""
    rest, found = onnx.ModelProto(), hashlib.sha256()
    rest.CopyFrom(model)
    for tensor in tensors(rest.graph):
        found.update(tensor.raw_data)
        tensor.raw_data = len(tensor.raw_data).to_bytes(8, "little")
    found.update(rest.SerializeToString(deterministic=True))
    return found.hexdigest()


def save_with_data(model: onnx.ModelProto, path: Path, data: Path) -> None:
    """Write a model, its weights in a file of their own beside it; ``model`` is not changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(copy, path, save_as_external_data=True, location=data.name)
