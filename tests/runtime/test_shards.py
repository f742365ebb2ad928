"""Shards: what they leave behind together is what one pass leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from nets import images, residual_net
from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import layers_to_refit
from reap_onnx.runtime.shards import HERE, SHARD, Measurement, Sums, add_sums, cut_shards, measure_shard
from reap_onnx.runtime.statistics import Tap, collect_dense, normals
from wiring import read

SAMPLES = Dataset({"image": images(430)})


@pytest.mark.parametrize(("batch", "starts"), [(50, [0, 200, 400]), (64, [0, 256]), (1, [0, 200, 400]), (500, [0])])
def test_shards_are_whole_batches_and_hold_every_sample_once(batch: int, starts: list[int]) -> None:
    shards = cut_shards(SAMPLES, batch)
    assert [shard.start for shard in shards] == starts
    assert all(len(shard.dataset) >= SHARD for shard in shards[:-1])
    together = np.concatenate([shard.dataset.inputs["image"] for shard in shards])
    np.testing.assert_array_equal(together, SAMPLES.inputs["image"])


def test_sums_of_shards_are_those_of_one_pass() -> None:
    trace = Trace(read(residual_net()))
    groups = [group for group in find_groups(trace) if not group.frozen]
    taps = tuple(Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(groups))
    how = Measurement(trace.network, taps, len(SAMPLES), 50, 4000, 0, ("cpu",), None)
    seen: list[int] = []
    sums: Sums = {}
    for more in HERE.run(measure_shard, how, cut_shards(SAMPLES, 50), seen.append):
        add_sums(sums, more, None)
    whole = normals(collect_dense(trace.network, taps, SAMPLES, batch=50, rows=4000, seed=0))
    assert sum(seen) == len(SAMPLES)
    assert sums.keys() == whole.keys()
    for index, blocks in whole.items():
        for one, merged in zip(blocks, sums[index], strict=True):
            assert one.rows == merged.rows
            for field in ("gram", "cross", "square", "total"):
                expected = getattr(one, field)
                # products are made in float32, here of other rows together
                np.testing.assert_allclose(getattr(merged, field), expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("threads", "at_once", "ahead"), [(1, 1, 1), (2, 1, 1), (3, 2, 4), (2, 2, 4), (2, 7, 4)])
def test_pieces_of_work_go_at_once_where_they_may(threads: int, at_once: int, ahead: int) -> None:
    begun: list[int] = []
    told: list[int] = []

    def work(factor: int, item: int, advance: Callable[[int], None]) -> int:
        begun.append(item)
        advance(1)
        return factor * item

    with threadpool_limits(threads):
        results = HERE.run(work, 3, range(4), told.append, at_once)
        assert next(results) == 0
        assert len(begun) == ahead
        assert list(results) == [3, 6, 9]
    assert told == [1, 1, 1, 1]
