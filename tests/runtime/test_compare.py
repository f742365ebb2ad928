from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from held import watch_runs
from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError, ModelError
from reap_onnx.report.summary import Comparison
from reap_onnx.runtime.compare import class_scores, compare_models
from reap_onnx.runtime.session import Session

RNG = np.random.default_rng(7)
WEIGHTS = RNG.standard_normal((6, 4)).astype(np.float32)
MOVED = WEIGHTS + 0.3 * RNG.standard_normal((6, 4)).astype(np.float32)
SAMPLES = RNG.standard_normal((23, 6)).astype(np.float32)
LABELS = RNG.integers(0, 4, 23)


def linear(weights: np.ndarray, *, batch: int | None = None, output: str = "y", tail: tuple[str, ...] = ()) -> Session:
    """``y = x W``, and after it the ops of ``tail``: each reads ``y`` and is an output named after itself."""
    size = batch or "N"
    nodes = [helper.make_node("MatMul", ["x", "w"], [output])]
    nodes += [helper.make_node(op, [output], [op]) for op in tail]
    kinds = {"IsNaN": TensorProto.BOOL, "Shape": TensorProto.INT64, "Log": TensorProto.FLOAT}
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [size, weights.shape[1]])]
    outputs += [helper.make_tensor_value_info(op, kinds[op], None) for op in tail]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, weights.shape[0]])],
        outputs,
        [numpy_helper.from_array(weights, "w")],
    )
    return Session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), threads=1)


def dataset(labels: np.ndarray | None = LABELS) -> Dataset:
    return Dataset({"x": SAMPLES}, labels=labels, description="23 drawn samples")


def compared(original: Session, pruned: Session, data: Dataset, batch: int = 5) -> Comparison:
    return compare_models(original, pruned, data, batch=batch, latency_batches=())


def test_equals_numpy_over_all_samples_at_once() -> None:
    before, after = SAMPLES.astype(float) @ WEIGHTS, SAMPLES.astype(float) @ MOVED
    result = compared(linear(WEIGHTS), linear(MOVED), dataset())
    (output,) = result.outputs
    assert output.name == "y"
    assert output.relative == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-5)
    assert output.largest == pytest.approx(np.abs(after - before).max(), rel=1e-5)
    assert result.agreement == np.mean(before.argmax(1) == after.argmax(1))
    assert result.accuracy_original == np.mean(before.argmax(1) == LABELS)
    assert result.accuracy_pruned == np.mean(after.argmax(1) == LABELS)
    assert (result.samples, result.data, result.latency) == (23, "23 drawn samples", ())
    assert result.providers == ("CPUExecutionProvider",)


@pytest.mark.parametrize("batch", [1, 7, 23, 100])
def test_batch_size_changes_nothing(batch: int) -> None:
    steps: list[int] = []
    whole = compared(linear(WEIGHTS), linear(MOVED), dataset(), batch=23)
    parts = compare_models(
        linear(WEIGHTS), linear(MOVED), dataset(), batch=batch, latency_batches=(), advance=steps.append
    )
    assert parts.outputs[0].relative == pytest.approx(whole.outputs[0].relative, rel=1e-6)
    assert parts.agreement == whole.agreement
    assert parts.accuracy_pruned == whole.accuracy_pruned
    assert sum(steps) == 23
    assert max(steps) <= batch


def test_a_batch_is_gone_before_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    original, pruned, held = linear(WEIGHTS), linear(MOVED), watch_runs(monkeypatch)
    compared(original, pruned, dataset())
    assert held[0::2] == [0] * 5  # the others are those of the pruned model, beside the outputs of the original


def test_a_model_agrees_with_itself() -> None:
    result = compared(linear(WEIGHTS), linear(WEIGHTS), dataset())
    assert (result.outputs[0].relative, result.outputs[0].largest, result.agreement) == (0.0, 0.0, 1.0)
    assert result.accuracy_original == result.accuracy_pruned


def test_no_labels_no_accuracy() -> None:
    result = compared(linear(WEIGHTS), linear(MOVED), dataset(labels=None))
    assert result.agreement is not None
    assert result.accuracy_original is None
    assert result.accuracy_pruned is None


def test_one_score_per_sample_is_no_classifier() -> None:
    result = compared(linear(WEIGHTS[:, :1]), linear(MOVED[:, :1]), dataset())
    assert (result.agreement, result.accuracy_original, result.accuracy_pruned) == (None, None, None)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_labels_outside_of_the_classes_are_refused(wrong: int) -> None:
    labels = LABELS.copy()
    labels[19] = wrong
    with pytest.raises(DataError, match=rf"label {wrong} is not one of the 4 classes") as caught:
        compared(linear(WEIGHTS), linear(MOVED), dataset(labels))
    assert "0 to 3" in caught.value.hint


