from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from examples.net import Net
from examples.normalization import EXAMPLES
from nets import images, residual_net
from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.masking import mask_channels
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method import select
from reap_onnx.method.problems import RIDGE, group_problems, layers_to_refit, refitted
from reap_onnx.method.select import GroupPath, Sensitivity, curve, error_paths, weighed
from reap_onnx.model.edit import with_constants
from reap_onnx.numerics.gram import bytes_to_solve
from reap_onnx.numerics.path import scores
from reap_onnx.options import PruneOptions, Target
from reap_onnx.runtime.session import Session
from reap_onnx.runtime.shards import ThisProcess
from reap_onnx.runtime.statistics import Tap, collect_dense, normals
from wiring import random_feeds, read

OPTIONS = PruneOptions(Target("macs", fraction=0.5), batch=16)


@pytest.fixture(scope="module")
def measured():
    """A residual network, its prunable groups, taps and statistics."""
    return measure(residual_net(), Dataset({"image": images(96, seed=1)}))


def measure(model, dataset):
    trace = Trace(read(model))
    groups = [group for group in find_groups(trace) if not group.frozen]
    taps = {layer.node.index: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(groups)}
    statistics = normals(collect_dense(trace.network, list(taps.values()), dataset, batch=16, rows=4000, seed=0))
    return trace, groups, taps, statistics, dataset


def test_groups_at_once_have_the_paths_that_they_have_one_by_one(measured, monkeypatch):
    trace, groups, taps, statistics, _ = measured
    told, places = [], set()

    def advance(count):
        told.append(count)
        places.add(threading.get_ident())

    monkeypatch.setattr(select, "WIDE", 0)
    with threadpool_limits(2):
        together = error_paths(trace, groups, taps, statistics, advance=advance, memory=10**9)
    assert threading.get_ident() not in places
    assert sum(told) == len(groups)
    for one, other in zip(error_paths(trace, groups, taps, statistics), together, strict=True):
        assert one.group is other.group
        np.testing.assert_array_equal(one.path.order, other.path.order)
        np.testing.assert_allclose(one.path.errors, other.path.errors, rtol=1e-9)


def bytes_of(statistics):
    return sum(bytes_to_solve(normal) for blocks in statistics.values() for normal in blocks)


class Told(ThisProcess):
    """Remembers how many groups it may work on at once, and in which order they come."""

    at_once = 0
    sizes: Sequence[int] = ()

    def run(self, work, shared, items, advance, at_once=1):
        items, self.at_once = list(items), at_once
        self.sizes = [bytes_of(own) for _, own in items]
        return super().run(work, shared, items, advance)


@pytest.mark.parametrize(("wide", "room", "at_once"), [(0, 2.5, 2), (0, 100, 4), (0, 0.5, 1), (10**9, 100, 1)])
def test_wide_groups_go_at_once_as_many_as_there_is_memory_for(measured, monkeypatch, wide, room, at_once):
    trace, groups, taps, statistics, _ = measured
    largest = max(bytes_of(select.statistics_of(group, statistics)) for group in groups)
    monkeypatch.setattr(select, "WIDE", wide)
    told = Told()
    paths = error_paths(trace, groups, taps, statistics, workers=told, memory=int(room * largest))
    assert told.at_once == min(at_once, len(groups))
    assert told.sizes == sorted(told.sizes, reverse=True)
    assert [path.group for path in paths] == list(groups)


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


@pytest.mark.parametrize(("highest", "together"), [(10, 8), (2, 2), (0, 1)])
def test_sensitivity_is_the_damage_to_the_highest_scores_per_unit_of_error(measured, monkeypatch, highest, together):
    monkeypatch.setattr(select, "TOGETHER", together)
    trace, groups, taps, statistics, dataset = measured
    paths, told = error_paths(trace, groups, taps, statistics)[::-1], []
    options = replace(OPTIONS, method=replace(OPTIONS.method, sensitivity_scores=highest))
    found = weighed(Sensitivity(trace, taps, dataset, options), paths, statistics, told.append)
    assert sum(told) == len(paths) > 2
    assert_damages(measured, paths, found, highest or 10)


