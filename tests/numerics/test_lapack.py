from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from reap_onnx.numerics import lapack
from reap_onnx.numerics.parallel import one_blas_thread


def positive_definite(size: int) -> np.ndarray:
    a = np.random.default_rng(size).standard_normal((2 * size + 3, size))
    return np.asfortranarray(a.T @ a)


@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_factor_inverse_and_solution_are_numpys(size):
    matrix, right = positive_definite(size), np.random.default_rng(1).standard_normal((size, 3))
    lower = matrix.copy(order="F")
    assert lapack.cholesky(lower)
    np.testing.assert_allclose(np.tril(lower), np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(np.triu(lower, 1), np.triu(matrix, 1))
    found = np.array(right, order="F")
    lapack.solve(lower, found)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-7, atol=1e-9)
    lapack.invert(lower)
    np.testing.assert_allclose(np.tril(lower), np.tril(np.linalg.inv(matrix)), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("size", "columns"), [(1, 1), (5, 2), (2, 5), (300, 40)])
def test_a_square_is_taken_off_the_lower_triangle(size, columns):
    rng = np.random.default_rng(size)
    f, matrix = np.asfortranarray(rng.standard_normal((size, columns))), positive_definite(size)
    found = matrix.copy(order="F")
    lapack.subtract_square(f, found)
    np.testing.assert_allclose(np.tril(found), np.tril(matrix - f @ f.T), rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(np.triu(found, 1), np.triu(matrix, 1))


def test_what_has_no_factor_is_said():
    assert not lapack.cholesky(np.asfortranarray([[1.0, 0.0], [2.0, 1.0]]))


def test_other_layouts_are_refused():
    read_only = np.eye(3, order="F")
    read_only.flags.writeable = False
    others = (
        np.ones((3, 2), order="F"),
        np.eye(3, dtype=np.float32),
        np.ones((4, 4))[::2, ::2],
        np.ones((0, 0)),
        read_only,
    )
    for matrix in others:
        with pytest.raises(ValueError, match="Fortran order"):
            lapack.cholesky(matrix)
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        lapack.solve(np.eye(3, order="F"), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        lapack.solve(np.eye(3, order="F"), np.ones((2, 2), order="F"))


def test_other_threads_go_on_meanwhile():
    """A thread that notes the time does so within a call; one that is held up has a gap as long as the call."""
    matrix, noted, over = positive_definite(3000), list[float](), threading.Event()

    def note() -> None:
        while not over.is_set():
            noted.append(time.perf_counter())
            time.sleep(0)

    thread = threading.Thread(target=note)
    thread.start()
    try:
        lower = matrix.copy(order="F")
        with one_blas_thread():
            start = time.perf_counter()
            assert lapack.cholesky(lower)
            end = time.perf_counter()
    finally:
        over.set()
        thread.join()
    within = [start, *(moment for moment in noted if start < moment < end), end]
    assert max(np.diff(within)) < (end - start) / 2
