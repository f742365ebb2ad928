"""What few rows can tell of many columns: the ridge that they call for, what channels share over their places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.factor import factor, solve
from reap_onnx.numerics.gram import Equations, Normal
from reap_onnx.numerics.path import ridge_of

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MOST = 0.99  # share of the identity at most, in a covariance that rows say nothing of


def shrinkage_ridge(equations: Equations, *, intercept: bool = True, alike: float = 1.0) -> float:
    """The ridge that so few rows call for: that of a covariance shrunk towards a multiple of the identity.

    ``(1 - a) S + a s I``, with ``s`` the mean of the diagonal of ``S``, has the inverse of ``S + ridge``, but for a
    factor, where ``ridge = a / (1 - a) s``. The share ``a`` is that of the oracle approximating shrinkage (Chen,
    Wiesel, Eldar & Hero, Shrinkage Algorithms for MMSE Covariance Estimation, 2010): some effective rank of ``S`` over
    the number of rows, next to nothing where these are many.

    Parameters
    ----------
    equations
        Of D columns.
    intercept
        The last column is the constant 1: ``S`` is about the means, and has no such column.
    alike
        How many rows say as much as one would if all were independent, at least 1.

    Returns
    -------
    float
        Absolute, in the units of ``G``; 0 where nothing varies.
    """
    covariance, trace, columns = _covariance(equations, intercept)
    return _shrinkage(covariance, trace, columns, equations.rows / alike)


@dataclass(frozen=True)
class StandIns:
    """Channels that stay in place of those that go, alike at all places.

    Parameters
    ----------
    kept : (K, P), gone : (R, P) int64
        Columns of the channels, one for each place.
    shares : (K, R) float64
        Of each kept channel in each that goes.
    """

    kept: Ints
    gone: Ints
    shares: Doubles

    def give(self, weights: Doubles) -> Doubles:
        """``weights`` (D, M) in which kept channels have their shares of those that go, place by place."""
        given = weights.copy()
        given[self.kept] += np.tensordot(self.shares, weights[self.gone], 1)
        return given


def stand_ins(
    equations: Equations, channels: Ints, keep: Bools, ridge: float, *, intercept: bool = True
) -> StandIns | None:
    """The channels that stay which come nearest to those that go, by statistics tied over the places of a channel.

    A layer that reads every channel at many places (a Gemm behind a Flatten, a kernel of many taps) has a column for
    each of them. That a channel is a mixture of others, the same at every place, takes the covariance of channels
    alone, to which every place of every row adds: few rows tell it well, though not that of all columns.

    Parameters
    ----------
    equations
        Of D columns.
    channels : (D,) int64
        Channel of every column but the intercept; 0 for none.
    keep : (D,) bool
        Columns that stay, the intercept among them.
    ridge
        Relative, as for :func:`~reap_onnx.numerics.path.ridge_of`; larger where the rows call for it.
    intercept
        The last column is the constant 1.

    Returns
    -------
    StandIns or None
        None where channels have a single place, or not all as many, or nothing goes or stays.
    """
    columns = by_channel(channels)
    if columns is None:
        return None
    stays = keep[columns].all(axis=1)
    if stays.all() or not stays.any():
        return None
    covariance = tied_covariance(equations, columns, intercept=intercept)
    trace = float(np.trace(covariance))
    least = _shrinkage(covariance, trace, len(columns), equations.rows * columns.shape[1])
    corner = covariance[np.ix_(stays, stays)]
    corner[np.diag_indices_from(corner)] += max(ridge_of(trace / len(columns), ridge), least)
    return StandIns(columns[stays], columns[~stays], solve(factor(corner), covariance[np.ix_(stays, ~stays)]))


def by_channel(channels: Ints) -> Ints | None:
    """Columns by channel and place, (C, P), of the channels of all columns, (D,), of which 0 is none.

    None where channels have one place, or not all as many, or where a column has no channel.
    """
    found, counts = np.unique(channels, return_counts=True)
    if not found.size or found[0] == 0 or counts.min() < max(2, counts.max()):
        return None
    columns: Ints = np.argsort(channels, kind="stable").reshape(len(found), -1)
    return columns


def tied_covariance(equations: Equations, columns: Ints, *, intercept: bool = True) -> Doubles:
    """Covariance of channels, (C, C), the mean over their places; ``columns`` (C, P) has a column for each."""
    n, (channels, places) = equations.rows, columns.shape
    if isinstance(equations, Normal):
        mean = equations.gram[-1] / n if intercept else np.zeros(len(equations.gram))
        parts = (equations.gram[np.ix_(at, at)] / n - np.outer(mean[at], mean[at]) for at in columns.T)
        return np.asarray(sum(parts, np.zeros((channels, channels))) / places)
    x = _centred(equations.x, intercept)[:, columns].transpose(1, 0, 2).reshape(channels, -1)
    return np.asarray((x @ x.T).astype(np.float64) / (n * places))


def _covariance(equations: Equations, intercept: bool) -> tuple[Doubles, float, int]:
    """A matrix with the squares of the covariance, or of its transposed form; its trace; the number of columns."""
    n = equations.rows
    if isinstance(equations, Normal):
        covariance, size = equations.gram / n, len(equations.gram) - int(intercept)
        if intercept:
            mean = covariance[-1, :-1].copy()
            covariance = covariance[:-1, :-1] - np.outer(mean, mean)
    else:
        x = _centred(equations.x, intercept)
        covariance, size = (x @ x.T).astype(np.float64) / n, x.shape[1] - int(intercept)
    return covariance, float(np.trace(covariance)), size


def _centred(x: npt.NDArray[np.float32], intercept: bool) -> npt.NDArray[np.float32]:
    """Rows about their means; the intercept becomes nothing."""
    return np.asarray(x - x.mean(axis=0)) if intercept else x


def _shrinkage(covariance: Doubles, trace: float, columns: int, rows: float) -> float:
    """The ridge for a covariance of so many columns, known by so many rows."""
    square = float(np.square(covariance).sum())
    flat = trace * trace / max(columns, 1)
    if flat <= 0:
        return 0.0
    spread = (rows + 1 - 2 / columns) * (square - flat)
    share = min(_MOST, ((1 - 2 / columns) * square + trace * trace) / spread) if spread > 0 else _MOST
    return max(0.0, share) / (1 - max(0.0, share)) * trace / columns
