from __future__ import annotations

from concurrent.futures import CancelledError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.numerics import path
from reap_onnx.numerics.path import Problem, RowProblem, removal_path, ridge_of, scores

TINY = 1e-14  # a ridge far below what is compared


class Data:
    """Rows behind a problem, so that ``numpy.linalg.lstsq`` can be asked."""

    def __init__(self, x, y, units, weight=1.0):
        self.x, self.y, self.units = x, y, np.asarray(units, np.int64)
        n = len(x)
        self.problem = Problem(x.T @ x / n, x.T @ y / n, self.units, weight)
        self.by_rows = RowProblem(x, y, self.units, weight)

    def error(self, kept, ridge=0.0):
        """Weighted least-squares error when only the units in the mask ``kept`` stay, the ridge included."""
        x = self.x[:, [u < 0 or kept[u] for u in self.units]]
        shrink = np.sqrt(len(x) * ridge) * np.eye(x.shape[1])
        rows, wanted = np.vstack([x, shrink]), np.vstack([self.y, np.zeros((x.shape[1], self.y.shape[1]))])
        rest = wanted - rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
        return float(self.problem.weight * np.square(rest).sum() / len(x))


def make(seed, units, *, features=3, rows=400, weight=1.0):
    """Correlated, skewed inputs (as after a ReLU) and noisy targets."""
    rng = np.random.default_rng(seed)
    d = len(units)
    x = np.maximum(rng.standard_normal((rows, d)) @ (np.eye(d) + rng.standard_normal((d, d)) / np.sqrt(d)) + 0.5, 0)
    x[:, list(units).index(-1)] = 1.0
    y = x @ rng.standard_normal((d, features)) + 0.3 * rng.standard_normal((rows, features))
    return Data(x, y, units, weight)


def uneven(seed):
    """Three consumers of five units: uneven numbers of columns, in any order, a unit missing, weights."""
    return [
        make(seed, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, -1]),
        make(seed + 1, [4, 0, 1, 1, 1, 3, -1, 0], weight=0.4),
        make(seed + 2, [2, -1, 3, -1, 1], features=2, weight=2.0),
    ]


def mask(n, *gone):
    kept = np.ones(n, bool)
    kept[list(gone)] = False
    return kept


def total(data, kept):
    return sum(d.error(kept) for d in data)


def problems_of(data, form="problem"):
    return [getattr(d, form) for d in data]


either_form = pytest.mark.parametrize("form", ["problem", "by_rows"])


@pytest.mark.parametrize("seed", range(5))
def test_every_score_is_the_growth_of_the_error_of_a_refit(seed):
    data = uneven(10 * seed)
    growth = [total(data, mask(5, i)) - total(data, mask(5)) for i in range(5)]
    np.testing.assert_allclose(scores(problems_of(data), 5, TINY), growth, rtol=1e-8)


def wide(seed, rows=15):
    """Fewer rows than columns, and more features than rows; a second consumer of the same units."""
    units = [*np.repeat(np.arange(8), 5), -1, -1]
    return [make(seed, units, rows=rows, features=40), make(seed + 1, units, rows=rows, weight=0.3)]


@pytest.mark.parametrize("seed", range(5))
def test_scores_of_few_rows_of_many_columns(seed):
    data = wide(600 + seed)
    ridges = [ridge_of(d.by_rows.scale, 1e-2) for d in data]

    def error(kept):
        return sum(d.error(kept, ridge) for d, ridge in zip(data, ridges, strict=True))

    growth = [error(mask(8, i)) - error(mask(8)) for i in range(8)]
    np.testing.assert_allclose(scores(problems_of(data, "by_rows"), 8, 1e-2), growth, rtol=1e-8)


@pytest.mark.parametrize(("ridge", "close"), [(1e-5, 1e-6), (1e-2, 1e-9)])
def test_the_path_by_rows_is_the_path_by_sums(ridge, close):
    units = [*np.repeat(np.arange(30), 9), -1]
    data = [make(700, units, rows=80, features=50), make(701, units, rows=60)]
    allowed = np.arange(30) % 7 > 0
    by_rows, by_sums = (
        removal_path(problems_of(data, form), 30, ridge, stop=0, candidates=allowed) for form in ("by_rows", "problem")
    )
    np.testing.assert_array_equal(by_rows.order, by_sums.order)
    np.testing.assert_allclose(by_rows.errors, by_sums.errors, rtol=close, atol=close * by_sums.errors[-1])


