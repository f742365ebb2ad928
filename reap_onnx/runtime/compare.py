"""Two models on the same samples: how far the outputs moved, how often the top class stayed, how long each takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError, ModelError
from reap_onnx.report.summary import Comparison, OutputError
from reap_onnx.runtime.latency import measure_latency
from reap_onnx.runtime.session import Session


def compare_models(
    original: Session,
    pruned: Session,
    dataset: Dataset,
    *,
    batch: int,
    latency_batches: tuple[int, ...] = (1,),
    rounds: int = 20,
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Run two models over a dataset and compare their outputs.

    * An output of floats is compared by ``sqrt(sum (pruned - original)^2 / sum original^2)`` over all samples, an
      output of anything else by the share of elements that differ. Sums are float64 and grow batch by batch, so no
      output is kept. Elements that are equal, infinities and NaN included, do not differ; an output whose shape
      changed is infinitely far. Outputs that are not tensors are left out.
    * The top class is the argmax of the first output, where that output is float and, without trailing axes of
      length 1, is (samples, classes >= 2). Accuracy needs labels besides.
    * A model of a fixed batch size runs at that size, and samples that do not fill a last batch are left out.

    Parameters
    ----------
    original, pruned
        Models with inputs and outputs of the same names.
    dataset
        The samples, with or without labels.
    batch
        Samples in a run, where the models take any number.
    latency_batches
        Batch sizes to measure latency at; none for no measurement.
    rounds
        Turns of each model in a latency measurement.
    advance
        Called with the number of samples after every batch.

    Raises
    ------
    ModelError
        The models differ in inputs or outputs, or do not run.
    DataError
        No samples, fewer than the fixed batch, or a label that is no class of the output.
    """
    _check_same_interface(original, pruned)
    size = original.batch or batch
    names = original.outputs
    differences: dict[str, _Difference] = {}
    classes = _Classes(dataset.labels)
    done = 0

    def add(expected: Mapping[str, Any], got: Mapping[str, Any], count: int) -> None:
        for name in names:
            if isinstance(expected[name], np.ndarray):
                differences.setdefault(name, _Difference(expected[name].dtype)).add(expected[name], got[name])
        classes.add(expected[names[0]], got[names[0]], count)

    for feeds in dataset.batches(size):
        count = len(next(iter(feeds.values())))
        if original.batch and count < size:
            break
        add(original.run(feeds), pruned.run(feeds, names), count)  # which are gone before the next ones are made
        done += count
        if advance is not None:
            advance(count)
    if not done:
        needed = original.batch or 1
        raise DataError(f"{len(dataset)} samples do not fill a run of {needed}", f"give at least {needed}")
    timed = latency_batches if original.batch is None or not latency_batches else (original.batch,)
    return Comparison(
        samples=done,
        data=dataset.description,
        outputs=tuple(OutputError(n, d.relative, d.largest) for n, d in differences.items()),
        agreement=classes.agreement,
        accuracy_original=classes.accuracy(classes.right_original),
        accuracy_pruned=classes.accuracy(classes.right_pruned),
        latency=tuple(measure_latency(original, pruned, samples_of(dataset, n), batch=n, rounds=rounds) for n in timed),
        providers=original.providers,
    )


def class_scores(output: object, samples: int) -> np.ndarray | None:
    """Scores of shape (samples, K >= 2), or None where the output is not that of a classifier."""
    if not isinstance(output, np.ndarray):
        return None
    classes = count_classes(output.dtype, output.shape, samples)
    return None if classes is None else output.reshape(samples, classes)


def count_classes(dtype: np.dtype[Any], shape: Sequence[int], samples: int) -> int | None:
    """How many classes an output has scores of, or None where it is not that of a classifier."""
    ends = len(shape)
    while ends > 2 and shape[ends - 1] == 1:
        ends -= 1
    scores = np.issubdtype(dtype, np.floating) and ends == 2 and shape[0] == samples and shape[1] >= 2
    return shape[1] if scores else None


