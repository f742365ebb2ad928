"""The weights of a consumer on the channels that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.factor import factor, solve
from reap_onnx.numerics.gram import Equations, Normal, Rows
from reap_onnx.numerics.parallel import all_cores, even_slices, in_parallel

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_PIECE = 1_500  # rows that a core looks at at a time


@dataclass(frozen=True)
class ClippedRows:
    """Rows of a layer whose output is clipped to ``low .. high`` right behind it (a ReLU: 0 .. inf).

    Parameters
    ----------
    x : (n, D) float32
        What the layer reads, the constant 1 of the intercept included.
    total : (n, M) float32
        What should reach the activation.
    offset : (n, M) float32
        What reaches it besides ``x W``.
    low, high
        Bounds of the activation.
    """

    x: Singles
    total: Singles
    offset: Singles
    low: float
    high: float

    @staticmethod
    def concatenate(parts: Sequence[ClippedRows]) -> ClippedRows:
        """Return the rows of all, which have the same bounds."""
        x, total, offset = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "total", "offset")
        )
        return replace(parts[0], x=x, total=total, offset=offset)

    def of(self, features: slice) -> ClippedRows:
        """Return the rows of some of the features."""
        return replace(self, total=self.total[:, features], offset=self.offset[:, features])

    def cut(self, some: slice, keep: npt.NDArray[np.bool_]) -> ClippedRows:
        """Return some of the rows, some of what they read."""
        return replace(self, x=self.x[some][:, keep], total=self.total[some], offset=self.offset[some])

    def correction(self, product: Singles) -> Singles:
        """How far targets move, (n, M), now that ``x W`` is ``product`` (n, M)."""
        least, most = self._hidden
        change = product + self.offset
        np.clip(change, least, most, out=change)
        change -= self.total
        return change

    @cached_property
    def _hidden(self) -> tuple[Singles, Singles]:
        """Between which outputs, (n, M), all are as good: the target itself where it is seen."""
        low, high = self.total <= self.low, self.total >= self.high
        least, most = np.where(low, -np.inf, self.total), np.where(high, np.inf, self.total)
        least[high], most[low] = self.high, self.low
        return least, most


def refit(
    equations: Equations,
    keep: npt.NDArray[np.bool_],
    ridge: float,
    prior: Doubles | None = None,
    *,
    intercept: bool = True,
) -> Doubles:
    """Least-squares weights on the kept columns, pulled gently towards ``prior``.

    With ``K`` the kept columns and ``R`` the ridge on the diagonal, solves
    ``(G_KK + R) W = B_K + R prior_K`` by Cholesky, written as a correction of the prior so that a problem
    without enough data to say otherwise leaves the prior as it is. Rows that are fewer than the kept columns solve
    it in its dual form, by a matrix of as many rows.

    Parameters
    ----------
    equations
        Of D columns and M features.
    keep : (D,) bool
        Columns that stay.
    ridge
        Absolute, in the units of ``G``, as :func:`~reap_onnx.numerics.path.ridge_of` gives it.
    prior : (D, M) float64, optional
        Weights to stay close to, zero when not given; rows of columns that go are not used.
    intercept
        The last column is the constant 1 and bears no ridge.

    Returns
    -------
    (K, M) float64
        Weights on the kept columns, in their order.

    Raises
    ------
    ValueError
        Shapes disagree, or a value is not finite.
    """
    return _fit(equations, keep, ridge, prior, intercept)[0]


def held_out_ridge(
    halves: tuple[Equations, Equations],
    keep: npt.NDArray[np.bool_],
    ridges: Sequence[float],
    prior: Doubles,
    *,
    intercept: bool = True,
) -> float:
    """The ridge whose fit to one half of the samples is best on the other, both ways: 2-fold cross-validation.

    Where rows are hardly more than columns, a fit that is free to follow them has huge weights: it fails on other
    samples, and what rounds behind it grows from layer to layer.

    Parameters
    ----------
    halves
        Normal equations of two halves of the samples, each with rows.
    keep, prior, intercept
        As for :func:`refit`.
    ridges
        Candidates, absolute.

    Returns
    -------
    float
        One of the candidates; the smallest of those that are equally good.
    """

    def error(ridge: float) -> float:
        fits = (refit(half, keep, ridge, prior, intercept=intercept) for half in halves)
        return sum(squared_error(other, keep, fit) for other, fit in zip(reversed(halves), fits, strict=True))

    return min(sorted(ridges), key=error)


def squared_error(equations: Equations, keep: npt.NDArray[np.bool_], weights: Doubles) -> float:
    """Sum over rows and features of the squared error of ``weights`` (K, M) on the kept columns."""
    if isinstance(equations, Rows):
        return float(np.square(equations.y - equations.x[:, keep] @ weights).sum())
    gram, cross = equations.gram[np.ix_(keep, keep)], equations.cross[keep]
    return float(equations.square.sum() - 2 * (weights * cross).sum() + (weights * (gram @ weights)).sum())


def with_intercept(equations: Equations, keep: npt.NDArray[np.bool_], weights: Doubles) -> Doubles:
    """Weights (K, M) on the kept columns, those of ``weights`` (D, M) but for the intercept: no mean is missed."""
    kept = weights[keep].astype(np.float64)
    if isinstance(equations, Normal):
        mean = equations.gram[-1, keep] / equations.rows
    else:
        mean = equations.x[:, keep].mean(axis=0, dtype=np.float64)
    kept[-1] = equations.total / equations.rows - mean[:-1] @ kept[:-1]
    return kept


def refit_clipped(
    equations: Equations,
    keep: npt.NDArray[np.bool_],
    ridge: float,
    prior: Doubles,
    rows: ClippedRows,
    *,
    rounds: int,
    intercept: bool = True,
) -> Doubles:
    """As :func:`refit`, for outputs that an activation clips: what it hides on both sides is no error.

    What is seen is to be met, what is hidden is to stay hidden: with ``p = x W + offset`` and ``t = total``, minimises
    the sum of ``(p - t)^2`` where ``low < t < high``, ``max(p - low, 0)^2`` where ``t <= low`` and
    ``min(p - high, 0)^2`` where ``t >= high``. That is convex, and bounds the squared error behind the activation
    from above (Zhang, Zou, He & Sun, Accelerating Very Deep Convolutional Networks, 2016, relax the same error in
    another way). By majorisation: a hidden target is replaced by the present output, as far as that is hidden too.
    The Gram matrix stays, so that a round costs two products and one solve; no round makes the sum grow.

    Parameters
    ----------
    equations, keep, ridge, prior, intercept
        As for :func:`refit`.
    rows
        Rows to look at, as many as there is room for; the linear fit itself comes from ``equations``.
    rounds
        How often to look again; 0 gives :func:`refit`.

    Returns
    -------
    (K, M) float64
        Weights on the kept columns, in their order.
    """
    linear, solved = _fit(equations, keep, ridge, prior, intercept)
    pieces = in_parallel(lambda some: rows.cut(some, keep), even_slices(len(rows.x), _PIECE)) if rounds else []

    def moved(weights: Singles) -> Doubles:
        """What targets that move add to ``X'Y / n``, summed in the order of the pieces."""
        parts = in_parallel(lambda piece: piece.x.T @ piece.correction(piece.x @ weights), pieces)
        return np.asarray(np.sum(parts, axis=0, dtype=np.float64)) / len(rows.x)

    fitted = linear
    for _ in range(rounds if pieces else 0):
        fitted = linear + solved(moved(fitted.astype(np.float32)))
    return fitted


