from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.numerics import refit as module
from reap_onnx.numerics.factor import factor
from reap_onnx.numerics.gram import Normal, Rows
from reap_onnx.numerics.refit import ClippedRows, held_out_ridge, refit, refit_clipped, squared_error


def sums(x, y):
    return Normal(x.T @ x, x.T @ y, np.square(y).sum(axis=0), y.sum(axis=0), len(x))


def system(seed, rows=200, columns=6, features=3, shift=2.0):
    """Rows with the constant 1 last, targets, and their sums."""
    rng = np.random.default_rng(seed)
    x = np.hstack([rng.standard_normal((rows, columns)) + shift, np.ones((rows, 1))])
    y = x @ rng.standard_normal((columns + 1, features)) + 0.1 * rng.standard_normal((rows, features)) + 50
    return x, y, sums(x, y)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=6, max_size=6))
def test_weights_are_those_of_lstsq(seed, kept):
    x, y, equations = system(seed)
    keep = np.array([*kept, True])
    ours = refit(equations, keep, ridge=0.0)
    np.testing.assert_allclose(ours, np.linalg.lstsq(x[:, keep], y, rcond=None)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_ridge_solves_the_stated_equations(intercept):
    _, _, equations = system(1)
    keep = np.array([1, 0, 1, 1, 0, 1, 1], bool)
    gram, cross = equations.gram / 200, equations.cross / 200
    prior = np.random.default_rng(2).standard_normal(cross.shape)
    penalty = np.full(keep.sum(), 0.3)
    penalty[-1] = 0.0 if intercept else 0.3
    matrix = gram[np.ix_(keep, keep)] + np.diag(penalty)
    plain = refit(equations, keep, 0.3, intercept=intercept)
    np.testing.assert_allclose(plain, np.linalg.solve(matrix, cross[keep]), rtol=1e-9)
    pulled = refit(equations, keep, 0.3, prior, intercept=intercept)
    expected = np.linalg.solve(matrix, cross[keep] + penalty[:, None] * prior[keep])
    np.testing.assert_allclose(pulled, expected, rtol=1e-9)


def test_the_ridge_does_not_shrink_the_intercept():
    _, y, equations = system(3, shift=0.0)
    heavy = refit(equations, np.ones(7, bool), 1e6)
    np.testing.assert_allclose(heavy[-1], y.mean(axis=0), rtol=1e-4)
    assert np.abs(heavy[:-1]).max() < 1e-4


def test_a_heavy_ridge_returns_the_prior():
    _, _, equations = system(4)
    prior = np.random.default_rng(5).standard_normal(equations.cross.shape)
    keep = np.array([1, 1, 0, 1, 1, 1, 1], bool)
    ours = refit(equations, keep, 1e9, prior, intercept=False)
    np.testing.assert_allclose(ours, prior[keep], atol=1e-6)


def test_what_the_data_does_not_see_stays_as_the_prior_had_it():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((100, 4))
    x[:, 2] = 0
    y = rng.standard_normal((100, 2))
    prior = rng.standard_normal((4, 2))
    for ridge in (0.0, 1e-6):
        ours = refit(sums(x, y), np.ones(4, bool), ridge, prior, intercept=False)
        np.testing.assert_allclose(ours[2], prior[2])


@pytest.mark.parametrize("ridge", [0.0, 1e-8, 1e-3])
def test_duplicated_dead_and_constant_columns_fit_as_well_as_lstsq(ridge):
    rng = np.random.default_rng(7)
    a = rng.standard_normal((300, 3))
    x = np.hstack([a, a[:, :1], np.zeros((300, 1)), np.full((300, 1), 4.0), a @ np.ones((3, 1)), np.ones((300, 1))])
    y = rng.standard_normal((300, 2)) + a[:, :2]
    ours = refit(sums(x, y), np.ones(8, bool), ridge)
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.abs(ours).max() < 1e3
    assert np.square(y - x @ ours).mean() <= np.square(y - x @ best).mean() * (1 + 1e-4)


def test_fewer_rows_than_columns():
    rng = np.random.default_rng(8)
    x = np.hstack([rng.standard_normal((5, 9)), np.ones((5, 1))])
    y = rng.standard_normal((5, 2))
    ours = refit(sums(x, y), np.ones(10, bool), 1e-9)
    np.testing.assert_allclose(x @ ours, y, atol=1e-4)


def test_normal_equations_with_float32_rounding():
    rng = np.random.default_rng(9)
    a = rng.standard_normal((400, 5))
    x = np.hstack([a, a + 1e-9])
    noise = rng.standard_normal((10, 10)) * 1e-6
    y = a @ rng.standard_normal((5, 2))
    noisy = replace(sums(x, y), gram=x.T @ x + 400 * (noise + noise.T))
    ours = refit(noisy, np.ones(10, bool), 0.0, intercept=False)
    assert np.square(y - x @ ours).mean() < 1e-6 * np.square(y).mean()


def test_nothing_kept_and_inputs_that_do_not_fit():
    _, _, equations = system(10)
    assert refit(equations, np.zeros(7, bool), 0.1).shape == (0, 3)
    with pytest.raises(ValueError, match="do not fit each other"):
        refit(equations, np.ones(6, bool), 0.1)
    with pytest.raises(ValueError, match="prior"):
        refit(equations, np.ones(7, bool), 0.1, equations.cross[:-1])
    with pytest.raises(ValueError, match="not finite"):
        refit(replace(equations, cross=equations.cross * np.nan), np.ones(7, bool), 0.1)


def clipped_problem(seed, rows=600, columns=5, features=4):
    """Targets that a linear map of all columns gives, of which the last column will be gone; half are clipped away."""
    rng = np.random.default_rng(seed)
    x = np.hstack([rng.standard_normal((rows, columns)), np.ones((rows, 1))]).astype(np.float32)
    total = (x @ rng.standard_normal((columns + 1, features))).astype(np.float32)
    keep = np.array([True] * (columns - 1) + [False, True])
    offset = 0.3 * rng.standard_normal((rows, features)).astype(np.float32)
    return ClippedRows(x, total, offset, 0.0, 1.0), sums(x.astype(float), (total - offset).astype(float)), keep


def clipped_error(rows, weights, keep):
    """What is seen is to be met; what is hidden is to stay hidden."""
    output = rows.x[:, keep] @ weights + rows.offset
    error = np.where(rows.total <= rows.low, np.maximum(output - rows.low, 0), output - rows.total)
    error = np.where(rows.total >= rows.high, np.minimum(output - rows.high, 0), error)
    return np.mean(error**2)


@pytest.mark.parametrize("seed", range(5))
def test_the_clipped_error_falls_from_round_to_round(seed):
    rows, equations, keep = clipped_problem(seed)
    prior = np.zeros_like(equations.cross)
    fits = [refit_clipped(equations, keep, 1e-9, prior, rows, rounds=r) for r in range(6)]
    np.testing.assert_array_equal(fits[0], refit(equations, keep, 1e-9, prior))
    errors = [clipped_error(rows, weights, keep) for weights in fits]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(errors))
    assert errors[-1] < 0.97 * errors[0]


