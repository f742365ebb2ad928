"""Targets of every kind, alone and together, from options to the written file."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from examples.net import Net
from nets import images, macs, params, residual_net
from reap_onnx import outcome, pipeline
from reap_onnx.cli import main
from reap_onnx.errors import CheckError, LatencyError, PlanError, TargetError, UsageError
from reap_onnx.numerics.parallel import cores
from reap_onnx.options import MaxDrop, PruneOptions, Target
from reap_onnx.plan import Plan
from reap_onnx.report.progress import Silent
from reap_onnx.report.summary import Latency
from reap_onnx.steps import Run, within_latency

SAMPLES = images(64)


def wide_net(size: int = 16) -> onnx.ModelProto:
    """One group that can be pruned, of 128 channels that take most of the time."""
    net = Net()
    h = net.op("Relu", net.conv(net.input("N", 3, size, size), 3, 128, 3, 3, pads=[1, 1, 1, 1]))
    h = net.conv(h, 128, 32, 3, 3, pads=[1, 1, 1, 1])
    return net.model(h)


def prune_patiently(
    net: onnx.ModelProto, samples: dict[str, np.ndarray], options: PruneOptions, report: tuple[Path, ...] = ()
) -> pipeline.PruneResult:
    """As ``prune``: where another process takes the machine in between, a latency is refused, and asked for again."""
    for _ in range(2):
        with suppress(CheckError, TargetError):
            return pipeline.prune(net, samples, options, report=report)
    return pipeline.prune(net, samples, options, report=report)


def wide_samples(size: int = 16) -> dict[str, np.ndarray]:
    name = wide_net().graph.input[0].name
    return {name: np.random.default_rng(0).standard_normal((24, 3, size, size)).astype(np.float32)}


def test_targets_are_read_as_they_are_typed() -> None:
    assert Target.parse("latency", "4ms") == Target("latency", absolute=4.0)
    assert Target.parse("latency", "250 us") == Target("latency", absolute=0.25)
    assert Target.parse("latency", "1.5s") == Target("latency", absolute=1500.0)
    assert Target.parse("latency", "60%") == Target("latency", fraction=0.6)
    assert Target.parse("size", "4MB") == Target("size", absolute=4_000_000)
    assert Target.parse("size", "1 MiB") == Target("size", absolute=2**20)
    assert Target.parse("size", "0.5") == Target("size", fraction=0.5)


@pytest.mark.parametrize(("kind", "text"), [("latency", "4"), ("latency", "4MB"), ("size", "224"), ("size", "4ms")])
def test_absolute_sizes_and_times_have_units(kind: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"--{kind} ") as caught:
        Target.parse(kind, text)  # type: ignore[arg-type]
    assert f"--{kind} 4M" in caught.value.hint or f"--{kind} 4m" in caught.value.hint


def test_one_target_of_a_kind() -> None:
    with pytest.raises(UsageError, match="two targets for --macs"):
        PruneOptions((Target("macs", 0.5), Target("macs", 0.6)))
    with pytest.raises(UsageError, match="no target"):
        PruneOptions(())
    assert PruneOptions((Target("macs", 0.5), Target("size", 0.5))).targets == (
        Target("macs", 0.5),
        Target("size", 0.5),
    )


def test_a_latency_rounds_widths_by_timing_unless_told() -> None:
    assert PruneOptions(Target("latency", 0.5)).rounding == "auto"
    assert PruneOptions(Target("latency", 0.5), round_to=8).rounding == 8
    assert PruneOptions(Target("macs", 0.5)).rounding == 1
    assert replace(PruneOptions(Target("macs", 0.5)), target=Target("latency", 0.5)).rounding == "auto"
    with pytest.raises(UsageError, match="--round-to"):
        PruneOptions(Target("macs", 0.5), round_to="some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fractions", [{"macs": 0.5, "params": 0.9}, {"macs": 0.9, "params": 0.5}, {"macs": 0.6, "params": 0.6, "size": 0.7}]
)
def test_all_targets_hold(fractions: dict[str, float]) -> None:
    net = residual_net()
    targets = tuple(Target(kind, share) for kind, share in fractions.items())  # type: ignore[arg-type]
    result = pipeline.prune(net, SAMPLES, PruneOptions(targets))
    before, after = result.summary.before, result.summary.after
    left = {kind: getattr(after, kind) / getattr(before, kind) for kind in fractions}
    assert (after.macs, after.params) == (macs(result.model), params(result.model))
    assert all(left[kind] <= share for kind, share in fractions.items())
    assert max(left[kind] / share for kind, share in fractions.items()) > 0.85
    assert result.summary.target.count("<=") == len(fractions)


@pytest.mark.parametrize("text", ["60%", "0.8"])
def test_the_file_is_no_larger_than_asked_for(tmp_path: Path, text: str) -> None:
    net = residual_net()
    onnx.save(net, tmp_path / "net.onnx")
    out = tmp_path / "out.onnx"
    pipeline.prune(tmp_path / "net.onnx", SAMPLES, PruneOptions(Target.parse("size", text)), output=out)
    share = out.stat().st_size / (tmp_path / "net.onnx").stat().st_size
    asked = Target.parse("size", text).fraction
    assert asked is not None
    assert 0.9 * asked < share <= asked


def test_a_target_that_the_original_meets_by_far_changes_nothing_beside_another() -> None:
    """Not even where metadata makes the file larger than the original, or where what is pruned runs no faster."""
    options = PruneOptions(Target("macs", 0.95), round_to=1)
    alone = pipeline.prune(residual_net(), SAMPLES, options)
    for other in (Target("size", absolute=10**6), Target("latency", absolute=1e5), Target("params", absolute=10**7)):
        beside = pipeline.prune(residual_net(), SAMPLES, replace(options, target=(Target("macs", 0.95), other)))
        assert beside.plan.kept == alone.plan.kept
        assert beside.summary.target.startswith("macs <= 95.0% of the original, ")


def test_a_plan_for_several_targets_replays() -> None:
    net = residual_net()
    result = pipeline.prune(net, SAMPLES, PruneOptions((Target("macs", 0.6), Target("size", 0.9))))
    plan = json.loads(result.plan.dumps())
    assert plan["options"]["target"] == [
        {"kind": "macs", "fraction": 0.6, "absolute": None},
        {"kind": "size", "fraction": 0.9, "absolute": None},
    ]
    assert pipeline.apply(net, result.plan).model == result.model


@pytest.mark.parametrize("target", [None, "half", {"kind": "speed", "fraction": 0.5}, {"kind": "macs"}, [[]]])
def test_a_plan_for_an_unknown_target_is_refused(target: object) -> None:
    with pytest.raises(PlanError, match="target"):
        _ = Plan("", {"target": target}, {}, {}, {}, {}).targets


def test_a_latency_is_met_and_said(tmp_path: Path) -> None:
    """There are two widths to choose from: the whole one, and one that takes about half of the time."""
    options = PruneOptions(Target("latency", 0.9), round_to=64)
    files = tmp_path / "r.html", tmp_path / "r.json"
    result = prune_patiently(wide_net(32), wide_samples(32), options, files)
    summary = result.summary
    assert [group.kept for group in summary.groups if not group.frozen] == [64]
    assert summary.latency is not None
    assert summary.latency.predicted_ms < summary.latency.original_ms
    assert summary.comparison is not None
    assert summary.comparison.latency[0].ratio <= 0.9
    assert "predicted" in (tmp_path / "r.html").read_text()
    told = json.loads((tmp_path / "r.json").read_text())["latency"]
    assert told["predicted_ms"] == summary.latency.predicted_ms
    assert len(told["trials"]) >= 1
    replayed = pipeline.apply(wide_net(32), result.plan)
    assert replayed.model == result.model


def test_several_ways_to_a_latency_are_tried_and_the_one_taken_is_said() -> None:
    result = prune_patiently(wide_net(32), wide_samples(32), PruneOptions(Target("latency", 0.9)))
    summary = result.summary
    [note] = [note for note in summary.notes if note.startswith("Of the widths within the latency, ")]
    ways = ["steps found by timing", "multiples of 16", "multiples of 8", "multiples of 4", "free widths"]
    assert note.endswith(f"(tried: {', '.join(ways)}).")
    taken = note.removeprefix("Of the widths within the latency, ").split(" lose")[0]
    [kept] = [group.kept for group in summary.groups if not group.frozen]
    assert kept % dict(zip(ways, (2, 16, 8, 4, 1), strict=True))[taken] == 0
    assert summary.latency is not None
    assert any(trial.ratio <= 0.9 for trial in summary.latency.trials)


def test_a_latency_of_more_than_one_sample() -> None:
    options = PruneOptions((Target("latency", 0.95), Target("macs", 0.9)), round_to=64, latency_batch=4)
    summary = prune_patiently(wide_net(32), wide_samples(32), options).summary
    assert summary.comparison is not None
    assert [latency.batch for latency in summary.comparison.latency] == [4]


@pytest.mark.parametrize("target", [Target("latency", 0.6), Target("latency", absolute=6.0)])
@pytest.mark.parametrize(
    ("times", "aims"),
    [
        ([1.0], [6.0]),
        ([1.05, 0.99], [6.0, 5.94 / 1.05]),
        ([1.02, 1.04, 1.0], [6.0, 5.94 / 1.02, 0.99 * 5.94 / 1.02 / 1.04]),
        ([1.02, 1.02, 1.02], None),
        ([1.2], None),
        ([1.02, None], None),
    ],
)
def test_less_is_aimed_at_where_a_result_is_too_slow(
    target: Target, times: list[float | None], aims: list[float] | None
) -> None:
    """Results of these times over the target, None where no widths are left; ``aims`` None where it is missed."""
    run, aimed_at, left = Run(Silent(), notes=["before"]), list[float](), iter(times)

    def attempt(aimed: PruneOptions) -> float:
        run.notes.append("of an attempt")
        assert aimed.targets[1] == Target("macs", 0.5)
        aimed_at.append(aimed.targets[0].budget(10.0))
        took = next(left)
        if took is None:
            raise TargetError("out of reach")
        if took > 1:
            raise LatencyError(f"{took} of it", share=took)
        return took

    options = PruneOptions((target, Target("macs", 0.5)))
    if aims is None:
        with pytest.raises(LatencyError, match=f"{max(filter(None, times))} of it"):
            within_latency(attempt, options, run)
        assert run.notes == ["before"]
        assert len(aimed_at) == len(times)
    else:
        assert within_latency(attempt, options, run) == times[-1]
        assert aimed_at == pytest.approx(aims)
        again = [f"Widths were chosen again, for less: {took} of it." for took in times[:-1]]
        assert run.notes == ["before", *again, "of an attempt"]


def missed_once(monkeypatch: pytest.MonkeyPatch, chooser: str, out: Path) -> list[tuple[Target, ...]]:
    """The first latency confirmed is refused; the targets that the widths are chosen by, each time."""
    measured, choose, aims = outcome.confirm_latency, getattr(pipeline, chooser), list[tuple[Target, ...]]()
    misses = iter([LatencyError("too slow", share=1.02)])

    def confirm(*arguments: object) -> Latency:
        for miss in misses:
            raise miss
        assert not out.exists()
        return measured(*arguments)  # type: ignore[arg-type]

    def chosen(*arguments: object) -> object:
        aims.append(arguments[2].targets)  # type: ignore[attr-defined]
        return choose(*arguments)

    monkeypatch.setattr(outcome, "confirm_latency", confirm)
    monkeypatch.setattr(pipeline, chooser, chosen)
    return aims


@pytest.mark.parametrize(("chooser", "more"), [("allocate_widths", ()), ("find_choice", (MaxDrop(0.9, "error"),))])
def test_a_latency_missed_in_the_end_is_corrected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chooser: str, more: tuple[MaxDrop, ...]
) -> None:
    out, target = tmp_path / "out.onnx", Target("latency", 0.9)
    aims = missed_once(monkeypatch, chooser, out)
    others = {name: np.concatenate([-array, array, 2 * array]) for name, array in wide_samples(32).items()}
    options = PruneOptions((target, *more), round_to=64)
    result = pipeline.prune(wide_net(32), wide_samples(32), options, output=out, evaluate=others)
    assert aims == [(target,), (target.times(0.99 / 1.02),)]
    assert result.plan.targets == (target, *more)
    assert "Widths were chosen again, for less: too slow." in result.summary.notes
    assert (result.summary.drop is not None) == bool(more)
    assert result.summary.comparison is not None
    assert result.summary.comparison.latency[0].ratio <= 0.9
    assert out.exists()


def test_a_refit_that_is_used_again_is_told_of_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Half of the channels are the only other width: widths chosen again are the same."""
    options = PruneOptions(Target("latency", 0.9), round_to=64)
    stats = pipeline.calibrate(wide_net(32), wide_samples(32), options=options).stats
    aims = missed_once(monkeypatch, "allocate_widths", tmp_path / "out.onnx")
    result = pipeline.prune(wide_net(32), None, options, stats=stats)
    assert len(aims) == 2
    assert sum("from the statistics alone" in note for note in result.summary.notes) == 1


