from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nets import images, residual_net
from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method import select
from reap_onnx.method.problems import RIDGE, group_problems, layers_to_refit, refitted
from reap_onnx.method.select import GroupPath, Sensitivity, curve, error_paths, weighed
from reap_onnx.model.edit import with_constants
from reap_onnx.numerics.path import scores
from reap_onnx.options import PruneOptions, Target
from reap_onnx.runtime.session import Session
from reap_onnx.runtime.statistics import Tap, collect_dense, normals
from wiring import read

OPTIONS = PruneOptions(Target("macs", fraction=0.5), batch=16)


@pytest.fixture(scope="module")
def measured():
    """A residual network, its prunable groups, taps and statistics."""
    model = residual_net()
    dataset = Dataset({"image": images(96, seed=1)})
    trace = Trace(read(model))
    groups = [group for group in find_groups(trace) if not group.frozen]
    taps = {layer.node.index: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(groups)}
    statistics = normals(collect_dense(trace.network, list(taps.values()), dataset, batch=16, rows=4000, seed=0))
    return trace, groups, taps, statistics, dataset


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_by_norms_units_of_small_weights_go_first(measured, criterion, power):
    trace, groups, taps, statistics, _ = measured
    reap = error_paths(trace, groups, taps, statistics)
    for best, path in zip(reap, error_paths(trace, groups, taps, statistics, criterion), strict=True):
        makers = [m for m in path.group.makers if m.geometry is not None]
        if len(makers) == 1 and path.group.channels == 1:
            weight = trace.network.constants[makers[0].node.inputs[1]]
            sizes = (np.abs(weight.astype(float)) ** power).reshape(len(weight), -1).sum(axis=1)
            units = [trace.channels.roots(makers[0].features).tolist().index(unit) for unit in path.group.units]
            assert (np.diff(sizes[units][path.path.order]) >= 0).all()
        half = len(path.group.units) // 2
        assert (np.diff(path.path.errors) >= 0).all()
        assert path.path.errors[half] >= best.path.errors[half]


def test_every_group_has_a_path_over_all_its_units(measured):
    trace, groups, taps, statistics, _ = measured
    for path in error_paths(trace, groups, taps, statistics):
        assert sorted([*path.path.order.tolist(), path_left(path)]) == list(range(len(path.group.units)))
        assert (np.diff(path.path.errors) >= 0).all()
        np.testing.assert_array_equal(path.removed(len(path.group.units)), [])


def path_left(path: GroupPath) -> int:
    return (set(range(len(path.group.units))) - set(path.path.order.tolist())).pop()


def test_a_stream_is_priced_by_all_of_its_readers(measured):
    trace, groups, taps, statistics, _ = measured
    none = np.zeros(0, np.int64)
    stream = max(groups, key=lambda group: len(group.readers))
    assert len(layers_to_refit([stream])) > 1
    problems = [
        problem
        for layer in layers_to_refit([stream])
        for problem in group_problems(trace, taps[layer.node.index], statistics[layer.node.index], stream, none)
    ]
    alone = [scores([problem], len(stream.units), RIDGE) for problem in problems]
    np.testing.assert_allclose(scores(problems, len(stream.units), RIDGE), np.sum(alone, axis=0), rtol=1e-9)


@pytest.mark.parametrize(("highest", "together"), [(10, 16), (2, 2), (10, 1)])
def test_sensitivity_is_the_damage_to_the_highest_scores_per_unit_of_error(measured, monkeypatch, highest, together):
    monkeypatch.setattr(select, "HIGHEST", highest)
    monkeypatch.setattr(select, "TOGETHER", together)
    trace, groups, taps, statistics, dataset = measured
    paths, told = error_paths(trace, groups, taps, statistics)[::-1], []
    weights = weighed(Sensitivity(trace, taps, dataset, OPTIONS), paths, statistics, told.append)
    assert sum(told) == len(paths) > 2
    [y] = Session(trace.network.proto).run(dataset.inputs).values()
    assert 2 < y.shape[1] <= 10
    counted = y >= np.sort(y, axis=1)[:, -min(highest, y.shape[1])][:, None]
    for path, found in zip(paths, weights, strict=True):
        cut, new = len(path.group.units) // 2, {}
        for layer in layers_to_refit([path.group]):
            index = layer.node.index
            new |= refitted(trace, taps[index], statistics[index], path.removed(len(path.group.units) - cut))
        [z] = Session(with_constants(trace.network, new)).run(dataset.inputs).values()
        was, now = y[counted].astype(float), z[counted].astype(float)
        damage = ((now - was) ** 2).sum() / ((was - was.mean()) ** 2).sum()
        assert found.weight * path.path.errors[cut] == pytest.approx(damage, rel=1e-3)
        np.testing.assert_array_equal(found.path.order, path.path.order)


def test_a_group_without_error_weighs_one(measured):
    trace, groups, taps, statistics, dataset = measured
    path = error_paths(trace, groups, taps, statistics)[0]
    none = replace(path, path=replace(path.path, errors=np.zeros_like(path.path.errors)))
    told = []
    [found] = weighed(Sensitivity(trace, taps, dataset, OPTIONS), [none], statistics, told.append)
    assert (found.weight, sum(told)) == (1.0, 1)


@pytest.mark.parametrize(
    ("options", "step", "least"),
    [
        ({"round_to": 4}, 4, 1),
        ({"max_cut": 0.5}, 1, 4),
        ({"min_channels": 3, "max_cut": 1.0}, 1, 3),
        ({"max_cut": 1.0}, 1, 1),
    ],
)
def test_limits_reach_the_allocation(measured, options, step, least):
    trace, groups, taps, statistics, _ = measured
    path = next(p for p in error_paths(trace, groups, taps, statistics) if len(p.group.units) == 8)
    limited = curve(path, PruneOptions(Target("macs", fraction=0.5), **options))
    assert (limited.width, limited.step, limited.least) == (8, step, least)