def difference(expected: np.ndarray, got: np.ndarray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How far two outputs of floats are apart, and how large the first one is, element by element, float64.

    Elements that are the same are not apart, infinities and NaN included; others that are not finite are infinitely
    far. What is not finite has no size.
    """
    was, now = expected.astype(np.float64), got.astype(np.float64)
    same = (was == now) | (np.isnan(was) & np.isnan(now))
    with np.errstate(invalid="ignore"):
        moved = np.where(same, 0.0, np.abs(now - was))
    moved[np.isnan(moved)] = math.inf
    return moved, np.where(np.isfinite(was), np.abs(was), 0.0)


class _Difference:
    """Running sums over one output."""

    def __init__(self, dtype: np.dtype) -> None:
        self._floating = np.issubdtype(dtype, np.floating)
        self._moved = 0.0  # sum of squared differences, or number of elements that differ
        self._total = 0.0  # sum of squares of the original, or number of elements
        self.largest = 0.0

    @property
    def relative(self) -> float:
        if self._moved == 0:
            return 0.0
        share = self._moved / self._total if self._total else math.inf
        return math.sqrt(share) if self._floating else share

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        if expected.shape != got.shape:
            self._moved = self.largest = math.inf
        elif self._floating:
            self._add_floats(expected, got)
        else:
            self._add_others(expected, got)

    def _add_floats(self, expected: np.ndarray, got: np.ndarray) -> None:
        moved, size = difference(expected, got)
        self._moved += float(np.square(moved).sum())
        self._total += float(np.square(size).sum())
        self.largest = max(self.largest, float(moved.max(initial=0.0)))

    def _add_others(self, expected: np.ndarray, got: np.ndarray) -> None:
        differ = expected != got
        self._moved += float(np.count_nonzero(differ))
        self._total += differ.size
        is_integer = np.issubdtype(expected.dtype, np.integer)
        size = np.abs(got.astype(np.float64) - expected.astype(np.float64)) if is_integer else differ.astype(np.float64)
        self.largest = max(self.largest, float(size.max(initial=0.0)))


@dataclass
class _Classes:
    """Running counts over the top classes; ``defined`` falls for good with the first output that has none."""

    labels: np.ndarray | None
    defined: bool = True
    samples: int = 0
    agreed: int = 0
    right_original: int = 0
    right_pruned: int = 0

    def add(self, expected: object, got: object, count: int) -> None:
        scores, pruned_scores = class_scores(expected, count), class_scores(got, count)
        if scores is None or pruned_scores is None:
            self.defined = False
            return
        top, pruned_top = scores.argmax(axis=1), pruned_scores.argmax(axis=1)
        self.agreed += int(np.count_nonzero(top == pruned_top))
        if self.labels is not None:
            labels = self.labels[self.samples : self.samples + count]
            check_labels(labels, scores.shape[1])
            self.right_original += int(np.count_nonzero(top == labels))
            self.right_pruned += int(np.count_nonzero(pruned_top == labels))
        self.samples += count

    @property
    def agreement(self) -> float | None:
        return self.agreed / self.samples if self.defined else None

    def accuracy(self, right: int) -> float | None:
        return right / self.samples if self.defined and self.labels is not None else None


def _check_same_interface(original: Session, pruned: Session) -> None:
    ours, theirs = {i.name for i in original.inputs}, {i.name for i in pruned.inputs}
    if ours != theirs:
        raise ModelError(f"inputs differ: {_names(ours)} in one model, {_names(theirs)} in the other", _SAME)
    if set(original.outputs) != set(pruned.outputs):
        raise ModelError(
            f"outputs differ: {_names(original.outputs)} in one model, {_names(pruned.outputs)} in the other", _SAME
        )
    if original.batch != pruned.batch:
        raise ModelError(f"batch sizes differ: {original.batch or 'any'} and {pruned.batch or 'any'}", _SAME)


_SAME = "compare a model with its own pruned version"


def _names(names: set[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "none"


def check_labels(labels: np.ndarray, classes: int) -> None:
    """See that labels are classes of the model's first output.

    Raises
    ------
    DataError
        One is not.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DataError(
            f"label {wrong[0]} is not one of the {classes} classes of the model's first output",
            f"labels are class indices from 0 to {classes - 1}",
        )


def samples_of(dataset: Dataset, count: int) -> dict[str, np.ndarray]:
    """The first ``count`` samples, from the start again where there are fewer."""
    return dataset.subset(np.arange(count) % len(dataset)).inputs
