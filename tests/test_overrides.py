"""Limits of some layers alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest

from nets import images, residual_net, widths
from reap_onnx import pipeline
from reap_onnx.cli import main
from reap_onnx.errors import UsageError
from reap_onnx.options import EFFORTS, PruneOptions, Target
from reap_onnx.overrides import Override, merge_overrides, read_overrides

SAMPLES = images(48)
TEXT = """
["block1/*"]
max_cut = 0.25
round_to = 2

["block2/conv1"]
keep = 5

["stem"]
freeze = true
"""
OVERRIDES = (
    Override("block1/*", max_cut=0.25, round_to=2),
    Override("block2/conv1", keep=5),
    Override("stem", freeze=True),
)


def options(share: float, *overrides: Override) -> PruneOptions:
    return PruneOptions(Target("macs", share), overrides=overrides, method=EFFORTS["fast"])


def test_a_file_is_read_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text(TEXT)
    assert read_overrides(tmp_path / "o.toml") == OVERRIDES


def test_the_last_says_what_it_says() -> None:
    both = (Override("*", max_cut=0.5, round_to=4), Override("block?/*", max_cut=0.2), Override("stem", min_channels=3))
    assert merge_overrides(both, ["block1/conv1"]) == Override("", max_cut=0.2, round_to=4)
    assert merge_overrides(both, ["other", "stem"]) == Override("", max_cut=0.5, round_to=4, min_channels=3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_cut = 0.5", "max_cut stands under no pattern"),
        ("[a]\nmaxcut = 0.5", "unknown key 'maxcut' for 'a'"),
        ("[a]\nnodes = 'b'", "unknown key 'nodes'"),
        ("[a]\nmax_cut = 1.5", "max_cut = 1.5 is not in"),
        ("[a]\nmax_cut = 'half'", "max_cut = 'half' is not in"),
        ("[a]\nmax_cut = true", "max_cut = True is not in"),
        ("[a]\nkeep = 0", "keep = 0 is not a positive"),
        ("[a]\nround_to = true", "round_to = True is not a positive"),
        ("[a]\nfreeze = 1", "freeze = 1 is not true or false"),
        ("[a", "is no TOML"),
    ],
)
def test_files_that_say_nothing_of_use(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "o.toml").write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_overrides(tmp_path / "o.toml")


def test_every_limit_holds_and_the_plan_has_it() -> None:
    result = pipeline.prune(residual_net(), SAMPLES, options(0.55, *OVERRIDES))
    kept, whole = widths(result.model), widths(residual_net())
    assert kept["block2/conv1"][1] == 5
    assert kept["stem"] == whole["stem"]
    assert kept["block1/conv1"][1] in (12, 14, 16)
    assert result.summary.after.macs <= 0.55 * result.summary.before.macs
    planned = json.loads(result.plan.dumps())["options"]["overrides"]
    assert planned == [asdict(override) for override in OVERRIDES]
    assert pipeline.apply(residual_net(), result.plan).model == result.model


def test_a_width_that_is_kept_needs_no_other_target() -> None:
    result = pipeline.prune(residual_net(), SAMPLES, options(1.0, Override("block2/conv1", keep=5)))
    changed = {name for name, width in widths(result.model).items() if width != widths(residual_net())[name]}
    assert changed == {"block2/conv1", "block2/conv2"}
    assert widths(result.model)["block2/conv2"][0] == 5


def test_the_smallest_width_of_some_layers() -> None:
    free = pipeline.prune(residual_net(), SAMPLES, options(0.4))
    held = pipeline.prune(residual_net(), SAMPLES, options(0.4, Override("block?/conv1", min_channels=12)))
    assert min(widths(free.model)[f"block{i}/conv1"][1] for i in (1, 2)) < 12
    assert min(widths(held.model)[f"block{i}/conv1"][1] for i in (1, 2)) >= 12


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (Override("typo/*", max_cut=0.5), r"'typo/\*' match no layer"),
        (Override("head", keep=3), "head cannot keep 3 channels: output"),
        (Override("stem", keep=9), "stem cannot keep 9 channels: it has 8"),
        (Override("typo/*", freeze=True), r"typo/\* matches no layer"),
    ],
)
def test_overrides_that_do_not_fit_the_model(override: Override, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        pipeline.prune(residual_net(), SAMPLES, options(0.5, override))


def test_what_a_later_one_says_differently_is_not_asked_for() -> None:
    """Neither a width that the layer does not have, nor one of a layer that is frozen."""
    said = Override("block?/conv1", keep=40), Override("block?/conv1", keep=6), Override("block1/conv1", freeze=True)
    kept = widths(pipeline.prune(residual_net(), SAMPLES, options(1.0, *said)).model)
    assert kept["block2/conv1"][1] == 6
    assert kept["block1/conv1"] == widths(residual_net())["block1/conv1"]
    with pytest.raises(UsageError, match=r"overrides of 'block2/conv1': block2/conv1 cannot keep 41 channels: it has"):
        pipeline.prune(residual_net(), SAMPLES, options(1.0, *said, Override("block2/conv1", keep=41)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(residual_net(), tmp_path / "net.onnx")
    (tmp_path / "o.toml").write_text(TEXT)
    command = ["prune", str(tmp_path / "net.onnx"), "--data", "random", "--macs", "0.7", "--effort", "fast", "-q"]
    command += ["-o", str(tmp_path / "out.onnx"), "--overrides"]
    assert main([*command, str(tmp_path / "o.toml")]) == 0
    assert widths(onnx.load(tmp_path / "out.onnx"))["block2/conv1"][1] == 5
    assert main([*command, str(tmp_path / "nowhere.toml"), "--force"]) == 2
    assert "cannot be read" in capsys.readouterr().err
