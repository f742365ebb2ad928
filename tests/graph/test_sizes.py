from __future__ import annotations

import numpy as np
import onnx
import pytest

from examples.net import Example, Net, head, stem
from examples.shapes import EXAMPLES
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.sizes import Axis, Element
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from wiring import cut, prove, pruned, read

BY_NAME = {example.name: example for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_pruned_equals_masked(example: Example) -> None:
    prove(example)


def test_where_numbers_come_from() -> None:
    """[batch, 6, rows * 2, -1]: an axis, an element of a constant, a product, and what adapts by itself."""
    net = Net()
    net.input("N", 3, "H", "W")
    h = stem(net)
    batch, rows = (net.op("Slice", net.op("Shape", h), [axis], [axis + 1]) for axis in (0, 2))
    sizes = net.op("Concat", batch, [6], net.op("Mul", rows, [2]), [-1], axis=0)
    trace = Trace(read(net.model(head(net, net.op("Reshape", h, sizes)))))
    shaped = trace.network.nodes[-2].outputs[0]
    origins = {number.sizes: number.origin for number in trace.sizes.numbers() if number.sizes}
    concat = next(node for node in trace.network.nodes if node.op == "Concat")
    assert origins == {
        (Axis(shaped, 0),): Axis(h, 0),
        (Axis(shaped, 1),): Element(Slot(concat.index, 1), 0),
        (Axis(shaped, 2),): None,
    }
    assert {number.origin for number in trace.sizes.numbers() if number.computed} == {Axis(h, 2), None}


def test_a_constant_is_rewritten_where_the_arithmetic_reads_it() -> None:
    trace = Trace(read(BY_NAME["flatten_by_numbers"].model()))
    groups = [group for group in find_groups(trace) if not group.frozen]
    model = pruned(trace, cut(groups, [2]))
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    value = next(t for t in model.graph.initializer if t.name == concat.input[1])
    assert onnx.numpy_helper.to_array(value).tolist() == [2]


def test_numbers_that_adapt_are_left_alone() -> None:
    trace = Trace(read(BY_NAME["flatten_by_batch"].model()))
    groups = [group for group in find_groups(trace) if not group.frozen]
    model = pruned(trace, cut(groups, [2]))
    before = {t.name: onnx.numpy_helper.to_array(t) for t in trace.network.proto.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64:
            assert np.array_equal(onnx.numpy_helper.to_array(tensor), before[tensor.name])
