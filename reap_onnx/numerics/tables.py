"""Costs that are known at a few widths of each layer, as measured times are: tables, and straight lines in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.allocate import Doubles, Moves


@dataclass(frozen=True)
class Side:
    """Size of one axis as a function of the kept units ``k`` (G,) of all groups: ``fixed + per_unit . k``."""

    fixed: float
    per_unit: Doubles

    def __call__(self, kept: npt.ArrayLike) -> float:
        """Size with ``kept`` (G,) units."""
        return float(self.fixed + self.per_unit @ np.asarray(kept, np.float64))


@dataclass(frozen=True)
class Table:
    """Cost of one layer over the sizes of two axes.

    Parameters
    ----------
    first, second
        Sizes of the axes as functions of the kept units.
    rows : (I,) float64, columns : (J,) float64
        Sizes of either axis that the cost is known at, ascending.
    values : (I, J) float64
        The cost at each. Where a smaller size costs more than a larger one it is taken to cost as much: a layer could
        always be padded.

    Raises
    ------
    ValueError
        Shapes disagree, sizes do not ascend, or a number is not finite.
    """

    first: Side
    second: Side
    rows: Doubles
    columns: Doubles
    values: Doubles

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.rows), len(self.columns)) or not self.values.size:
            raise ValueError("the values of a table do not fit its sizes")
        if (np.diff(self.rows) <= 0).any() or (np.diff(self.columns) <= 0).any():
            raise ValueError("the sizes of a table ascend")
        if not np.isfinite(self.values).all():
            raise ValueError("the values of a table are finite")
        smallest = np.minimum.accumulate(self.values[::-1, ::-1], axis=0)
        object.__setattr__(self, "values", np.minimum.accumulate(smallest, axis=1)[::-1, ::-1].copy())

    def at(self, first: npt.ArrayLike, second: npt.ArrayLike) -> Doubles:
        """Cost at sizes that broadcast; linear along either axis in between, constant beyond the ends."""
        i, s = _place(self.rows, first)
        j, t = _place(self.columns, second)
        i1, j1 = np.minimum(i + 1, len(self.rows) - 1), np.minimum(j + 1, len(self.columns) - 1)
        low = (1 - t) * self.values[i, j] + t * self.values[i, j1]
        high = (1 - t) * self.values[i1, j] + t * self.values[i1, j1]
        return np.asarray((1 - s) * low + s * high)


def _place(grid: Doubles, at: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Doubles]:
    """Where sizes lie: the index of the grid's size below, and the share of the way to the next."""
    x = np.asarray(at, np.float64)
    below = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, max(len(grid) - 2, 0))
    above = np.minimum(below + 1, len(grid) - 1)
    gap = grid[above] - grid[below]
    share = np.divide(x - grid[below], gap, out=np.zeros(np.broadcast(x, gap).shape), where=gap > 0)
    return below, np.clip(share, 0.0, 1.0)


@dataclass(frozen=True)
class TableCost:
    """Sum of the tables of all layers, a constant, and what is proportional to the widths.

    ``fixed + per_unit . k + sum_l table_l(first_l(k), second_l(k))``

    A cost as :func:`reap_onnx.numerics.allocate.allocate` takes it: all its differences are exact.

    Parameters
    ----------
    fixed
        What no width changes.
    per_unit : (G,) float64
        What each unit of a group adds besides the layers.
    tables
        One per layer.
    """

    fixed: float
    per_unit: Doubles
    tables: tuple[Table, ...]

    def __call__(self, kept: npt.ArrayLike) -> float:
        """Cost with ``kept`` (G,) units."""
        linear = self.fixed + float(self.per_unit @ np.asarray(kept, np.float64))
        return linear + sum(float(table.at(table.first(kept), table.second(kept))) for table in self.tables)

    def saved(self, kept: npt.ArrayLike, drop: Doubles) -> Doubles:
        """Cost saved where each group alone loses ``drop`` (G,) units, (G,)."""
        groups = np.arange(len(self.per_unit))
        return -self._alone(np.asarray(kept), (groups, -np.asarray(drop)))

    def changes(self, kept: npt.ArrayLike, first: Moves, second: Moves) -> Doubles:
        """Growth of the cost by each of the moves ``first`` together with each of ``second``, (A, B)."""
        k = np.asarray(kept)
        total = self._alone(k, first)[:, None] + self._alone(k, second)
        for table in self.tables:
            above, below = _touching(table, first), _touching(table, second)
            if len(above) and len(below):
                total[np.ix_(above, below)] += _interaction(table, k, _part(first, above), _part(second, below))
        return total

    def _alone(self, kept: npt.NDArray[np.int64], moves: Moves) -> Doubles:
        """Growth of the cost by each move alone, (M,)."""
        groups, by = moves
        growth = np.asarray(self.per_unit[groups] * by, np.float64)
        for table in self.tables:
            touching = _touching(table, moves)
            if len(touching):
                growth[touching] += _moved(table, kept, _part(moves, touching)) - _here(table, kept)
        return growth


def _touching(table: Table, moves: Moves) -> npt.NDArray[np.int64]:
    """Indices of the moves that change a size of a table."""
    return np.flatnonzero((table.first.per_unit[moves[0]] != 0) | (table.second.per_unit[moves[0]] != 0))


def _part(moves: Moves, indices: npt.NDArray[np.int64]) -> Moves:
    return moves[0][indices], moves[1][indices]


def _here(table: Table, kept: npt.NDArray[np.int64]) -> float:
    return float(table.at(table.first(kept), table.second(kept)))


def _steps(table: Table, moves: Moves) -> tuple[Doubles, Doubles]:
    """Growth of the two sizes by each move, (M,) each."""
    groups, by = moves
    return table.first.per_unit[groups] * by, table.second.per_unit[groups] * by


def _moved(table: Table, kept: npt.NDArray[np.int64], moves: Moves) -> Doubles:
    first, second = _steps(table, moves)
    return table.at(table.first(kept) + first, table.second(kept) + second)


def _interaction(table: Table, kept: npt.NDArray[np.int64], first: Moves, second: Moves) -> Doubles:
    """What two moves cost together beyond the sum of what each costs alone, (A, B)."""
    (a, b), (c, d) = _steps(table, first), _steps(table, second)
    both = table.at(table.first(kept) + a[:, None] + c, table.second(kept) + b[:, None] + d)
    alone = _moved(table, kept, first)[:, None] + _moved(table, kept, second)
    return np.asarray(both - alone + _here(table, kept))
