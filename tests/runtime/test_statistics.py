"""Normal equations against rows that onnxruntime and numpy make by other means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from threadpoolctl import threadpool_limits

from examples.net import Net, head, stem
from held import watch_runs
from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import group_problems, refitted
from reap_onnx.model.edit import with_constants
from reap_onnx.model.network import Slot
from reap_onnx.numerics.gram import Normal, Rows
from reap_onnx.runtime.session import probe
from reap_onnx.runtime.shards import HERE
from reap_onnx.runtime.statistics import KEPT_COST, Measured, Part, Tap, collect, collect_dense, normals, samples_needed
from reap_onnx.runtime.stream import Stream
from reap_onnx.runtime.waves import Course, Present, TwoStreams, Wave, Whole
from wiring import read

SAMPLES = Dataset({"x": np.random.default_rng(3).standard_normal((10, 3, 8, 8)).astype(np.float32)})
ALL = 10 * 64  # rows: every position of every sample


def chain(**attributes: object) -> onnx.ModelProto:
    """A 1 x 1 convolution, so that rows are the channels at a place, with an activation before and behind it."""
    net = Net()
    h = net.conv(net.op("Relu", stem(net)), 6, 5, name="layer", **attributes)
    return net.model(head(net, net.op("Tanh", h), 5))


def tap_of(trace: Trace, name: str = "layer", *, residual: bool = False) -> Tap:
    layer = next(layer for layer in trace.layers if layer.node.name == name)
    return Tap(layer, find_target(trace, layer), residual)


def measure(trace: Trace, tap: Tap, present: onnx.ModelProto | None = None, rows: int = ALL, batch: int = 4) -> Normal:
    network = trace.network
    with Stream(network, SAMPLES, batch=batch) as original, Stream(network, SAMPLES, batch=batch) as pruned:
        was, now = original.run(network.proto, [tap.wanted]), pruned.run(present or network.proto, tap.read)
        measured = collect([tap], zip(was, now, strict=True), samples=len(SAMPLES), batch=batch, rows=rows, seed=0)
    return measured[tap.layer.node.index][0].normal


@pytest.mark.parametrize(("batch", "first"), [(4, [0, 1, 4, 5, 8]), (1, [0, 2, 4, 6, 8])])
def test_few_rows_are_told_apart_by_halves_of_the_samples(batch: int, first: list[int]) -> None:
    """Every sample is filled with its number; the second half of a single sample has none."""
    tap = tap_of(Trace(read(chain())))
    x = np.ones((10, 6, 8, 8), np.float32) * np.arange(10, dtype=np.float32)[:, None, None, None]
    batches = [{tap.layer.data: x[i : i + batch], tap.wanted: x[i : i + batch, :5]} for i in range(0, 10, batch)]
    few, many = (
        collect([tap], zip(batches, batches, strict=True), samples=10, batch=batch, rows=rows, seed=0)
        for rows in (50, ALL)
    )
    block = few[tap.layer.node.index][0]
    assert block.halves is not None
    assert [half.rows for half in block.halves] == [25, 25]
    assert [half.square[0] for half in block.halves] == [5 * np.square(first).sum(), 5 * (285 - np.square(first).sum())]
    close(
        block.normal,
        np.repeat(np.arange(10.0), 5)[:, None].repeat(6, 1),
        np.repeat(np.arange(10.0), 5)[:, None].repeat(5, 1),
    )
    assert many[tap.layer.node.index][0].halves is None


def places(tensor: np.ndarray) -> np.ndarray:
    """N x C x H x W -> one row per place."""
    return np.moveaxis(tensor, 1, -1).reshape(-1, tensor.shape[1]).astype(float)


def close(normal: Normal, x: np.ndarray, y: np.ndarray, *, intercept: bool = True) -> None:
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1) if intercept else x
    assert normal.rows == len(x)
    for actual, expected in ((normal.gram, x.T @ x), (normal.cross, x.T @ y), (normal.square, (y**2).sum(0))):
        assert np.allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_rows_and_targets_by_hand() -> None:
    trace = Trace(read(chain()))
    values = probe(trace.network.proto, SAMPLES.inputs)
    close(measure(trace, tap_of(trace)), places(values["Relu_1_out"]), places(values["layer_out"]))


def test_input_of_the_present_target_of_the_original() -> None:
    trace = Trace(read(chain()))
    weight = trace.network.constants[trace.network.nodes[0].inputs[1]].copy()
    weight[2] = 0
    present = with_constants(trace.network, {Slot(0, 1): weight})
    now, was = (probe(model, SAMPLES.inputs) for model in (present, trace.network.proto))
    close(measure(trace, tap_of(trace), present), places(now["Relu_1_out"]), places(was["layer_out"]))


def test_target_after_the_sum() -> None:
    """The original sum less the other operand as it is by now."""
    net = Net()
    h = stem(net)
    layer = net.conv(net.op("Relu", h), 6, 6, name="layer")
    trace = Trace(read(net.model(head(net, net.op("Tanh", net.op("Add", h, layer, name="sum"))))))
    bias = np.arange(6, dtype=np.float32)
    present = with_constants(trace.network, {Slot(0, 2): bias})
    now, was = (probe(model, SAMPLES.inputs) for model in (present, trace.network.proto))
    target = places(was["sum_out"]) - places(now["stem_out"])
    close(measure(trace, tap_of(trace, residual=True), present), places(now["Relu_1_out"]), target)


def test_a_fixed_shift_is_taken_off() -> None:
    """A product whose shift is one number has nowhere to write an intercept to."""
    net = Net()
    h = net.op("Relu", net.op("MatMul", net.input("N", 4), net.noise(4, 6)))
    shifted = net.op("Add", net.op("MatMul", h, net.noise(6, 5), name="layer"), 0.5)
    trace = Trace(read(net.model(net.op("MatMul", net.op("Tanh", shifted), net.noise(5, 2)))))
    tap = tap_of(trace)
    assert not tap.intercept
    data = Dataset({"x": np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)})
    values = probe(trace.network.proto, data.inputs)
    [block] = collect_dense(trace.network, [tap], data, batch=7, rows=50, seed=0)[tap.layer.node.index]
    close(block.normal, values["Relu_1_out"], values["layer_out"], intercept=False)


def test_groups_are_problems_of_their_own() -> None:
    net = Net()
    h = net.op("Relu", stem(net, 8))
    model = net.model(head(net, net.op("Tanh", net.conv(h, 8, 6, group=2, name="layer")), 6))
    trace = Trace(read(model))
    tap = tap_of(trace)
    blocks = collect_dense(trace.network, [tap], SAMPLES, batch=10, rows=ALL, seed=0)[tap.layer.node.index]
    values = probe(model, SAMPLES.inputs)
    x, y = places(values["Relu_1_out"]), places(values["layer_out"])
    assert len(blocks) == 2
    for block, measured in enumerate(blocks):
        close(measured.normal, x[:, 4 * block : 4 * block + 4], y[:, 3 * block : 3 * block + 3])


@pytest.mark.parametrize("rows", [1, 100, 10_000])
def test_as_many_rows_as_are_asked_for(rows: int) -> None:
    trace = Trace(read(chain()))
    assert measure(trace, tap_of(trace), rows=rows).rows == max(10, min(rows, ALL))


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_rows_of_clipped_layers_take_no_more_than_the_memory(batch: int) -> None:
    """They are every so manyth of all; the sums, which they do not bound, are of all."""
    trace = Trace(read(chain()))
    tap = replace(tap_of(trace), clip=(0.0, np.inf))

    def measured(memory: int | None) -> Measured:
        found = collect_dense(trace.network, [tap], SAMPLES, batch=batch, rows=ALL, seed=0, memory=memory)
        return found[tap.layer.node.index][0]

    everything, some = measured(None), measured(80_000)
    assert measured(1_000).rows is None
    assert everything.rows is not None
    assert some.rows is not None
    assert len(everything.rows.x) == ALL
    numbers = sum(part.size for part in (some.rows.x, some.rows.total, some.rows.offset))
    assert 40_000 < KEPT_COST * numbers <= 80_000
    assert np.array_equal(some.rows.x, everything.rows.x[:: -(-ALL // len(some.rows.x))])
    assert np.array_equal(some.normal.gram, everything.normal.gram)


def test_the_same_seed_the_same_rows_whatever_else_is_measured() -> None:
    trace = Trace(read(chain()))
    taps = [tap_of(trace), tap_of(trace, "head")]
    both = normals(collect_dense(trace.network, taps, SAMPLES, batch=4, rows=100, seed=1))
    for tap in taps:
        alone = collect_dense(trace.network, [tap], SAMPLES, batch=4, rows=100, seed=1)[tap.layer.node.index][0].normal
        assert np.array_equal(alone.gram, both[tap.layer.node.index][0].gram)
    other = collect_dense(trace.network, taps[:1], SAMPLES, batch=4, rows=100, seed=2)[taps[0].layer.node.index][
        0
    ].normal
    assert not np.array_equal(other.gram, both[taps[0].layer.node.index][0].gram)


def test_sums_are_the_same_bits_for_any_number_of_threads() -> None:
    net = Net()
    wide = net.op("Relu", stem(net, 100))
    trace = Trace(read(net.model(head(net, net.conv(wide, 100, 300, name="layer"), 300))))
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            measured = collect_dense(trace.network, [tap_of(trace)], SAMPLES, batch=4, rows=500, seed=0)
            found.append(next(iter(measured.values()))[0].normal)
    for other in found[1:]:
        np.testing.assert_array_equal(other.gram, found[0].gram)
        np.testing.assert_array_equal(other.cross, found[0].cross)


def test_progress_counts_samples() -> None:
    trace = Trace(read(chain()))
    seen: list[int] = []
    collect_dense(trace.network, [tap_of(trace)], SAMPLES, batch=4, rows=10, seed=0, advance=seen.append)
    assert seen == [4, 4, 2]


def test_samples_that_give_the_rows() -> None:
    """64 positions of a sample: 1000 rows take 16 samples; a vector is one row a sample."""
    trace = Trace(read(chain()))
    assert samples_needed([tap_of(trace)], trace.network, rows=1000, batch=4) == 16
    net = Net()
    model = net.model(net.linear(net.linear(net.input("N", 4), 4, 5), 5, 3, name="layer"))
    trace = Trace(read(model))
    assert samples_needed([tap_of(trace)], trace.network, rows=1000, batch=32) == 1024


def test_frames_of_a_sample_share_its_rows() -> None:
    """Where a model folds an axis into the first one, 4 frames of a sample are 2 rows each, not 10."""
    net = Net()
    frames = net.op("Reshape", net.input("N", 4, 3, 8, 8), np.array([-1, 3, 8, 8]))
    h = net.conv(net.op("Relu", net.conv(frames, 3, 6)), 6, 5, name="layer")
    trace = Trace(read(net.model(net.op("Tanh", h))))
    tap = tap_of(trace)
    assert samples_needed([tap], trace.network, rows=1000, batch=1) == 4
    clips = Dataset({"x": np.random.default_rng(3).standard_normal((10, 4, 3, 8, 8)).astype(np.float32)})
    seen: list[int] = []
    for batch in (4, 3):
        given = collect_dense(trace.network, [tap], clips, batch=batch, rows=100, seed=0, advance=seen.append)
        assert given[tap.layer.node.index][0].normal.rows == 10 * 4 * 2
    assert seen == [4, 4, 2, 3, 3, 3, 1]
    wave = Wave((tap,), (Whole(tap, tap.layer.data, 30),), tap.read, tap.read, (), ())
    course = Course(trace, (wave,), 10, 4, 100, 0, ("cpu",), None, asymmetric=True, halves=True)
    with HERE.walk(TwoStreams, course, clips, 4) as step:
        [found] = step(Present(np.zeros(0, np.int64), {}))
    assert [len(data) for data, _, _ in found.whole[tap.layer.node.index]] == [16, 14]


def test_a_layer_that_no_sample_reaches_is_named() -> None:
    tap = tap_of(trace := Trace(read(chain())))
    none = {tap.layer.data: np.zeros((0, 6, 8, 8), np.float32), tap.wanted: np.zeros((0, 5, 8, 8), np.float32)}
    some = {name: np.ones((4, *array.shape[1:]), np.float32) for name, array in none.items()}
    for batches, rows in ([none, some], 4 * 64), ([none, none], 0):
        given = collect([tap], zip(batches, batches, strict=True), samples=8, batch=4, rows=ALL, seed=0)
        found = [given[tap.layer.node.index][0].normal]
        assert found[0].rows == rows
    group = next(group for group in find_groups(trace) if tap.layer in group.readers)
    for use in (
        lambda: group_problems(trace, tap, found, group, np.zeros(0, np.int64)),
        lambda: refitted(trace, tap, found, np.zeros(0, np.int64)),
    ):
        with pytest.raises(DataError, match="layer: no sample reaches it"):
            use()


def test_a_batch_is_gone_before_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace(read(chain()))
    held = watch_runs(monkeypatch)
    collect_dense(trace.network, [tap_of(trace)], SAMPLES, batch=2, rows=ALL, seed=0)
    assert held == [0] * 5


@pytest.mark.parametrize(("count", "kind"), [(20, Rows), (30, Normal)])
def test_halves_become_sums_where_they_are_as_many_rows_as_columns(count: int, kind: type) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, count, 60), np.float32), rng.standard_normal((2, count, 3), np.float32)
    measured = Part((Rows(x[0], y[0]), Rows(x[1], y[1]))).measured()
    assert isinstance(measured.normal, kind)
    assert measured.halves is not None
    found = measured.normal.sums() if isinstance(measured.normal, Rows) else measured.normal
    close(found, x.reshape(-1, 60), y.reshape(-1, 3), intercept=False)
