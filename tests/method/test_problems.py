from __future__ import annotations

import numpy as np
import onnx
import pytest

from examples.net import Net
from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import layers_to_refit, refitted
from reap_onnx.method.select import error_paths
from reap_onnx.numerics.gram import Rows
from reap_onnx.runtime.statistics import Tap, collect_dense, normals
from wiring import read


def wide_net(unit: float) -> onnx.ModelProto:
    """A convolution of 70 channels, a Flatten of 16 places of each, a Gemm; ``unit`` is that of what it reads."""
    net = Net()
    x = net.input("N", 6, 4, 4)
    weight, bias = net.noise(70, 6, 1, 1), net.noise(70) + 1
    h = net.op("Relu", net.op("Conv", x, (weight * unit).astype(np.float32), (bias * unit).astype(np.float32)))
    h = net.op("Flatten", h)
    return net.model(net.op("Gemm", h, (net.noise(1120, 5) / unit).astype(np.float32), net.noise(5)))


def measured(samples: int, unit: float = 1.0, seed: int = 0):
    trace = Trace(read(wide_net(unit)))
    [group] = [group for group in find_groups(trace) if not group.frozen]
    taps = {layer.node.index: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit([group])}
    data = Dataset({"x": np.random.default_rng(seed).standard_normal((samples, 6, 4, 4)).astype(np.float32)})
    found = normals(collect_dense(trace.network, list(taps.values()), data, batch=16, rows=4000, seed=0))
    return trace, group, taps, found


@pytest.mark.parametrize("unit", [0.01, 30.0])
def test_prices_do_not_depend_on_the_unit_of_what_a_layer_reads(unit: float) -> None:
    """Few rows have a large ridge, and the intercept, a column of ones, bears none of it."""
    paths = []
    for scale in (1.0, unit):
        trace, group, taps, statistics = measured(20, scale)
        paths.append(error_paths(trace, [group], taps, statistics)[0].path)
    np.testing.assert_allclose(paths[1].errors, paths[0].errors, rtol=1e-3)
    assert (paths[0].order == paths[1].order).mean() > 0.9  # of equal prices either may go


def test_with_caution_few_rows_are_missed_as_much_as_others_are() -> None:
    """20 rows of 1,120 columns: those of 70 channels, each made of the same six numbers, at 16 places."""
    trace, group, taps, statistics = measured(20)
    [(index, [rows])], [tap] = statistics.items(), taps.values()
    assert isinstance(rows, Rows)
    others = measured(400, seed=1)[3][index][0]
    removed = error_paths(trace, [group], taps, statistics)[0].removed(35)

    def missed(equations: Rows, cautious: bool) -> float:
        new = refitted(trace, tap, [rows], removed, cautious=cautious)
        error = equations.x[:, :-1] @ new[tap.layer.weight] + new[tap.layer.bias] - equations.y
        return float(np.square(error).sum() / np.square(equations.y - equations.y.mean(axis=0)).sum())

    assert missed(rows, cautious=False) < 0.1 * missed(others, cautious=False)
    assert 0.4 < missed(rows, cautious=True) / missed(others, cautious=True) < 1.5
    assert max(missed(others, cautious=False), missed(others, cautious=True)) < 0.05
