from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.numerics.factor import factor, inverse, solve


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_positive_definite_matrix_is_solved_as_numpy_does(size, features, seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((3 * size + 5, size))
    matrix, right = a.T @ a, rng.standard_normal((size, features))
    lower = factor(matrix)
    np.testing.assert_allclose(lower @ lower.T, matrix, atol=1e-10)
    np.testing.assert_array_equal(np.triu(lower, 1), 0)
    np.testing.assert_allclose(solve(lower, right), np.linalg.solve(matrix, right), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(inverse(lower), np.linalg.inv(matrix), rtol=1e-6, atol=1e-9)


def singular_matrices():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 4))
    duplicated = np.hstack([a, a[:, :2]])
    dead = np.hstack([a, np.zeros((50, 2))])
    few = rng.standard_normal((3, 8))
    noise = rng.standard_normal((6, 6)) * 1e-5
    return {
        "duplicated": duplicated.T @ duplicated,
        "dead": dead.T @ dead,
        "fewer rows than columns": few.T @ few,
        "zero": np.zeros((3, 3)),
        "indefinite by rounding": duplicated.T @ duplicated + noise + noise.T,
    }


@pytest.mark.parametrize("name", singular_matrices())
def test_singular_matrices_have_a_factor_close_by(name):
    matrix = singular_matrices()[name]
    lower = factor(matrix)
    assert np.isfinite(lower).all()
    assert (np.diagonal(lower) != 0).all()
    np.testing.assert_allclose(lower @ lower.T, matrix, atol=1e-4 if "rounding" in name else 1e-5)


def test_the_empty_matrix():
    lower = factor(np.zeros((0, 0)))
    assert inverse(lower).shape == (0, 0)
    assert solve(lower, np.zeros((0, 3))).shape == (0, 3)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        factor(np.array([[1.0, np.nan], [np.nan, 1.0]]))
