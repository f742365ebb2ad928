from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.errors import TargetError
from reap_onnx.numerics.allocate import BilinearCost, Curve, allocate
from reap_onnx.numerics.tables import Side, Table, TableCost


def random_table(rng: np.random.Generator, groups: int, widest: int) -> Table:
    sides = [Side(float(rng.integers(0, 3)), rng.integers(0, 3, groups).astype(float)) for _ in range(2)]
    grids = [np.unique(rng.integers(1, 3 * widest, rng.integers(1, 6))).astype(float) for _ in range(2)]
    return Table(*sides, *grids, rng.gamma(1.0, size=(len(grids[0]), len(grids[1]))))


def random_cost(rng: np.random.Generator, groups: int, widest: int) -> TableCost:
    tables = tuple(random_table(rng, groups, widest) for _ in range(2 * groups))
    return TableCost(float(rng.gamma(1.0)), rng.gamma(0.1, size=groups), tables)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_differences_are_those_of_the_cost_itself(groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, kept = random_cost(rng, groups, 12), rng.integers(4, 12, groups)
    drop = rng.integers(0, 4, groups).astype(float)
    one = np.eye(groups, dtype=np.int64)
    expected = [cost(kept) - cost(kept - one[g] * int(drop[g])) for g in range(groups)]
    np.testing.assert_allclose(cost.saved(kept, drop), expected, atol=1e-12)
    first, second = ((rng.integers(0, groups, 6), rng.integers(-3, 4, 6)) for _ in range(2))
    found = cost.changes(kept, first, second)
    for i, j in itertools.product(range(6), range(6)):
        moved = kept + one[first[0][i]] * first[1][i] + one[second[0][j]] * second[1][j]
        assert found[i, j] == pytest.approx(cost(moved) - cost(kept), abs=1e-12)


def test_a_table_is_exact_at_its_sizes_and_linear_between() -> None:
    table = Table(
        Side(0, np.array([1.0, 0])), Side(0, np.array([0, 1.0])), *map(np.array, ([2.0, 4], [1.0, 3, 4])),
        np.array([[1.0, 2, 3], [2, 5, 6]]),
    )  # fmt: skip
    assert [float(table.at(a, b)) for a, b in ((2, 1), (4, 3), (3, 1), (2, 2), (3, 2))] == [1, 5, 1.5, 1.5, 2.5]
    assert float(table.at(0, 0)) == 1
    assert float(table.at(9, 9)) == 6


def test_a_smaller_size_never_costs_more() -> None:
    side = Side(0, np.ones(1))
    table = Table(side, side, np.array([1.0, 2, 3]), np.array([1.0]), np.array([[2.0], [5], [4]]))
    assert table.values[:, 0].tolist() == [2, 4, 4]


def test_what_is_no_table() -> None:
    side = Side(0, np.ones(1))
    with pytest.raises(ValueError, match="do not fit"):
        Table(side, side, np.ones(1), np.ones(1), np.ones((1, 2)))
    with pytest.raises(ValueError, match="ascend"):
        Table(side, side, np.ones(2), np.ones(1), np.ones((2, 1)))
    with pytest.raises(ValueError, match="finite"):
        Table(side, side, np.ones(1), np.ones(1), np.full((1, 1), np.inf))


def stairs(width: int, step: int) -> np.ndarray:
    return np.ceil(np.arange(1, width + 1) / step)


def test_an_allocation_lands_where_a_step_ends() -> None:
    """Two layers in a row whose time falls every four channels: what is cut is cut to a multiple of four."""
    grid = np.arange(1.0, 17)
    times = np.multiply.outer(stairs(16, 4), stairs(16, 4))
    one, two = Side(0, np.array([1.0, 0])), Side(0, np.array([0, 1.0]))
    ends = Side(16, np.zeros(2))
    cost = TableCost(0.0, np.zeros(2), tuple(Table(a, b, grid, grid, times) for a, b in ((ends, one), (one, two))))
    curves = [Curve(16, np.arange(15.0)), Curve(16, 3 * np.arange(15.0))]
    kept = allocate(curves, cost, 0.75 * cost([16, 16]))
    assert cost(kept) <= 0.75 * cost([16, 16])
    assert all(k % 4 == 0 for k in kept)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 3), st.integers(0, 2**32 - 1))
def test_all_budgets_hold_and_the_error_is_near_the_best(groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_cost(rng, groups, 8)
    ins, outs = rng.integers(0, 2, (4, groups)).astype(float), rng.integers(0, 2, (4, groups)).astype(float)
    bilinear = BilinearCost(rng.gamma(1.0, size=4), np.ones(4), ins, np.ones(4), outs)
    curves = [Curve(8, np.append(0, np.cumsum(rng.gamma(0.5, size=7)))) for _ in range(groups)]
    full, least = [8] * groups, [1] * groups
    costs = [table, bilinear]
    budgets = [cost(least) + rng.uniform(0.2, 0.9) * (cost(full) - cost(least)) for cost in costs]
    kept = allocate(curves, costs, budgets)
    assert all(cost(kept) <= budget for cost, budget in zip(costs, budgets, strict=True))
    fitting = [
        k
        for k in itertools.product(*(c.choices().tolist() for c in curves))
        if all(cost(k) <= budget for cost, budget in zip(costs, budgets, strict=True))
    ]
    errors = [sum(float(c.error(w)) for c, w in zip(curves, k, strict=True)) for k in fitting]
    found = sum(float(c.error(w)) for c, w in zip(curves, kept, strict=True))
    assert found <= 2 * min(errors) + 1e-9 or found <= np.quantile(errors, 0.2)


def test_one_budget_of_several_out_of_reach() -> None:
    cost = BilinearCost(np.ones(1), np.ones(1), np.zeros((1, 1)), np.zeros(1), np.ones((1, 1)))
    curve = Curve(8, np.arange(7.0), least=2)
    np.testing.assert_array_equal(allocate([curve], [cost, cost], [6, 4]), [4])
    with pytest.raises(TargetError, match=r"12\.5%.*25\.0%"):
        allocate([curve], [cost, cost], [6, 1])


def test_a_plateau_is_crossed() -> None:
    """No single stretch saves anything at first: time falls only when a group has lost half."""
    side = Side(0, np.ones(1))
    cost = TableCost(0.0, np.zeros(1), (Table(side, Side(1, np.zeros(1)), np.array([1.0, 4, 5, 8]), np.ones(1),
                                              np.array([[1.0], [1], [2], [2]])),))  # fmt: skip
    curve = Curve(8, np.array([0, 1.0, 3, 6, 10, 15, 21, 28]))
    np.testing.assert_array_equal(allocate([curve], cost, 1.0), [4])
