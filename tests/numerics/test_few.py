from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from reap_onnx.numerics.few import shrinkage_ridge, stand_ins, tied_covariance
from reap_onnx.numerics.gram import Rows
from reap_onnx.numerics.path import Problem, RowProblem, removal_path
from reap_onnx.numerics.refit import refit, with_intercept


def drawn(covariance, rows, seed, mean=3.0):
    """Rows of a normal distribution, the constant 1 last, and targets."""
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal(np.full(len(covariance), mean), covariance, size=rows)
    x = np.hstack([x, np.ones((rows, 1))]).astype(np.float32)
    return Rows(x, (x @ rng.standard_normal((x.shape[1], 2))).astype(np.float32))


def decaying(columns, seed=0):
    """A covariance whose eigenvalues fall as 1 / k."""
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((columns, columns)))[0]
    return (basis / np.arange(1, columns + 1)) @ basis.T


@pytest.mark.parametrize("rows", [8, 30, 120, 1000])
def test_the_ridge_of_few_rows_is_near_the_best_there_is(rows):
    """Of all covariances shrunk to a multiple of the identity, that of the ridge comes close to the nearest one."""
    truth = decaying(60)
    found, best = [], []
    for seed in range(20):
        equations = drawn(truth, rows, seed)
        sample = np.cov(equations.x[:, :-1].T.astype(float), bias=True)
        spread = np.trace(sample) / 60

        def miss(share, sample=sample, spread=spread):
            return np.square((1 - share) * sample + share * spread * np.eye(60) - truth).sum()

        share = 1 / (1 + spread / shrinkage_ridge(equations.centred()))
        found.append(miss(share))
        best.append(min(miss(share) for share in np.linspace(0, 1, 101)))
    assert np.mean(found) < 1.1 * np.mean(best)


def test_the_ridge_is_that_of_the_formula():
    """Of Chen, Wiesel, Eldar & Hero, (23) with S by n rows of p columns."""
    n, p, x = 50, 40, drawn(decaying(40), 50, seed=0).centred()
    covariance = np.cov(x.x.T.astype(float), bias=True)
    trace, square = np.trace(covariance), np.trace(covariance @ covariance)
    share = ((1 - 2 / p) * square + trace**2) / ((n + 1 - 2 / p) * (square - trace**2 / p))
    assert shrinkage_ridge(x) == pytest.approx(share / (1 - share) * trace / p, rel=1e-4)


def test_rows_and_their_sums_call_for_the_same_ridge():
    for rows in (5, 40, 500):
        equations = drawn(decaying(40), rows, seed=rows)
        for one, other in ((equations, equations.sums()), (equations.centred(), equations.sums().centred())):
            assert shrinkage_ridge(one) == pytest.approx(shrinkage_ridge(other), rel=1e-4)
            assert shrinkage_ridge(one, alike=4) > 1.5 * shrinkage_ridge(one)


def test_more_rows_call_for_less():
    ridges = [shrinkage_ridge(drawn(decaying(40), rows, seed=1).centred()) for rows in (4, 16, 64, 256, 4096)]
    assert all(one > 1.5 * other for one, other in pairwise(ridges))
    assert ridges[-1] < 0.01 * np.trace(decaying(40)) / 40


@pytest.mark.parametrize("columns", [1, 2, 30])
def test_many_rows_of_alike_columns_call_for_next_to_none(columns):
    """The identity is then the truth; as a ridge it would be in the way."""
    x = np.random.default_rng(0).standard_normal((5000, columns)).astype(np.float32)
    for equations in (Rows(x, x[:, :1]), Rows(x, x[:, :1]).sums()):
        assert 0 <= shrinkage_ridge(equations) < 1.1 * columns / 5000


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_what_does_not_vary_calls_for_no_ridge_and_a_single_row_for_a_finite_one(rows):
    still = Rows(np.ones((rows, 6), np.float32), np.ones((rows, 2), np.float32))
    assert shrinkage_ridge(still.centred()) == 0
    assert shrinkage_ridge(still.sums().centred()) == pytest.approx(0, abs=1e-12)
    one = Rows(np.arange(6, dtype=np.float32)[None], np.ones((1, 1), np.float32))
    assert 0 < shrinkage_ridge(one) < np.inf


