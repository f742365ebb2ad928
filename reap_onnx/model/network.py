"""A model, indexed: who makes a tensor, who reads it, which tensors are constants, what shape each has."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # of the standard, that mix channels
SMALL = 64  # elements; integer tensors up to this size may be shapes, so that their values are kept


class Slot(NamedTuple):
    """One input of one node: constants are labelled, cut and replaced per slot, since readers may differ."""

    node: int
    input: int


@dataclass(frozen=True)
class Node:
    """A node of the graph with its place in it."""

    index: int
    proto: onnx.NodeProto

    @property
    def op(self) -> str:
        """Operator, without domain for the standard ones."""
        domain = self.proto.domain
        return self.proto.op_type if domain in ("", "ai.onnx") else f"{domain}.{self.proto.op_type}"

    @property
    def name(self) -> str:
        """Name for people: the node's own, else that of its first output."""
        return self.proto.name or next((name for name in self.proto.output if name), f"{self.op} {self.index}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Input names, empty ones included."""
        return tuple(self.proto.input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Output names, empty ones included."""
        return tuple(self.proto.output)

    def input(self, position: int) -> str:
        """Name of an input, empty where it is left out."""
        return self.proto.input[position] if position < len(self.proto.input) else ""

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attribute values by name; tensors as ``TensorProto``."""
        return {a.name: onnx.helper.get_attribute_value(a) for a in self.proto.attribute}

    @property
    def captured(self) -> tuple[str, ...]:
        """Outer-scope tensors that the node's subgraphs read."""
        return tuple(sorted({name for graph in subgraphs(self.proto) for name in _outer_names(graph)}))


class Network:
    """A model and what one run of it showed.

    Parameters
    ----------
    proto
        The model, or its skeleton (see ``reap_onnx.model.size``); never changed.
    values
        Every tensor of the graph as one run computed it (see ``reap_onnx.runtime.probe``).
    sizes
        Shapes that the graph computes, in another run with larger inputs (see ``reap_onnx.runtime.probe_sizes``).
    """

    def __init__(
        self, proto: onnx.ModelProto, values: Mapping[str, object], sizes: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self.proto = proto
        self.sizes = sizes or {}
        self.nodes = tuple(Node(index, node) for index, node in enumerate(proto.graph.node))
        initializers = {t.name for t in proto.graph.initializer}
        initializers |= {t.values.name for t in proto.graph.sparse_initializer}
        self.inputs = tuple(i.name for i in proto.graph.input if i.name not in initializers)
        self.outputs = tuple(o.name for o in proto.graph.output)
        self.producer = {name: node for node in self.nodes for name in node.outputs if name}
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *node.captured)):
                if name:
                    readers[name].append(node)
        self.readers: dict[str, tuple[Node, ...]] = {name: tuple(nodes) for name, nodes in readers.items()}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[Any]] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.small: dict[str, np.ndarray] = {}
        self.fixed = self._fixed(initializers)
        for name, value in values.items():
            if not isinstance(value, np.ndarray):
                continue
            self.shapes[name], self.dtypes[name] = value.shape, value.dtype
            if name in self.fixed:
                self.constants[name] = value
            elif value.size <= SMALL and np.issubdtype(value.dtype, np.integer):
                self.small[name] = value
        self.batch = next((self.shapes[name][0] for name in self.inputs if self.shapes[name]), 1)

    def _fixed(self, initializers: set[str]) -> set[str]:
        """Names of the tensors that depend on no input of the model."""
        fixed = set(initializers)
        for node in self.nodes:
            random = node.proto.op_type.startswith("Random") or node.proto.op_type in ("Multinomial", "Bernoulli")
            if not random and all(name in fixed for name in (*node.inputs, *node.captured) if name):
                fixed.update(name for name in node.outputs if name)
        return fixed

    @property
    def bytes_of_a_sample(self) -> list[int]:
        """What one sample leaves behind in every tensor."""
        made = [name for name in self.shapes if name in self.producer and name not in self.fixed]
        return [math.prod(self.shapes[name]) * self.dtypes[name].itemsize // self.batch for name in made]

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Constants that a skeleton has no data of, by name."""
        external = onnx.TensorProto.EXTERNAL
        return {t.name: self.constants[t.name] for t in self.proto.graph.initializer if t.data_location == external}

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 1)

    def known(self, tensor: str) -> np.ndarray | None:
        """Value of a constant, or of a small integer tensor as the run computed it; None for any other."""
        value = self.constants.get(tensor)
        return self.small.get(tensor) if value is None else value

    def is_read(self, tensor: str) -> bool:
        """Whether a node reads a tensor, or it is an output of the model."""
        return tensor in self.readers or tensor in self.outputs

    def ancestors(self, tensors: Iterable[str]) -> set[int]:
        """Indices of all nodes that the tensors are computed from."""
        found: set[int] = set()
        pending = list(tensors)
        while pending:
            node = self.producer.get(pending.pop())
            if node is not None and node.index not in found:
                found.add(node.index)
                pending.extend(name for name in (*node.inputs, *node.captured) if name)
        return found

    def slots(self, tensor: str) -> Iterator[Slot]:
        """Every slot that reads ``tensor``."""
        for node in self.readers.get(tensor, ()):
            for position, name in enumerate(node.inputs):
                if name == tensor:
                    yield Slot(node.index, position)

    def read_once(self, tensor: str) -> bool:
        """Whether exactly one slot reads ``tensor``, no subgraph does, and it is no output of the model."""
        captured = any(tensor in node.captured for node in self.readers.get(tensor, ()))
        return not captured and tensor not in self.outputs and len(list(self.slots(tensor))) == 1


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Bodies of If, Loop, Scan and the like."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def count_layers(graph: onnx.GraphProto) -> int:
    """Convolutions and matrix products in a body, those of its own bodies included."""
    inner = sum(count_layers(body) for node in graph.node for body in subgraphs(node))
    return inner + sum(node.op_type in LAYERS for node in graph.node)


def _outer_names(graph: onnx.GraphProto) -> set[str]:
    known = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    outer: set[str] = set()
    for node in graph.node:
        for body in subgraphs(node):
            outer |= _outer_names(body) - known
        outer |= {name for name in node.input if name} - known
        known.update(node.output)
    return outer | ({o.name for o in graph.output} - known)
