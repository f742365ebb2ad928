"""Two models timed in turns, so that whatever else the machine does falls on both alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from reap_onnx.errors import UsageError
from reap_onnx.report.summary import Latency
from reap_onnx.runtime.session import Session

_TURN = 0.005  # seconds
_FEWEST = 3  # rounds, however long they take
_SESSIONS = {0.005: 15, 0.02: 5, 0.1: 3}  # of a model whose run takes fewer seconds: large ones take memory, too


def measure_latency(
    original: Session,
    pruned: Session,
    feeds: Mapping[str, np.ndarray],
    *,
    batch: int,
    rounds: int = 20,
    seconds: float = 10.0,
) -> Latency:
    """Time two models on the same input, in turns: A B A B ...

    A turn is one untimed run, which brings the model's weights back into the caches, and then as many timed runs as
    fill five milliseconds; its time is their median, since a mean belongs to the few runs that something else on the
    machine held up. The result is the median over the rounds.

    Parameters
    ----------
    original, pruned
        The models; both take ``feeds``.
    feeds
        Input arrays by name, ``batch`` samples each.
    batch
        Number of samples in ``feeds``; repeated in the result.
    rounds
        Turns of each model, at least 1.
    seconds
        Time after which no further round begins once three are done.

    Returns
    -------
    Latency
        Medians in milliseconds a run, the number of rounds that were really done, how far their ratios spread.

    Raises
    ------
    UsageError
        ``rounds`` is not positive.
    ModelError
        A model does not run on ``feeds``.
    """
    if rounds < 1:
        raise UsageError(f"cannot measure latency in {rounds} rounds", "ask for at least 1")
    inputs = dict(feeds)
    runs_original, runs_pruned = _runs_in_a_turn(original, inputs), _runs_in_a_turn(pruned, inputs)
    times_original: list[float] = []
    times_pruned: list[float] = []
    end = time.perf_counter() + seconds
    while len(times_original) < rounds and (len(times_original) < _FEWEST or time.perf_counter() < end):
        times_original.append(_turn(original, inputs, runs_original))
        times_pruned.append(_turn(pruned, inputs, runs_pruned))
    return latency_of(batch, times_original, times_pruned)


def latency_of(batch: int, original: Sequence[float], pruned: Sequence[float]) -> Latency:
    """The latency of two models that took so many seconds a run, in each of some rounds."""
    found = Latency(batch, 1e3 * median(original), 1e3 * median(pruned), len(original))
    return replace(
        found,
        spread=_half_range([after / before for before, after in zip(original, pruned, strict=True)]) / found.ratio,
    )


def load_sessions(
    model: onnx.ModelProto | Path, providers: Sequence[str], feeds: Mapping[str, np.ndarray]
) -> list[Session]:
    """Load a model to be timed: the quicker a run, the more often.

    Two sessions of one model differ by some percent for as long as they live: where its weights and tensors came to
    lie in memory decides how well they share the caches.

    Raises
    ------
    ModelError
        The model does not run on ``feeds``.
    """
    first, inputs = Session(model, providers), dict(feeds)
    takes = _turn(first, inputs, 1)
    count = max((many for limit, many in _SESSIONS.items() if takes < limit), default=1)
    return [first, *(Session(model, providers) for _ in range(count - 1))]


def load_pairs(
    original: onnx.ModelProto | Path,
    pruned: onnx.ModelProto,
    providers: Sequence[str],
    feeds: Mapping[str, np.ndarray],
) -> tuple[list[Session], list[Session]]:
    """Load both models as often as :func:`load_sessions` loads the original."""
    originals = load_sessions(original, providers, feeds)
    return originals, [Session(pruned, providers) for _ in originals]


def measure_pairs(
    originals: Sequence[Session],
    pruned: Sequence[Session],
    feeds: Mapping[str, np.ndarray],
    *,
    batch: int,
    rounds: int,
    seconds: float,
) -> list[Latency]:
    """As :func:`measure_latency`, for each pair of the sessions of both models.

    ``rounds`` and ``seconds`` are those of all pairs together.
    """
    pairs = list(zip(originals, pruned, strict=True))
    each, most = max(1, rounds // len(pairs)), seconds / len(pairs)
    return [measure_latency(*pair, feeds, batch=batch, rounds=each, seconds=most) for pair in pairs]


def middle_pair(found: Sequence[Latency], *, absolute: bool = False) -> Latency:
    """The pair whose ratio is the median, of two in the middle the larger; its rounds are those of all.

    It spreads as far as a pair in the middle does, or as the pairs do, whichever is more. ``absolute``: the pair whose
    pruned model takes the median time.
    """
    middle = sorted(found, key=lambda latency: latency.pruned_ms if absolute else latency.ratio)[len(found) // 2]
    apart = _half_range([latency.ratio for latency in found]) / middle.ratio
    spread = max(apart, median(latency.spread for latency in found))
    return replace(middle, rounds=sum(latency.rounds for latency in found), spread=spread)


def _half_range(values: Sequence[float]) -> float:
    """Half of the range that the middle half of the values lie in."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) / 2


def _runs_in_a_turn(session: Session, feeds: dict[str, np.ndarray]) -> int:
    """Runs that together take at least ``_TURN``; finding them out is the warm-up."""
    runs = 1
    while runs * _turn(session, feeds, runs) < _TURN:
        runs *= 2
    return runs


def _turn(session: Session, feeds: dict[str, np.ndarray], runs: int) -> float:
    """Median seconds of a run."""
    session.run(feeds)
    return median(_seconds(session, feeds) for _ in range(runs))


def _seconds(session: Session, feeds: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - start
