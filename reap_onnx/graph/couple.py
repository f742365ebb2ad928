"""Couples: a layer that alone makes what another alone reads, so that the two can be refitted together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reap_onnx.graph.groups import Group
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.targets import Target, find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Network, Node
from reap_onnx.ops.between import Between, operator


@dataclass(frozen=True)
class Couple:
    """A maker and a reader, and the operators between them that nothing else reads.

    ``made`` is the maker's target: its branch is where the operators start.
    """

    maker: Layer
    made: Target
    between: tuple[Node, ...]
    reader: Layer

    @property
    def adds_bias(self) -> bool:
        """Whether a refit gives the maker a bias that it does not have yet."""
        intercept = self.made.intercept
        return intercept is not None and intercept.slot == self.maker.bias and not self.maker.has_bias


def find_couple(trace: Trace, group: Group) -> Couple | None:
    """The couple around a group; None where there is none, or an operator between has no derivative.

    1. One layer with a geometry makes the group's channels and no others, one reads them.
    2. Both have a weight of their own, dense rows and a constant to write their intercept to.
    3. Every tensor on the way is read once, every operator on it has one computed input and a derivative.
    """
    makers = [layer for layer in group.makers if layer.geometry is not None]
    readers = [layer for layer in group.readers if layer.geometry is not None]
    if len(makers) != 1 or len(readers) != 1:
        return None
    maker, reader = makers[0], readers[0]
    assert maker.geometry is not None
    assert reader.geometry is not None
    made = find_target(trace, maker)
    foreign = ~np.isin(trace.channels.roots(maker.features), group.units)
    shared = len(trace.sharers(maker)) > 1 or len(trace.sharers(reader)) > 1
    if foreign.any() or shared or made.intercept is None or not (maker.geometry.dense and reader.geometry.dense):
        return None
    between = _between(trace.network, made.branch, reader.data, maker.geometry.feature_axis)
    return None if between is None else Couple(maker, made, between, reader)


def _between(network: Network, start: str, end: str, axis: int) -> tuple[Node, ...] | None:
    """The nodes from one tensor to another, where they are a chain of known operators."""
    nodes: list[Node] = []
    while network.read_once(end):
        if end == start:
            return tuple(reversed(nodes))
        node = network.producer.get(end)
        if node is None or end != node.outputs[0]:
            return None
        computed = [name for name in node.inputs if name and name not in network.constants]
        constants = {i: network.constants[name] for i, name in enumerate(node.inputs) if name in network.constants}
        if len(computed) != 1 or operator(Between(network, node, constants, axis)) is None:
            return None
        nodes.append(node)
        end = computed[0]
    return None
