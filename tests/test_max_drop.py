"""The smallest model within a drop, from options to files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nets import CLASSES, images, outputs, residual_net
from reap_onnx import pipeline
from reap_onnx.cli import main
from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError, TargetError, UsageError
from reap_onnx.options import EFFORTS, MaxDrop, PruneOptions, Target
from reap_onnx.outcome import PruneResult
from reap_onnx.overrides import Override
from reap_onnx.report.summary import Prunability

SAMPLES = images(64)
FAST = EFFORTS["fast"]


def balanced_net() -> onnx.ModelProto:
    """A network that names every class about as often as any other."""
    model, scores = residual_net(), outputs(residual_net(), images(400, seed=6))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    spread = scores.std(axis=0)
    head = numpy_helper.to_array(weights["head_w"]) / spread[:, None]
    weights["head_w"].CopyFrom(numpy_helper.from_array(head.astype(np.float32), "head_w"))
    weights["head_b"].CopyFrom(numpy_helper.from_array((-scores.mean(axis=0) / spread).astype(np.float32), "head_b"))
    return model


NET = balanced_net()


def labelled(count: int = 400) -> dict[str, np.ndarray]:
    """Samples of which every tenth is labelled wrong."""
    fresh = images(count, seed=5)
    right = outputs(NET, fresh).argmax(1)
    return {"image": fresh, "labels": np.where(np.arange(count) % 10 == 0, (right + 1) % CLASSES, right)}


@pytest.fixture(scope="module")
def within() -> PruneResult:
    return pipeline.prune(NET, SAMPLES, PruneOptions(MaxDrop(0.05), method=FAST), evaluate=labelled())


def test_drops_are_read_as_they_are_typed() -> None:
    assert MaxDrop.parse("1%") == MaxDrop.parse(" 0.01 ") == MaxDrop(0.01)
    assert MaxDrop.parse("2", "psnr.py:psnr") == MaxDrop(2.0, "psnr.py:psnr")
    for text, metric in (("1", None), ("0", None), ("much", None), ("-1%", None), ("1%", "speed"), ("100%", "error")):
        with pytest.raises(UsageError):
            MaxDrop.parse(text, metric)
    with pytest.raises(UsageError, match="two targets for --max-drop"):
        PruneOptions((MaxDrop(0.01), MaxDrop(0.02)))
    both = PruneOptions((Target("macs", 0.5), MaxDrop(0.01)))
    assert (both.targets, both.max_drop) == ((Target("macs", 0.5),), MaxDrop(0.01))


def test_statistics_stand_for_samples_but_do_not_decide() -> None:
    """Widths are read off the statistics; what they were measured on has no say in what may be lost."""
    options = PruneOptions(MaxDrop(0.05), method=FAST)
    stats = pipeline.calibrate(NET, SAMPLES, options=options).stats
    with pytest.raises(UsageError, match="not decided by the samples of --stats"):
        pipeline.prune(NET, SAMPLES, options, stats=stats)
    found = pipeline.prune(NET, None, options, stats=stats, evaluate=labelled()).summary
    assert found.drop is not None
    assert found.drop.decided.drop <= 0.05
    assert sum("statistics alone" in note for note in found.notes) == 1


def test_what_calibrates_does_not_decide() -> None:
    with pytest.raises(UsageError, match="must not be those that calibrate"):
        pipeline.prune(NET, SAMPLES, PruneOptions(MaxDrop(0.5), method=FAST), evaluate=SAMPLES)
    stats = pipeline.calibrate(NET, SAMPLES, options=PruneOptions(MaxDrop(0.5), method=FAST)).stats
    assert stats.origin.data["samples"] == len(SAMPLES), "the target does not count, nothing is held out"
    with pytest.raises(UsageError, match="must not be those that calibrate"):
        pipeline.prune(NET, None, PruneOptions(MaxDrop(0.5), method=FAST), stats=stats, evaluate=SAMPLES)


def test_samples_that_calibrate_are_left_out_of_those_that_decide() -> None:
    options, others = PruneOptions(MaxDrop(0.5), method=FAST), SAMPLES + 1
    mixed = np.concatenate([others, SAMPLES[:10], SAMPLES[:1]])
    summary = pipeline.prune(NET, SAMPLES, options, evaluate=mixed, dry_run=True).summary
    assert f"11 of {len(mixed)} samples calibrate, and have no say in the drop." in summary.notes
    assert summary.drop is not None
    assert summary.drop.decided.samples == summary.drop.judged.samples == len(others) // 2
    stats = pipeline.calibrate(NET, SAMPLES, options=options).stats
    with pytest.raises(UsageError, match="must not be those that calibrate"):
        pipeline.prune(NET, None, options, stats=stats, evaluate=mixed)


@pytest.mark.parametrize("given", [{"data": SAMPLES[:1]}, {"data": SAMPLES, "evaluate": SAMPLES[:1] + 1}])
def test_too_few_to_hold_any_out(given: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="too few"):
        pipeline.prune(NET, options=PruneOptions(MaxDrop(0.5), method=FAST), **given)


def test_a_metric_that_cannot_be_copied() -> None:
    class Score:
        lock = threading.Lock()

        def __init__(self) -> None:
            self.own = threading.Lock()

        def __call__(self, outputs: dict[str, np.ndarray], _: object) -> np.ndarray:
            return np.abs(next(iter(outputs.values()))).mean(axis=1)

    options = PruneOptions(MaxDrop(2.0, Score()), method=FAST)
    found = pipeline.prune(NET, SAMPLES, options, evaluate=labelled(80))
    assert '"metric"' in found.plan.dumps()


def test_the_drop_is_held_and_the_next_smaller_network_loses_more(within: PruneResult) -> None:
    found = within.summary.drop
    assert found is not None
    assert found.decided.drop <= 0.05
    assert (found.decided.samples, found.judged.samples) == (200, 200)
    assert len(found.trials) < 12
    assert found.decided.bound is None
    assert found.judged.bound is not None
    assert found.judged.bound > found.judged.drop
    macs = within.summary.after.macs / within.summary.before.macs
    holding = [trial.share for trial in found.trials if trial.drop <= 0.05]
    assert min(holding) == pytest.approx(macs)
    failing = [trial.share for trial in found.trials if trial.drop > 0.05]
    assert max(share for share in failing if share < macs) > 0.9 * macs


def test_what_is_said_is_what_the_model_does(within: PruneResult) -> None:
    """Both halves together, by onnxruntime alone."""
    found, data = within.summary.drop, labelled()
    assert found is not None
    for model, side in ((NET, "before"), (within.model, "after")):
        right = outputs(model, data["image"]).argmax(1) == data["labels"]
        assert right.mean() == pytest.approx((getattr(found.decided, side) + getattr(found.judged, side)) / 2)


def test_a_larger_drop_gives_a_smaller_model(within: PruneResult) -> None:
    options = PruneOptions(MaxDrop(0.3), method=FAST)
    smaller = pipeline.prune(NET, SAMPLES, options, evaluate=labelled())
    assert smaller.summary.after.macs < within.summary.after.macs


def test_the_same_seed_gives_the_same_model_and_the_plan_replays(within: PruneResult) -> None:
    again = pipeline.prune(NET, SAMPLES, PruneOptions(MaxDrop(0.05), method=FAST), evaluate=labelled())
    assert again.model == within.model
    assert pipeline.apply(NET, within.plan).model == within.model
    assert json.loads(within.plan.dumps())["options"]["target"] == {"drop": 0.05, "metric": None}


def test_without_other_samples_half_are_held_out() -> None:
    options = PruneOptions(MaxDrop(0.05), method=FAST)
    summary = pipeline.prune(NET, images(160), options).summary
    assert summary.drop is not None
    assert (summary.drop.metric, summary.drop.decided.samples) == ("same top class", 40)
    assert summary.comparison is not None
    assert "the other half (80) drawn by seed 0" in summary.comparison.data
    held = Dataset({"image": images(160)}).halves(0)
    assert sum(len(half) for half in held) == 160
    assert not {half.tobytes() for half in held[0].inputs["image"]} & {
        half.tobytes() for half in held[1].inputs["image"]
    }


def test_together_with_a_cost_both_hold() -> None:
    target = (Target("macs", 0.6), MaxDrop(0.4))
    summary = pipeline.prune(NET, SAMPLES, PruneOptions(target, method=FAST), evaluate=labelled()).summary
    assert summary.drop is not None
    assert summary.after.macs <= 0.6 * summary.before.macs
    assert summary.drop.decided.drop <= 0.4
    assert summary.drop.trials[0].share == pytest.approx(0.6, abs=0.05)
    assert "macs <= 60.0%" in summary.target
    assert "drop <= 40 points" in summary.target


def test_what_is_in_the_way_is_said(tmp_path: Path) -> None:
    target = (Target("macs", 0.2), MaxDrop(0.01))
    with pytest.raises(
        TargetError,
        match=r"largest network that meets macs <= 20.0% .* loses .* points of top-1 accuracy .* 1 point allowed",
    ):
        pipeline.prune(NET, SAMPLES, PruneOptions(target, method=FAST), output=tmp_path / "o.onnx", evaluate=labelled())
    assert list(tmp_path.iterdir()) == []
    options = PruneOptions(MaxDrop(0.001, "error"), method=FAST)
    with pytest.raises(TargetError, match=r"the network with .* of the cost loses .* 0.1 points allowed"):
        pipeline.prune(NET, SAMPLES, options, evaluate=labelled())
    with pytest.raises(DataError, match=r"samples decide about a drop of 1 point, at least 100 are needed"):
        pipeline.prune(NET, SAMPLES, PruneOptions(MaxDrop(0.01)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(NET, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", image=SAMPLES)
    np.savez(tmp_path / "held.npz", **labelled())
    output = next(iter(NET.graph.output)).name
    (tmp_path / "m.py").write_text(
        f"def hits(outputs, labels):\n    return (outputs[{output!r}].argmax(1) == labels).astype(float)\n"
    )
    out = tmp_path / "out.onnx"
    argv = ["prune", str(tmp_path / "net.onnx"), "--data", str(tmp_path / "data.npz"), "-q", "-o", str(out)]
    argv += ["--eval-data", str(tmp_path / "held.npz"), "--effort", "fast"]
    assert main([*argv, "--metric", "accuracy", "--macs", "0.5"]) == 2
    capsys.readouterr()
    report = tmp_path / "r.html"
    assert main([*argv, "--max-drop", "5%", "--metric", f"{tmp_path / 'm.py'}:hits", "--report", str(report)]) == 0
    assert "of hits on the 200 samples that decided, 0.05 allowed" in " ".join(capsys.readouterr().out.split())
    assert "at 95 % confidence" in report.read_text()
    assert main([*argv, "--max-drop", "5%", "--force", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["drop"]
    assert told["metric"] == "top-1 accuracy"
    assert told["decided"]["bound"] is None
    assert told["judged"]["bound"] > 0


@pytest.fixture(scope="module")
def needed() -> Prunability:
    options = PruneOptions(MaxDrop(0.05), max_cut=1.0, method=FAST)
    found = pipeline.inspect(NET, data=SAMPLES, evaluate=labelled(), prunability=options).inspection
    assert found.prunability is not None
    return found.prunability


def test_prunability_is_a_measured_share_of_the_parameters(needed: Prunability) -> None:
    assert needed.search.swept == "params"
    assert needed.search.decided.drop <= 0.05
    holding = [trial for trial in needed.search.trials if trial.drop <= 0.05]
    assert needed.params == min(trial.share for trial in holding)
    larger = pipeline.inspect(
        NET, data=SAMPLES, evaluate=labelled(), prunability=PruneOptions(MaxDrop(0.3), max_cut=1.0, method=FAST)
    ).inspection.prunability
    assert larger is not None
    assert larger.params < needed.params
    assert all(a.kept <= b.kept for a, b in zip(larger.groups, needed.groups, strict=True))


def test_groups_are_read_off_their_own_error_paths(needed: Prunability) -> None:
    """Cut alone to the width said, a group does to the outputs about what was predicted; a unit less does more."""
    assert needed.error > 0
    frozen = [group.name for group in pipeline.inspect(NET).inspection.groups if group.frozen]
    assert [group.name for group in needed.groups if group.name in frozen] == []
    assert any(1 < group.kept < group.width for group in needed.groups)
    reference = outputs(NET, labelled()["image"]).astype(float)
    for group in needed.groups:
        if not 1 < group.kept < group.width:
            continue
        only = tuple(Override(other.name, freeze=True) for other in needed.groups if other.name != group.name)
        keep = (*only, Override(group.name, keep=group.kept))
        options = PruneOptions(Target("macs", 1.0), overrides=keep, method=FAST)
        pruned = outputs(pipeline.prune(NET, SAMPLES, options).model, labelled()["image"])
        damage = ((pruned - reference) ** 2).sum() / ((reference - reference.mean()) ** 2).sum()
        assert damage < 4 * needed.error


def test_prunability_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(NET, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", image=SAMPLES)
    np.savez(tmp_path / "held.npz", **labelled())
    argv = ["inspect", str(tmp_path / "net.onnx"), "--prunability", "--effort", "fast", "-q", "--max-drop", "5%"]
    assert main(argv) == 2
    assert "prunability needs samples" in capsys.readouterr().err
    for flag in (["--max-drop", "2%"], ["--metric", "error"], ["--eval-data", "held.npz"], ["--samples", "10"]):
        assert main(["inspect", str(tmp_path / "net.onnx"), *flag]) == 2
        assert f"{flag[0]} goes with --prunability" in capsys.readouterr().err
    argv += ["--data", str(tmp_path / "data.npz"), "--eval-data", str(tmp_path / "held.npz")]
    assert main(argv) == 0
    assert "of the parameters are needed" in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["prunability"]
    assert 0 < told["params"] < 1
    assert told["search"]["judged"]["bound"] > 0