def test_scores_of_a_convolution_with_many_channels():
    data = [make(3, [*np.repeat(np.arange(12), 9), -1], features=8, rows=2000)]
    growth = [total(data, mask(12, i)) - total(data, mask(12)) for i in range(12)]
    np.testing.assert_allclose(scores(problems_of(data), 12, TINY), growth, rtol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_the_path_is_that_of_greedy_refits(seed):
    data = uneven(100 + 10 * seed)
    kept, order, errors = mask(5), [], [0.0]
    base = total(data, kept)
    for _ in range(5):
        after = {i: total(data, kept & mask(5, i)) for i in np.flatnonzero(kept)}
        order.append(min(after, key=after.__getitem__))
        kept[order[-1]] = False
        errors.append(after[order[-1]] - base)
    path = removal_path(problems_of(data), 5, TINY, stop=0)
    np.testing.assert_array_equal(path.order, order)
    np.testing.assert_allclose(path.errors, errors, rtol=1e-8, atol=1e-12)


def test_removing_all_units_leaves_the_fit_of_the_bias():
    data = make(7, [*np.repeat(np.arange(6), 4), -1], features=5)
    path = removal_path([data.problem], 6, TINY, stop=0)
    assert sorted(path.order.tolist()) == list(range(6))
    assert path.errors[-1] == pytest.approx(data.y.var(axis=0).sum() - data.error(mask(6)), rel=1e-8)


def test_a_long_path_does_not_drift():
    n_units = 40
    data = make(8, [*np.repeat(np.arange(n_units), 9), -1], features=4, rows=1500)
    path = removal_path([data.problem], n_units, TINY, stop=1)
    assert (np.diff(path.errors) >= 0).all()
    base = data.error(mask(n_units))
    for removed in (1, 7, 8, 20, 31, 39):
        growth = data.error(mask(n_units, *path.order[:removed])) - base
        assert path.errors[removed] == pytest.approx(growth, rel=1e-8)


def test_a_path_of_several_panels_of_units_of_different_sizes():
    n_units = 80
    units = [*np.repeat(np.arange(50), 9), *np.repeat(np.arange(50, 80), 4), -1]
    data = [make(9, units, rows=1400), make(10, np.random.default_rng(0).permutation(units), rows=1300, weight=0.5)]
    path = removal_path(problems_of(data), n_units, TINY, stop=5)
    base = total(data, mask(n_units))
    for removed in (1, 30, 55, 75):
        growth = total(data, mask(n_units, *path.order[:removed])) - base
        assert path.errors[removed] == pytest.approx(growth, rel=1e-8)
    last = [total(data, mask(n_units, *path.order[:54], i)) for i in path.order[54:]]
    assert last[0] == pytest.approx(min(last), rel=1e-8)


@either_form
@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 0.3])
def test_the_path_accounts_for_the_ridge(ridge, form):
    data = uneven(40)
    path = removal_path(problems_of(data, form), 5, ridge, stop=0)

    def ridged(kept):
        return sum(d.error(kept, ridge_of(d.problem.scale, ridge)) for d in data)

    for removed in range(6):
        growth = ridged(mask(5, *path.order[:removed])) - ridged(mask(5))
        assert path.errors[removed] == pytest.approx(growth, rel=1e-8, abs=1e-12)


def test_the_path_of_a_given_order():
    data = uneven(70)
    order = np.array([3, 0, 4, 1, 2])
    path = removal_path(problems_of(data), 5, TINY, stop=0, order=order)
    np.testing.assert_array_equal(path.order, order)
    growth = [total(data, mask(5, *order[:n])) - total(data, mask(5)) for n in range(6)]
    np.testing.assert_allclose(path.errors, growth, rtol=1e-8, atol=1e-12)


