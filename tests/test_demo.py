from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from reap_onnx import demo, pipeline
from reap_onnx.demo import CALIBRATION, IMAGES, MODEL, OPTIONS, TEST, shipped_file
from reap_onnx.errors import ModelError, OutputError


def test_the_shipped_network_keeps_its_accuracy_at_half_of_its_macs() -> None:
    """The demonstration on a third of its samples: real weights, real images, labels that it never saw."""
    model = shipped_file(MODEL)
    result = pipeline.prune(
        model, shipped_file(CALIBRATION), OPTIONS, samples=160, evaluate=shipped_file(TEST), images=IMAGES
    )
    comparison, before, after = result.summary.comparison, result.summary.before, result.summary.after
    assert comparison is not None
    assert comparison.samples == 1000
    assert comparison.accuracy_original is not None
    assert comparison.accuracy_pruned is not None
    assert comparison.accuracy_original > 0.85
    assert comparison.accuracy_pruned > comparison.accuracy_original - 0.05
    assert 0.4 * before.macs < after.macs <= 0.5 * before.macs
    assert all(row.kept % 16 == 0 for row in result.summary.groups if row.kept < row.width)
    assert [n.name for n in result.model.graph.node] == [n.name for n in onnx.load(model).graph.node]


def test_the_demonstration_overwrites_nothing_unasked(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        demo(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_text() == "mine"


def test_a_file_that_is_not_shipped() -> None:
    with pytest.raises(ModelError, match=r"other\.onnx: this installation does not have it"):
        shipped_file("other.onnx")
