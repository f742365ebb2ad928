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
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas

from reap_onnx.numerics.factor import factor, inverse, solve

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_RESTART_SHARE = 4  # a fresh inverse once 1/4 of its columns are gone,
_RESTART_ROWS = 64  # and not for fewer columns than these,
_LOST = 1e-9  # or as soon as a diagonal entry has lost nine digits
_TIE = 1e-9  # prices closer than this, relatively, are equal: the lowest index goes
_SWAP_DEPTH = 16  # units that a swap considers to drop, the cheapest ones


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
    feature_weights : (M,) float64, optional
        Importance of each output feature in the selection, at least 0; all 1 when not given. Refitted weights do not
        depend on it.

    Raises
    ------
    ValueError
        Shapes disagree, or a weight is negative or not finite.
    """

    gram: Doubles
    cross: Doubles
    units: Ints
    weight: float = 1.0
    feature_weights: Doubles | None = None

    def __post_init__(self) -> None:
        columns, features = self.cross.shape
        if self.gram.shape != (columns, columns) or self.units.shape != (columns,):
            raise ValueError(
                f"gram {self.gram.shape}, cross {self.cross.shape} and units {self.units.shape} do not fit each other"
            )
        if self.feature_weights is not None and self.feature_weights.shape != (features,):
            raise ValueError(f"feature weights {self.feature_weights.shape} do not fit {features} features")
        importance = self.importance
        if not np.isfinite(importance).all() or (importance < 0).any():
            raise ValueError("weights are finite and not negative")

    @property
    def importance(self) -> Doubles:
        """Weight of each output feature in the error, (M,)."""
        ones = np.ones(self.cross.shape[1])
        return self.weight * (ones if self.feature_weights is None else self.feature_weights)


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


def ridge_of(gram: Doubles, relative: float) -> float:
    """Absolute ridge of a problem: ``relative`` times the mean of the diagonal of ``gram`` (D, D).

    An empty or all-zero matrix has a small positive ridge.
    """
    mean = float(np.diagonal(gram).mean()) if gram.size else 0.0
    return relative * mean if mean > 0 else 1e-12


def scores(problems: Sequence[Problem], n_units: int, ridge: float) -> Doubles:
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
    problems: Sequence[Problem], n_units: int, ridge: float, stop: int = 1, candidates: Bools | None = None
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

    Returns
    -------
    Path
        With ``R = min(U - stop, number of candidates)`` removals. Of equal prices the lowest index goes first.
    """
    free = np.ones(n_units, bool) if candidates is None else candidates
    systems = _systems(problems, ridge, free)
    alive = free.copy()
    removals = max(0, min(n_units - stop, int(free.sum())))
    order = np.zeros(removals, np.int64)
    errors = np.zeros(removals + 1)
    for step in range(removals):
        prices = np.where(alive, _prices(systems, n_units), np.inf)
        unit = _cheapest(prices)
        order[step], errors[step + 1] = unit, errors[step] + prices[unit]
        alive[unit] = False
        for system in systems:
            system.remove(unit)
    return Path(order, errors)


def reconstruction_error(problem: Problem, kept: Bools, square: Doubles, ridge: float) -> float:
    """Weighted error of one problem on the units that are kept, everything refitted.

    Parameters
    ----------
    problem
        The consumer.
    kept : (U,) bool
        Units that stay.
    square : (M,) float64
        Mean of ``y ** 2``.
    ridge
        Relative ridge, as for :func:`ridge_of`; the error includes the ridge term.

    Returns
    -------
    float
        ``sum_m s_m (square_m - b_m' (G + ridge)^-1 b_m)`` over the kept columns.
    """
    stays = np.flatnonzero((problem.units < 0) | kept[problem.units])
    matrix = problem.gram[np.ix_(stays, stays)]
    matrix[np.diag_indices_from(matrix)] += ridge_of(problem.gram, ridge)
    right = problem.cross[stays]
    explained = (right * solve(factor(matrix), right)).sum(axis=0)
    return float(problem.importance @ (square - explained))