def _fit(
    equations: Equations, keep: npt.NDArray[np.bool_], ridge: float, prior: Doubles | None, intercept: bool
) -> tuple[Doubles, Callable[[Doubles], Doubles]]:
    """The weights of :func:`refit`, and ``(G_KK + R)^-1`` as a function of a right side (K, M)."""
    columns = (equations.gram if isinstance(equations, Normal) else equations.x).shape[1]
    features = len(equations.total)
    if keep.shape != (columns,):
        raise ValueError(f"{columns} columns and keep {keep.shape} do not fit each other")
    if prior is not None and prior.shape != (columns, features):
        raise ValueError(f"prior {prior.shape} does not fit {columns} columns and {features} features")
    kept = np.flatnonzero(keep)
    start = np.zeros((len(kept), features)) if prior is None else prior[kept].astype(np.float64)
    free = intercept and bool(keep[-1:].any())
    if isinstance(equations, Rows) and equations.rows > len(kept):  # by the smaller matrix
        equations, kept = Rows(equations.x[:, kept], equations.y).sums(), np.arange(len(kept))
    if isinstance(equations, Rows):
        missing, solved = _dual(equations, kept, ridge, start, free)
    else:
        missing, solved = _primal(equations, kept, ridge, start, free)
    return start + missing, solved


def _primal(
    normal: Normal, kept: Ints, ridge: float, start: Doubles, free: bool
) -> tuple[Doubles, Callable[[Doubles], Doubles]]:
    """What ``start`` (K, M) lacks, and the solver, by a factor of the Gram matrix."""
    matrix = normal.gram[np.ix_(kept, kept)] / normal.rows
    missing = normal.cross[kept] / normal.rows - matrix @ start
    if not np.isfinite(missing).all():
        raise ValueError("the normal equations hold values that are not finite")
    penalty = np.full(len(kept), ridge)
    if free:
        penalty[-1] = 0.0
    matrix[np.diag_indices_from(matrix)] += penalty
    factored = factor(matrix)
    return solve(factored, missing), lambda right: solve(factored, right)


def _dual(
    rows: Rows, kept: Ints, ridge: float, start: Doubles, free: bool
) -> tuple[Doubles, Callable[[Doubles], Doubles]]:
    """The same, by a factor of ``X X'``; a free last column is eliminated by taking means off."""
    x = rows.x[:, kept].astype(np.float64) / np.sqrt(rows.rows)
    error = rows.y / np.sqrt(rows.rows) - x @ start
    if not np.isfinite(error).all():
        raise ValueError("the rows hold values that are not finite")
    mean, about = np.zeros(len(kept)), np.zeros(start.shape[1])
    if free:
        one = x[:, -1:]  # 1 / sqrt(rows)
        mean, about = (x.T @ one).ravel(), (error.T @ one).ravel()
        x, error = x - one * mean, error - one * about
    with all_cores(x.size * len(x)):
        factored = factor(x @ x.T + ridge * np.eye(len(x)))

    def whole(weights: Doubles, last: Doubles) -> Doubles:
        if free:
            weights[-1] = last - mean[:-1] @ weights[:-1]
        return weights

    def solved(right: Doubles) -> Doubles:
        last = right[-1] if free else np.zeros(right.shape[1])
        rest = right - np.outer(mean, last)
        return whole((rest - x.T @ solve(factored, x @ rest)) / ridge, last)

    return whole(x.T @ solve(factored, error), about), solved
