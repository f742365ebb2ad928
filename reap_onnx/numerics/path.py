"""REAP: the exact price of every unit, and the whole path of greedy removal, from one inverse.

With ``H = (G + ridge)^-1`` and ``V = H B``, dropping the columns ``I`` of a unit and refitting all others makes the
least-squares error grow by ``trace(V_I' (H_II)^-1 V_I)``, and leaves ``H - H_:I (H_II)^-1 H_I:`` and
``V - H_:I (H_II)^-1 V_I`` (Kamma & Wada, Reconstruction Error Aware Pruning, ISVC 2019). Taking away the cheapest unit
again and again is therefore a pivoted block Cholesky factorisation of ``H``. It is done here in panels: ``H`` and ``V``
stay as they are while removals add rows to ``F`` and ``T``, the present ones being ``H - F'F`` and ``V - F'T``; once a
panel is full both are brought up to date by one large product. A price needs the blocks ``H_II`` and ``V_I V_I'``
alone, which are kept up to date removal by removal.

Columns that always stay (the intercept, channels of other groups) are eliminated once, at the start. A unit may own
columns in several problems: its price is the sum of its prices in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from reap_onnx.numerics import lapack
from reap_onnx.numerics.factor import factor, lower_inverse, solve
from reap_onnx.numerics.parallel import all_cores, check_wanted

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PANEL = 192  # columns that go before the inverse is brought up to date
_DEAD = 0.25  # share of columns that are gone before they are left out
_LOST = 1e-9  # a fresh inverse as soon as a diagonal entry has lost nine digits
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
    least_ridge
        Ridge at least, absolute, where rows are few.

    Raises
    ------
    ValueError
        Shapes disagree, or the weight is negative or not finite.
    """

    gram: Doubles
    cross: Doubles
    units: Ints
    weight: float = 1.0
    least_ridge: float = 0.0

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
        gram = self.gram.take(loose, 0).take(loose, 1)
        gram[np.diag_indices_from(gram)] += ridge
        right = cross[loose]
        if fixed.size and loose.size:
            corner = self.gram[np.ix_(fixed, fixed)]
            corner[np.diag_indices_from(corner)] += ridge
            edge = self.gram[np.ix_(fixed, loose)]
            weights = solve(factor(corner), np.hstack([edge, cross[fixed]]))
            with all_cores(edge.size * loose.size):
                gram -= edge.T @ weights[:, : loose.size]
            right -= edge.T @ weights[:, loose.size :]
        return _Primal(gram, _few_features(right), units)


@dataclass(frozen=True)
class RowProblem:
    """The same problem given by its rows, for few rows of many columns.

    Parameters
    ----------
    x : (n, D), y : (n, M)
        Rows of the consumer, and what it should produce of them.
    units, weight, least_ridge
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
    least_ridge: float = 0.0

    def __post_init__(self) -> None:
        if self.units.shape != self.x.shape[1:] or len(self.x) != len(self.y):
            raise ValueError(f"x {self.x.shape}, y {self.y.shape} and units {self.units.shape} do not fit each other")
        _check_weight(self.weight)

    @property
    def scale(self) -> float:
        """Mean of the squares of ``x``."""
        return float(np.square(self.x, dtype=np.float64).mean()) if self.x.size else 0.0

    def reduce(self, ridge: float, free: Bools) -> _Dual:
        """As :meth:`Problem.reduce`."""
        fixed, loose, units = _split(self.units, free)
        x, y = self.x.astype(np.float64) / np.sqrt(len(self.x)), self.y * np.sqrt(self.weight / len(self.x))
        both = np.hstack([x[:, loose], _few_features(y.astype(np.float64))])
        if fixed.size and loose.size:
            with all_cores(len(x) ** 2 * x.shape[1]):
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
        Relative ridge, as for :func:`ridge_of`, at least that of each problem; the error includes the ridge term.

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
        As for :func:`scores`.
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
        check_wanted()
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
    """``H``, of which only some columns and blocks are looked at."""

    size: int
    limit: int  # columns that go before it is brought up to date

    def columns(self, some: slice) -> Doubles: ...
    def blocks(self, run: _Run) -> Doubles: ...
    def downdate(self, f: Doubles) -> bool: ...
    def part(self, columns: Ints) -> _Inverse: ...


class _Whole:
    """``H`` as a matrix (d, d), in Fortran order, of which the lower triangle is valid."""

    def __init__(self, matrix: Doubles) -> None:
        self._matrix = matrix
        self.size = len(matrix)
        self.limit = _PANEL

    def columns(self, some: slice) -> Doubles:
        """Columns of ``H``, (d, k)."""
        found = np.empty((self.size, some.stop - some.start))
        found[: some.start] = self._matrix[some, : some.start].T
        found[some.start :] = self._matrix[some.start :, some]
        found[some] = _mirrored(found[some])
        return found

    def blocks(self, run: _Run) -> Doubles:
        """Diagonal blocks of the units of a run, (n, k, k)."""
        index = np.arange(run.columns.start, run.columns.stop).reshape(len(run.units), run.size)
        return _mirrored(self._matrix[index[:, :, None], index[:, None, :]])

    def downdate(self, f: Doubles) -> bool:
        """Take ``F'F`` off, for ``F`` (u, d); False where a fresh inverse is the better way."""
        lapack.subtract_square(f.T, self._matrix)
        return True

    def part(self, columns: Ints) -> _Whole:
        """``H`` on some of its columns, ascending."""
        return _Whole(self._matrix.T.take(columns, 0).take(columns, 1).T)