def test_centred_rows_and_sums_are_those_about_the_means():
    equations = drawn(decaying(9), 30, seed=0, mean=7.0)
    x, y = (part.astype(float) - part.mean(axis=0, dtype=float) for part in (equations.x[:, :-1], equations.y))
    rows, sums = equations.centred(), equations.sums().centred()
    np.testing.assert_allclose(rows.x, x, atol=1e-5)
    np.testing.assert_allclose(rows.y, y, atol=1e-4)
    np.testing.assert_allclose(sums.gram, x.T @ x, atol=1e-8)
    np.testing.assert_allclose(sums.cross, x.T @ y, atol=1e-8)
    np.testing.assert_allclose(sums.square, np.square(y).sum(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(sums.total, 0)
    assert rows.rows == sums.rows == 30


def at_places(rows, seed, channels=8, places=25, mixed=2):
    """Channels at many places, the last ones mixtures of the others, alike everywhere; the channel of each column."""
    same, rng = np.random.default_rng(0), np.random.default_rng(seed)
    means, shares = same.standard_normal((channels - mixed, places)), same.standard_normal((mixed, channels - mixed))
    free = rng.standard_normal((rows, channels - mixed, places)) + means
    x = np.concatenate([free, np.einsum("mc,ncp->nmp", shares, free) + 2.0], axis=1).reshape(rows, -1)
    x = np.hstack([x, np.ones((rows, 1))]).astype(np.float32)
    weights = same.standard_normal((x.shape[1], 3))
    return Rows(x, (x @ weights).astype(np.float32)), weights, np.repeat(np.arange(1, channels + 1), places)


@pytest.mark.parametrize("known", ["rows", "sums"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_that_are_mixtures_of_others_are_made_up_for_by_few_rows(known, channels_last):
    """On rows never seen, though those seen are a tenth of the columns."""
    few, weights, channels = at_places(20, seed=1)
    many, _, _ = at_places(400, seed=2)
    order = np.arange(200).reshape(8, 25).T.ravel() if channels_last else np.arange(200)
    columns, channels = np.append(order, 200), channels[order]
    few, many = Rows(few.x[:, columns], few.y), Rows(many.x[:, columns], many.y)
    weights, keep = weights[columns], np.append(channels <= 6, True)

    def missed(fitted):
        return np.square(many.x[:, keep] @ fitted - many.y).mean() / many.y.var(axis=0).mean()

    about = few.centred() if known == "rows" else few.sums().centred()
    found = stand_ins(about, channels, keep[:-1], ridge=1e-9)
    assert missed(with_intercept(few, keep, found.give(weights))) < 1e-3
    assert missed(refit(few, keep, 1e-4, weights)) > 0.1
    np.testing.assert_array_equal(channels[found.kept], np.tile(np.arange(1, 7)[:, None], 25))
    np.testing.assert_array_equal(channels[found.gone], np.tile(np.arange(7, 9)[:, None], 25))


def test_stand_ins_are_those_of_least_squares_over_all_places():
    equations, _, channels = at_places(300, seed=3)
    keep, columns = channels % 4 > 0, np.arange(200).reshape(8, 25)
    x = equations.x[:, :-1].astype(float)
    x = (x - x.mean(axis=0)).reshape(300, 8, 25).transpose(0, 2, 1).reshape(-1, 8)
    for known in (equations.centred(), equations.sums().centred()):
        found = stand_ins(known, channels, keep, ridge=1e-12)
        least = np.linalg.lstsq(x[:, [0, 1, 2, 4, 5, 6]], x[:, [3, 7]], rcond=None)[0]
        np.testing.assert_allclose(found.shares, least, rtol=0.05, atol=2e-3)
        tied = tied_covariance(known, columns)
        np.testing.assert_allclose(tied, x.T @ x / len(x), atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "gone"),
    [([1, 2, 3, 4], [3, 4]), ([1, 1, 2, 2], []), ([1, 1, 2, 2], [1, 2]), ([1, 1, 1, 2], [2]), ([0, 0, 1, 1], [1])],
)
def test_there_are_none_without_places_or_without_something_that_goes_and_something_that_stays(channels, gone):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4)).astype(np.float32)
    assert stand_ins(Rows(x, x[:, :2]), np.array(channels), ~np.isin(channels, gone), 1e-4) is None


@pytest.mark.parametrize("known", ["rows", "sums"])
def test_an_intercept_alone_leaves_no_mean_error(known):
    equations, weights, channels = at_places(20, seed=1)
    keep = np.append(channels % 3 > 0, True)
    found = with_intercept(equations if known == "rows" else equations.sums(), keep, weights)
    np.testing.assert_allclose((equations.x[:, keep] @ found - equations.y).mean(axis=0), 0, atol=1e-4)
    np.testing.assert_array_equal(found[:-1], weights[keep][:-1])


@pytest.mark.parametrize("kind", [Problem, RowProblem])
def test_a_problem_has_at_least_the_ridge_that_it_asks_for(kind):
    equations = drawn(decaying(12), 9, seed=0)
    parts = (
        (equations.x, equations.y) if kind is RowProblem else (equations.sums().gram / 9, equations.sums().cross / 9)
    )
    units = np.append(np.arange(12), -1)
    scale = equations.scale
    asked = removal_path([kind(*parts, units, least_ridge=0.1 * scale)], 12, ridge=1e-4)
    np.testing.assert_allclose(asked.errors, removal_path([kind(*parts, units)], 12, ridge=0.1).errors, rtol=1e-4)
    larger = removal_path([kind(*parts, units, least_ridge=1e-4 * scale)], 12, ridge=0.1)
    np.testing.assert_allclose(larger.errors, asked.errors, rtol=1e-4)


def test_fewer_rows_than_columns_do_not_make_channels_free():
    """40 rows of 100 columns foretell the order of the error on other rows; without the ridge, none at all."""
    truth, units = decaying(100), np.arange(100)
    told, real, blind = [], [], []
    for seed in range(5):
        few, many = drawn(truth, 40, seed), drawn(truth, 4000, seed + 100)
        weights = np.random.default_rng(seed).standard_normal((101, 4))
        few, many = (Rows(part.x, (part.x @ weights).astype(np.float32)) for part in (few, many))
        ridge, keep, about = shrinkage_ridge(few.centred()), np.ones(101, bool), few.centred()
        path = removal_path([RowProblem(about.x, about.y, units, least_ridge=ridge)], 100, 1e-4)
        keep[path.order[:50]] = False
        told.append(path.errors[50])
        real.append(np.square(many.x[:, keep] @ refit(few, keep, ridge, weights) - many.y).sum(axis=1).mean())
        blind.append(removal_path([RowProblem(about.x, about.y, units)], 100, 1e-4).errors[50])
    assert 0.1 < np.mean(told) / np.mean(real) < 1.5
    assert np.mean(blind) < 0.02 * np.mean(real)
