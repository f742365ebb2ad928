"""Cholesky factors of Gram matrices, which may be singular: dead, constant, duplicated or collinear columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics import lapack
from reap_onnx.numerics.parallel import all_cores

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
    for growth in _GROWTH:
        lower = np.array(matrix.T, order="F", dtype=np.float64)
        grown = diagonal + growth * _scale(matrix)
        np.fill_diagonal(lower, grown)
        with all_cores(len(matrix) ** 3 / 6):
            found = lapack.cholesky(lower)
        if found and np.all(np.diagonal(lower) ** 2 > least * grown):
            _clear_above(lower)
            return lower
    return _spectral_factor(matrix, least)


def solve(lower: Doubles, right: Doubles) -> Doubles:
    """Solve ``L L' x = right`` for ``x`` (D, M), with ``L`` (D, D) from :func:`factor`."""
    if right.size == 0:
        return right.copy()
    solution = np.array(right, order="F", dtype=np.float64)
    with all_cores(len(lower) * right.size):
        lapack.solve(lower, solution)
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
    half = lower if overwrite else np.array(lower, order="F")
    with all_cores(len(lower) ** 3 / 3):
        lapack.invert(half)
    return half


def _clear_above(lower: Doubles) -> None:
    """Zeros above the diagonal, column by column."""
    for column in range(1, len(lower)):
        lower[:column, column] = 0


def _scale(matrix: Doubles) -> float:
    """Mean of the diagonal; 1 where that is not positive."""
    mean = float(np.diagonal(matrix).mean()) if matrix.size else 0.0
    return mean if mean > 0 else 1.0


def _spectral_factor(matrix: Doubles, least: float) -> Doubles:
    values, vectors = np.linalg.eigh(matrix)
    floor = max(-values[0], least * values[-1], np.finfo(np.float64).tiny)
    root = vectors * np.sqrt(np.maximum(values, floor))
    _, upper = np.linalg.qr(root.T)
    lower: Doubles = np.asfortranarray(upper.T)
    return lower