def test_fixed_batch_is_obeyed_and_the_remainder_left_out() -> None:
    fixed = compared(linear(WEIGHTS, batch=4), linear(MOVED, batch=4), dataset(), batch=9)
    first = Dataset({"x": SAMPLES[:20]}, labels=LABELS[:20])
    free = compared(linear(WEIGHTS), linear(MOVED), first)
    assert fixed.samples == 20
    assert fixed.outputs[0].relative == pytest.approx(free.outputs[0].relative, rel=1e-6)
    assert fixed.accuracy_pruned == free.accuracy_pruned


def test_fixed_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(DataError, match="23 samples do not fill a run of 24"):
        compared(linear(WEIGHTS, batch=24), linear(MOVED, batch=24), dataset())


def test_latency_is_measured_at_the_batches_asked_for() -> None:
    result = compare_models(linear(WEIGHTS), linear(MOVED), dataset(), batch=5, latency_batches=(1, 40), rounds=2)
    assert [(one.batch, one.rounds) for one in result.latency] == [(1, 2), (40, 2)]
    assert all(one.original_ms > 0 and one.pruned_ms > 0 for one in result.latency)


def test_latency_of_a_fixed_batch_is_measured_at_that_batch() -> None:
    models = linear(WEIGHTS, batch=4), linear(MOVED, batch=4)
    result = compare_models(*models, dataset(), batch=5, latency_batches=(1, 8), rounds=1)
    assert [one.batch for one in result.latency] == [4]


def test_other_outputs_count_elements_that_differ() -> None:
    broken = WEIGHTS.copy()
    broken[:, 2] = np.nan
    result = compared(linear(WEIGHTS, tail=("IsNaN",)), linear(broken, tail=("IsNaN",)), dataset())
    scores, flags = result.outputs
    assert (flags.name, flags.relative, flags.largest) == ("IsNaN", 0.25, 1.0)
    assert math.isinf(scores.relative)
    assert math.isinf(scores.largest)


def test_integer_outputs_and_changed_shapes() -> None:
    result = compared(
        linear(WEIGHTS, tail=("Shape",)), linear(WEIGHTS[:, :3], tail=("Shape",)), dataset(None), batch=23
    )
    scores, shape = result.outputs
    assert math.isinf(scores.relative)
    assert (shape.relative, shape.largest) == (0.5, 1.0)


def test_equal_nan_and_infinities_are_no_difference() -> None:
    zeroed = np.concatenate([WEIGHTS[:, :2], np.zeros((6, 2), np.float32)], axis=1)  # log gives NaN and -inf
    result = compared(linear(zeroed, tail=("Log",)), linear(zeroed, tail=("Log",)), dataset())
    assert (result.outputs[1].relative, result.outputs[1].largest) == (0.0, 0.0)


def test_zero_output_that_moved_is_infinitely_wrong() -> None:
    result = compared(linear(np.zeros_like(WEIGHTS)), linear(MOVED), dataset())
    assert math.isinf(result.outputs[0].relative)
    assert math.isfinite(result.outputs[0].largest)


def test_strangers_are_refused() -> None:
    with pytest.raises(ModelError, match="outputs differ: y in one model, z in the other"):
        compared(linear(WEIGHTS), linear(MOVED, output="z"), dataset())
    with pytest.raises(ModelError, match="batch sizes differ: any and 4"):
        compared(linear(WEIGHTS), linear(MOVED, batch=4), dataset())
    renamed = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] u) => (float[N,4] y) { y = Relu(u) }'
    )
    with pytest.raises(ModelError, match="inputs differ: x in one model, u in the other"):
        compared(linear(WEIGHTS), Session(renamed, threads=1), dataset())


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((3, 5), np.float32, (3, 5)),
        ((3, 5, 1, 1), np.float16, (3, 5)),
        ((3, 1), np.float32, None),
        ((3, 1, 1), np.float32, None),
        ((3, 5, 2), np.float32, None),
        ((3, 1, 1, 5), np.float32, None),
        ((4, 5), np.float32, None),
        ((3, 5), np.int64, None),
        ((3,), np.float32, None),
        ((), np.float32, None),
    ],
)
def test_what_scores_of_three_samples_look_like(
    shape: tuple[int, ...], dtype: type, expected: tuple[int, ...] | None
) -> None:
    scores = class_scores(np.zeros(shape, dtype), 3)
    assert (None if scores is None else scores.shape) == expected
