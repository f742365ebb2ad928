from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from examples.conv import EXAMPLES
from nets import images, residual_net
from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.couple import find_couple
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method import problems
from reap_onnx.method.pairs import Shelf
from reap_onnx.method.problems import layers_to_refit, refitted
from reap_onnx.method.reconstruct import reconstruct
from reap_onnx.method.select import error_paths
from reap_onnx.model.edit import with_constants
from reap_onnx.options import Method, PruneOptions, Target
from reap_onnx.runtime import waves
from reap_onnx.runtime.session import Session
from reap_onnx.runtime.statistics import Tap, collect_dense, normals
from reap_onnx.runtime.verify import masked_weights
from wiring import read

ROWS = 16_000
OPTIONS = PruneOptions(Target("macs", fraction=0.5), batch=16, method=Method(refit_rows=ROWS))


@pytest.fixture(scope="module")
def measured():
    model = residual_net()
    dataset = Dataset({"image": images(320, seed=1)})
    trace = Trace(read(model))
    groups = [group for group in find_groups(trace) if not group.frozen]
    taps = {layer.node.index: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(groups)}
    statistics = normals(collect_dense(trace.network, list(taps.values()), dataset, batch=16, rows=ROWS, seed=0))
    return trace, error_paths(trace, groups, taps, statistics), taps, statistics, dataset


def with_method(**parts):
    return replace(OPTIONS, method=replace(OPTIONS.method, **parts))


def error(trace, weights, seed=9):
    """Relative squared error of the outputs on images that nobody has seen."""
    feeds = {"image": images(200, seed=seed)}
    (before,) = Session(trace.network.proto).run(feeds).values()
    (after,) = Session(with_constants(trace.network, weights)).run(feeds).values()
    return ((after - before) ** 2).sum() / ((before - before.mean()) ** 2).sum()


