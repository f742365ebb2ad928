"""Several targets from one calibration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from nets import images, outputs, params, residual_net
from reap_onnx import pipeline
from reap_onnx.cli import main
from reap_onnx.errors import OutputError, TargetError, UsageError
from reap_onnx.options import PruneOptions, Target
from reap_onnx.report import as_json, html
from reap_onnx.report.summary import Comparison, Cost, Frontier, Point
from reap_onnx.report.summary import OutputError as Error

SAMPLES = images(64)
SHARES = (0.5, 0.7, 0.9)
TARGETS = [Target("macs", fraction=share) for share in SHARES]


def labelled() -> dict[str, np.ndarray]:
    fresh = images(80, seed=4)
    return {"image": fresh, "labels": outputs(residual_net(), fresh).argmax(1)}


@pytest.fixture(scope="module")
def frontier() -> Frontier:
    return pipeline.sweep(residual_net(), SAMPLES, TARGETS[::-1], evaluate=labelled())


def test_every_target_is_met_from_one_calibration(frontier: Frontier) -> None:
    shares = [frontier.share(point) for point in frontier.points]
    assert all(asked - 0.1 < share <= asked for share, asked in zip(shares, SHARES, strict=True))
    assert not frontier.written
    assert {point.output for point in frontier.points} == {""}
    errors = [point.comparison.outputs[0].relative for point in frontier.points]
    assert errors == sorted(errors, reverse=True)
    assert frontier.points[-1].quality == frontier.points[-1].comparison.accuracy_pruned


def test_widths_are_those_of_a_run_of_its_own(frontier: Frontier) -> None:
    for target, point in zip(TARGETS, frontier.points, strict=True):
        summary = pipeline.prune(residual_net(), SAMPLES, PruneOptions(target)).summary
        assert (summary.after.macs, summary.after.params) == (point.cost.macs, point.cost.params)


def test_models_written_are_those_of_runs_of_their_own(tmp_path: Path) -> None:
    onnx.save(residual_net(), tmp_path / "net.onnx")
    folder = tmp_path / "models"
    found = pipeline.sweep(tmp_path / "net.onnx", SAMPLES, TARGETS[:2], write=folder)
    assert found.written
    assert [point.output for point in found.points] == [
        str(folder / f"net-macs-{share:g}.onnx") for share in SHARES[:2]
    ]
    for target, point in zip(TARGETS, found.points, strict=False):
        pipeline.prune(tmp_path / "net.onnx", SAMPLES, PruneOptions(target), output=tmp_path / "one.onnx", force=True)
        assert Path(point.output).read_bytes() == (tmp_path / "one.onnx").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        pipeline.sweep(tmp_path / "net.onnx", SAMPLES, TARGETS[:2], write=folder)


def test_every_model_has_a_name_of_its_own(tmp_path: Path) -> None:
    targets = [Target("params", absolute=1_000_001), Target("params", absolute=1_000_002)]
    onnx.save(residual_net(), tmp_path / "net.onnx")
    found = pipeline.sweep(tmp_path / "net.onnx", SAMPLES, targets, write=tmp_path / "models")
    assert [Path(point.output).name for point in found.points] == [f"net-params-100000{n}.onnx" for n in (1, 2)]


def test_a_sweep_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TargetError):
        pipeline.sweep(residual_net(), SAMPLES, [Target("macs", 0.001), Target("macs", 0.002)], write=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_is_out_of_reach_is_left_out_and_said() -> None:
    found = pipeline.sweep(residual_net(), SAMPLES, [Target("macs", 0.001), Target("macs", 0.8)])
    assert len(found.points) == 1
    assert any("0.1%" in note and "smallest that can be reached" in note for note in found.notes)
    with pytest.raises(TargetError):
        pipeline.sweep(residual_net(), SAMPLES, [Target("macs", 0.001), Target("macs", 0.002)])


@pytest.mark.parametrize(
    "targets",
    [
        [Target("macs", 0.5)],
        [Target("macs", 0.5), Target("macs", 0.5)],
        [Target("macs", 0.5), Target("params", 0.6)],
        [Target("macs", 0.5), Target("macs", absolute=1000)],
    ],
)
def test_targets_of_one_kind(targets: list[Target]) -> None:
    with pytest.raises(UsageError, match="two or more different targets of one kind"):
        pipeline.sweep(residual_net(), SAMPLES, targets)


def points(*pairs: tuple[int, float]) -> Frontier:
    found = [
        Point(f"<{macs}>", Cost(macs, 1, 1), Comparison(1, "d", (Error("o", 1 - quality, 1.0),), None, None, None, ()))
        for macs, quality in pairs
    ]
    return Frontier("net.onnx", "macs", Cost(100, 1, 1), tuple(found), written=False)


@pytest.mark.parametrize(
    ("pairs", "knee"),
    [
        ([(20, 0.1), (40, 0.8), (60, 0.9), (80, 0.95)], 1),
        ([(20, 0.1), (40, 0.15), (60, 0.85), (80, 0.95)], 2),
        ([(20, 0.1), (50, 0.2), (80, 0.9)], None),
        ([(20, 0.5), (50, 0.5), (80, 0.5)], None),
        ([(20, 0.1), (80, 0.9)], None),
    ],
)
def test_the_knee(pairs: list[tuple[int, float]], knee: int | None) -> None:
    assert points(*pairs).knee == knee


def test_reports_of_a_frontier(frontier: Frontier) -> None:
    told = json.loads(as_json.dumps(frontier))
    assert (told["kind"], told["knee"], len(told["points"])) == ("frontier", frontier.knee, 3)
    assert {field.name for field in dataclasses.fields(Frontier)} <= set(told)
    page = html.render(points((20, 0.1), (40, 0.8), (80, 0.9)))
    assert page.count("<circle") == 4
    assert "<40>" not in page
    assert "&lt;40&gt;" in page


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(residual_net(), tmp_path / "net.onnx")
    np.savez(tmp_path / "samples.npz", image=SAMPLES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", "net.onnx", "--data", "samples.npz", "-q"]
    assert main([*argv, "--macs", "0.5:0.9:3", "--json", "--report", "f.html"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [round(p["cost"]["macs"] / told["before"]["macs"], 1) for p in told["points"]] == [0.5, 0.7, 0.9]
    assert "<svg" in (place / "f.html").read_text()
    assert main([*argv, "--params", "0.7,80%", "--write", "out"]) == 0
    assert "Frontier" in capsys.readouterr().out
    assert sorted(path.name for path in (place / "out").iterdir()) == ["net-params-0.7.onnx", "net-params-0.8.onnx"]
    assert main([*argv, "--params", "0.7,80%", "--write", "out"]) == 1
    assert "--force" in capsys.readouterr().err


def test_a_range_of_absolute_values(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = params(onnx.load(place / "net.onnx"))
    ends = [round(share * whole) for share in (0.6, 0.8)]
    argv = ["sweep", "net.onnx", "--data", "samples.npz", "-q", "--json", "--effort", "fast"]
    assert main([*argv, "--params", f"{ends[0]}:{ends[1]}:3"]) == 0
    costs = [point["cost"]["params"] for point in json.loads(capsys.readouterr().out)["points"]]
    for found, allowed in zip(costs, (ends[0], sum(ends) / 2, ends[1]), strict=True):
        assert 0.8 * allowed < found <= allowed


@pytest.mark.parametrize(
    ("flags", "status", "reason"),
    [
        ([], 2, "exactly one of --macs"),
        (["--macs", "0.5,0.6", "--size", "0.5,0.6"], 2, "exactly one of --macs"),
        (["--macs", "0.5"], 2, "two or more"),
        (["--macs", "0.3:0.9"], 2, "no range"),
        (["--macs", "0.3:x:2"], 2, "'x' is not a number"),
        (["--macs", "0.9:0.3:0"], 2, "no range"),
        (["--macs", "0.3:0.9:1000000000"], 2, "no range"),
        (["--macs", "0.3:20M:3"], 2, "from a share to an absolute value"),
        (["--macs", "0.5,half"], 2, "'half' is not a number"),
        (["--macs", "0.001,0.002"], 3, "--macs keeps 0.2% of the cost; the smallest that can be reached"),
        (["--macs", "0.5,0.6", "--write", "net.onnx"], 1, "net.onnx: cannot be made"),
    ],
)
def test_statuses(place: Path, capsys: pytest.CaptureFixture[str], flags: list[str], status: int, reason: str) -> None:
    assert main(["sweep", "net.onnx", "--data", "samples.npz", "-q", *flags]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err
    assert sorted(path.name for path in place.iterdir()) == ["net.onnx", "samples.npz"]