def test_candidates_and_stop_bound_the_path():
    data = problems_of(uneven(60))
    assert len(removal_path(data, 5, 1e-6).order) == 4
    assert len(removal_path(data, 5, 1e-6, stop=5).order) == 0
    allowed = np.array([True, False, True, False, True])
    path = removal_path(data, 5, 1e-6, stop=1, candidates=allowed)
    assert sorted(path.order.tolist()) == [0, 2, 4]
    assert len(removal_path(data, 5, 1e-6, stop=3, candidates=allowed).order) == 2


def test_a_unit_that_nobody_reads_goes_first_and_costs_nothing():
    data = make(9, [0, 0, 2, 2, -1])
    assert scores([data.problem], 3, 1e-6)[1] == 0
    path = removal_path([data.problem], 3, 1e-6)
    assert path.order[0] == 1
    assert path.errors[1] == 0


@pytest.mark.parametrize("ridge", [1e-12, 1e-9, 1e-6])
def test_a_duplicated_channel_costs_nothing_until_its_twin_is_gone(ridge):
    rng = np.random.default_rng(10)
    x = rng.standard_normal((300, 4))
    x = np.hstack([x, x[:, 1:2], np.ones((300, 1))])
    y = x @ rng.standard_normal((6, 3))
    problem = Data(x, y, [0, 1, 2, 3, 4, -1]).problem
    price = scores([problem], 5, ridge)
    assert price[[1, 4]].max() < 1e-4 * price[[0, 2, 3]].min()
    path = removal_path([problem], 5, ridge)
    assert path.order[0] in (1, 4)  # equal but for rounding
    single = scores([Data(x[:, [0, 2, 3, 4, 5]], y, [0, 2, 3, 4, -1]).problem], 5, ridge)
    assert path.errors[2] - path.errors[1] == pytest.approx(single[[0, 2, 3, 4]].min(), rel=1e-3)


@pytest.mark.parametrize("ridge", [0.0, 1e-12, 1e-9])
def test_dead_and_constant_channels_cost_nothing(ridge):
    rng = np.random.default_rng(14)
    live = rng.standard_normal((300, 6))
    x = np.hstack([live, np.zeros((300, 2)), np.full((300, 2), 3.0), np.ones((300, 1))])
    data = Data(x, live @ rng.standard_normal((6, 3)) + 5, [*np.repeat(np.arange(5), 2), -1])
    price = scores([data.problem], 5, ridge)
    assert price[:3].min() > 0.1
    assert price[3] == 0
    assert price[4] < 1e-6
    path = removal_path([data.problem], 5, ridge, stop=0)
    assert set(path.order[:2].tolist()) == {3, 4}
    assert path.errors[5] == pytest.approx(data.y.var(axis=0).sum(), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["live", "dead", "constant", "twin", "sum", "huge", "faint"]), min_size=2, max_size=7),
    st.integers(1, 3),
    st.sampled_from([0.0, 1e-12, 1e-8, 1e-4]),
    st.sampled_from([4, 30, 200]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_degenerate_channels_neither_crash_nor_give_nonsense(kinds, size, ridge, rows, seed, by_rows):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, len(kinds), size))
    for i, kind in enumerate(kinds):
        before = x[:, :i] if i else x[:, :1]
        x[:, i] = {
            "live": x[:, i],
            "dead": 0 * x[:, i],
            "constant": 0 * x[:, i] + 3,
            "twin": before[:, -1],
            "sum": before.sum(axis=1),
            "huge": 1e3 * x[:, i],
            "faint": 1e-4 * x[:, i],
        }[kind]
    y = rng.standard_normal((rows, 2)) + x[:, 0, :1]
    flat = np.hstack([x.reshape(rows, -1), np.ones((rows, 1))])
    data = Data(flat, y, [*np.repeat(np.arange(len(kinds)), size), -1])
    problem, ridge = (data.by_rows, max(ridge, 1e-6)) if by_rows else (data.problem, ridge)
    price = scores([problem], len(kinds), ridge)
    path = removal_path([problem], len(kinds), ridge, stop=0)
    energy = np.square(y).mean(axis=0).sum()
    assert sorted(path.order.tolist()) == list(range(len(kinds)))
    assert np.isfinite(path.errors).all()
    assert (np.diff(path.errors) >= 0).all()
    assert path.errors[-1] <= energy * 1.01
    assert ((price >= 0) & (price <= energy * 1.01)).all()
    assert price[[i for i, kind in enumerate(kinds) if kind == "dead"]].sum() <= 1e-20 * energy


