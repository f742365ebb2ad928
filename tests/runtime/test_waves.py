"""Both networks wave by wave: shards by themselves are those of one go, and none hangs on where it has been."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from held import watch_runs
from nets import images, residual_net
from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.targets import clipped_to, find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import layers_to_refit
from reap_onnx.model.network import Slot
from reap_onnx.numerics.gram import Accumulator, Normal, Rows
from reap_onnx.runtime.shards import HERE, Shard, cut_shards
from reap_onnx.runtime.statistics import Collector, Measured, Part, Parts, Tap, finish, join_parts
from reap_onnx.runtime.waves import Course, Found, Present, TwoStreams, Wave, Whole
from wiring import read

BATCH = 30
SAMPLES = Dataset({"image": images(470)})  # 16 batches; shards of 210, 210, 50
NOBODY = np.zeros(0, np.int64)


def course() -> Course:
    """Two waves: the second layer of the first block after the Add, with samples in whole; that of the second block."""
    trace = Trace(read(residual_net()))
    groups = [group for group in find_groups(trace) if not group.frozen]
    found = {layer.node.name: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(groups)}
    taps = [
        replace(tap, residual=True, clip=clipped_to(trace.network, tap.target.total))
        for tap in (found["block1/conv2"], found["block2/conv2"])
    ]
    waves = [
        Wave((tap,), (Whole(tap, tap.layer.data, 250),), tap.read, tap.read, (taps[-1].wanted,), taps[-1].read)
        for tap in taps
    ]
    return Course(trace, tuple(waves), len(SAMPLES), BATCH, 1500, 0, ("cpu",), None, asymmetric=True, halves=True)


def steps(course: Course) -> list[Present]:
    """The first wave as it was; then with another first layer, and another second one, which has run by then."""
    changed = {}
    for layer in course.trace.layers:
        if layer.node.name in ("block1/conv1", "block1/conv2"):
            changed[Slot(layer.node.index, 1)] = 0.9 * course.trace.network.constants[layer.node.inputs[1]]
    return [Present(NOBODY, {}), Present(NOBODY, changed)]


@pytest.fixture(scope="module")
def walked() -> tuple[Course, list[list[Found]]]:
    return walk_all(course())


def walk_all(how: Course) -> tuple[Course, list[list[Found]]]:
    with HERE.walk(TwoStreams, how, SAMPLES, BATCH) as step:
        return how, [list(step(present)) for present in steps(how)]


def arrays(found: Any) -> Iterator[np.ndarray]:
    if isinstance(found, np.ndarray):
        yield found
    elif isinstance(found, dict):
        for value in found.values():
            yield from arrays(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from arrays(value)
    elif hasattr(found, "__dict__"):
        yield from arrays(vars(found))


def sums(found: Found) -> Any:
    """What memory does not bound."""
    return [[part.sums for part in parts] for parts in found.parts.values()], found.whole


def same(one: Any, other: Any) -> None:
    first, second = list(arrays(one)), list(arrays(other))
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("memory", [None, 200_000], ids=["kept", "spilled"])
def test_a_shard_by_itself_finds_what_it_does_among_all(
    walked: tuple[Course, list[list[Found]]], number: int, memory: int | None
) -> None:
    how, found = walked if memory is None else walk_all(replace(course(), memory=memory))
    for one, plain in zip(found, walked[1], strict=True):
        same([sums(shard) for shard in one], [sums(shard) for shard in plain])
    walk = TwoStreams(how, cut_shards(SAMPLES, BATCH)[number], 3)
    for present, everything in zip(steps(how), found, strict=True):
        same(list(walk.step(present)), [everything[number]])
    walk.close()


def test_waves_that_were_measured_before_are_gone_through_to_the_same_bits(
    walked: tuple[Course, list[list[Found]]],
) -> None:
    how, found = walked
    walk, (first, second) = TwoStreams(how, cut_shards(SAMPLES, BATCH)[1], 1), steps(how)
    walk.skip(first)
    same(list(walk.step(second)), [found[1][1]])
    other = TwoStreams(how, cut_shards(SAMPLES, BATCH)[1], 1)
    other.skip(second)  # constants that came later would have been another network
    with pytest.raises(AssertionError):
        same(list(other.step(second)), [found[1][1]])


def test_samples_in_whole_are_the_first_of_all(walked: tuple[Course, list[list[Found]]]) -> None:
    how, found = walked
    for wave, shards in zip(how.waves, found, strict=True):
        index = wave.taps[0].layer.node.index
        counts = [sum(len(data) for data, _, _ in shard.whole.get(index, [])) for shard in shards]
        assert counts == [210, 40, 0]


def rows_of(tap: Tap, numbers: list[int]) -> list[dict[str, np.ndarray]]:
    """Batches of made-up tensors, each by its number."""
    made = []
    for number in numbers:
        rng = np.random.default_rng(number)
        shapes = {tap.layer.data: (4, 16, 8, 8), tap.wanted: (4, 8, 8, 8), tap.other: (4, 8, 8, 8)}
        made.append({name: rng.standard_normal(shape).astype(np.float32) + 1 for name, shape in shapes.items()})
    return made


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 11)), rows=st.sampled_from([40, 600, 12_000]))
def test_a_boundary_of_shards_changes_nothing_but_rounding(cuts: set[int], rows: int) -> None:
    how = course()
    tap = how.waves[0].taps[0]
    batches = rows_of(tap, list(range(12)))

    def measured(cuts: set[int]) -> Measured:
        collector, parts = Collector([tap], samples=48, batch=4, rows=rows, seed=0), Parts()
        for number, batch in enumerate(batches):
            if number in cuts:
                join_parts(parts, collector.result(), None)
            collector.add(number, batch, batch)
        join_parts(parts, collector.result(), None)
        ((found,),) = finish(parts).values()
        return found

    whole, cut = measured(set()), measured(cuts)
    pairs = [(whole.normal, cut.normal)]
    assert (whole.halves is None) == (cut.halves is None) == (rows > 600)  # 145 columns
    if whole.halves and cut.halves:
        pairs += zip(whole.halves, cut.halves, strict=True)
    for one, other in pairs:
        assert isinstance(one, Normal)
        assert isinstance(other, Normal)
        assert one.rows == other.rows
        for field in ("gram", "cross", "square", "total"):
            expected = getattr(one, field)
            np.testing.assert_allclose(getattr(other, field), expected, atol=1e-6 * np.abs(expected).max())
    same(whole.rows, cut.rows)


def test_wide_layers_keep_as_many_rows_in_shards_as_in_one_go() -> None:
    """Where sums would not fit, the first rows are kept, each half as many as a third of the memory has room for."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((90, 1100)).astype(np.float32), rng.standard_normal((90, 4)).astype(np.float32)
    memory = 3 * 40 * 1104 * 30

    def part(start: int, stop: int) -> Part:
        halves = [Accumulator(1100, 4, False, memory // 3) for _ in range(2)]
        for half, sums in enumerate(halves):
            sums.add(x[start + half : stop : 2], y[start + half : stop : 2])
        return Part(tuple(sums.result() for sums in halves))

    whole, cut = part(0, 90), part(0, 20).join(part(20, 64), memory).join(part(64, 90), memory)
    assert all(isinstance(sums, Rows) and sums.rows == 30 for sums in cut.sums)
    same(whole.measured(), cut.measured())


def test_what_is_not_finite_is_refused_whatever_the_shard() -> None:
    how = course()
    broken = SAMPLES.subset(np.arange(470))
    broken.inputs["image"][460] = np.nan
    with pytest.raises(DataError, match="block1/conv2: what it reads or makes is not finite"):
        list(TwoStreams(how, Shard(420, broken.slice(420, 470)), 1).step(steps(how)[0]))


@pytest.mark.parametrize("skip", [False, True])
def test_a_batch_is_gone_before_the_next_one_is_made(skip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last wave; before it tensors are kept for those to come."""
    one, two = course().waves
    how = replace(course(), waves=(one, replace(two, later_wanted=(), later_read=())))
    with closing(TwoStreams(how, Shard(0, SAMPLES), 1)) as walk:
        first, last = steps(how)
        list(walk.step(first))
        held = watch_runs(monkeypatch)
        if skip:
            walk.skip(last)
        else:
            list(walk.step(last))
    assert len(held) == 2 * 16
    before = held[0::2]  # every other run is that of the present network, with the batch of the original at hand
    assert before == sorted(before, reverse=True)  # what was kept for this wave goes
    assert before[-1] == 0
    assert max(np.diff(held[1::2])) <= 0