def test_a_sweep_leaves_out_what_misses_its_latency(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def confirm(target: Target, *_: object) -> Latency:
        if target.fraction == 0.8:
            raise LatencyError("too slow", share=1.2)
        return Latency(1, 1.0, 0.9, 3)

    monkeypatch.setattr(outcome, "confirm_latency", confirm)
    onnx.save(wide_net(32), tmp_path / "net.onnx")
    targets, options = (
        [Target("latency", 0.8), Target("latency", 0.9)],
        PruneOptions(Target("latency", 0.8), round_to=64),
    )
    found = pipeline.sweep(tmp_path / "net.onnx", wide_samples(32), targets, options=options, write=tmp_path / "models")
    assert [Path(point.output).name for point in found.points] == ["net-latency-0.9.onnx"]
    assert [note for note in found.notes if note.endswith("too slow")]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net-latency-0.9.onnx"]
    monkeypatch.setattr(outcome, "confirm_latency", lambda *_: confirm(targets[0]))
    with pytest.raises(LatencyError):
        pipeline.sweep(tmp_path / "net.onnx", wide_samples(32), targets, options=options, write=tmp_path / "more")


def test_a_latency_that_the_original_has_asks_for_nothing() -> None:
    for target in (Target("latency", 1.0), Target("latency", absolute=1e6)):
        result = pipeline.prune(wide_net(), wide_samples(), PruneOptions(target))
        assert result.plan.kept == {}


def test_steps_by_timing_count_in_the_allocation() -> None:
    result = pipeline.prune(wide_net(), wide_samples(), PruneOptions(Target("macs", 0.6), round_to="auto"))
    kept = [group.kept for group in result.summary.groups if not group.frozen]
    assert 32 <= kept[0] <= 77
    assert '"round_to": "auto"' in result.plan.summary()


@pytest.mark.parametrize("target", [Target("latency", 0.01), Target("latency", absolute=1e-4), Target("size", 0.02)])
def test_out_of_reach(tmp_path: Path, target: Target) -> None:
    with pytest.raises(TargetError) as caught:
        pipeline.prune(wide_net(), wide_samples(), PruneOptions(target), output=tmp_path / "out.onnx")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_statuses_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(wide_net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "samples.npz", **wide_samples())
    prune = ["prune", str(tmp_path / "net.onnx"), "--data", str(tmp_path / "samples.npz"), "-q"]
    out = tmp_path / "out.onnx"
    assert main([*prune, "-o", str(out), "--latency", "0.01"]) == 3
    assert "out of reach" in capsys.readouterr().err
    assert main([*prune, "-o", str(out), "--size", "1kB"]) == 3
    assert not out.exists()
    assert main([*prune, "-o", str(out), "--latency", "2"]) == 2
    capsys.readouterr()
    assert main([*prune, "-o", str(out), "--macs", "0.7", "--size", "0.8", "--round-to", "auto", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert out.stat().st_size <= 0.8 * told["before"]["size"]


def test_within_a_stage_the_blas_has_one_thread() -> None:
    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        with Run(Silent()).stage("refit"):
            assert (threads(), cores()) == ({1}, 2)
        assert threads() == {2}