def test_rows_in_pieces_count_as_those_in_one(monkeypatch):
    rows, equations, keep = clipped_problem(7)
    prior = np.zeros_like(equations.cross)
    whole = refit_clipped(equations, keep, 1e-3, prior, rows, rounds=4)
    monkeypatch.setattr(module, "_PIECE", 70)
    np.testing.assert_allclose(refit_clipped(equations, keep, 1e-3, prior, rows, rounds=4), whole, atol=1e-6)
    assert np.abs(whole - refit(equations, keep, 1e-3, prior)).max() > 1e-3


def test_what_the_activation_hides_does_not_move_the_fit():
    rng = np.random.default_rng(0)
    x = np.hstack([rng.standard_normal((500, 4)), np.ones((500, 1))]).astype(np.float32)
    true = rng.standard_normal((5, 1))
    seen = (x @ true).astype(np.float32)
    total = np.where(seen < 0, 4 * seen, seen)  # far below zero: a ReLU shows none of it
    rows = ClippedRows(x, total, np.zeros_like(total), 0.0, np.inf)
    equations, keep = sums(x.astype(float), total.astype(float)), np.ones(5, bool)
    linear = refit(equations, keep, 0.0)
    clipped = refit_clipped(equations, keep, 0.0, np.zeros_like(equations.cross), rows, rounds=1000)
    assert np.abs(linear - true).max() > 1
    np.testing.assert_allclose(clipped, true, atol=1e-3)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("rounds", [0, 3])
