"""Widths that keep within every budget, those that only the pruned network itself can tell among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from reap_onnx.errors import TargetError
from reap_onnx.numerics.allocate import Cost, Curve, Ints, allocate

TRIES = 10  # trials at most
_STRETCH = 4.0  # most that a step is longer than in proportion


@dataclass(frozen=True)
class Way:
    """Widths that compete, and the budgets that they keep within; ``name`` is what the user is told of it."""

    name: str
    curves: Sequence[Curve]
    budgets: Sequence[Budget]


@dataclass(frozen=True)
class Budget:
    """One cost, and the most that it may be.

    Parameters
    ----------
    name
        What the user calls it, for errors.
    cost
        Cost of the kept units: exact, or a model of it.
    most
        Largest cost allowed.
    trial
        The true cost of kept units, where the cost is a model; None where it is exact.
    aim, near
        Shares of ``most``: what is aimed at by the next trial, and from which on the search is over.
    confirm
        As ``trial``, but measured for longer, of what would be the answer; None where ``trial`` says it all.
    """

    name: str
    cost: Cost
    most: float
    trial: Callable[[Ints], float] | None = None
    aim: float = 1.0
    near: float = 1.0
    confirm: Callable[[Ints], float] | None = None


def best_way(ways: Sequence[Way]) -> tuple[Way, Ints]:
    """The way that leads to the least error within its budgets, and the kept units (G,) that it leads to.

    Raises
    ------
    TargetError
        All of them miss a budget: what the last one says.
    """
    best: tuple[float, Way, Ints] | None = None
    failure: TargetError | None = None
    for way in ways:
        try:
            kept = meet_budgets(way.curves, way.budgets, most_error=best[0] if best else math.inf)
        except TargetError as missed:
            failure = missed
            continue
        if best is None or _error(way.curves, kept) < best[0]:
            best = _error(way.curves, kept), way, kept
    if best is None:
        assert failure is not None
        raise failure
    return best[1:]


def meet_budgets(curves: Sequence[Curve], budgets: Sequence[Budget], most_error: float = math.inf) -> Ints:
    """Widths of least error within all budgets.

    Where a cost is a model, the widths found are tried, and its limit is moved by what the trial shows, until the
    true cost is near its budget: in proportion, and between limits that were too high and such that were not.

    Parameters
    ----------
    most_error
        Widths of this error or more are not wanted: the search is given up once some of it are still too dear.

    Returns
    -------
    (G,) int64
        Kept units: of the widths tried that keep within all budgets, and are confirmed to, those of least error.

    Raises
    ------
    TargetError
        A budget is out of reach, or only with more error than is wanted.
    """
    searches = [_Search(budget, curves) for budget in budgets if budget.trial is not None]
    tried: dict[tuple[int, ...], list[float]] = {}
    while len(tried) < TRIES:
        limits = {search.budget.name: search.limit for search in searches}
        most = [limits.get(budget.name, budget.most) for budget in budgets]
        kept = allocate(curves, [b.cost for b in budgets], most, [b.name for b in budgets])
        if tuple(kept) in tried:
            break
        values = tried[tuple(kept)] = [search.measure(kept) for search in searches]
        if _error(curves, kept) >= most_error and not all(map(_Search.fits, searches, values)):
            raise TargetError("the budgets are met with more error than is wanted")
        done = [search.learn(kept, value) for search, value in zip(searches, values, strict=True)]
        if all(done):
            values = tried[tuple(kept)] = [
                search.confirm(kept, value) for search, value in zip(searches, values, strict=True)
            ]
            if all(map(_Search.fits, searches, values)):
                return kept
            for search, value in zip(searches, values, strict=True):
                search.learn(kept, value)
    fitting = [np.array(kept) for kept, values in tried.items() if all(map(_Search.fits, searches, values))]
    for kept in sorted(fitting, key=lambda kept: _error(curves, kept)):
        values = tried[tuple(kept)]
        if all(search.fits(search.confirm(kept, value)) for search, value in zip(searches, values, strict=True)):
            return kept
    _refuse(searches, list(tried.values()))


def _error(curves: Sequence[Curve], kept: Ints) -> float:
    return sum(float(curve.error(k)) for curve, k in zip(curves, kept, strict=True))


def _refuse(searches: Sequence[_Search], values: Sequence[Sequence[float]]) -> NoReturn:
    for search, tried in zip(searches, zip(*values, strict=True), strict=True):
        if min(tried) > search.budget.most:
            share = min(tried) / search.budget.most
            raise TargetError(
                f"{search.budget.name} is out of reach: the narrowest network tried has {share:.2f} of what is allowed",
                "ask for more, or allow narrower layers: larger --max-cut, smaller --min-channels or --round-to, "
                "less frozen",
            )
    names = " and ".join(search.budget.name for search in searches)
    raise TargetError(f"no network was found that meets {names} at once", "ask for more of one of them")


class _Search:
    """The limit of one cost model, moved until the true cost is right."""

    def __init__(self, budget: Budget, curves: Sequence[Curve]) -> None:
        self.budget = budget
        self._full = [curve.choices()[0] for curve in curves]
        full, least = (budget.cost([curve.choices()[end] for curve in curves]) for end in (0, -1))
        self._low, self._high = least, full if full > budget.most else math.inf  # the original is no answer then
        self._fitted = self._failed = False
        self._last = (0.0, 0.0)  # cost and true cost of the trial before
        self.limit = max(budget.most * budget.aim, self._low)

    def measure(self, kept: Ints) -> float:
        """The true cost."""
        assert self.budget.trial is not None
        return self.budget.trial(kept)

    def confirm(self, kept: Ints, value: float) -> float:
        """The true cost measured for longer; ``value`` where that is it."""
        return value if self.budget.confirm is None else self.budget.confirm(kept)

    def fits(self, value: float) -> bool:
        """Whether a true cost is within the budget."""
        return value <= self.budget.most

    def learn(self, kept: Ints, value: float) -> bool:
        """Move the limit; whether the search is over, as the cost is near its budget or something else binds."""
        budget, spent = self.budget, self.budget.cost(kept)
        if value > budget.most:
            self._high, self._failed = min(self._high, spent), True
        elif value >= budget.near * budget.most or np.array_equal(kept, self._full):
            return True
        else:
            self._low = max(self._low, self.limit)
            self._fitted = True
        limit = spent + self._step(spent, value)
        outside = not self._low < limit < self._high and math.isfinite(self._high)
        bracketed = outside or (self._fitted and self._failed)
        self.limit = (self._low + self._high) / 2 if bracketed else max(limit, self._low)
        return False

    def _step(self, spent: float, value: float) -> float:
        """How far the limit moves: in proportion, or further where the true cost follows the model too slowly."""
        missing = self.budget.aim * self.budget.most - value
        (before, seen), self._last = self._last, (spent, value)
        ratio = (value - seen) * spent / ((spent - before) * value) if spent != before else 1.0
        return missing * spent / value / float(np.clip(ratio, 1 / _STRETCH, 1.0))
