"""Cholesky factors of Gram matrices, which may be singular: dead, constant, duplicated or collinear columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import linalg

Doubles = npt.NDArray[np.float64]

_GROWTH = (0.0, 1e-13, 1e-11, 1e-9, 1e-7)


def factor(matrix: Doubles) -> Doubles:
    """Lower triangular ``L`` with ``L L' = matrix``, or as near to it as a well-posed problem comes.

    A pivot that is lost in the rounding of its own diagonal entry is no pivot: then the diagonal grows by up to 1e-7
    of its mean, and where that is not enough, eigenvalues below the size of the rounding are lifted to it.

    Parameters
    ----------
    matrix : (D, D) float64
        Symmetric, positive semidefinite up to rounding; any ridge is already on its diagonal.

    Returns
    -------
    (D, D) float64
        With zeros above the diagonal; every diagonal entry is non-zero.

    Raises
    ------
    ValueError
        The matrix holds values that are not finite.
    """
    if not np.isfinite(matrix).all():
        raise ValueError("the normal equations hold values that are not finite")
    if matrix.size == 0:
        return matrix.copy()
    diagonal = np.diagonal(matrix)
    least = len(matrix) * np.finfo(np.float64).eps
    lower: Doubles
    for growth in _GROWTH:
        lifted = np.array(matrix.T, order="F")
        grown = diagonal + growth * _scale(matrix)
        np.fill_diagonal(lifted, grown)
        lower, info = linalg.lapack.dpotrf(lifted, lower=1, clean=1, overwrite_a=1)
        if info == 0 and np.all(np.diagonal(lower) ** 2 > least * grown):
            return lower
    return _spectral_factor(matrix, least)


def solve(lower: Doubles, right: Doubles) -> Doubles:
    """Solve ``L L' x = right`` for ``x`` (D, M), with ``L`` (D, D) from :func:`factor`."""
    if right.size == 0:
        return right.copy()
    solution: Doubles = linalg.cho_solve((lower, True), right, check_finite=False)
    return solution


def inverse(lower: Doubles) -> Doubles:
    """Symmetric inverse (D, D) of ``L L'``, with ``L`` from :func:`factor`."""
    half = lower_inverse(lower)
    half += np.tril(half, -1).T
    return half


def lower_inverse(lower: Doubles, *, overwrite: bool = False) -> Doubles:
    """Lower triangle (D, D) of that inverse, zeros above, Fortran order; with ``overwrite`` in the place of ``L``."""
    if lower.size == 0:
        return lower.copy()
    half: Doubles = linalg.lapack.dpotri(lower, lower=1, overwrite_c=int(overwrite))[0]
    return half


def _scale(matrix: Doubles) -> float:
    """Mean of the diagonal; 1 where that is not positive."""
    mean = float(np.diagonal(matrix).mean()) if matrix.size else 0.0
    return mean if mean > 0 else 1.0


def _spectral_factor(matrix: Doubles, least: float) -> Doubles:
    values, vectors = np.linalg.eigh(matrix)
    floor = max(-values[0], least * values[-1], np.finfo(np.float64).tiny)
    root = vectors * np.sqrt(np.maximum(values, floor))
    _, upper = np.linalg.qr(root.T)
    lower: Doubles = upper.T
    return lower
