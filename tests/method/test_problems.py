from __future__ import annotations

import numpy as np
import onnx
import pytest

from examples.net import Net
from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import centred, group_problems, layers_to_refit, refitted
from reap_onnx.method.select import error_paths
from reap_onnx.numerics.few import shrinkage_ridge
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


def measured_head(samples: int, places: int, seed: int = 0, folded: bool = False):
    """40 channels, ReLUs of eight numbers, at so many places, and a product that reads them there."""
    net = Net()
    x = net.input("N", 8, places)
    h = net.op("Relu", net.conv(x, 8, 40, 1))
    h = net.op("Transpose", h, perm=[0, 2, 1])
    h = net.op("Reshape", h, np.array([-1, 40])) if folded else h
    trace = Trace(read(net.model(net.op("MatMul", h, net.noise(40, 5)))))
    [group] = [group for group in find_groups(trace) if not group.frozen]
    [layer] = layers_to_refit([group])
    tap = Tap(layer, find_target(trace, layer))
    data = Dataset({"x": np.random.default_rng(seed).standard_normal((samples, 8, places)).astype(np.float32)})
    statistics = normals(collect_dense(trace.network, [tap], data, batch=16, rows=4000, seed=0))
    return trace, group, tap, statistics[layer.node.index]


@pytest.mark.parametrize(("places", "folded", "alike"), [(1, False, 1), (8, False, 4), (8, True, 4)])
def test_rows_of_one_sample_call_for_a_larger_ridge_than_as_many_samples(places: int, folded: bool, alike: int) -> None:
    trace, group, tap, equations = measured_head(128 // places, places, folded=folded)
    assert equations[0].rows == 128
    [problem] = group_problems(trace, tap, equations, group, np.zeros(0, np.int64))
    assert problem.least_ridge == pytest.approx(shrinkage_ridge(centred(tap, equations[0]), alike))
    assert problem.least_ridge > 1e-3 * problem.scale


def test_channels_that_are_gone_do_not_count_in_the_ridge_of_others() -> None:
    trace, group, tap, equations = measured_head(30, 1)
    gone, stay = group.units[:20], ~np.isin(trace.channels.roots(tap.layer.inputs), group.units[:20])
    [problem] = group_problems(trace, tap, equations, group, gone)
    assert problem.least_ridge == pytest.approx(shrinkage_ridge(centred(tap, equations[0]).on(stay)))


def test_with_caution_few_rows_of_channels_at_one_place_are_not_met_either() -> None:
    trace, group, tap, equations = measured_head(30, 1)
    others = measured_head(400, 1, seed=1)[3]
    removed = error_paths(trace, [group], {tap.layer.node.index: tap}, {tap.layer.node.index: equations})[0].removed(20)

    def missed(rows, cautious: bool) -> float:
        new = refitted(trace, tap, equations, removed, cautious=cautious)[tap.layer.weight]
        x, y = rows[0].gram, rows[0].cross
        return float(rows[0].square.sum() - 2 * (new * y).sum() + (new * (x @ new)).sum()) / rows[0].rows

    assert missed(equations, cautious=False) < 0.6 * missed(others, cautious=False)
    assert 0.8 < missed(equations, cautious=True) / missed(others, cautious=True) < 1.2