def test_fewer_rows_than_columns():
    rng = np.random.default_rng(11)
    x = np.hstack([rng.standard_normal((20, 60)), np.ones((20, 1))])
    y = rng.standard_normal((20, 4))
    data = Data(x, y, [*np.repeat(np.arange(20), 3), -1])
    path = removal_path([data.problem], 20, 1e-9, stop=0)
    assert path.errors[10] < 1e-3 * y.var(axis=0).sum()  # thirty columns still interpolate twenty rows
    assert path.errors[-1] == pytest.approx(y.var(axis=0).sum(), rel=1e-4)


def test_an_all_zero_problem_costs_nothing():
    problem = Problem(np.zeros((4, 4)), np.zeros((4, 2)), np.array([0, 0, 1, 1]))
    path = removal_path([problem], 2, 1e-6, stop=0)
    np.testing.assert_array_equal(path.order, [0, 1])
    np.testing.assert_array_equal(path.errors, 0)


def test_a_planted_signal_is_recovered():
    rng = np.random.default_rng(12)
    x = rng.standard_normal((2000, 10, 4))
    flat = np.hstack([x.reshape(2000, 40), np.ones((2000, 1))])
    y = x[:, [2, 5, 7]].reshape(2000, 12) @ rng.standard_normal((12, 6)) + 0.01 * rng.standard_normal((2000, 6))
    problem = Data(flat, y, [*np.repeat(np.arange(10), 4), -1]).problem
    path = removal_path([problem], 10, 1e-8, stop=0)
    assert set(path.order[-3:].tolist()) == {2, 5, 7}
    assert path.errors[7] < 1e-3 * path.errors[8]


def test_the_path_of_a_float32_gram_with_large_means():
    rng = np.random.default_rng(13)
    x = np.hstack([rng.standard_normal((3000, 32)) + 100, np.ones((3000, 1))])
    y = x @ rng.standard_normal((33, 3))
    data = Data(x, y, [*range(32), -1])
    gram, cross = data.problem.gram.astype(np.float32), data.problem.cross.astype(np.float32)
    problem = Problem(gram.astype(np.float64), cross.astype(np.float64), data.units)
    path = removal_path([problem], 32, 1e-6)
    assert np.isfinite(path.errors).all()
    assert (np.diff(path.errors) >= 0).all()


def test_the_ridge_is_a_share_of_the_mean_diagonal():
    def problem(gram):
        return Problem(gram, np.zeros((len(gram), 1)), np.zeros(len(gram), np.int64))

    assert ridge_of(problem(np.diag([1.0, 3.0])).scale, 0.5) == 1.0
    assert 0 < ridge_of(problem(np.zeros((3, 3))).scale, 0.5) < 1e-6
    assert 0 < ridge_of(problem(np.zeros((0, 0))).scale, 0.5) < 1e-6


def test_problems_that_do_not_fit_are_refused():
    gram, cross, units = np.eye(3), np.ones((3, 2)), np.array([0, 1, -1])
    with pytest.raises(ValueError, match="do not fit"):
        Problem(gram, cross, units[:2])
    with pytest.raises(ValueError, match="do not fit"):
        RowProblem(np.ones((5, 3)), np.ones((4, 2)), units)
    with pytest.raises(ValueError, match="not negative"):
        Problem(gram, cross, units, -1.0)
    with pytest.raises(ValueError, match="not finite"):
        scores([Problem(gram * np.nan, cross, units)], 2, 1e-6)


def test_a_path_that_nobody_waits_for_ends(monkeypatch):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise CancelledError

    monkeypatch.setattr(path, "check_wanted", check)
    with pytest.raises(CancelledError):
        removal_path([Problem(np.eye(8), np.ones((8, 2)), np.arange(8))], 8, 1e-3)
    assert len(calls) == 3
