"""Metrics against what onnxruntime's outputs say by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from examples.net import Net
from nets import CLASSES, images, outputs, residual_net
from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError, UsageError
from reap_onnx.options import MaxDrop
from reap_onnx.runtime.judge import CONFIDENCE, Judge
from reap_onnx.runtime.session import Session

SAMPLES = images(130, seed=3)
RIGHT = outputs(residual_net(), SAMPLES).argmax(1)
LABELS = np.where(np.arange(130) % 4 == 0, (RIGHT + 1) % CLASSES, RIGHT)


def worse() -> onnx.ModelProto:
    """The same network with other weights in one layer."""
    model = residual_net()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "head_w")
    value = numpy_helper.to_array(weight)
    noise = np.random.default_rng(0).standard_normal(value.shape).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(value + 0.5 * noise, "head_w"))
    return model


def judge(metric: object, labels: np.ndarray | None = None, batch: int = 50) -> Judge:
    few = Dataset({"image": SAMPLES}, labels)
    return Judge(Session(residual_net()), few, MaxDrop(0.05, metric), batch=batch, seed=0)  # type: ignore[arg-type]


def test_accuracy_is_counted_and_gains_are() -> None:
    found = judge(None, LABELS)
    assert found.name == "top-1 accuracy"
    got = found(Session(worse()), Dataset({"image": SAMPLES}, LABELS))
    before, after = LABELS == RIGHT, outputs(worse(), SAMPLES).argmax(1) == LABELS
    assert (got.samples, got.before, got.after) == (130, before.mean(), after.mean())
    assert got.drop == pytest.approx(before.mean() - after.mean())
    assert (~before & after).any()
    assert got.bound is not None
    assert got.bound > got.drop


def test_the_same_infinities_are_no_error() -> None:
    """Of a mask, say; an infinity that is there in one of the two alone is an infinite one."""

    def logs(bias: float) -> onnx.ModelProto:
        net = Net()
        return net.model(net.op("Log", net.op("Relu", net.op("Add", net.input("N", 4), np.float32(bias)))))

    data = Dataset({"x": np.array([[-1, 1, 2, 3]] * 30, np.float32)})
    found = Judge(Session(logs(0.0)), data, MaxDrop(0.05, "error"), batch=8, seed=0)
    assert found(Session(logs(0.0)), data).after == 1
    assert found(Session(logs(0.01)), data).after == pytest.approx(0.99, abs=0.01)
    assert found(Session(logs(1.5)), data).after == -np.inf


def test_agreement_needs_no_labels() -> None:
    found = judge(None)
    assert found.name == "same top class"
    got = found(Session(worse()), Dataset({"image": SAMPLES}))
    assert (got.before, got.after) == (1.0, (outputs(worse(), SAMPLES).argmax(1) == RIGHT).mean())
    same = found(Session(residual_net()), Dataset({"image": SAMPLES}))
    assert same.bound == pytest.approx(1 - (1 - CONFIDENCE) ** (1 / 130))


def test_error_is_that_of_all_samples_together() -> None:
    got = judge("error", batch=40)(Session(worse()), Dataset({"image": SAMPLES}))
    old, new = outputs(residual_net(), SAMPLES), outputs(worse(), SAMPLES)
    assert got.drop == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-5)
    assert got.bound is not None
    assert got.drop < got.bound < 2 * got.drop


def test_scores_of_the_user(tmp_path: Path) -> None:
    def margin(found: Mapping[str, np.ndarray], labels: np.ndarray | None) -> np.ndarray:
        assert labels is not None
        (scores,) = found.values()
        return scores[np.arange(len(scores)), labels]

    old, new = outputs(residual_net(), SAMPLES), outputs(worse(), SAMPLES)
    each = judge(margin, LABELS)
    got = each(Session(worse()), Dataset({"image": SAMPLES}, LABELS))
    falls = (old - new)[np.arange(130), LABELS]
    assert each.name == "margin"
    assert got.drop == pytest.approx(falls.mean(), rel=1e-5)
    assert got.bound == pytest.approx(falls.mean() + 1.645 * falls.std() / np.sqrt(130), rel=0.3)

    script = tmp_path / "m.py"
    script.write_text(
        "def score(outputs, labels):\n    assert labels is None\n    return sum(map(len, outputs.values()))\n"
    )
    told = judge(str(script))(Session(worse()), Dataset({"image": SAMPLES}))
    assert (told.before, told.after, told.bound) == (130.0, 130.0, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no function 'score'"),
        ("def score(outputs, labels):\n    return labels[0]", "line 2"),
        ("def score(outputs, labels):\n    return [1, 2]", r"\(2,\)"),
        ("def score(outputs, labels):\n    return float('nan')", "not finite"),
        ("def score(outputs, labels):\n    return 'good'", "no number"),
        ("def score(outputs, labels):\n    return [[1], [1, 2]]", "no number"),
        ("def score():\n    return 1", "cannot be called with two"),
    ],
)
def test_scripts_that_are_no_metric(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "m.py").write_text(text)
    with pytest.raises(DataError, match=reason):
        judge(str(tmp_path / "m.py"))(Session(worse()), Dataset({"image": SAMPLES}))


def test_metrics_that_do_not_go_with_the_samples() -> None:
    with pytest.raises(DataError, match="no labels"):
        judge("accuracy")
    with pytest.raises(UsageError, match="no --metric"):
        judge("speed")
    with pytest.raises(DataError, match="does not exist"):
        judge("nowhere.py:score")
    with pytest.raises(DataError, match="label 9 is not one"):
        judge(None, LABELS)(Session(worse()), Dataset({"image": SAMPLES}, np.full(130, 9)))


@pytest.mark.parametrize(("drop", "enough"), [(0.01, 100), (0.05, 20), (0.5, 20)])
def test_samples_that_are_too_few(drop: float, enough: int) -> None:
    few = Dataset({"image": SAMPLES})
    found = Judge(Session(residual_net()), few, MaxDrop(drop), batch=50, seed=0)
    found.check_enough(few.first(enough))
    with pytest.raises(DataError, match=f"at least {enough} are needed") as caught:
        found.check_enough(few.first(enough - 1))
    assert str(2 * enough) in caught.value.hint