def swap(
    problems: Sequence[Problem],
    n_units: int,
    ridge: float,
    kept: Bools,
    rounds: int,
    *,
    candidates: Bools | None = None,
) -> Bools:
    """Exchange kept units for removed ones as long as the error falls (after OSSCAR, ICML 2024).

    A round looks at the cheapest kept units, each with every removed unit in its place, and makes the best exchange.
    With ``d`` dropped from the kept set and ``a`` taken back, the error changes by
    ``trace(V_d' (H_dd)^-1 V_d) - trace(R_a' (S_aa)^-1 R_a)``, where ``S`` and ``R`` are the Schur complement and the
    residual of the removed columns without ``d``; both follow from those with ``d`` by one small update.

    Parameters
    ----------
    problems
        One per consumer.
    n_units
        Number of units ``U``.
    ridge
        Relative ridge, as for :func:`ridge_of`.
    kept : (U,) bool
        Units that stay, as the greedy path left them; not changed.
    rounds
        Most exchanges made.
    candidates : (U,) bool, optional
        Units that may go or come back, all of them when not given.

    Returns
    -------
    (U,) bool
        As many units as in ``kept``, with an error that is no larger.
    """
    free = np.ones(n_units, bool) if candidates is None else candidates
    absent = np.flatnonzero(~free & ~kept)
    reduced = [_reduce(_without(p, absent), ridge_of(p.gram, ridge), free) for p in problems]
    current = kept.copy()
    exchanges = [_Exchange(problem, current) for problem in reduced]
    for _ in range(rounds):
        pair = _best_exchange(exchanges, current, free)
        if pair is None:
            break
        trial = current.copy()
        trial[list(pair)] = ~trial[list(pair)]
        changed = [_Exchange(problem, trial) for problem in reduced]
        if sum(e.explained for e in changed) <= sum(e.explained for e in exchanges):
            break
        current, exchanges = trial, changed
    return current


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

    def blocks(self, matrix: Doubles) -> Doubles:
        """Diagonal blocks of ``matrix`` (d, d), (units, size, size)."""
        index = np.arange(self.columns.start, self.columns.stop).reshape(len(self.units), self.size)
        return matrix[index[:, :, None], index[:, None, :]]


@dataclass(frozen=True)
class _Reduced:
    """A problem with ridge and weights folded in and the columns that always stay eliminated.

    ``gram`` (d, d) and ``cross`` (d, M) belong to the columns of the free units alone, in the order of ``units`` (d,):
    by number of columns, then by unit.
    """

    gram: Doubles
    cross: Doubles
    units: Ints
    runs: tuple[_Run, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(_runs(self.units)))

    def part(self, columns: Ints) -> _Reduced:
        """Return the same problem on some of the columns, ascending."""
        return _Reduced(self.gram[np.ix_(columns, columns)], self.cross[columns], self.units[columns])


