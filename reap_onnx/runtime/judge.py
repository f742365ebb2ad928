"""How far a metric falls from one model to another on the same samples, and how far it may really have fallen."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reap_onnx.data.dataset import Dataset
from reap_onnx.data.script import load_function, script_errors, split_script
from reap_onnx.errors import DataError, UsageError
from reap_onnx.numerics.confidence import resampled_bound, share_bound
from reap_onnx.options import MaxDrop, Scorer
from reap_onnx.report.summary import Judgement
from reap_onnx.runtime.compare import check_labels, class_scores, difference
from reap_onnx.runtime.session import Session

CONFIDENCE = 0.95
LEAST = 20  # samples, whatever the drop
_HINT = "it is called with the outputs by name and the labels, or None; larger is better"
_SCORE = "score"  # the function of a script where none is named

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


class Batch(NamedTuple):
    """Outputs of the original and of the other model for the same samples, and their labels where there are any."""

    expected: dict[str, Any]
    got: dict[str, Any]
    labels: npt.NDArray[np.int64] | None
    samples: int


Metric = Callable[[Iterator[Batch]], Judgement]


class Judge:
    """Judges models against their original on given samples.

    The metric is top-1 accuracy where there are labels, agreement of the top class with the original where the first
    output is made of class scores, else one less the relative error of the outputs, unless another one is asked for.

    Parameters
    ----------
    original
        The original, which is its own reference.
    few
        Samples that show which metric goes with the model; at least one.
    limit
        The drop allowed, and the metric that is wanted.
    batch, seed
        Samples in a run; seeds what is resampled.

    Raises
    ------
    DataError
        The metric does not go with the model or the samples, or the script cannot be read.
    """

    def __init__(self, original: Session, few: Dataset, limit: MaxDrop, *, batch: int, seed: int) -> None:
        self._original, self._batch, self._seed = original, original.batch or batch, seed
        self.limit = limit
        self.name, self._metric = self._choose(limit.metric, few)

    def __call__(self, model: Session, dataset: Dataset) -> Judgement:
        """Judge a model.

        Raises
        ------
        DataError
            Labels or scores are not what the metric needs.
        """
        return self._metric(_batches(self._original, model, dataset, self._batch))

    def check_enough(self, dataset: Dataset) -> None:
        """See that there are samples enough to tell the drop allowed from none.

        Raises
        ------
        DataError
            One of them makes up more of the metric than may be lost.
        """
        least = LEAST
        if self._metric in (_accuracy, _agreement):
            least = max(least, math.ceil(1 / self.limit.drop - 1e-9))
        if len(dataset) < least:
            drop = self.limit.show(self.limit.drop)
            raise DataError(
                f"{dataset.description}: {len(dataset)} samples decide about a drop of {drop}, "
                f"at least {least} are needed",
                f"half of the samples held out decide: give --eval-data with {2 * least} or more, or {4 * least} "
                "as --data, or allow a larger --max-drop",
            )

    def _choose(self, wanted: str | Scorer | None, few: Dataset) -> tuple[str, Metric]:
        if callable(wanted):
            return getattr(wanted, "__name__", "metric"), self._scored(wanted)
        if wanted is not None and (script := split_script(wanted, _SCORE)) is not None:
            path, function = script
            if not path.exists():
                raise DataError(f"--metric {path} does not exist", "check the path")
            with script_errors(path):
                scorer = load_function(path, function)
            try:
                inspect.signature(scorer).bind({}, None)
            except TypeError as error:
                raise DataError(f"{path}: {function} cannot be called with two arguments: {error}", _HINT) from error
            return function, self._scored(scorer, path)
        feeds = next(few.first(self._batch).batches(self._batch))
        first = self._original.run(feeds)[self._original.outputs[0]]
        classes = class_scores(first, len(next(iter(feeds.values())))) is not None
        if wanted is None:
            wanted = "error" if not classes else "agreement" if few.labels is None else "accuracy"
        if wanted == "error":
            return "1 - relative output error", self._error
        if wanted not in ("accuracy", "agreement"):
            raise UsageError(f"no --metric {wanted!r}", "accuracy, agreement, error, or script.py:function")
        if not classes:
            raise DataError(f"--metric {wanted}: the first output holds no class scores", "use --metric error")
        if wanted == "accuracy" and few.labels is None:
            raise DataError(f"--metric accuracy: {few.description} has no labels", "use --metric agreement")
        return ("top-1 accuracy", _accuracy) if wanted == "accuracy" else ("same top class", _agreement)

    def _error(self, batches: Iterator[Batch]) -> Judgement:
        """One less the relative error, root mean square over that of the original, of the worst output."""
        moved, whole = map(np.concatenate, zip(*map(_squares, batches), strict=True))

        def fall(samples: npt.NDArray[np.int64]) -> float:
            lost, of = moved[samples].sum(axis=0), whole[samples].sum(axis=0)
            shares = np.divide(lost, of, out=np.where(lost > 0, math.inf, 0.0), where=of > 0)
            return float(np.sqrt(shares).max(initial=0.0))

        everything = np.arange(len(moved))
        after = 1 - fall(everything)
        bound = resampled_bound(fall, len(moved), CONFIDENCE, self._seed) if math.isfinite(after) else math.inf
        return Judgement(len(moved), 1.0, after, bound)

    def _scored(self, score: Scorer, path: Path | None = None) -> Metric:
        """Of scores given by a function of the user: their mean, or the one that it gives for all samples."""

        def judge(batches: Iterator[Batch]) -> Judgement:
            every = list(batches)
            parts = [batch.labels for batch in every if batch.labels is not None]
            labels = np.concatenate(parts) if parts else None
            samples = sum(batch.samples for batch in every)
            both = _whole([batch.expected for batch in every]), _whole([batch.got for batch in every])
            before, after = (_scores(score, outputs, labels, samples, path) for outputs in both)
            bound = None
            if before.ndim:
                falls = before - after
                bound = resampled_bound(lambda i: float(falls[i].mean()), samples, CONFIDENCE, self._seed)
            return Judgement(samples, float(before.mean()), float(after.mean()), bound)

        return judge


def _batches(original: Session, model: Session, dataset: Dataset, size: int) -> Iterator[Batch]:
    """Both models over the samples; those that do not fill a last run of a fixed size are left out."""
    done = 0
    for feeds in dataset.batches(size):
        count = len(next(iter(feeds.values())))
        if original.batch and count < size:
            break
        labels = None if dataset.labels is None else dataset.labels[done : done + count]
        yield Batch(original.run(feeds), model.run(feeds, original.outputs), labels, count)
        done += count


def _class_scores(batch: Batch) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Those of the original and of the other model, (n, classes) each."""
    expected, got = (class_scores(next(iter(each.values())), batch.samples) for each in (batch.expected, batch.got))
    assert expected is not None
    assert got is not None
    return expected, got