def test_sensitivity_of_channels_that_are_coupled():
    """What lies behind an LRN changes with its channels, before any of their readers does."""
    example = next(example for example in EXAMPLES if example.name == "neighbours@13")
    model = example.model()
    feeds = random_feeds(model)
    size = {name: (96, *array.shape[1:]) for name, array in feeds.items()}
    rng = np.random.default_rng(3)
    dataset = Dataset({name: rng.standard_normal(shape).astype(np.float32) for name, shape in size.items()})
    found = measure(model, dataset)
    trace, groups, taps, statistics, _ = found
    paths = error_paths(trace, groups, taps, statistics)
    weights = weighed(Sensitivity(trace, taps, dataset, OPTIONS), paths, statistics)
    assert len(paths) > 1
    assert_damages(found, paths, weights, 10)
    plain = [damage(found, path, 10, with_constants) for path in paths]
    assert plain != pytest.approx(
        [path.weight * path.path.errors[len(path.group.units) // 2] for path in weights], rel=0.1
    )


def test_of_large_outputs_numbers_drawn_at_random_count(measured, monkeypatch):
    trace, groups, taps, statistics, dataset = measured
    paths = error_paths(trace, groups, taps, statistics)
    every = replace(OPTIONS, method=replace(OPTIONS.method, sensitivity_scores=0))
    whole = weighed(Sensitivity(trace, taps, dataset, every), paths, statistics)
    numbers = len(dataset) * trace.network.shapes[trace.network.proto.graph.output[0].name][1]
    monkeypatch.setattr(select, "COUNTED", numbers // 2)
    half = Sensitivity(trace, taps, dataset, every)
    assert sum(part.values.size for parts in half._reference for part in parts.values()) <= numbers // 2
    for found, expected in zip(weighed(half, paths, statistics), whole, strict=True):
        assert found.weight != expected.weight
        assert found.weight == pytest.approx(expected.weight, rel=0.3)


def test_outputs_that_are_not_finite_leave_finite_weights():
    """A logarithm behind a ReLU: of the original some are infinite, of what is cut others are, too."""
    net = Net()
    h = net.op("Relu", net.conv(net.input("N", 3, 8, 8), 3, 16, 3, 3, pads=[1, 1, 1, 1]))
    model = net.model(net.op("Log", net.op("Relu", net.conv(h, 16, 4, 1, 1))))
    [name] = [value.name for value in model.graph.input]
    dataset = Dataset({name: np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)})
    [logs] = Session(model).run(dataset.inputs).values()
    assert np.isinf(logs).any()
    trace, groups, taps, statistics, _ = measure(model, dataset)
    paths = error_paths(trace, groups, taps, statistics)
    for path in weighed(Sensitivity(trace, taps, dataset, OPTIONS), paths, statistics):
        assert np.isfinite(path.weight)
        assert path.weight > 0
        curve(path, OPTIONS)


def assert_damages(measured, paths, weights, highest):
    for path, found in zip(paths, weights, strict=True):
        error = path.path.errors[len(path.group.units) // 2]
        assert found.weight * error == pytest.approx(damage(measured, path, highest), rel=1e-3)
        np.testing.assert_array_equal(found.path.order, path.path.order)


def damage(measured, path, highest, how=None):
    """Of half of a group, by the whole network; ``how`` makes it of the original and new constants."""
    trace, _, taps, statistics, dataset = measured
    removed, new = path.removed(len(path.group.units) - len(path.group.units) // 2), {}
    for layer in layers_to_refit([path.group]):
        new |= refitted(trace, taps[layer.node.index], statistics[layer.node.index], removed, cautious=True)
    model = how(trace.network, new) if how else mask_channels(trace, removed, new)
    [y], [z] = (Session(m).run(dataset.inputs).values() for m in (trace.network.proto, model))
    assert 2 < y.shape[1] <= 10
    counted = y >= np.sort(y, axis=1)[:, -min(highest, y.shape[1])][:, None]
    was, now = y[counted].astype(float), z[counted].astype(float)
    return ((now - was) ** 2).sum() / ((was - was.mean()) ** 2).sum()


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