class _System:
    """The dual system of one problem while units go: ``H - F'F`` and ``V`` on the columns that are left."""

    def __init__(self, problem: _Reduced) -> None:
        self._problem = problem
        self._gone: list[int] = []
        self._start()

    def prices(self) -> Iterator[tuple[Ints, Doubles]]:
        """Yield units and their prices; a unit that is gone has price 0."""
        for run, whiten in zip(self._problem.runs, self._whiten, strict=True):
            yield run.units, _squares(whiten @ run.rows(self._v))

    def remove(self, unit: int) -> None:
        """Take the columns of ``unit`` away and refit the others."""
        for place, run in enumerate(self._problem.runs):
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
        problem = self._problem
        lower = factor(problem.gram)
        self._h, self._v = inverse(lower), np.ascontiguousarray(solve(lower, problem.cross))
        self._blocks = [run.blocks(self._h) for run in problem.runs]
        self._least = [_LOST * _diagonals(blocks) for blocks in self._blocks]
        self._whiten = [_whiten(blocks) for blocks in self._blocks]
        self._limit = max(_RESTART_ROWS, len(self._h) // _RESTART_SHARE)
        widest = max((run.size for run in problem.runs), default=0)
        self._f = np.zeros((self._limit + widest, len(self._h)))
        self._used = 0

    def _downdate(self, columns: slice, whiten: Doubles) -> None:
        past = self._f[: self._used]
        rows = whiten @ (self._h[columns] - past[:, columns].T @ past)
        target = whiten @ self._v[columns]
        self._v = blas.dgemm(-1.0, target.T, rows, beta=1.0, c=self._v.T, overwrite_c=1).T
        for run, blocks in zip(self._problem.runs, self._blocks, strict=True):
            own = run.rows(rows.T)
            np.subtract(blocks, own @ own.transpose(0, 2, 1), out=blocks)
        self._f[self._used : self._used + len(rows)] = rows
        self._used += len(rows)

    def _bury(self, columns: slice, place: int, slot: int) -> None:
        """Leave exact zeros where the removed columns were."""
        self._h[:, columns] = 0
        self._f[: self._used, columns] = 0
        self._v[columns] = 0
        self._blocks[place][slot] = np.eye(self._problem.runs[place].size)
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


def _reduce(problem: Problem, absolute: float, free: Bools) -> _Reduced:
    """Fold the absolute ridge and the weights in, order the columns of the free units, and eliminate all others."""
    units = np.where((problem.units >= 0) & free[problem.units], problem.units, -1)
    owned = np.bincount(units[units >= 0], minlength=len(free))
    loose = np.flatnonzero(units >= 0)
    loose = loose[np.lexsort((loose, units[loose], owned[units[loose]]))]
    fixed = np.flatnonzero(units < 0)
    cross = problem.cross * np.sqrt(problem.importance)
    gram = problem.gram[np.ix_(loose, loose)]
    gram[np.diag_indices_from(gram)] += absolute
    right = cross[loose]
    if fixed.size and loose.size:
        corner = problem.gram[np.ix_(fixed, fixed)]
        corner[np.diag_indices_from(corner)] += absolute
        edge = problem.gram[np.ix_(fixed, loose)]
        weights = solve(factor(corner), np.hstack([edge, cross[fixed]]))
        gram -= edge.T @ weights[:, : loose.size]
        right -= edge.T @ weights[:, loose.size :]
    return _Reduced(gram, right, units[loose])


def _without(problem: Problem, absent: Ints) -> Problem:
    """Return the problem without the columns of the units ``absent``."""
    if not absent.size:
        return problem
    stays = np.flatnonzero(~np.isin(problem.units, absent))
    return Problem(
        problem.gram[np.ix_(stays, stays)],
        problem.cross[stays],
        problem.units[stays],
        problem.weight,
        problem.feature_weights,
    )


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


def _systems(problems: Sequence[Problem], ridge: float, free: Bools) -> list[_System]:
    return [_System(_reduce(problem, ridge_of(problem.gram, ridge), free)) for problem in problems]


def _prices(systems: Sequence[_System], n_units: int) -> Doubles:
    total = np.zeros(n_units)
    for system in systems:
        for units, prices in system.prices():
            total[units] += prices
    return total


def _cheapest(prices: Doubles) -> int:
    return int(np.flatnonzero(prices <= prices.min() * (1 + _TIE))[0])


def _best_exchange(exchanges: Sequence[_Exchange], kept: Bools, free: Bools) -> tuple[int, int] | None:
    """Find the unit to drop and the unit to take back that lower the error most, if any do."""
    prices = np.zeros(len(kept))
    for exchange in exchanges:
        exchange.add_prices(prices)
    droppable = np.flatnonzero(kept & free)
    droppable = droppable[np.argsort(prices[droppable], kind="stable")][:_SWAP_DEPTH]
    takeable = np.flatnonzero(~kept & free)
    best: tuple[int, int] | None = None
    most = 0.0
    for dropped in droppable.tolist() if takeable.size else ():
        gains = np.zeros(len(kept))
        for exchange in exchanges:
            exchange.add_gains(gains, dropped)
        taken = int(takeable[gains[takeable].argmax()])
        fall = gains[taken] - prices[dropped]
        if fall > max(most, _TIE * gains[taken]):
            best, most = (dropped, taken), float(fall)
    return best


class _Exchange:
    """What one problem says about every exchange of a kept unit for a removed one."""

    def __init__(self, problem: _Reduced, kept: Bools) -> None:
        inside, outside = np.flatnonzero(kept[problem.units]), np.flatnonzero(~kept[problem.units])
        self._kept, self._removed = problem.part(inside), problem.part(outside)
        lower = factor(self._kept.gram)
        self._h, self._v = inverse(lower), solve(lower, self._kept.cross)
        self.explained = float(np.vdot(self._v, self._kept.cross))
        edge = problem.gram[np.ix_(outside, inside)]
        self._edge = solve(lower, edge.T).T
        self._rest = self._removed.cross - edge @ self._v
        schur = self._removed.gram - self._edge @ edge.T
        self._blocks = [run.blocks(schur) for run in self._removed.runs]

    def add_prices(self, total: Doubles) -> None:
        """Add the price of every kept unit."""
        for run in self._kept.runs:
            total[run.units] += _squares(_whiten(run.blocks(self._h)) @ run.rows(self._v))

    def add_gains(self, total: Doubles, dropped: int) -> None:
        """Add how much every removed unit would lower the error once ``dropped`` is gone."""
        own = np.flatnonzero(self._kept.units == dropped)
        whiten = _whiten(self._h[np.ix_(own, own)][None])[0]
        step = self._edge[:, own] @ whiten.T
        rest = self._rest + step @ (whiten @ self._v[own])
        for run, blocks in zip(self._removed.runs, self._blocks, strict=True):
            turn = run.rows(step)
            after = _whiten(blocks + turn @ turn.transpose(0, 2, 1))
            total[run.units] += _squares(after @ run.rows(rest))