class _LowRank:
    """``H = (1 - U'U) / ridge`` with ``U`` (n, d)."""

    def __init__(self, u: Doubles, ridge: float) -> None:
        self._u, self._ridge = u, ridge
        self.size = u.shape[1]
        self.limit = max(_PANEL, len(u))

    def columns(self, some: slice) -> Doubles:
        """Columns of ``H``, (d, k)."""
        product = -self._u.T @ self._u[:, some]
        product[some] += np.eye(product.shape[1])
        return np.asarray(product / self._ridge)

    def blocks(self, run: _Run) -> Doubles:
        """Diagonal blocks of the units of a run, (n, k, k)."""
        own = run.rows(self._u.T)
        return np.asarray((np.eye(run.size) - own @ own.transpose(0, 2, 1)) / self._ridge)

    def downdate(self, f: Doubles) -> bool:
        """Never: ``U`` would grow by the rows of ``F``."""
        return False

    def part(self, columns: Ints) -> _LowRank:
        """``H`` on some of its columns, ascending."""
        return _LowRank(self._u[:, columns], self._ridge)


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
        right = solve(lower, self.cross)
        return _Whole(lower_inverse(lower, overwrite=True)), right


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
        with all_cores(self.x.size * len(self.x)):
            lower = factor(self.x @ self.x.T + self.ridge * np.eye(len(self.x)))
            both = solve_triangular(lower, np.hstack([self.x, self.y]), lower=True)
        u = np.ascontiguousarray(both[:, : self.x.shape[1]])
        return _LowRank(u, self.ridge), u.T @ both[:, self.x.shape[1] :]


