"""The weights of a consumer on the channels that it keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.factor import factor, solve

Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]


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

    def correction(self, product: Singles) -> Singles:
        """How far targets move, (n, M), now that ``x W`` is ``product`` (n, M)."""
        output = product + self.offset
        target = np.where(self.total <= self.low, np.minimum(output, self.low), self.total)
        target = np.where(self.total >= self.high, np.maximum(output, self.high), target)
        return np.asarray(target - self.total, np.float32)


def refit(
    gram: Doubles,
    cross: Doubles,
    keep: npt.NDArray[np.bool_],
    ridge: float,
    prior: Doubles | None = None,
    *,
    intercept: bool = True,
) -> Doubles:
    """Least-squares weights on the kept columns, pulled gently towards ``prior``.

    With ``K`` the kept columns and ``R`` the ridge on the diagonal, solves
    ``(G_KK + R) W = B_K + R prior_K`` by Cholesky, written as a correction of the prior so that a problem
    without enough data to say otherwise leaves the prior as it is.

    Parameters
    ----------
    gram : (D, D) float64
        Mean of ``x x'``.
    cross : (D, M) float64
        Mean of ``x y'``.
    keep : (D,) bool
        Columns that stay.
    ridge
        Absolute, in the units of ``gram``, as :func:`~reap_onnx.numerics.path.ridge_of` gives it.
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
    return _fit(gram, cross, keep, ridge, prior, intercept)[0]


def refit_clipped(
    gram: Doubles,
    cross: Doubles,
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
    gram, cross, keep, ridge, prior, intercept
        As for :func:`refit`.
    rows
        Rows to look at, as many as there is room for; the linear fit itself comes from ``gram`` and ``cross``.
    rounds
        How often to look again; 0 gives :func:`refit`.

    Returns
    -------
    (K, M) float64
        Weights on the kept columns, in their order.
    """
    linear, factored = _fit(gram, cross, keep, ridge, prior, intercept)
    fitted, x = linear, rows.x[:, keep]
    for _ in range(rounds if len(x) else 0):
        change = x.T @ rows.correction(x @ fitted.astype(np.float32))
        fitted = linear + solve(factored, change.astype(np.float64) / len(x))
    return fitted


def _fit(
    gram: Doubles, cross: Doubles, keep: npt.NDArray[np.bool_], ridge: float, prior: Doubles | None, intercept: bool
) -> tuple[Doubles, Doubles]:
    """The weights of :func:`refit`, and the factor of the matrix that they solve."""
    columns, features = cross.shape
    if gram.shape != (columns, columns) or keep.shape != (columns,):
        raise ValueError(f"gram {gram.shape}, cross {cross.shape} and keep {keep.shape} do not fit each other")
    if prior is not None and prior.shape != cross.shape:
        raise ValueError(f"prior {prior.shape} does not fit cross {cross.shape}")
    kept = np.flatnonzero(keep)
    matrix = gram[np.ix_(kept, kept)]
    start = np.zeros((len(kept), features)) if prior is None else prior[kept].astype(np.float64)
    missing = cross[kept] - matrix @ start
    if not np.isfinite(missing).all():
        raise ValueError("the normal equations hold values that are not finite")
    penalty = np.full(len(kept), ridge)
    if intercept and keep[-1:].any():
        penalty[-1] = 0.0
    matrix[np.diag_indices_from(matrix)] += penalty
    factored = factor(matrix)
    return start + solve(factored, missing), factored
