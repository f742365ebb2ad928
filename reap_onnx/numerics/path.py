"""REAP: the exact price of every unit, and the whole path of greedy removal, from one inverse.

With ``H = (G + ridge)^-1`` and ``V = H B``, dropping the columns ``I`` of a unit and refitting all others makes the
least-squares error grow by ``trace(V_I' (H_II)^-1 V_I)``, and leaves ``H - H_:I (H_II)^-1 H_I:`` and
``V - H_:I (H_II)^-1 V_I`` (Kamma & Wada, Reconstruction Error Aware Pruning, ISVC 2019). Taking away the cheapest unit
again and again is therefore a pivoted block Cholesky factorisation of ``H``. It is done here in its left-looking form:
``H`` stays as it is, a removal adds rows to a factor ``F`` such that the present inverse is ``H - F'F``, and once
``F`` has grown to a share of ``H`` both are replaced by a fresh, smaller inverse.

Columns that always stay (the intercept, channels of other groups) are eliminated once, at the start. A unit may own
columns in several problems: its price is the sum of its prices in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, solve_triangular

from reap_onnx.numerics.factor import factor, inverse, solve

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_RESTART_SHARE = 4  # a fresh inverse once 1/4 of its columns are gone,
_RESTART_ROWS = 64  # and not for fewer columns than these,
_LOST = 1e-9  # or as soon as a diagonal entry has lost nine digits
_TIE = 1e-9  # prices closer than this, relatively, are equal: the lowest index goes


@dataclass(frozen=True)
class Problem:
    """The least-squares problem of one consumer.

    Parameters
    ----------
    gram : (D, D) float64
        Mean of ``x x'``, symmetric.
    cross : (D, M) float64
        Mean of ``x y'``.
    units : (D,) int64
        Unit (0 .. U - 1) that owns each column; -1 for columns that always stay.
    weight
        Importance of this consumer's error, at least 0.

    Raises
    ------
    ValueError
        Shapes disagree, or the weight is negative or not finite.
    """

    gram: Doubles
    cross: Doubles
    units: Ints
    weight: float = 1.0

    def __post_init__(self) -> None:
        columns = len(self.cross)
        if self.gram.shape != (columns, columns) or self.units.shape != (columns,):
            raise ValueError(
                f"gram {self.gram.shape}, cross {self.cross.shape} and units {self.units.shape} do not fit each other"
            )
        _check_weight(self.weight)

    @property
    def scale(self) -> float:
        """Mean of the diagonal of ``gram``."""
        return float(np.diagonal(self.gram).mean()) if self.gram.size else 0.0

    def reduce(self, ridge: float, free: Bools) -> _Primal:
        """Fold the absolute ridge and the weight in, order the columns of free units, and eliminate all others."""
        fixed, loose, units = _split(self.units, free)
        cross = self.cross * np.sqrt(self.weight)
        gram = self.gram[np.ix_(loose, loose)]
        gram[np.diag_indices_from(gram)] += ridge
        right = cross[loose]
        if fixed.size and loose.size:
            corner = self.gram[np.ix_(fixed, fixed)]
            corner[np.diag_indices_from(corner)] += ridge
            edge = self.gram[np.ix_(fixed, loose)]
            weights = solve(factor(corner), np.hstack([edge, cross[fixed]]))
            gram -= edge.T @ weights[:, : loose.size]
            right -= edge.T @ weights[:, loose.size :]
        return _Primal(gram, right, units)


@dataclass(frozen=True)
class RowProblem:
    """The same problem given by its rows, for few rows of many columns.

    Parameters
    ----------
    x : (n, D), y : (n, M)
        Rows of the consumer, and what it should produce of them.
    units, weight
        As for :class:`Problem`.

    Raises
    ------
    ValueError
        Shapes disagree, or the weight is negative or not finite.
    """

    x: npt.NDArray[np.floating]
    y: npt.NDArray[np.floating]
    units: Ints
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.units.shape != self.x.shape[1:] or len(self.x) != len(self.y):
            raise ValueError(f"x {self.x.shape}, y {self.y.shape} and units {self.units.shape} do not fit each other")
        _check_weight(self.weight)

    @property
    def scale(self) -> float:
        """Mean of the squares of ``x``."""
        return float(np.square(self.x, dtype=np.float64).mean()) if self.x.size else 0.0

    def reduce(self, ridge: float, free: Bools) -> _Dual:
        """As :meth:`Problem.reduce`; features beyond the number of rows are turned into as many."""
        fixed, loose, units = _split(self.units, free)
        x, y = self.x.astype(np.float64) / np.sqrt(len(self.x)), self.y * np.sqrt(self.weight / len(self.x))
        if y.shape[1] > len(y):
            y = np.asarray(np.linalg.qr(y.T.astype(np.float64), mode="r")).T
        both = np.hstack([x[:, loose], y])
        if fixed.size and loose.size:
            corner = factor(x[:, fixed] @ x[:, fixed].T + ridge * np.eye(len(x)))
            both = np.sqrt(ridge) * solve_triangular(corner, both, lower=True)
        return _Dual(both[:, : loose.size], both[:, loose.size :], ridge, units)


@dataclass(frozen=True)
class Path:
    """What greedy removal found.

    Parameters
    ----------
    order : (R,) int64
        Units in the order of their removal.
    errors : (R + 1,) float64
        Weighted growth of the error after 0 .. R removals, starting at 0, never decreasing.
    """

    order: Ints
    errors: Doubles


def ridge_of(scale: float, relative: float) -> float:
    """Absolute ridge of a problem: ``relative`` times the mean ``scale`` of its Gram matrix's diagonal.

    A problem of zeros has a small positive ridge.
    """
    return relative * scale if scale > 0 else 1e-12


def scores(problems: Sequence[Problem | RowProblem], n_units: int, ridge: float) -> Doubles:
    """Price of every unit: growth of the weighted error when it alone goes and everything else is refitted.

    Parameters
    ----------
    problems
        One per consumer.
    n_units
        Number of units ``U``; a unit that owns no column anywhere costs nothing.
    ridge
        Relative ridge, as for :func:`ridge_of`; the error includes the ridge term.

    Returns
    -------
    (U,) float64
        Not negative.
    """
    return _prices(_systems(problems, ridge, np.ones(n_units, bool)), n_units)


def removal_path(
    problems: Sequence[Problem | RowProblem],
    n_units: int,
    ridge: float,
    stop: int = 1,
    candidates: Bools | None = None,
    order: Ints | None = None,
) -> Path:
    """Remove the cheapest unit, refit, and repeat: an order and the error after every removal.

    Parameters
    ----------
    problems
        One per consumer.
    n_units
        Number of units ``U``.
    ridge
        Relative ridge, as for :func:`ridge_of`.
    stop
        Units that are left at the end.
    candidates : (U,) bool, optional
        Units that may go, all of them when not given.
    order : (U,) int64, optional
        All units in the order in which they are to go, instead of the cheapest first.

    Returns
    -------
    Path
        With ``R = min(U - stop, number of candidates)`` removals. Of equal prices the lowest index goes first.
    """
    free = np.ones(n_units, bool) if candidates is None else candidates
    systems = _systems(problems, ridge, free)
    alive = free.copy()
    removals = max(0, min(n_units - stop, int(free.sum())))
    gone = np.zeros(removals, np.int64)
    errors = np.zeros(removals + 1)
    for step in range(removals):
        prices = np.where(alive, _prices(systems, n_units), np.inf)
        unit = _cheapest(prices) if order is None else int(order[step])
        gone[step], errors[step + 1] = unit, errors[step] + prices[unit]
        alive[unit] = False
        for system in systems:
            system.remove(unit)
    return Path(gone, errors)


@dataclass(frozen=True)
class _Run:
    """Units that own equally many columns, which lie next to each other, unit after unit."""

    units: Ints
    start: int
    size: int

    @property
    def columns(self) -> slice:
        return slice(self.start, self.start + len(self.units) * self.size)

    def of(self, slot: int) -> slice:
        """Columns of the unit in place ``slot``."""
        return slice(self.start + slot * self.size, self.start + (slot + 1) * self.size)

    def rows(self, values: Doubles) -> Doubles:
        """Rows of ``values`` (d, m) by unit, (units, size, m)."""
        return values[self.columns].reshape(len(self.units), self.size, -1)


class _Inverse(Protocol):
    """``H``, of which only some rows and blocks are looked at."""

    size: int
    limit: int  # columns after whose removal a fresh inverse pays

    def rows(self, columns: slice) -> Doubles: ...
    def blocks(self, run: _Run) -> Doubles: ...
    def clear(self, columns: slice) -> None: ...


class _Whole:
    """``H`` as a matrix (d, d)."""

    def __init__(self, matrix: Doubles) -> None:
        self._matrix = matrix
        self.size = len(matrix)
        self.limit = self.size // _RESTART_SHARE

    def rows(self, columns: slice) -> Doubles:
        return self._matrix[columns]

    def blocks(self, run: _Run) -> Doubles:
        index = np.arange(run.columns.start, run.columns.stop).reshape(len(run.units), run.size)
        return self._matrix[index[:, :, None], index[:, None, :]]

    def clear(self, columns: slice) -> None:
        self._matrix[:, columns] = 0


class _LowRank:
    """``H = (1 - U'U) / ridge`` with ``U`` (n, d)."""

    def __init__(self, u: Doubles, ridge: float) -> None:
        self._u, self._ridge = u, ridge
        self.limit, self.size = u.shape

    def rows(self, columns: slice) -> Doubles:
        product = -self._u[:, columns].T @ self._u
        product[:, columns] += np.eye(len(product))
        return np.asarray(product / self._ridge)

    def blocks(self, run: _Run) -> Doubles:
        own = run.rows(self._u.T)
        return np.asarray((np.eye(run.size) - own @ own.transpose(0, 2, 1)) / self._ridge)

    def clear(self, columns: slice) -> None:
        self._u[:, columns] = 0


@dataclass(frozen=True)
class _Primal:
    """A problem with ridge and weight folded in and the columns that always stay eliminated.

    ``gram`` (d, d) and ``cross`` (d, M) belong to the columns of the free units alone, in the order of ``units`` (d,):
    by number of columns, then by unit.
    """

    gram: Doubles
    cross: Doubles
    units: Ints

    def part(self, columns: Ints) -> _Primal:
        """Return the same problem on some of the columns, ascending."""
        return _Primal(self.gram[np.ix_(columns, columns)], self.cross[columns], self.units[columns])

    def invert(self) -> tuple[_Inverse, Doubles]:
        """``H`` and ``V``."""
        lower = factor(self.gram)
        return _Whole(inverse(lower)), solve(lower, self.cross)


@dataclass(frozen=True)
class _Dual:
    """The same by rows: ``gram = x'x + ridge`` and ``cross = x'y``."""

    x: Doubles
    y: Doubles
    ridge: float
    units: Ints

    def part(self, columns: Ints) -> _Dual:
        """Return the same problem on some of the columns, ascending."""
        return _Dual(self.x[:, columns], self.y, self.ridge, self.units[columns])

    def invert(self) -> tuple[_Inverse, Doubles]:
        """``H`` and ``V``."""
        lower = factor(self.x @ self.x.T + self.ridge * np.eye(len(self.x)))
        both = solve_triangular(lower, np.hstack([self.x, self.y]), lower=True)
        u = np.ascontiguousarray(both[:, : self.x.shape[1]])
        return _LowRank(u, self.ridge), u.T @ both[:, self.x.shape[1] :]


class _System:
    """The biorthogonal system of one problem while units go: ``H - F'F`` and ``V`` on the columns that are left."""

    def __init__(self, problem: _Primal | _Dual) -> None:
        self._problem = problem
        self._gone: list[int] = []
        self._start()

    def prices(self) -> Iterator[tuple[Ints, Doubles]]:
        """Yield units and their prices; a unit that is gone has price 0."""
        for run, whiten in zip(self._runs, self._whiten, strict=True):
            yield run.units, _squares(whiten @ run.rows(self._v))

    def remove(self, unit: int) -> None:
        """Take the columns of ``unit`` away and refit the others."""
        for place, run in enumerate(self._runs):
            slot = int(np.searchsorted(run.units, unit))
            if slot < len(run.units) and run.units[slot] == unit:
                self._downdate(run.of(slot), self._whiten[place][slot])
                self._bury(run.of(slot), place, slot)
                self._gone.append(unit)
                if not self._is_sound():
                    self._start()
                return

    def _start(self) -> None:
        """Invert afresh, on the columns of the units that are left."""
        if self._gone:
            self._problem = self._problem.part(np.flatnonzero(~np.isin(self._problem.units, self._gone)))
            self._gone.clear()
        self._runs = tuple(_runs(self._problem.units))
        self._h, v = self._problem.invert()
        self._v = np.ascontiguousarray(v)
        self._blocks = [self._h.blocks(run) for run in self._runs]
        self._least = [_LOST * _diagonals(blocks) for blocks in self._blocks]
        self._whiten = [_whiten(blocks) for blocks in self._blocks]
        self._limit = max(_RESTART_ROWS, self._h.limit)
        widest = max((run.size for run in self._runs), default=0)
        self._f = np.zeros((self._limit + widest, self._h.size))
        self._used = 0

    def _downdate(self, columns: slice, whiten: Doubles) -> None:
        past = self._f[: self._used]
        rows = whiten @ (self._h.rows(columns) - past[:, columns].T @ past)
        target = whiten @ self._v[columns]
        self._v = blas.dgemm(-1.0, target.T, rows, beta=1.0, c=self._v.T, overwrite_c=1).T
        for run, blocks in zip(self._runs, self._blocks, strict=True):
            own = run.rows(rows.T)
            np.subtract(blocks, own @ own.transpose(0, 2, 1), out=blocks)
        self._f[self._used : self._used + len(rows)] = rows
        self._used += len(rows)

    def _bury(self, columns: slice, place: int, slot: int) -> None:
        """Leave exact zeros where the removed columns were."""
        self._h.clear(columns)
        self._f[: self._used, columns] = 0
        self._v[columns] = 0
        self._blocks[place][slot] = np.eye(self._runs[place].size)
        self._least[place][slot] = 0

    def _is_sound(self) -> bool:
        """Whiten the blocks as they are now; False when the inverse has grown too long or lost too many digits."""
        pairs = zip(self._blocks, self._least, strict=True)
        if self._used >= self._limit or any((_diagonals(blocks) < least).any() for blocks, least in pairs):
            return False
        try:
            self._whiten = [np.linalg.inv(np.linalg.cholesky(blocks)) for blocks in self._blocks]
        except np.linalg.LinAlgError:
            return False
        return True


def _check_weight(weight: float) -> None:
    if not 0 <= weight < np.inf:
        raise ValueError("weights are finite and not negative")


def _split(units: Ints, free: Bools) -> tuple[Ints, Ints, Ints]:
    """Columns that always stay; columns of free units, by number of columns and then by unit; units of the latter."""
    units = np.where((units >= 0) & free[units], units, -1)
    owned = np.bincount(units[units >= 0], minlength=len(free))
    loose = np.flatnonzero(units >= 0)
    loose = loose[np.lexsort((loose, units[loose], owned[units[loose]]))]
    return np.flatnonzero(units < 0), loose, units[loose]


def _runs(units: Ints) -> Iterator[_Run]:
    """Split columns, ordered by number of columns and then by unit, into runs of equal numbers."""
    _, first, counts = np.unique(units, return_index=True, return_counts=True)
    by_place = np.argsort(first)
    first, counts = first[by_place], counts[by_place]
    for size in np.unique(counts):
        places = first[counts == size]
        yield _Run(units[places], int(places[0]), int(size))


def _diagonals(blocks: Doubles) -> Doubles:
    return np.diagonal(blocks, axis1=1, axis2=2)


def _squares(values: Doubles) -> Doubles:
    """Sum of squares of each unit's rows, (n, k, m) -> (n,)."""
    total: Doubles = np.einsum("nkm,nkm->n", values, values)
    return total


def _whiten(blocks: Doubles) -> Doubles:
    """``W`` with ``W' W = block^-1`` for every block, (n, k, k); directions lost in rounding are left out."""
    try:
        whiten: Doubles = np.linalg.inv(np.linalg.cholesky(blocks))
    except np.linalg.LinAlgError:
        size = np.sqrt(np.abs(_diagonals(blocks)))
        size[size == 0] = 1
        values, vectors = np.linalg.eigh(blocks / size[:, :, None] / size[:, None, :])
        lost = values < np.finfo(np.float64).eps * blocks.shape[-1]
        turned = vectors / np.sqrt(np.where(lost, np.inf, values))[:, None, :]
        whiten = turned.transpose(0, 2, 1) / size[:, None, :]
    return whiten


def _systems(problems: Sequence[Problem | RowProblem], ridge: float, free: Bools) -> list[_System]:
    return [_System(problem.reduce(ridge_of(problem.scale, ridge), free)) for problem in problems]


def _prices(systems: Sequence[_System], n_units: int) -> Doubles:
    total = np.zeros(n_units)
    for system in systems:
        for units, prices in system.prices():
            total[units] += prices
    return total


def _cheapest(prices: Doubles) -> int:
    return int(np.flatnonzero(prices <= prices.min() * (1 + _TIE))[0])
