"""Models that others made: the networks and the backend tests of the onnx package."""

from __future__ import annotations

import runpy
from pathlib import Path

import onnx
import pytest

from reap_onnx import inspect

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "check_models.py"))
LIGHT = sorted((TOOL["COLLECTION"] / "light").glob("*.onnx"))


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_groups_that_can_be_pruned_reach_the_macs(path: Path) -> None:
    found = inspect(onnx.load(path)).inspection
    assert found.reach >= TOOL["REACH"]
    assert not [group for group in found.groups if "no rule" in group.frozen]


def test_a_network_is_pruned_to_its_target() -> None:
    (row,) = TOOL["light"](["squeezenet"])
    assert row.failure == ""
    assert 0.45 < row.kept <= 0.5


@pytest.mark.parametrize("kind", TOOL["KINDS"])
def test_every_model_of_the_backend_suite_is_pruned_or_left_alone(kind: str) -> None:
    outcomes = [TOOL["outcome"](model, feeds) for _, model, feeds in TOOL["cases"](kind)]
    assert len(outcomes) > 20
