"""The weights of a consumer on the channels that it keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.factor import factor, solve

Doubles = npt.NDArray[np.float64]


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
    columns, features = cross.shape
    if gram.shape != (columns, columns) or keep.shape != (columns,):
        raise ValueError(f"gram {gram.shape}, cross {cross.shape} and keep {keep.shape} do not fit each other")
    if prior is not None and prior.shape != cross.shape:
        raise ValueError(f"prior {prior.shape} does not fit cross {cross.shape}")
    if not keep.any():
        return np.zeros((0, features))
    kept = np.flatnonzero(keep)
    matrix = gram[np.ix_(kept, kept)]
    start = np.zeros((len(kept), features)) if prior is None else prior[kept].astype(np.float64)
    missing = cross[kept] - matrix @ start
    if not np.isfinite(missing).all():
        raise ValueError("the normal equations hold values that are not finite")
    penalty = np.full(len(kept), ridge)
    if intercept and keep[-1]:
        penalty[-1] = 0.0
    matrix[np.diag_indices_from(matrix)] += penalty
    fitted: Doubles = start + solve(factor(matrix), missing)
    return fitted
