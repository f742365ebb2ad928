"""Trained networks and few samples: no layer of fewer rows than columns makes its channels look free."""

from __future__ import annotations

from pathlib import Path

import pytest

from reap_onnx import EFFORTS, ImageOptions, PruneOptions, Target, prune
from reap_onnx.report.summary import Summary

MODELS = Path(__file__).parent.parent / "models"
IMAGES = ImageOptions(preset="imagenet")


def halved(model: str, samples: int, memory: int | None = None) -> Summary:
    options = PruneOptions(Target("macs", fraction=0.5), method=EFFORTS["fast"], memory=memory)
    images, test = MODELS / "cifar10_calibration.npz", MODELS / "cifar10_test.npz"
    return prune(MODELS / model, images, options, images=IMAGES, samples=samples, evaluate=test).summary


@pytest.mark.parametrize(("samples", "accuracy"), [(64, 0.77), (256, 0.785)])
def test_what_a_wide_linear_layer_reads_is_not_cut_as_if_it_were_free(samples: int, accuracy: float) -> None:
    """1,536 columns of 96 channels at 16 places, and one row a sample: a few of the channels meet them all.

    Of 83.3 percent; without regard to how few the rows are, 66 and 70 percent are left.
    """
    summary = halved("alexnet_cifar10.onnx", samples)
    assert summary.comparison is not None
    assert summary.comparison.accuracy_pruned > accuracy
    [read] = [group for group in summary.groups if group.name == "/11/Conv"]
    assert read.kept > read.width / 2
    told = f"1,536 columns, solved by {samples} rows and what the 16 places of each channel have in common"
    assert any(told in note for note in summary.notes)


def test_rows_that_the_memory_has_no_room_for_do_not_lead_a_refit_astray() -> None:
    """What an activation hides is seen by rows of the fit alone, and by enough of them; else 13 percent were left."""
    summary = halved("alexnet_cifar10.onnx", 256, memory=50_000_000)
    assert any("refitted on the first 240 of 256 rows" in note for note in summary.notes)
    assert summary.comparison is not None
    assert summary.comparison.accuracy_pruned > 0.77


def test_a_classifier_of_few_rows_does_not_make_its_channels_free() -> None:
    """32 rows of 128 columns, each a channel; of 88.6 percent 66 are left without regard to that."""
    summary = halved("vgg_cifar10.onnx", 32)
    assert summary.comparison is not None
    assert summary.comparison.accuracy_pruned > 0.84
    [read] = [group for group in summary.groups if group.name == "/17/Conv"]
    assert read.kept > read.width / 2


@pytest.mark.parametrize("samples", [2, 40])
def test_very_few_samples_are_worth_a_warning(samples: int) -> None:
    """On its own two samples a network is perfect, and says so."""
    warnings = [note for note in halved("vgg_cifar10.onnx", samples).notes if "fail on all others" in note]
    assert len(warnings) == (samples < 32)