def _right(batch: Batch) -> tuple[Bools, Bools]:
    """Where the original and the other model are right, (n,) each."""
    expected, got = _class_scores(batch)
    assert batch.labels is not None
    check_labels(batch.labels, expected.shape[1])
    return expected.argmax(axis=1) == batch.labels, got.argmax(axis=1) == batch.labels


def _same(batch: Batch) -> Bools:
    """Where both models put the same class first, (n,)."""
    expected, got = _class_scores(batch)
    return np.asarray(expected.argmax(axis=1) == got.argmax(axis=1))


def _accuracy(batches: Iterator[Batch]) -> Judgement:
    before, after = map(np.concatenate, zip(*map(_right, batches), strict=True))
    losses, gains = int((before & ~after).sum()), int((after & ~before).sum())
    bound = share_bound(losses, gains, len(before), CONFIDENCE)
    return Judgement(len(before), float(before.mean()), float(after.mean()), bound)


def _agreement(batches: Iterator[Batch]) -> Judgement:
    agreed = np.concatenate([*map(_same, batches)])
    bound = share_bound(int((~agreed).sum()), 0, len(agreed), CONFIDENCE, can_gain=False)
    return Judgement(len(agreed), 1.0, float(agreed.mean()), bound)


def _squares(batch: Batch) -> tuple[Doubles, Doubles]:
    """Squared difference and squared original of every sample, (n, outputs) each, over the outputs of floats."""
    moved, whole = [], []
    for name, expected in batch.expected.items():
        got = batch.got[name]
        if not isinstance(expected, np.ndarray) or expected.dtype.kind != "f" or expected.shape[:1] != (batch.samples,):
            continue
        apart, size = difference(expected, got if expected.shape == got.shape else np.full_like(expected, math.nan))
        moved.append(_per_sample(apart))
        whole.append(_per_sample(size))
    if not moved:
        raise DataError("--metric error: no output holds floats for every sample", "give --metric script.py:function")
    return np.stack(moved, axis=1), np.stack(whole, axis=1)


def _per_sample(array: Doubles) -> Doubles:
    return np.asarray(np.square(array).reshape(len(array), -1).sum(axis=1))


def _whole(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Outputs of all batches, those that are arrays put together."""
    return {
        name: np.concatenate([part[name] for part in parts])
        if isinstance(parts[0][name], np.ndarray) and parts[0][name].ndim
        else [part[name] for part in parts]
        for name in parts[0]
    }


def _scores(
    score: Scorer, outputs: Mapping[str, Any], labels: npt.NDArray[np.int64] | None, samples: int, path: Path | None
) -> Doubles:
    """What the user's function says of outputs: () or (samples,)."""
    if path is None:
        found = score(outputs, labels)
    else:
        with script_errors(path):
            found = score(outputs, labels)
    try:
        scores = np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("the metric gave no number, nor one for each sample", _HINT) from error
    if scores.shape not in ((), (samples,)) or not np.isfinite(scores).all():
        raise DataError(
            "the metric gave numbers that are not finite"
            if scores.shape in ((), (samples,))
            else f"the metric gave {scores.shape}, not one number, nor one for each of {samples} samples",
            _HINT,
        )
    return scores