def test_the_sequential_refit_beats_refitting_each_layer_by_itself(measured):
    trace, paths, taps, statistics, dataset = measured
    kept = [len(path.group.units) // 2 for path in paths]
    removed, weights = reconstruct(trace, paths, kept, taps, dataset, OPTIONS)
    alone = {}
    for layer in layers_to_refit([path.group for path in paths]):
        alone |= refitted(trace, taps[layer.node.index], statistics[layer.node.index], removed)
    assert error(trace, weights) < 0.95 * error(trace, alone)


def test_a_refit_in_slices_of_the_features_is_that_of_all_at_once(measured, monkeypatch):
    trace, paths, taps, statistics, _ = measured
    layers = layers_to_refit([path.group for path in paths])
    removed = np.concatenate([path.removed(len(path.group.units) // 2) for path in paths])

    def all_layers():
        found = {}
        for layer in layers:
            found |= refitted(trace, taps[layer.node.index], statistics[layer.node.index], removed)
        return found

    whole = all_layers()
    monkeypatch.setattr(problems, "SLICE", 200)
    for slot, value in all_layers().items():
        np.testing.assert_allclose(value, whole[slot], rtol=1e-5, atol=1e-6)


def test_tensors_in_a_file_change_nothing(measured, monkeypatch):
    trace, paths, taps, _, dataset = measured
    kept, plain = [len(path.group.units) // 2 for path in paths], with_method(pair_rows=0)
    removed, weights = reconstruct(trace, paths, kept, taps, dataset, plain)
    monkeypatch.setattr(waves, "memory_for_stream", lambda _: 250_000)
    again, same = reconstruct(trace, paths, kept, taps, dataset, plain)
    np.testing.assert_array_equal(again, removed)
    assert all(np.array_equal(same[slot], value) for slot, value in weights.items())


def test_little_memory_changes_nothing_where_no_layer_is_wide_or_clipped(measured):
    """Where an activation clips a layer, it bounds the rows that are kept of it."""
    trace, paths, taps, _, dataset = measured
    kept = [len(path.group.units) // 2 for path in paths]
    plain = with_method(pair_rows=0, clipped_rounds=0)
    removed, weights = reconstruct(trace, paths, kept, taps, dataset, plain)
    options = replace(plain, memory=1_000_000)
    again, same = reconstruct(trace, paths, kept, taps, dataset, options)
    np.testing.assert_array_equal(again, removed)
    assert all(np.array_equal(same[slot], value) for slot, value in weights.items())


def test_layers_refitted_in_pairs_beat_layers_refitted_one_by_one(measured):
    trace, paths, taps, _, dataset = measured
    kept = [len(p.group.units) // (2 if find_couple(trace, p.group) else 1) for p in paths]
    _, together = reconstruct(trace, paths, kept, taps, dataset, OPTIONS)
    _, alone = reconstruct(trace, paths, kept, taps, dataset, with_method(pair_rows=0))
    assert error(trace, together) < 0.95 * error(trace, alone)


def test_pairs_that_the_memory_has_no_room_for_are_named(measured):
    trace, paths, taps, _, dataset = measured
    kept = [len(path.group.units) // 2 for path in paths]
    for memory, names in ((None, []), (10_000, ["block1/conv1 and block1/conv2", "block2/conv1 and block2/conv2"])):
        notes = []
        reconstruct(trace, paths, kept, taps, dataset, replace(OPTIONS, memory=memory), note=notes.append)
        assert [note.split(" are ")[0] for note in notes if "one after the other" in note] == names
        hidden = [note.split(":")[0] for note in notes if "what its activation hides counts as an error" in note]
        assert len(set(hidden)) == len(hidden)
        assert ("block1/conv2" in hidden) == bool(names)


def test_samples_for_pairs_come_in_even_pieces(measured):
    """What halves of the pieces say of the gradient is worth most where they are alike."""
    trace, paths, taps, _, _ = measured
    couple = next(c for c in (find_couple(trace, path.group) for path in paths) if c is not None)
    shelf = Shelf(trace, couple, taps[couple.reader.node.index], Method(), 2**32)
    for count in (1, 500, 1_203):
        shelf.samples.clear()
        data = np.arange(count, dtype=np.float32)
        shelf.add([(data, data + 1, None)])
        sizes = [len(total) for _, total, _ in shelf.samples]
        assert max(sizes) - min(sizes) <= 1
        np.testing.assert_array_equal(np.concatenate([total for _, total, _ in shelf.samples]), data + 1)
    assert len(sizes) > 1


def test_refitting_on_what_the_pruned_network_feeds_pays(measured):
    trace, paths, taps, _, dataset = measured
    kept = [len(path.group.units) // 2 for path in paths]
    alone = {"pair_rows": 0, "reselect": False}
    _, present = reconstruct(trace, paths, kept, taps, dataset, with_method(**alone))
    _, original = reconstruct(trace, paths, kept, taps, dataset, with_method(**alone, asymmetric=False))
    assert error(trace, present) < 0.95 * error(trace, original)


@pytest.mark.parametrize(
    "part", [{"residual": False}, {"clipped_rounds": 0}, {"pair_rounds": 0}, {"measured_ridges": False}]
)
def test_every_part_can_be_left_out(measured, part):
    trace, paths, taps, _, dataset = measured
    kept = [len(path.group.units) // 2 for path in paths]
    _, whole = reconstruct(trace, paths, kept, taps, dataset, OPTIONS)
    _, without = reconstruct(trace, paths, kept, taps, dataset, with_method(**part))
    assert any(not np.array_equal(whole[slot], without[slot]) for slot in whole)


def test_ridges_of_few_rows_are_the_least_unless_measured(measured):
    """Of the first layer to be refitted, which reads what the original network makes."""
    trace, paths, taps, _, dataset = measured
    path = next(p for p in paths if len(layers_to_refit([p.group])) == 1)
    method = {"pair_rows": 0, "clipped_rounds": 0, "reselect": False, "refit_rows": 320}
    kept = [len(p.group.units) // (2 if p is path else 1) for p in paths]
    [layer] = layers_to_refit([path.group])
    few = collect_dense(trace.network, [taps[layer.node.index]], dataset, batch=16, rows=320, seed=0)
    least = refitted(
        trace, taps[layer.node.index], normals(few)[layer.node.index], path.removed(len(path.group.units) // 2)
    )
    for measured_ridges in (False, True):
        _, weights = reconstruct(
            trace, paths, kept, taps, dataset, with_method(**method, measured_ridges=measured_ridges)
        )
        same = all(np.allclose(weights[slot], value, rtol=1e-4, atol=1e-5) for slot, value in least.items())
        assert same != measured_ridges


def test_channels_that_one_layer_reads_keep_their_order_unless_chosen_anew(measured):
    trace, paths, taps, _, dataset = measured
    kept = [len(path.group.units) // 2 for path in paths]
    ordered = np.sort(np.concatenate([path.removed(k) for path, k in zip(paths, kept, strict=True)]))
    for part in ({"reselect": False}, {"criterion": "l1"}):
        removed, _ = reconstruct(trace, paths, kept, taps, dataset, with_method(**part))
        np.testing.assert_array_equal(np.sort(removed), ordered)
    removed, _ = reconstruct(trace, paths, kept, taps, dataset, OPTIONS)
    assert not np.array_equal(np.sort(removed), ordered)


def test_widths_are_those_asked_for_and_readers_forget_what_is_gone(measured):
    trace, paths, taps, _, dataset = measured
    kept = [max(1, len(path.group.units) - 2) for path in paths]
    removed, weights = reconstruct(trace, paths, kept, taps, dataset, OPTIONS)
    for path, count in zip(paths, kept, strict=True):
        assert (~np.isin(path.group.units, removed)).sum() == count
    for layer in layers_to_refit([path.group for path in paths]):
        matrix = layer.geometry.matrix(weights[layer.weight])
        gone = np.isin(trace.channels.roots(layer.geometry.columns(layer.inputs)), removed)
        assert gone.any()
        assert not matrix[gone].any()


def test_whole_groups_are_left_alone(measured):
    trace, paths, taps, _, dataset = measured
    kept = [len(path.group.units) for path in paths]
    removed, weights = reconstruct(trace, paths, kept, taps, dataset, OPTIONS)
    assert len(removed) == 0
    assert weights == {}


def test_the_same_seed_gives_the_same_weights(measured):
    trace, paths, taps, _, dataset = measured
    kept = [len(path.group.units) // 2 for path in paths]
    first, second = (reconstruct(trace, paths, kept, taps, dataset, OPTIONS) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1].keys() == second[1].keys()
    assert all(np.array_equal(first[1][slot], second[1][slot]) for slot in first[1])


def test_a_shared_weight_is_refitted_as_one():
    """Both levels get the weight that fits their rows together, better than none and than that of one level."""
    example = next(example for example in EXAMPLES if example.name == "shared_head")
    model = example.model()
    trace = Trace(read(model))
    groups = [group for group in find_groups(trace) if not group.frozen]
    taps = {layer.node.index: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(groups)}
    dataset = Dataset({"x": np.random.default_rng(3).standard_normal((60, 3, 8, 8)).astype(np.float32)})
    statistics = normals(collect_dense(trace.network, list(taps.values()), dataset, batch=20, rows=ROWS, seed=0))
    paths = error_paths(trace, groups, taps, statistics)[:1]
    removed, weights = reconstruct(trace, paths, [3], taps, dataset, OPTIONS)
    first, second = (layer for layer in paths[0].group.readers if len(trace.sharers(layer)) == 2)
    np.testing.assert_array_equal(weights[first.weight], weights[second.weight])
    after = Surgeon(trace, removed, weights).operate()
    names = [node.input[1:] for node in after.graph.node]
    assert names[first.node.index] == names[second.node.index]
    alone = refitted(trace, taps[first.node.index], statistics[first.node.index], removed)
    alone = weights | alone | {second.weight: alone[first.weight], second.bias: alone[first.bias]}
    errors = [_level_errors(trace, new, dataset).sum() for new in (weights, alone, masked_weights(trace, removed))]
    assert errors[0] < errors[1] < errors[2]


def _level_errors(trace, weights, dataset):
    """Squared error of each output."""
    before = Session(trace.network.proto).run(dataset.inputs)
    after = Session(with_constants(trace.network, weights)).run(dataset.inputs)
    return np.array([((after[name] - before[name]) ** 2).sum() for name in before])