class _System:
    """The biorthogonal system of one problem while units go: ``H - F'F`` and ``V - F'T`` on the columns that are left.

    Of the units that are left it also keeps the present ``H_II`` and ``V_I V_I'``, which their prices are made of.
    """

    def __init__(self, problem: _Primal | _Dual) -> None:
        self._problem = problem
        self._gone: list[int] = []
        self._start()

    def prices(self) -> Iterator[tuple[Ints, Doubles]]:
        """Yield units and their prices; a unit that is gone has price 0."""
        for run, whiten, squares in zip(self._runs, self._whiten, self._squares, strict=True):
            yield run.units, np.maximum(np.einsum("nij,nij->n", whiten @ squares, whiten), 0.0)

    def remove(self, unit: int) -> None:
        """Take the columns of ``unit`` away and refit the others."""
        for place, run in enumerate(self._runs):
            slot = int(np.searchsorted(run.units, unit))
            if slot < len(run.units) and run.units[slot] == unit:
                self._gone.append(unit)
                self._alive[run.of(slot)] = 0
                self._downdate(run.of(slot), self._whiten[place][slot])
                self._bury(place, slot)
                self._go_on()
                return

    def _start(self) -> None:
        """Invert afresh, on the columns of the units that are left."""
        if self._gone:
            self._problem = self._problem.part(np.flatnonzero(~np.isin(self._problem.units, self._gone)))
            self._gone.clear()
        self._h, v = self._problem.invert()
        self._v = np.ascontiguousarray(v)
        self._units = self._problem.units
        self._runs = tuple(_runs(self._units))
        self._blocks = [self._h.blocks(run) for run in self._runs]
        self._squares = [own @ own.transpose(0, 2, 1) for own in (run.rows(self._v) for run in self._runs)]
        self._least = [_LOST * _diagonals(blocks) for blocks in self._blocks]
        self._whiten = [_whiten(blocks) for blocks in self._blocks]
        self._open_panel()

    def _open_panel(self) -> None:
        room = self._h.limit + max((run.size for run in self._runs), default=0)
        self._alive = np.ones(self._h.size)
        self._f, self._t = np.empty((room, self._h.size)), np.empty((room, self._v.shape[1]))
        self._used = 0

    def _downdate(self, columns: slice, whiten: Doubles) -> None:
        past, aims = self._f[: self._used], self._t[: self._used]
        aim = whiten @ (self._v[columns] - past[:, columns].T @ aims)
        both = past.T @ np.hstack([past[:, columns], aims @ aim.T])
        size = len(aim)
        rows = (self._h.columns(columns) - both[:, :size]) @ whiten.T * self._alive[:, None]
        shift = self._v @ aim.T - both[:, size:] - rows @ (0.5 * aim @ aim.T)
        for run, blocks, squares in zip(self._runs, self._blocks, self._squares, strict=True):
            own = run.rows(rows)
            across = own.transpose(0, 2, 1)
            np.subtract(blocks, own @ across, out=blocks)
            change = run.rows(shift) @ across
            np.subtract(squares, change + change.transpose(0, 2, 1), out=squares)
        self._f[self._used : self._used + size] = rows.T
        self._t[self._used : self._used + size] = aim
        self._used += size

    def _bury(self, place: int, slot: int) -> None:
        """Leave a block without a price where the removed unit was."""
        self._blocks[place][slot] = np.eye(self._runs[place].size)
        self._squares[place][slot] = 0
        self._least[place][slot] = 0

    def _go_on(self) -> None:
        """Whiten the blocks as they are now; where a block has lost too many digits, invert afresh."""
        if self._used >= self._h.limit and not self._close_panel():
            self._start()
            return
        try:
            if any((_diagonals(b) < least).any() for b, least in zip(self._blocks, self._least, strict=True)):
                self._start()
            else:
                self._whiten = [np.linalg.inv(np.linalg.cholesky(blocks)) for blocks in self._blocks]
        except np.linalg.LinAlgError:
            self._start()

    def _close_panel(self) -> bool:
        """Bring ``H`` and ``V`` up to date, without the columns that are gone once they are many."""
        f, t = self._f[: self._used], self._t[: self._used]
        if not self._h.downdate(f):
            return False
        self._v -= f.T @ t
        if self._alive.mean() <= 1 - _DEAD:
            self._leave_out()
        self._used = 0
        return True

    def _leave_out(self) -> None:
        """Leave out the columns that are gone."""
        columns = np.flatnonzero(self._alive)
        self._h, self._v, self._units = self._h.part(columns), self._v[columns], self._units[columns]
        stay = [~np.isin(run.units, self._gone) for run in self._runs]
        self._blocks, self._squares, self._least = (
            [values[kept] for values, kept in zip(by_run, stay, strict=True) if kept.any()]
            for by_run in (self._blocks, self._squares, self._least)
        )
        self._runs = tuple(_runs(self._units))
        self._open_panel()


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


def _mirrored(lower: Doubles) -> Doubles:
    """Symmetric matrices (..., k, k) of their lower triangles."""
    return np.asarray(np.tril(lower) + np.tril(lower, -1).swapaxes(-1, -2))


def _few_features(right: Doubles) -> Doubles:
    """As many features as rows at most, (n, min(n, M)): prices do not depend on the basis of the features."""
    return np.asarray(np.linalg.qr(right.T, mode="r")).T if right.shape[1] > len(right) > 0 else right


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
    return [
        _System(problem.reduce(max(ridge_of(problem.scale, ridge), problem.least_ridge), free)) for problem in problems
    ]


def _prices(systems: Sequence[_System], n_units: int) -> Doubles:
    total = np.zeros(n_units)
    for system in systems:
        for units, prices in system.prices():
            total[units] += prices
    return total


def _cheapest(prices: Doubles) -> int:
    return int(np.flatnonzero(prices <= prices.min() * (1 + _TIE))[0])
