from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from examples import (
    arrivals,
    conv,
    elementwise,
    linear,
    movement,
    networks,
    normalization,
    pooling,
    quantization,
    reduction,
    shapes,
)
from examples.net import Example
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Node
from reap_onnx.model.normalise import normalise
from reap_onnx.ops import Rule, all_rules, find_rule
from reap_onnx.ops.registry import rule
from wiring import read

FAMILIES = (
    conv,
    linear,
    elementwise,
    movement,
    normalization,
    pooling,
    quantization,
    reduction,
    networks,
    shapes,
    arrivals,
)
EXAMPLES = tuple(chain.from_iterable(family.EXAMPLES for family in FAMILIES))
BY_OP: dict[str, list[Example]] = {}
for example in EXAMPLES:
    if example.units:
        for kind in {Node(0, node).op for node in normalise(example.model()).graph.node}:
            BY_OP.setdefault(kind, []).append(example)


def passes(example: Example, op: str) -> bool:
    """Whether channels that can be pruned go through a node of this operator."""
    trace = Trace(read(normalise(example.model())))
    units = np.concatenate([group.units for group in find_groups(trace) if not group.frozen])
    for node in (node for node in trace.network.nodes if node.op == op):
        for name in (*node.inputs, *node.outputs):
            labels = trace.labelled(name)
            if labels is not None and np.isin(labels, units).any():
                return True
    return False


@pytest.mark.parametrize("known", all_rules(), ids=lambda known: known.op)
def test_every_rule_has_an_example_with_prunable_channels(known: Rule) -> None:
    assert any(passes(example, known.op) for example in BY_OP.get(known.op, []))


def test_names_of_examples_are_their_own() -> None:
    for family in FAMILIES:
        names = [example.name for example in family.EXAMPLES]
        assert len(set(names)) == len(names)


def test_rules_are_found_and_sorted() -> None:
    rules = all_rules()
    assert [known.op for known in rules] == sorted(known.op for known in rules)
    assert find_rule("Conv") is rules[[known.op for known in rules].index("Conv")]
    assert find_rule("com.example.Conv") is None


def test_an_operator_has_one_rule() -> None:
    with pytest.raises(ValueError, match="Relu has a rule already"):
        rule("Relu")(rules_nothing)


def rules_nothing(node: object, trace: object) -> None:
    raise AssertionError("never asked")
