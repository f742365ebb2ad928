from __future__ import annotations

import numpy as np
import onnx
import pytest

from examples.conv import EXAMPLES
from examples.net import Example
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.ops.conv import ConvGeometry
from wiring import cut, prove, prove_refit, pruned, read

BY_NAME = {example.name: example for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_pruned_equals_masked(example: Example) -> None:
    prove(example)


@pytest.mark.parametrize(
    "name", ["geometry", "one_axis", "three_axes", "few_groups", "many_groups", "transpose", "transpose_few_groups"]
)
def test_refit_with_nothing_removed(name: str) -> None:
    prove_refit(BY_NAME[name].model())


def smaller(name: str, *kept: int) -> onnx.ModelProto:
    """An example with so many units left in each group."""
    trace = Trace(read(BY_NAME[name].model()))
    return pruned(trace, cut([group for group in find_groups(trace) if not group.frozen], kept))


def weights(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Shapes of the initializers in the order in which nodes read them."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [shapes[name] for node in model.graph.node for name in node.input if name in shapes]


def groups(model: onnx.ModelProto) -> list[int]:
    return [a.i for node in model.graph.node for a in node.attribute if a.name == "group"]


@pytest.mark.parametrize(
    ("name", "kept", "shapes", "group"),
    [
        ("plain", [4], [(4, 3, 3, 3), (4,), (4, 4, 1, 1), (4,)], []),
        ("depthwise_multiplier", [2], [(2, 3, 3, 3), (2,), (6, 1, 3, 3), (6,), (4, 6, 1, 1), (4,)], [2]),
        ("few_groups", [2, 1], [(4, 3, 3, 3), (4,), (2, 2, 3, 3), (2,), (4, 2, 1, 1), (4,)], [2]),
        ("many_groups", [3], [(6, 3, 3, 3), (6,), (9, 2, 3, 3), (9,), (4, 9, 1, 1), (4,)], [3]),
        ("transpose_few_groups", [2, 1], [(4, 3, 3, 3), (4,), (4, 1, 2, 2), (2,), (4, 2, 1, 1), (4,)], [2]),
        ("transpose_depthwise", [5], [(5, 3, 3, 3), (5,), (5, 2, 2, 2), (10,), (4, 10, 1, 1), (4,)], [5]),
    ],
)
def test_shapes_by_hand(name: str, kept: list[int], shapes: list[tuple[int, ...]], group: list[int]) -> None:
    model = smaller(name, *kept)
    assert weights(model) == shapes
    assert groups(model) == group


@pytest.mark.parametrize("transposed", [False, True])
def test_matrix_and_weight_are_inverse(transposed: bool) -> None:
    model = BY_NAME["transpose_few_groups" if transposed else "few_groups"].model()
    layer = Trace(read(model)).layers[1]
    assert isinstance(layer.geometry, ConvGeometry)
    weight = np.arange(10 * 6 / 2 * 4).reshape((10, 3, 2, 2) if transposed else (6, 5, 2, 2))
    matrix = layer.geometry.matrix(weight)
    assert matrix.shape == (2, 5 * 4, 3)
    assert np.array_equal(layer.geometry.weight(matrix, weight), weight)
    block, channel, tap, feature = 1, 3, 2, 1
    expected = weight[5 + channel, feature, 1, 0] if transposed else weight[3 + feature, channel, 1, 0]
    assert matrix[block, channel * 4 + tap, feature] == expected
