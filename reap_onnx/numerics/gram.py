"""The normal equations of a least-squares problem, gathered as sums, or as rows where those are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.parallel import all_cores, even_slices, in_parallel

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Products = Callable[[Floats, Floats, Doubles, Doubles], None]
"""Adds products of ``x`` (n, D) and ``y`` (n, M) to two sums in Fortran order: ``x'x``, of which what lies above the
diagonal is not looked at, and ``x'y``."""

_CHUNK = 128, 8192  # rows, least and most, that go into the float64 sums at a time, summed in float32
_LARGEST = 1e15  # a chunk of products of such values still fits into float32
_WIDE = 1024  # columns from which on rows are kept themselves,
_SUMS_COST = 48  # bytes for each entry of a Gram matrix until it is solved: itself, copies, factor, inverse
_ROWS_COST = 40  # bytes for each entry of rows until they are solved
_STRIPE = 512  # rows of a matrix that are worked on at a time
_FEW = 0.5  # as long as there are fewer of them than this share of the columns


@dataclass(frozen=True)
class Normal:
    """Sums over the rows of ``X`` (rows x D) and ``Y`` (rows x M).

    With an intercept the last column of ``X`` is the constant 1. Divide by ``rows`` for the means
    ``G = X'X / n`` and ``B = X'Y / n``.

    Parameters
    ----------
    gram : (D, D) float64
        Sum of ``x x'``.
    cross : (D, M) float64
        Sum of ``x y'``.
    square, total : (M,) float64
        Sums of ``y ** 2`` and of ``y``.
    rows
        Number of rows summed.
    """

    gram: Doubles
    cross: Doubles
    square: Doubles
    total: Doubles
    rows: int

    def merge(self, other: Equations) -> Normal:
        """Return the sums over the rows of both.

        Raises
        ------
        ValueError
            The two have different shapes.
        """
        other = other.sums() if isinstance(other, Rows) else other
        if self.cross.shape != other.cross.shape:
            raise ValueError(f"sums of shape {self.cross.shape} and {other.cross.shape} cannot be merged")
        return Normal(
            self.gram + other.gram,
            self.cross + other.cross,
            self.square + other.square,
            self.total + other.total,
            self.rows + other.rows,
        )

    def centred(self) -> Normal:
        """Return the sums about the means of all columns, without the last one, an intercept: that is eliminated so."""
        n, mean = self.rows, self.gram[-1, :-1] / self.rows
        gram = np.outer(-n * mean, mean)
        gram += self.gram[:-1, :-1]
        cross = self.cross[:-1] - np.outer(mean, self.total)
        return Normal(gram, cross, self.square - self.total**2 / n, np.zeros_like(self.total), n)

    def on(self, columns: npt.NDArray[np.bool_]) -> Normal:
        """Return the sums of some of the columns, (D,) bool."""
        gram, cross = self.gram[np.ix_(columns, columns)], self.cross[columns]
        return Normal(gram, cross, self.square, self.total, self.rows)

    def of(self, features: slice) -> Normal:
        """Return the sums of some of the features."""
        cross, square, total = self.cross[:, features], self.square[features], self.total[features]
        return Normal(self.gram, cross, square, total, self.rows)

    @property
    def scale(self) -> float:
        """Mean of the squares of ``x``: the mean of the diagonal of ``G``."""
        return float(np.diagonal(self.gram).mean()) / self.rows if self.gram.size and self.rows else 0.0


@dataclass(frozen=True)
class Rows:
    """``X`` and ``Y`` themselves, where their rows are so few that the sums of a :class:`Normal` would be larger.

    Parameters
    ----------
    x : (rows, D) float32
        The constant 1 last, with an intercept.
    y : (rows, M) float32
    """

    x: Floats
    y: Floats

    def merge(self, other: Equations) -> Equations:
        """Return the rows of both; their sums, where the other one has sums.

        Raises
        ------
        ValueError
            The two have different shapes.
        """
        if isinstance(other, Normal):
            return other.merge(self)
        if self.x.shape[1:] != other.x.shape[1:] or self.y.shape[1:] != other.y.shape[1:]:
            raise ValueError(f"rows of shape {self.x.shape} and {other.x.shape} cannot be merged")
        return Rows(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))

    def centred(self) -> Rows:
        """Return the rows about the means of all columns, without the last one, an intercept: that is eliminated so."""
        x, y = self.x[:, :-1], self.y
        return Rows(*(part - part.mean(axis=0, dtype=np.float64).astype(np.float32) for part in (x, y)))

    def first(self, count: int) -> Rows:
        """Return the first ``count`` rows."""
        return Rows(self.x[:count], self.y[:count])

    def on(self, columns: npt.NDArray[np.bool_]) -> Rows:
        """Return the rows on some of the columns, (D,) bool."""
        return Rows(self.x[:, columns], self.y)

    def of(self, features: slice) -> Rows:
        """Return the rows of some of the features."""
        return Rows(self.x, self.y[:, features])

    def sums(self) -> Normal:
        """Return the sums over these rows."""
        x, y = self.x.astype(np.float64), self.y.astype(np.float64)
        with all_cores(x.size * x.shape[1]):
            return Normal(x.T @ x, x.T @ y, self.square, self.total, self.rows)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def square(self) -> Doubles:
        """Sum of ``y ** 2``, (M,) float64."""
        return np.asarray(np.square(self.y, dtype=np.float64).sum(axis=0))

    @property
    def total(self) -> Doubles:
        """Sum of ``y``, (M,) float64."""
        return np.asarray(self.y.sum(axis=0, dtype=np.float64))

    @property
    def scale(self) -> float:
        """Mean of the squares of ``x``."""
        return float(np.square(self.x, dtype=np.float64).mean()) if self.x.size else 0.0


