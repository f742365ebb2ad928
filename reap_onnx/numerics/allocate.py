"""Widths of all groups under one budget or several: the smallest summed error whose costs still fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reap_onnx.errors import TargetError

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_STRIDES = np.array(
    [1, 2, 3, 4, 5, 6, 8, 13, 21, 34, 55, 89, 144, 233, 377, 2**31]
)  # choices that an exchange moves by, the last to the end
_ROUNDS = 200  # most exchanges made


class Cost(Protocol):
    """What the kept units ``k`` (G,) of all groups cost; it never falls when a group keeps more."""

    def __call__(self, kept: npt.ArrayLike) -> float:
        """Cost with ``kept`` (G,) units."""
        ...

    def saved(self, kept: npt.ArrayLike, drop: Doubles) -> Doubles:
        """Cost saved where each group alone loses ``drop`` (G,) units, (G,)."""
        ...

    def changes(self, kept: npt.ArrayLike, first: Moves, second: Moves) -> Doubles:
        """Growth of the cost by each of the moves ``first`` together with each of ``second``, (A, B)."""
        ...


Moves = tuple[Ints, npt.NDArray[Any]]
"""Groups (M,) and the units that each of them gains, negative where it loses some, (M,)."""


@dataclass(frozen=True)
class BilinearCost:
    """Cost of a network as a function of the kept units ``k`` (G,) of its groups.

    ``sum_l factor_l * (in_fixed_l + in_per_unit_l . k) * (out_fixed_l + out_per_unit_l . k)``

    Parameters
    ----------
    factor : (L,) float64
        Cost of one pair of input and output channel of layer ``l``: taps times output positions for MACs.
    in_fixed, out_fixed : (L,) float64
        Channels that belong to no group.
    in_per_unit, out_per_unit : (L, G) float64
        Channels that one unit of each group stands for.

    Raises
    ------
    ValueError
        Shapes disagree, or a number is negative or not finite.
    """

    factor: Doubles
    in_fixed: Doubles
    in_per_unit: Doubles
    out_fixed: Doubles
    out_per_unit: Doubles

    def __post_init__(self) -> None:
        vectors, matrices = (self.factor, self.in_fixed, self.out_fixed), (self.in_per_unit, self.out_per_unit)
        if {v.shape for v in vectors} != {self.factor.shape[:1]} or {m.shape for m in matrices} != {
            (len(self.factor), *self.in_per_unit.shape[1:2])
        }:
            raise ValueError("the layers and groups of a cost do not fit each other")
        if not all(np.isfinite(a).all() and (a >= 0).all() for a in (*vectors, *matrices)):
            raise ValueError("the numbers of a cost are finite and not negative")

    def __call__(self, kept: npt.ArrayLike) -> float:
        """Cost with ``kept`` (G,) units."""
        k = np.asarray(kept, np.float64)
        return float(self.factor @ ((self.in_fixed + self.in_per_unit @ k) * (self.out_fixed + self.out_per_unit @ k)))

    def gradient(self, kept: npt.ArrayLike) -> Doubles:
        """Cost of one more unit of each group, (G,), to first order."""
        k = np.asarray(kept, np.float64)
        ins, outs = self.in_fixed + self.in_per_unit @ k, self.out_fixed + self.out_per_unit @ k
        slope: Doubles = (self.factor * outs) @ self.in_per_unit + (self.factor * ins) @ self.out_per_unit
        return slope

    def curvature(self) -> Doubles:
        """Second derivatives, (G, G), symmetric and the same everywhere."""
        half = self.in_per_unit.T @ (self.factor[:, None] * self.out_per_unit)
        return half + half.T

    @cached_property
    def _curvature(self) -> Doubles:
        return self.curvature()

    @cached_property
    def _own(self) -> Doubles:
        return np.asarray(0.5 * np.diagonal(self._curvature))

    def saved(self, kept: npt.ArrayLike, drop: Doubles) -> Doubles:
        """Cost saved where each group alone loses ``drop`` (G,) units, (G,); exact."""
        return np.asarray(self.gradient(kept) * drop - self._own * drop**2)

    def changes(self, kept: npt.ArrayLike, first: Moves, second: Moves) -> Doubles:
        """Growth of the cost by each of the moves ``first`` with each of ``second``, (A, B); exact."""
        slope = self.gradient(kept)
        (above, more), (below, less) = first, second
        dearer = slope[above] * more + self._own[above] * more**2
        cheaper = slope[below] * less + self._own[below] * less**2
        joint = self._curvature[np.ix_(above, below)] * (more[:, None] * less)
        return np.asarray(joint + dearer[:, None] + cheaper)


@dataclass(frozen=True)
class Curve:
    """Error of one group as a function of its width.

    Parameters
    ----------
    width
        Units of the group.
    errors : (R + 1,) float64
        Weighted error after removing 0 .. R units, ``R < width``, never decreasing.
    step
        Kept counts are multiples of this number, but for the untouched width.
    least
        Smallest kept count allowed.
    most
        Largest kept count allowed; the width by default.

    Raises
    ------
    ValueError
        A number is out of range, or an error is not finite.
    """

    width: int
    errors: Doubles
    step: int = 1
    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        if self.most is not None and not max(self.least, self.width - len(self.errors) + 1) <= self.most <= self.width:
            raise ValueError(f"a group of {self.width} units cannot keep {self.most} at most")
        if self.step < 1 or self.least < 1 or not 1 <= len(self.errors) <= self.width:
            raise ValueError(f"a group of {self.width} units cannot have {len(self.errors)} errors, step {self.step}")
        if not np.isfinite(self.errors).all():
            raise ValueError("errors are finite")

    def choices(self) -> Ints:
        """Kept counts allowed, descending; the first is the largest, which need not be a multiple of the step."""
        least = max(self.least, self.width - len(self.errors) + 1)
        most = self.width if self.most is None else self.most
        kept = np.arange((most - 1) // self.step * self.step, least - 1, -self.step)
        return np.concatenate([[most], kept])

    def error(self, kept: npt.ArrayLike) -> Doubles:
        """Error at the kept counts ``kept``, same shape."""
        return np.asarray(self.errors[self.width - np.asarray(kept)], np.float64)


def allocate(
    curves: Sequence[Curve],
    cost: Cost | Sequence[Cost],
    budget: float | Sequence[float],
    names: Sequence[str] = (),
) -> Ints:
    """Choose the width of every group.

    First downhill: the group whose next stretch of lower convex hull costs the least error per cost saved is cut,
    at the prices that its neighbours' present widths make, until the budgets are met. Then exchanges: as long as the
    summed error falls, one group is given units back, if need be at the expense of another.

    Parameters
    ----------
    curves
        One per group, in the order of the costs' columns.
    cost
        Cost of the kept counts, or several.
    budget
        Largest cost allowed, or one for each cost. Downhill, what a cut saves of several costs is added up, each in
        units of what is still to be saved of it.
    names
        What the user calls the costs, for errors.

    Returns
    -------
    (G,) int64
        Kept counts, each among its curve's choices; the largest of all when the budgets cover them.

    Raises
    ------
    TargetError
        Even the smallest widths allowed cost more than a budget.
    """
    budgets = [float(budget)] if isinstance(budget, int | float) else [float(b) for b in budget]
    costs = list(cost) if isinstance(cost, Sequence) else [cost]
    limits = list(zip(costs, budgets, strict=True))
    choices = [curve.choices() for curve in curves]
    full = np.array([c[0] for c in choices], np.int64)
    if all(cost(full) <= budget for cost, budget in limits):
        return full
    for (spent, most), name in zip(limits, names or ["the target"] * len(limits), strict=True):
        least = spent([c[-1] for c in choices])
        if least > most:
            asked, reached = most / spent(full), least / spent(full)
            raise TargetError(
                f"{name} keeps {asked:.1%} of the cost; the smallest that can be reached is {reached:.1%}",
                "ask for more, or allow narrower layers: larger --max-cut, smaller --min-channels or --round-to, "
                "less frozen",
            )
    errors = [curve.error(kept) for curve, kept in zip(curves, choices, strict=True)]
    found = _exchange(_descend(choices, errors, limits), choices, errors, limits)
    return _kept(choices, found)


Limits = list[tuple[Cost, float]]
"""Costs, each with the most allowed."""


def _descend(choices: list[Ints], errors: list[Doubles], limits: Limits) -> Ints:
    """Follow the convex hulls down, cheapest stretch first, to choices (G,) that fit the budgets."""
    hulls = [_hull(kept, error) for kept, error in zip(choices, errors, strict=True)]
    vertex = np.zeros(len(choices), np.int64)
    kept = _kept(choices, vertex)
    ahead = np.array([_stretch(*group, 0) for group in zip(choices, errors, hulls, strict=True)])
    while excess := [(cost, over) for cost, budget in limits if (over := cost(kept) - budget) > 0]:
        drop, growth = ahead.T
        saved = sum(cost.saved(kept, drop) * (excess[0][1] / over) for cost, over in excess)
        last = np.where(drop > 0, np.finfo(float).max, np.inf)  # what saves nothing goes when nothing else is left
        ratio = np.divide(growth, saved, out=last, where=(drop > 0) & (saved > 0))
        group = int(ratio.argmin())
        kept[group] -= int(drop[group])
        vertex[group] += 1
        ahead[group] = _stretch(choices[group], errors[group], hulls[group], vertex[group])
    return np.array([hull[v] for hull, v in zip(hulls, vertex, strict=True)], np.int64)


def _stretch(kept: Ints, error: Doubles, hull: list[int], vertex: int) -> tuple[float, float]:
    """Units dropped and growth of the error from one vertex of a hull to the next; no units at the end."""
    if vertex + 1 == len(hull):
        return 0.0, 0.0
    here, there = hull[vertex], hull[vertex + 1]
    return float(kept[here] - kept[there]), float(error[there] - error[here])


def _hull(kept: Ints, error: Doubles) -> list[int]:
    """Choices on the lower convex hull of the error over the units dropped, the first and the last among them."""
    hull: list[int] = []
    for i in range(len(kept)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (error[b] - error[a]) * (kept[a] - kept[i]) <= (error[i] - error[a]) * (kept[a] - kept[b]):
                break
            hull.pop()
        hull.append(i)
    return hull


def _exchange(at: Ints, choices: list[Ints], errors: list[Doubles], limits: Limits) -> Ints:
    """Move one group up, or one up and another down, as long as that lowers the error within the budgets."""
    for _ in range(_ROUNDS):
        kept = _kept(choices, at)
        above, raised, more, relief = _moves(at, choices, errors, -1)
        below, lowered, less, growth = (np.append(0, part) for part in _moves(at, choices, errors, 1))  # or nothing
        allowed = (above[:, None] != below) | (less == 0)
        for cost, budget in limits:
            allowed &= cost.changes(kept, (above, more), (below, less)) <= budget - cost(kept)
        change = np.where(allowed, relief[:, None] + growth, np.inf)
        if not change.size or change.min() >= 0:
            break
        rise, fall = np.unravel_index(change.argmin(), change.shape)
        after = at.copy()
        if less[fall]:
            after[below[fall]] = lowered[fall]
        after[above[rise]] = raised[rise]
        if any(cost(_kept(choices, after)) > budget for cost, budget in limits):
            break
        if _error(errors, after) >= _error(errors, at):
            break
        at = after
    return at


def _moves(at: Ints, choices: list[Ints], errors: list[Doubles], sign: int) -> list[npt.NDArray[Any]]:
    """List moves along the choices, down (``sign`` 1) or up (-1), to the end at most.

    Returns the group, the choice reached, and the changes in units and in error of every move.
    """
    found = []
    for group, (kept, error, here) in enumerate(zip(choices, errors, at.tolist(), strict=True)):
        ahead = len(kept) - 1 - here if sign > 0 else here
        there = here + sign * np.unique(np.minimum(_STRIDES, ahead))
        there = there[there != here]
        found.append((np.full(len(there), group), there, kept[there] - kept[here], error[there] - error[here]))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _kept(choices: list[Ints], at: Ints) -> Ints:
    return np.array([kept[i] for kept, i in zip(choices, at, strict=True)], np.int64)


def _error(errors: list[Doubles], at: Ints) -> float:
    return float(sum(error[i] for error, i in zip(errors, at, strict=True)))
