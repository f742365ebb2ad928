"""Large models: a protobuf of hundreds of megabytes is slow to serialise and to measure, one of 2 GB cannot be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped,unused-ignore]

from reap_onnx.model.network import subgraphs

EXTERNAL_FROM = 1_900_000_000  # bytes; a protobuf ends at 2 GB
APART_FROM = 64_000_000  # bytes of a model from which on its weights are handled apart from its graph,
INLINE = 4096  # but for those of fewer bytes
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
_WHOLE = tuple(getattr(onnx.TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64))


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
    return sum(map(_bytes, tensors(model.graph)))


def byte_size(model: onnx.ModelProto) -> int:
    """Bytes of a model; where it is large, to some bytes a weight."""
    return skeleton(model).ByteSize() + sum(map(_bytes, apart(model)))


def apart(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Weights that a :func:`skeleton` has no data of: those of a large model, and those that ``model`` itself lacks.

    Only what onnxruntime takes as an array and misses: what is read, of types that numpy has; whole numbers in a vector
    may be shapes, which it must see.
    """
    large = stored(model) >= APART_FROM
    read = _read(model.graph) if large else set()
    return [
        tensor
        for tensor in model.graph.initializer
        if is_elsewhere(tensor)
        or (
            tensor.name in read
            and tensor.HasField("raw_data")
            and _bytes(tensor) >= INLINE
            and tensor.data_type in (_FLOATS if len(tensor.dims) < 2 else _FLOATS + _WHOLE)
        )
    ]


def is_elsewhere(tensor: onnx.TensorProto) -> bool:
    """Whether the data of a weight are not with it."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def arrays(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The data of :func:`apart`, by name; ``weights`` has those that are elsewhere."""
    return {t.name: weights[t.name] if is_elsewhere(t) else onnx.numpy_helper.to_array(t) for t in apart(model)}


def fill(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Give a model the data of its weights that are elsewhere, in place."""
    for tensor in model.graph.initializer:
        if is_elsewhere(tensor):
            doc = tensor.doc_string
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
            tensor.doc_string = doc


def _read(graph: onnx.GraphProto) -> set[str]:
    """Names that the nodes of a graph and of its bodies read, and its outputs."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for body in subgraphs(node):
            names |= _read(body)
    return names


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model; of a large one without the data of its weights, which are marked as stored elsewhere."""
    copy = onnx.ModelProto()
    _copy_fields(model, copy, but="graph")
    _copy_fields(model.graph, copy.graph, but="initializer")
    without = {tensor.name for tensor in apart(model)}
    for tensor in model.graph.initializer:
        if tensor.name in without:
            entry = onnx.StringStringEntryProto(key="location", value="memory")
            place = {"data_location": onnx.TensorProto.EXTERNAL, "external_data": [entry]}
            copy.graph.initializer.add(
                name=tensor.name,
                dims=tensor.dims,
                data_type=tensor.data_type,
                doc_string=tensor.doc_string,
                **place,
            )
        else:
            copy.graph.initializer.append(tensor)
    return copy


def weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model; of a large one with inputs in the place of its weights, which then nobody copies."""
    light, declared = skeleton(model), {value.name for value in model.graph.input}
    weights = {tensor.name: tensor for tensor in apart(model)}
    small = [tensor for tensor in light.graph.initializer if tensor.name not in weights]
    del light.graph.initializer[:]
    light.graph.initializer.extend(small)
    light.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, weight.data_type, weight.dims)
        for name, weight in weights.items()
        if name not in declared
    )
    return light


def _copy_fields(source: Message, target: Message, *, but: str) -> None:
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)


def _bytes(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims) * _itemsize(tensor.data_type)


def _itemsize(data_type: int) -> int:
    """Bytes of a number; none of a type that onnx does not know, which its checker will name."""
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except KeyError:
        return 0


def digest(model: onnx.ModelProto) -> str:
    """SHA-256 of a model with all its data, hexadecimal: of the larger weights one by one, then of the rest."""
    found = hashlib.sha256()
    for tensor in apart(model):
        data = tensor.raw_data  # a copy
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    found.update(skeleton(model).SerializeToString(deterministic=True))
    return found.hexdigest()


def save_with_data(model: onnx.ModelProto, path: Path, data: Path) -> None:
    """Write a model, its weights in a file of their own beside it; ``model`` is not changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(copy, path, save_as_external_data=True, location=data.name)