Equations = Normal | Rows


def bytes_to_solve(equations: Equations) -> int:
    """Bytes that a problem takes until it is solved, its equations included."""
    if isinstance(equations, Normal):
        columns, features = len(equations.cross), len(equations.total)
        return _SUMS_COST * columns * (columns + features)
    return _ROWS_COST * (equations.x.size + equations.y.size)


def join(first: Equations, second: Equations, memory: int | None = None) -> Equations:
    """Merge the equations of two shards; like an :class:`Accumulator`, keep rows while they are few and wide.

    Parameters
    ----------
    first, second
        Of the same columns and features. The sums of many shards are the same, to the last bit, whenever these are
        joined one by one in the same order.
    memory
        As for :class:`Accumulator`.

    Raises
    ------
    ValueError
        The two have different shapes.
    """
    merged = first.merge(second)
    if isinstance(merged, Normal):
        return merged
    room, tight = _room(merged.x.shape[1], merged.y.shape[1], memory)
    if tight:
        return merged.first(room)
    return merged if merged.rows < room else merged.sums()


def _room(columns: int, features: int, memory: int | None) -> tuple[int, bool]:
    """Rows that are kept instead of their sums, and whether sums would take more than ``memory``."""
    if memory is not None and columns >= _WIDE and _SUMS_COST * columns**2 > memory:
        return max(1, memory // (_ROWS_COST * (columns + features))), True
    return int(_FEW * columns) if columns >= _WIDE else 0, False


def _chunk(columns: int) -> int:
    """Rows of so many columns that wait for each other: as many, so that products cost more than adding these does."""
    least, most = _CHUNK
    return min(max(columns, least), most)


def add_products(x: Floats, y: Floats, gram: Doubles, cross: Doubles) -> None:
    """:data:`Products` by this processor, stripe by stripe of a wide Gram matrix.

    By numpy: scipy's wrappers of the BLAS hold the interpreter up, and with it all other threads, while they multiply.
    """

    def add(some: slice) -> None:
        gram[some.start :, some] += (x[:, some].T @ x[:, some.start :]).T

    in_parallel(add, even_slices(x.shape[1], _STRIPE))
    cross += (y.T @ x).T


class Accumulator:
    """Adds rows to the sums of a :class:`Normal`; keeps them, as :class:`Rows`, while they are few and wide.

    Rows wait until they are as many as columns, so that products are large however small the batches are, and what
    waits of ``x`` takes no more than a Gram matrix. Products are made in float32, about the mean of the first rows
    (sums of products far from zero would drown what varies in rounding), and go into float64 sums; the shift is undone
    in :meth:`result`.

    Parameters
    ----------
    columns, features
        Width of ``x`` (without the constant) and of ``y``.
    intercept
        Append the constant 1 as the last column: ``D = columns + 1`` instead of ``D = columns``.
    memory
        Bytes that may be taken to solve the problem. Where sums would take more, rows are kept whatever their number,
        as many of the first as there is memory for.
    multiply
        Makes the products and adds them up.
    """

    def __init__(
        self, columns: int, features: int, intercept: bool, memory: int | None = None, multiply: Products = add_products
    ) -> None:
        self._intercept = intercept
        self._shape = columns, features
        self._multiply = multiply
        self._held: list[tuple[Floats, Floats]] = []
        self._waiting = 0
        self._room, self._tight = _room(columns, features, memory)
        self._due = max(_chunk(columns), self._room)
        self._sums: _Sums | None = None

    def add(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        """Add ``x`` (n, columns) and ``y`` (n, features), float32.

        Raises
        ------
        ValueError
            The shapes are not those promised, or a value is not finite or beyond 1e15.
        """
        columns, features = self._shape
        if x.shape != (len(x), columns) or y.shape != (len(x), features):
            raise ValueError(f"rows of shape {x.shape} and {y.shape} where (n, {columns}) and (n, {features}) are due")
        for name, values in (("x", x), ("y", y)):
            if not (values.max(initial=0.0) < _LARGEST and values.min(initial=0.0) > -_LARGEST):
                raise ValueError(f"{name} holds values that are not finite, or too large for products in float32")
        if self._tight:
            x, y = x[: self._room - self._waiting], y[: self._room - self._waiting]
        if not self._tight and not self._waiting and len(x) >= self._due:
            self._add_up(x, y)  # without a copy
            return
        self._hold(x.astype(np.float32), y.astype(np.float32))
        if not self._tight and self._waiting >= self._due:
            self._add_up(*self._take())

    def result(self) -> Equations:
        """Return the sums, or the rows, so far; more may be added afterwards."""
        x, y = self._take()
        if self._tight or (self._sums is None and len(x) < self._room):
            self._hold(x, y)
            return Rows(np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1) if self._intercept else x, y)
        return self._add_up(x, y).result(self._intercept)

    def _add_up(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> _Sums:
        """The sums with these rows in them."""
        sums = self._sums = self._sums or _Sums(*self._shape, self._multiply)
        sums.add(x, y)
        return sums

    def _hold(self, x: Floats, y: Floats) -> None:
        """Let rows wait."""
        self._held.append((x, y))
        self._waiting += len(x)

    def _take(self) -> tuple[Floats, Floats]:
        """What waits, as two matrices; nothing waits afterwards."""
        nothing = tuple(np.zeros((0, width), np.float32) for width in self._shape)
        x, y = (np.concatenate(parts) for parts in zip(nothing, *self._held, strict=True))
        self._held, self._waiting = [], 0
        return x, y


class _Sums:
    """Sums of products."""

    def __init__(self, columns: int, features: int, multiply: Products) -> None:
        self._multiply = multiply
        self._rows = 0
        self._x_shift = np.zeros(columns, np.float32)
        self._y_shift = np.zeros(features, np.float32)
        self._x_sum = np.zeros(columns)
        self._y_sum = np.zeros(features)
        self._square = np.zeros(features)
        self._gram = np.zeros((columns, columns), order="F")
        self._cross = np.zeros((columns, features), order="F")

    def add(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        """Add rows that have been checked."""
        if self._rows == 0 and len(x):
            self._x_shift = x[: _CHUNK[1]].mean(axis=0, dtype=np.float64).astype(np.float32)
            self._y_shift = y[: _CHUNK[1]].mean(axis=0, dtype=np.float64).astype(np.float32)
        for some in even_slices(len(x), _CHUNK[1]):
            self._add_chunk(x[some], y[some])

    def result(self, intercept: bool) -> Normal:
        """Return the sums so far."""
        n = self._rows
        mean_x, mean_y = self._x_shift.astype(np.float64), self._y_shift.astype(np.float64)
        x_total, y_total = self._x_sum + n * mean_x, self._y_sum + n * mean_y
        columns, size = len(x_total), len(x_total) + int(intercept)
        gram, cross = np.empty((size, size)), np.empty((size, len(y_total)))
        left, right = np.column_stack([self._x_sum, mean_x]), np.vstack([mean_x, x_total])
        for start in range(0, columns, _STRIPE):  # in stripes: temporary matrices of this size would be many
            stop = min(start + _STRIPE, columns)
            below, some = slice(start, columns), slice(start, stop)
            own = self._gram[below, some] + left[below] @ right[:, some]
            own[: stop - start] = np.tril(own[: stop - start]) + np.tril(own[: stop - start], -1).T
            gram[below, some], gram[some, below] = own, own.T
        cross[:columns] = self._cross + np.outer(self._x_sum, mean_y) + np.outer(mean_x, y_total)
        if intercept:
            gram[-1, :-1], gram[:-1, -1], gram[-1, -1], cross[-1] = x_total, x_total, n, y_total
        square = self._square + 2 * mean_y * self._y_sum + n * mean_y * mean_y
        return Normal(gram, cross, square, y_total, n)

    def _add_chunk(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        """Add to the sums; of the Gram matrix, to what lies on and below the diagonal."""
        dx = np.ascontiguousarray(x - self._x_shift, np.float32)
        dy = np.ascontiguousarray(y - self._y_shift, np.float32)
        self._rows += len(dx)
        self._x_sum += dx.sum(axis=0, dtype=np.float64)
        self._y_sum += dy.sum(axis=0, dtype=np.float64)
        self._square += np.square(dy, dtype=np.float64).sum(axis=0)
        self._multiply(dx, dy, self._gram, self._cross)
