"""What few rows can tell of many columns: the ridge that they call for, what channels share over their places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.factor import factor, solve
from reap_onnx.numerics.gram import Equations, Normal
from reap_onnx.numerics.parallel import all_cores, even_slices
from reap_onnx.numerics.path import ridge_of

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_CHUNK = 8192  # rows that are summed in float32 at a time


def shrinkage_ridge(equations: Equations, alike: float = 1.0) -> float:
    """The ridge that so few rows call for: that of a covariance shrunk towards a multiple of the identity.

    ``(1 - a) S + a s I``, with ``s`` the mean of the diagonal of ``S``, has the inverse of ``S + ridge``, but for a
    factor, where ``ridge = a / (1 - a) s``. The share ``a`` is that of the oracle approximating shrinkage (Chen,
    Wiesel, Eldar & Hero, Shrinkage Algorithms for MMSE Covariance Estimation, 2010): some effective rank of ``S`` over
    the number of rows. The ridge is ``s D / n`` at most, which a covariance that is the identity anyway would exceed.

    Parameters
    ----------
    equations
        Of D columns, centred where they have an intercept.
    alike
        How many rows say as much as one would if all were independent, at least 1.

    Returns
    -------
    float
        Absolute, in the units of ``G``; 0 where nothing varies.
    """
    if isinstance(equations, Normal):
        products, columns = equations.gram, len(equations.gram)
    else:  # of rows the transposed form, which has the same trace and sum of squares
        x, columns = equations.x, equations.x.shape[1]
        with all_cores(x.size * len(x)):
            products = (x @ x.T).astype(np.float64)
    return _shrinkage(products, columns, equations.rows / alike) / equations.rows


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


def stand_ins(equations: Equations, channels: Ints, keep: Bools, ridge: float, alike: float = 1.0) -> StandIns | None:
    """The channels that stay which come nearest to those that go, by statistics tied over the places of a channel.

    A layer that reads every channel at many places (a Gemm behind a Flatten, a kernel of many taps) has a column for
    each of them. That a channel is a mixture of others, the same at every place, takes the covariance of channels
    alone, to which every place of every row adds: few rows tell it well, though not that of all columns.

    Parameters
    ----------
    equations
        Of D columns, centred where they have an intercept.
    channels : (D,) int64
        Channel of every column; 0 for none.
    keep : (D,) bool
        Columns that stay.
    ridge
        Relative, as for :func:`~reap_onnx.numerics.path.ridge_of`; larger where the rows call for it.
    alike
        As for :func:`shrinkage_ridge`, of all places of all rows.

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
    covariance = tied_covariance(equations, columns)
    least = _shrinkage(covariance, len(columns), equations.rows * columns.shape[1] / alike)
    corner = covariance[np.ix_(stays, stays)]
    corner[np.diag_indices_from(corner)] += max(ridge_of(float(np.diagonal(covariance).mean()), ridge), least)
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


def tied_covariance(equations: Equations, columns: Ints) -> Doubles:
    """Second moments of channels, (C, C), the mean over their places; ``columns`` (C, P) has a column for each."""
    channels, places = columns.shape
    total = np.zeros((channels, channels))
    if isinstance(equations, Normal):
        for at in columns.T:
            total += equations.gram[np.ix_(at, at)]
    else:
        for some in even_slices(equations.rows, max(1, _CHUNK // places)):
            x = equations.x[some][:, columns].transpose(1, 0, 2).reshape(channels, -1)
            total += x @ x.T
    return np.asarray(total / (equations.rows * places))


def _shrinkage(covariance: Doubles, columns: int, rows: float) -> float:
    """The ridge for a covariance of so many columns, known by so many rows; in its unit."""
    flat = covariance.ravel(order="K")
    trace, square = float(np.trace(covariance)), float(flat @ flat)
    if trace <= 0:
        return 0.0
    most = trace / rows
    spread = (rows + 1 - 2 / columns) * (square - trace * trace / columns)
    share = (1 - 2 / columns) * square + trace * trace
    if spread <= share:  # the identity alone
        return most
    return min(most, max(0.0, share) / (spread - share) * trace / columns)
