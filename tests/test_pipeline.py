from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from examples.net import Net
from nets import CLASSES, chaotic_net, images, macs, outputs, params, residual_net, widths
from reap_onnx import pipeline
from reap_onnx.errors import CheckError, DataError, OutputError, PlanError, TargetError, UsageError
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.options import EFFORTS, PruneOptions, Target
from reap_onnx.outcome import PruneResult
from reap_onnx.report.progress import Silent
from reap_onnx.runtime import memory, stream
from reap_onnx.runtime.session import Session

SAMPLES = images(96)
HALF = PruneOptions(Target("macs", fraction=0.5))


def prune(model: onnx.ModelProto | Path, options: PruneOptions = HALF, **arguments: object) -> PruneResult:
    return pipeline.prune(model, SAMPLES, options, **arguments)


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return residual_net()


@pytest.fixture(scope="module")
def halved(net: onnx.ModelProto) -> PruneResult:
    return prune(net)


@pytest.fixture
def source(net: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(net, path)
    return path


def test_fewer_samples_run_at_a_time_where_their_tensors_are_large(
    net: onnx.ModelProto, halved: PruneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, run = set(), Session.run

    def counted(session: Session, feeds: Mapping[str, np.ndarray], *wanted: Sequence[str]) -> dict[str, np.ndarray]:
        counts.update(len(feeds[name]) for name in ("image",) if name in feeds)
        return run(session, feeds, *wanted)

    monkeypatch.setattr(Session, "run", counted)
    monkeypatch.setattr(memory, "REUSED", 10 * 16 * 8 * 8 * 4)  # within the first block
    fewer = prune(net)
    assert max(counts) == 10
    assert params(fewer.model) == pytest.approx(params(halved.model), rel=0.1)


def test_a_network_twice_as_deep_runs_twice_as_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wave of the refit goes on where the last one ended; the sensitivity alone would run more."""
    counts, opened = list[int](), list[int]()

    class Counted(Session):
        def __init__(self, model: onnx.ModelProto, *arguments: object, **named: object) -> None:
            opened.append(len(model.graph.node))
            super().__init__(model, *arguments, **named)

    monkeypatch.setattr(stream, "Session", Counted)
    method = replace(EFFORTS["default"], sensitivity_samples=0)
    for depth in (6, 12):
        opened.clear()
        net = Net()
        h = net.conv(net.input("N", 3, 8, 8, name="image"), 3, 8)
        for _ in range(depth):
            h = net.conv(net.op("Relu", h), 8, 8)
        prune(net.model(h), replace(HALF, method=method))
        counts.append(sum(opened))
    assert counts[0] > 2 * 2 * 6
    assert counts[1] < 2.2 * counts[0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save_externally(model: onnx.ModelProto, path: Path, location: str) -> None:
    copy = onnx.ModelProto.FromString(model.SerializeToString())  # onnx moves the weights out of what it saves
    onnx.save(copy, path, save_as_external_data=True, location=location, size_threshold=0)


# -- nothing asked, nothing changed


def test_everything_kept_changes_nothing(net: onnx.ModelProto, source: Path, tmp_path: Path) -> None:
    result = prune(source, PruneOptions(Target("macs", fraction=1.0)), output=tmp_path / "same.onnx")
    written = onnx.load(tmp_path / "same.onnx")
    assert written == net
    assert np.array_equal(outputs(written, SAMPLES), outputs(net, SAMPLES))
    assert result.summary.before == result.summary.after
    assert result.plan.kept == {}
    assert any("unchanged" in note for note in result.summary.notes)


def test_the_model_given_is_never_changed(halved: PruneResult, net: onnx.ModelProto) -> None:
    assert net == residual_net()
    assert halved.model != net


# -- the same again


def test_same_command_and_replayed_plan_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first, again, applied = (tmp_path / f"{name}.onnx" for name in ("first", "again", "applied"))
    prune(source, output=first, plan=tmp_path / "plan.json")
    prune(source, output=again)
    pipeline.apply(source, tmp_path / "plan.json", output=applied)
    assert first.read_bytes() == again.read_bytes() == applied.read_bytes()


def test_plan_in_memory_replays_without_files(net: onnx.ModelProto, halved: PruneResult) -> None:
    replayed = pipeline.apply(net, halved.plan)
    assert replayed.model == halved.model
    assert replayed.summary.comparison is None
    assert replayed.summary.target == halved.summary.target


def test_the_seed_decides_which_samples_are_used(net: onnx.ModelProto) -> None:
    first, again, other = (prune(net, replace(HALF, seed=seed), samples=48).model for seed in (3, 3, 4))
    assert first == again
    assert first.graph != other.graph


# -- targets


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
def test_macs_are_at_or_under_the_target(net: onnx.ModelProto, fraction: float) -> None:
    result = prune(net, PruneOptions(Target("macs", fraction=fraction)))
    assert fraction - 0.1 < macs(result.model) / macs(net) <= fraction
    assert (result.summary.before.macs, result.summary.after.macs) == (macs(net), macs(result.model))


@pytest.mark.parametrize("fraction", [0.5, 0.7, 0.9])
def test_biases_that_the_refit_adds_count(fraction: float) -> None:
    bare = Net()
    h = bare.op("Relu", bare.op("Conv", bare.input("N", 3, 8, 8), bare.noise(16, 3, 1, 1)))
    h = bare.op("Relu", bare.op("Conv", h, bare.noise(8, 16, 1, 1)))
    model = bare.model(bare.op("Conv", h, bare.noise(4, 8, 1, 1)))
    result = prune(model, PruneOptions(Target("params", fraction=fraction)))
    assert params(result.model) <= fraction * params(model)


def test_params_are_at_or_under_the_target(net: onnx.ModelProto) -> None:
    result = prune(net, PruneOptions(Target("params", fraction=0.5)))
    assert 0.4 < params(result.model) / params(net) <= 0.5
    assert (result.summary.before.params, result.summary.after.params) == (params(net), params(result.model))


def test_absolute_target(net: onnx.ModelProto) -> None:
    result = prune(net, PruneOptions(Target.parse("macs", "100k")))
    assert 85_000 < macs(result.model) <= 100_000


def test_a_target_above_the_model_asks_for_nothing(net: onnx.ModelProto) -> None:
    assert prune(net, PruneOptions(Target.parse("macs", "1G"))).model == net


def test_impossible_target_writes_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="smallest that can be reached"):
        prune(source, PruneOptions(Target("macs", fraction=0.001)), output=tmp_path / "out.onnx")
    assert files(tmp_path) == ["net.onnx"]


# -- limits


def test_round_to_keeps_multiples(net: onnx.ModelProto) -> None:
    result = prune(net, replace(HALF, round_to=4))
    before, after = widths(net), widths(result.model)
    changed = {name: made for name, (_, made) in after.items() if made != before[name][1]}
    assert changed
    assert all(made % 4 == 0 for made in changed.values())


def test_max_cut_and_min_channels(net: onnx.ModelProto) -> None:
    target = Target("macs", fraction=0.7)
    for options in (PruneOptions(target, max_cut=0.25), PruneOptions(target, min_channels=7)):
        before, after = widths(net), widths(prune(net, options).model)
        for name in before:
            least = before[name][1] * 0.75 if options.max_cut == 0.25 else min(7, before[name][1])
            assert after[name][1] >= least


def test_freeze_leaves_layers_alone(net: onnx.ModelProto) -> None:
    result = prune(net, PruneOptions(Target("macs", fraction=0.85), freeze=("block1/*", "down")))
    before, after = widths(net), widths(result.model)
    assert after["block1/conv1"] == before["block1/conv1"]
    assert after["down"][1] == before["down"][1]
    assert after["block2/conv1"][1] < before["block2/conv1"][1]
    frozen = {group.name: group.frozen for group in result.summary.groups}
    assert frozen["block1/conv1"] == "--freeze block1/*"


def test_freeze_that_matches_nothing_is_wrong_usage(net: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match=r"--freeze typo/\* matches no layer"):
        prune(net, replace(HALF, freeze=("block1/*", "typo/*")))


# -- the quality of the result


def test_refit_repairs_most_of_the_damage(net: onnx.ModelProto, halved: PruneResult) -> None:
    """The same channels without new weights, against the result, on samples that were not calibrated on."""
    fresh = images(200, seed=9)
    bare = pipeline.apply(net, replace(halved.plan, weights={})).model
    assert widths(bare) == widths(halved.model)
    wanted = outputs(net, fresh)
    errors = [np.linalg.norm(outputs(m, fresh) - wanted) / np.linalg.norm(wanted) for m in (halved.model, bare)]
    assert errors[0] < 0.5 * errors[1]


def test_comparison_is_on_the_samples_asked_for(net: onnx.ModelProto) -> None:
    array = images(40, seed=5)
    labels = outputs(net, array).argmax(1)
    comparison = prune(net, evaluate={"image": array, "labels": labels}).summary.comparison
    assert comparison is not None
    assert (comparison.samples, comparison.accuracy_original) == (40, 1.0)
    assert comparison.accuracy_pruned == comparison.agreement


# -- what stays as it was


def test_metadata_tells_what_was_done_and_keeps_what_was_there(net: onnx.ModelProto, halved: PruneResult) -> None:
    found = {entry.key: entry.value for entry in halved.model.metadata_props}
    kept = {entry.key: entry.value for entry in net.metadata_props}
    assert found.keys() - kept.keys() == {"reap_onnx.version", "reap_onnx.plan", "reap_onnx.source_sha256"}
    assert kept.items() <= found.items()
    assert found["reap_onnx.source_sha256"] == halved.plan.source_sha256
    assert '"round_to": 1' in found["reap_onnx.plan"]


def test_metadata_of_a_model_pruned_twice_is_that_of_the_last_run(halved: PruneResult) -> None:
    twice = prune(halved.model, PruneOptions(Target("macs", fraction=0.8)))
    keys = [entry.key for entry in twice.model.metadata_props]
    assert len(keys) == len(set(keys))
    stamped = {entry.key: entry.value for entry in twice.model.metadata_props}
    assert stamped["reap_onnx.source_sha256"] == twice.plan.source_sha256 != halved.plan.source_sha256


def test_everything_but_widths_stays(net: onnx.ModelProto, halved: PruneResult) -> None:
    pruned = halved.model
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(pruned, name) == getattr(net, name)
    assert list(pruned.opset_import) == list(net.opset_import)
    assert (pruned.graph.name, pruned.graph.doc_string) == (net.graph.name, net.graph.doc_string)
    assert list(pruned.graph.input) == list(net.graph.input)
    assert list(pruned.graph.output) == list(net.graph.output)
    assert list(pruned.graph.node) == list(net.graph.node)  # names, order, attributes, doc strings
    assert [t.name for t in pruned.graph.initializer] == [t.name for t in net.graph.initializer]
    assert pruned.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert len({len(outputs(pruned, SAMPLES[:count])) for count in (1, 7)}) == 2


def test_a_fixed_batch_stays_fixed() -> None:
    fixed = residual_net(batch=4)
    pruned = prune(fixed).model
    assert pruned.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    assert macs(pruned) <= macs(fixed) / 2
    assert outputs(pruned, SAMPLES[:4]).shape == (4, 5)


def test_external_data_in_external_data_out(net: onnx.ModelProto, halved: PruneResult, tmp_path: Path) -> None:
    source, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    save_externally(net, source, "net.weights")
    prune(source, output=out)
    assert files(tmp_path) == ["net.onnx", "net.weights", "out.onnx", "out.onnx.data"]
    assert out.stat().st_size < 20_000
    assert np.array_equal(outputs(str(out), SAMPLES), outputs(halved.model, SAMPLES))
    once = (tmp_path / "out.onnx.data").read_bytes()
    prune(source, output=out, force=True)
    assert (tmp_path / "out.onnx.data").read_bytes() == once  # replaced, not appended to


def test_external_data_of_the_input_is_never_overwritten(net: onnx.ModelProto, tmp_path: Path) -> None:
    save_externally(net, tmp_path / "net.onnx", "out.onnx.data")
    before = (tmp_path / "out.onnx.data").read_bytes()
    with pytest.raises(OutputError, match=r"out\.onnx\.data: is also an input"):
        prune(tmp_path / "net.onnx", output=tmp_path / "out.onnx", force=True)
    assert (tmp_path / "out.onnx.data").read_bytes() == before


# -- files


def test_dry_run_writes_the_plan_alone(source: Path, tmp_path: Path) -> None:
    result = prune(source, output=tmp_path / "out.onnx", dry_run=True, plan=tmp_path / "plan.json")
    assert files(tmp_path) == ["net.onnx", "plan.json"]
    assert macs(result.model) <= macs(onnx.load(source)) / 2


def test_existing_files_need_force(source: Path, tmp_path: Path) -> None:
    for name in ("out.onnx", "plan.json"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=r"out\.onnx: exists already"):
        prune(source, output=tmp_path / "out.onnx")
    with pytest.raises(OutputError, match=r"plan\.json: exists already"):
        prune(source, dry_run=True, plan=tmp_path / "plan.json")
    assert (tmp_path / "out.onnx").read_text() == (tmp_path / "plan.json").read_text() == "mine"
    prune(source, output=tmp_path / "out.onnx", plan=tmp_path / "plan.json", force=True)
    assert macs(onnx.load(tmp_path / "out.onnx")) <= macs(onnx.load(source)) / 2
    assert files(tmp_path) == ["net.onnx", "out.onnx", "plan.json"]


@pytest.mark.parametrize("name", ["net.onnx", "link.onnx", "../inputs/net.onnx"])
def test_the_input_is_never_overwritten(net: onnx.ModelProto, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    onnx.save(net, folder / "net.onnx")
    os.symlink(folder / "net.onnx", folder / "link.onnx")
    for arguments in ({"output": folder / name}, {"dry_run": True, "plan": folder / name}):
        with pytest.raises(OutputError, match="is also an input"):
            prune(folder / "net.onnx", force=True, **arguments)
    assert onnx.load(folder / "net.onnx") == net


def test_samples_and_plan_are_never_overwritten(source: Path, halved: PruneResult, tmp_path: Path) -> None:
    np.save(tmp_path / "samples.npy", SAMPLES)
    (tmp_path / "plan.json").write_text(halved.plan.dumps())
    with pytest.raises(OutputError, match="is also an input"):
        pipeline.prune(source, tmp_path / "samples.npy", HALF, output=tmp_path / "samples.npy", force=True)
    with pytest.raises(OutputError, match="is also an input"):
        pipeline.apply(source, tmp_path / "plan.json", output=tmp_path / "plan.json", force=True)


def test_two_outputs_of_one_name(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two outputs have the same name"):
        prune(source, output=tmp_path / "out.json", report=[tmp_path / "out.json"])


# -- checks


def test_a_failed_check_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="wiring check"):
        prune(chaotic_net(), output=tmp_path / "out.onnx", plan=tmp_path / "plan.json")
    assert files(tmp_path) == []


def test_a_failed_model_is_kept_on_request(tmp_path: Path) -> None:
    model = chaotic_net()
    with pytest.raises(CheckError, match="wiring check"):
        prune(model, output=tmp_path / "out.onnx", keep_failed=True)
    assert files(tmp_path) == ["out.onnx"]
    assert widths(onnx.load(tmp_path / "out.onnx"))["conv1"][1] < widths(model)["conv1"][1]


def test_a_failed_model_that_does_not_even_run_is_kept_alone(
    net: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operate = Surgeon.operate

    def spoiled(surgeon: Surgeon) -> onnx.ModelProto:
        model = operate(surgeon)
        next(n for n in model.graph.node if n.op_type == "Conv").attribute.append(helper.make_attribute("group", 7))
        return model

    monkeypatch.setattr(Surgeon, "operate", spoiled)
    with pytest.raises(CheckError, match="wiring check: the pruned graph is not sound"):
        prune(
            net, output=tmp_path / "out.onnx", plan=tmp_path / "p.json", report=[tmp_path / "r.json"], keep_failed=True
        )
    assert files(tmp_path) == ["out.onnx"]


def test_rows_that_the_memory_has_no_room_for_are_told() -> None:
    """A Gemm of 1,280 columns, whose sums take 79 MB: of 450 rows, one a sample, each half keeps a sixth of 30 MB."""
    net = Net()
    flat = net.op("Flatten", net.op("Relu", net.conv(net.input("N", 3, 8, 8, name="image"), 3, 20)))
    model = net.model(net.linear(flat, 1280, 5, name="head"))
    told = []
    for most in (None, 30_000_000):
        options = PruneOptions(Target("macs", fraction=0.8), memory=most, method=EFFORTS["fast"])
        notes = pipeline.prune(model, images(450), options).summary.notes
        told += [note for note in notes if note.startswith("head: refitted on the first ")]
    kept = 2 * (15_000_000 // 3 // (40 * (1280 + 5)))
    assert told == [f"head: refitted on the first {kept} of 450 rows: more would not fit into the memory."]


def test_a_wrong_label_is_seen_before_anything_is_measured(net: onnx.ModelProto) -> None:
    stages: list[str] = []

    class Told(Silent):
        @contextmanager
        def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
            stages.append(name)
            yield lambda _=1: None

    right = {"image": SAMPLES, "labels": np.zeros(len(SAMPLES), np.int64)}
    wrong = right | {"labels": np.full(len(SAMPLES), CLASSES)}
    for data, evaluate in ((wrong, None), (right, wrong)):
        with pytest.raises(DataError, match=f"label {CLASSES} is not one of the {CLASSES} classes"):
            pipeline.prune(net, data, HALF, evaluate=evaluate, progress=Told())
    assert stages == 2 * ["reading the model", "reading the samples", "finding groups"]


def test_a_plan_is_for_its_model_alone(halved: PruneResult) -> None:
    with pytest.raises(PlanError, match="made for another model"):
        pipeline.apply(residual_net(seed=1), halved.plan)


# -- inspect and compare


def test_inspect_finds_what_prune_prunes(net: onnx.ModelProto, halved: PruneResult) -> None:
    found = pipeline.inspect(net).inspection
    free = {group.name: group.width for group in found.groups if not group.frozen}
    cut = {group.name: group.width for group in halved.summary.groups if group.kept < group.width}
    assert cut.items() <= free.items()
    assert found.cost == halved.summary.before
    assert found.reach == 1.0
    assert any("output head_out of the model" in group.frozen for group in found.groups)


def test_compare_sees_what_prune_saw(net: onnx.ModelProto, halved: PruneResult) -> None:
    comparison = pipeline.compare(net, halved.model, SAMPLES, latency_batches=())
    assert halved.summary.comparison is not None
    assert comparison.outputs == halved.summary.comparison.outputs
    assert comparison.agreement == halved.summary.comparison.agreement
