"""onnx's reference moves numbers as onnxruntime moves data, whatever the opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from examples.net import Net
from reap_onnx.graph.movement import MOVEMENT, run_movement
from reap_onnx.model.network import Network
from reap_onnx.runtime.session import probe

FIRST, LAST = 7, 21
Case = tuple[str, list[Any], dict[str, Any], int, range]  # operator, numbers, attributes, outputs, opsets

CASES: list[Case] = [
    ("Cast", [], {"to": 7}, 1, range(FIRST, LAST + 1)),
    ("Concat", [], {"axis": 1}, 1, range(FIRST, LAST + 1)),
    ("Concat", [], {"axis": -1}, 1, range(11, LAST + 1)),
    ("DepthToSpace", [], {"blocksize": 2}, 1, range(FIRST, LAST + 1)),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}, 1, range(11, LAST + 1)),
    ("Expand", [[2, 1, 4, 1]], {}, 1, range(8, LAST + 1)),
    ("Flatten", [], {"axis": 2}, 1, range(FIRST, LAST + 1)),
    ("Flatten", [], {"axis": -1}, 1, range(11, LAST + 1)),
    ("Gather", [[[1, 0], [2, 1]]], {"axis": 1}, 1, range(FIRST, LAST + 1)),
    ("Gather", [np.array(-1)], {"axis": -2}, 1, range(11, LAST + 1)),
    ("Identity", [], {}, 1, range(FIRST, LAST + 1)),
    ("Reshape", [[0, 2, -1]], {}, 1, range(FIRST, LAST + 1)),
    ("Reshape", [[2, 2, -1]], {"allowzero": 1}, 1, range(14, LAST + 1)),
    ("Slice", [], {"starts": [1, -3], "ends": [2**31, -1], "axes": [2, 1]}, 1, range(FIRST, 10)),
    ("Slice", [], {"starts": [0, 1], "ends": [1, 3]}, 1, range(FIRST, 10)),
    ("Slice", [[3, -1], [2**31, -9], [-2, 1], [1, -2]], {}, 1, range(10, LAST + 1)),
    ("Slice", [[1], [3], None, [2]], {}, 1, range(10, LAST + 1)),
    ("SpaceToDepth", [], {"blocksize": 2}, 1, range(FIRST, LAST + 1)),
    ("Split", [], {"axis": 1}, 2, range(FIRST, 18)),
    ("Split", [], {"axis": 1, "split": [1, 3]}, 2, range(FIRST, 13)),
    ("Split", [[3, 1]], {"axis": -3}, 2, range(13, LAST + 1)),
    ("Split", [], {"axis": 3, "num_outputs": 3}, 3, range(18, LAST + 1)),
    ("Squeeze", [], {"axes": [5, 4]}, 1, range(FIRST, 13)),
    ("Squeeze", [[-1, 4]], {}, 1, range(13, LAST + 1)),
    ("Tile", [[1, 2, 1, 3]], {}, 1, range(FIRST, LAST + 1)),
    ("Transpose", [], {"perm": [2, 0, 3, 1]}, 1, range(FIRST, LAST + 1)),
    ("Transpose", [], {}, 1, range(FIRST, LAST + 1)),
    ("Unsqueeze", [], {"axes": [5, 1]}, 1, range(FIRST, 13)),
    ("Unsqueeze", [], {"axes": [-1, 1]}, 1, range(11, 13)),
    ("Unsqueeze", [[-1, 0]], {}, 1, range(13, LAST + 1)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[4].start}")
def test_as_onnxruntime(case: Case) -> None:
    kind, numbers, attributes, outputs, opsets = case
    shape = (2, 4, 4, 6, 1, 1) if kind == "Squeeze" else (2, 4, 4, 6)
    inputs = [np.arange(np.prod(shape), dtype=np.int64).reshape(shape)] * (2 if kind == "Concat" else 1)
    for opset in opsets:
        net = Net(opset)
        data = net.op("Cast", net.input(*shape), to=onnx.TensorProto.FLOAT)
        made = net.ops(kind, *[data] * len(inputs), *numbers, outputs=outputs, **attributes)
        feeds = {"x": inputs[0].astype(np.float32)}
        network = Network(model := net.model(*made), probe(model, feeds))
        node = network.nodes[-1]
        known = [network.known(name) for name in node.inputs[len(inputs) :]]
        moved = run_movement(node, [*inputs, *known], opset)
        assert list(moved) == made
        ran = probe(model, feeds)
        for name in made:
            assert np.array_equal(moved[name], ran[name]), opset


def test_every_movement_is_tried() -> None:
    assert {case[0] for case in CASES} == set(MOVEMENT)