def test_few_rows_of_many_columns_give_the_weights_of_their_sums(intercept, rounds):
    rng = np.random.default_rng(11)
    x = np.hstack([rng.standard_normal((20, 60)) + 1, np.ones((20, 1))]).astype(np.float32)
    y = rng.standard_normal((20, 3)).astype(np.float32)
    keep, prior = np.append(rng.random(60) < 0.8, True), rng.standard_normal((61, 3))
    clipped = ClippedRows(x, np.maximum(y, 0), np.zeros_like(y), 0.0, np.inf)
    by_rows, by_sums = (
        refit_clipped(equations, keep, 0.01, prior, clipped, rounds=rounds, intercept=intercept)
        for equations in (Rows(x, y), Rows(x, y).sums())
    )
    np.testing.assert_allclose(by_rows, by_sums, rtol=0, atol=1e-8)
    assert np.abs(by_rows - prior[keep]).max() > 0.1


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("count", [20, 30, 31, 50])
def test_rows_are_solved_by_the_smaller_matrix(count, intercept, monkeypatch):
    """By one of as many rows, or of as many columns as are kept."""
    rng = np.random.default_rng(14)
    x = np.hstack([rng.standard_normal((count, 60)) + 1, np.ones((count, 1))]).astype(np.float32)
    y, keep = rng.standard_normal((count, 3)).astype(np.float32), np.append(np.arange(60) % 2 == 0, True)
    sizes = []

    def watched(matrix):
        sizes.append(len(matrix))
        return factor(matrix)

    monkeypatch.setattr("reap_onnx.numerics.refit.factor", watched)
    by_rows = refit(Rows(x, y), keep, 0.01, intercept=intercept)
    assert sizes == [min(count, 31)]
    np.testing.assert_allclose(by_rows, refit(Rows(x, y).sums(), keep, 0.01, intercept=intercept), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", [Rows, lambda x, y: Rows(x, y).sums()])
def test_the_squared_error_is_that_of_the_rows(kind):
    rng = np.random.default_rng(12)
    x, y = rng.standard_normal((30, 5)).astype(np.float32), rng.standard_normal((30, 2)).astype(np.float32)
    keep, weights = np.array([1, 0, 1, 1, 0], bool), rng.standard_normal((3, 2))
    assert squared_error(kind(x, y), keep, weights) == pytest.approx(np.square(y - x[:, keep] @ weights).sum())


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_ridge_is_the_one_that_serves_other_rows_best(noise):
    """As many rows as columns: a fit that follows them is right where nothing else is in them, else it is far off."""
    rng = np.random.default_rng(13)
    true, keep = rng.standard_normal((40, 3)), np.ones(40, bool)
    x = rng.standard_normal((2, 42, 40)).astype(np.float32)
    y = (x @ true + noise * rng.standard_normal((2, 42, 3))).astype(np.float32)
    halves, ridges = tuple(Rows(*half) for half in zip(x, y, strict=True)), (1e-6, 1e-3, 0.3, 10.0)
    eye = np.eye(40)

    def error(ridge):
        fits = [np.linalg.solve(a.T @ a / 42 + ridge * eye, a.T @ b / 42) for a, b in zip(x, y, strict=True)]
        return sum(np.square(b - a @ fit).sum() for a, b, fit in zip(x, y, reversed(fits), strict=True))

    best = held_out_ridge(halves, keep, ridges, np.zeros((40, 3)), intercept=False)
    assert best == min(ridges, key=error)
    assert best == (0.3 if noise else 1e-6)
