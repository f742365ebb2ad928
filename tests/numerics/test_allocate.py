from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.errors import TargetError
from reap_onnx.numerics.allocate import BilinearCost, Curve, allocate


def network(rng, groups, widest, step=1, convex=True):
    """A chain of layers through all groups, and as many others that read and write groups at random."""
    widths = rng.integers(max(2, widest // 2), widest + 1, groups)
    layers = 2 * groups
    ins, outs = np.zeros((layers, groups)), np.zeros((layers, groups))
    for layer in range(layers):
        source, target = (layer - 1, layer) if layer < groups else rng.integers(0, groups, 2)
        if source >= 0:
            ins[layer, source] = 1
        outs[layer, target] = 1
    cost = BilinearCost(
        rng.integers(1, 100, layers) * 1.0, 3.0 * (ins.sum(axis=1) == 0), ins, rng.integers(0, 3, layers) * 1.0, outs
    )
    curves = []
    for width in widths.tolist():
        growth = rng.gamma(0.5, 1.0, width - 1)
        errors = np.append(0, np.cumsum(np.sort(growth) if convex else growth)) * rng.gamma(1.0)
        curves.append(Curve(width, errors, step, int(rng.integers(1, max(2, width // 4)))))
    return curves, cost


def error_of(curves, kept):
    return sum(float(curve.error(k)) for curve, k in zip(curves, kept, strict=True))


def best_error(curves, cost, budget):
    """Smallest error of all combinations, by trying every one."""
    combinations = itertools.product(*(curve.choices().tolist() for curve in curves))
    return min(error_of(curves, kept) for kept in combinations if cost(kept) <= budget)


def budget_of(curves, cost, share):
    """A budget between the smallest reachable cost (``share`` 0) and the full one (1)."""
    least, full = cost([c.choices()[-1] for c in curves]), cost([c.width for c in curves])
    return least + share * (full - least)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("convex", [True, False])
def test_close_to_the_best_of_all_combinations(step, convex):
    rng = np.random.default_rng(step)
    ratios = []
    for _ in range(25):
        curves, cost = network(rng, 3, 7, step, convex)
        budget = budget_of(curves, cost, rng.uniform(0.05, 0.9))
        kept = allocate(curves, cost, budget)
        assert cost(kept) <= budget
        best = best_error(curves, cost, budget)
        ratios.append(1.0 if best == 0 else error_of(curves, kept) / best)
    assert min(ratios) >= 1 - 1e-12
    assert np.median(ratios) <= 1 + 1e-9
    assert np.quantile(ratios, 0.9) < 1.05
    assert max(ratios) < 1.5


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(2, 40), st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_always_feasible_allowed_and_repeatable(groups, widest, step, share, seed):
    curves, cost = network(np.random.default_rng(seed), groups, widest, step, convex=seed % 2 == 0)
    budget = budget_of(curves, cost, share)
    kept = allocate(curves, cost, budget)
    assert kept.dtype == np.int64
    assert cost(kept) <= budget
    assert all(k in curve.choices() for curve, k in zip(curves, kept, strict=True))
    np.testing.assert_array_equal(allocate(curves, cost, budget), kept)


def test_a_larger_budget_is_never_worse_by_much():
    curves, cost = network(np.random.default_rng(3), 12, 32)
    errors = [error_of(curves, allocate(curves, cost, budget_of(curves, cost, s))) for s in np.linspace(0, 1, 21)]
    assert errors[-1] == 0
    assert all(after <= before * 1.01 for before, after in itertools.pairwise(errors))


def test_the_full_budget_leaves_every_width_alone():
    rng = np.random.default_rng(4)
    curves, cost = network(rng, 8, 20, step=8)
    full = [curve.width for curve in curves]
    np.testing.assert_array_equal(allocate(curves, cost, cost(full)), full)
    np.testing.assert_array_equal(allocate(curves, cost, 10 * cost(full)), full)


def test_an_unreachable_target_names_what_can_be_reached():
    cost = BilinearCost(np.array([1.0]), np.array([10.0]), np.zeros((1, 1)), np.zeros(1), np.ones((1, 1)))
    curve = Curve(8, np.arange(7.0), least=2)
    np.testing.assert_array_equal(allocate([curve], cost, 20), [2])
    with pytest.raises(TargetError, match=r"10\.0%.*25\.0%") as caught:
        allocate([curve], cost, 8)
    assert caught.value.hint


def test_units_that_cost_no_error_go_before_others():
    cost = BilinearCost(np.ones(2), np.full(2, 5.0), np.zeros((2, 2)), np.zeros(2), np.eye(2))
    curves = [Curve(6, np.array([0, 0, 0, 4.0, 9.0])), Curve(6, np.array([0, 1.0, 2.0, 3.0]))]
    np.testing.assert_array_equal(allocate(curves, cost, 50), [4, 6])
    np.testing.assert_array_equal(allocate(curves, cost, 45), [4, 5])


def test_a_step_past_a_cliff_is_given_back():
    """The cheapest stretch saves far more than is needed; a smaller cut elsewhere is what fits."""
    cost = BilinearCost(np.ones(2), np.ones(2), np.zeros((2, 2)), np.zeros(2), np.eye(2))
    curves = [Curve(20, np.array([0, *np.full(19, 5.0)])), Curve(20, np.array([0, 1.0, 8.0, 20.0]))]
    np.testing.assert_array_equal(allocate(curves, cost, 39), [20, 19])
    assert error_of(curves, allocate(curves, cost, 30)) == 5


def test_frozen_groups_and_groups_without_cost_stay():
    cost = BilinearCost(np.ones(2), np.ones(2), np.zeros((2, 3)), np.zeros(2), np.array([[1.0, 0, 0], [0, 1, 0]]))
    curves = [Curve(8, np.zeros(1)), Curve(8, np.arange(8.0)), Curve(8, np.zeros(8))]
    np.testing.assert_array_equal(allocate(curves, cost, 12), [8, 4, 8])


def test_the_choices_of_a_curve():
    assert Curve(10, np.zeros(10), step=4).choices().tolist() == [10, 8, 4]
    assert Curve(8, np.zeros(8), step=4).choices().tolist() == [8, 4]
    assert Curve(10, np.zeros(10), step=4, least=5).choices().tolist() == [10, 8]
    assert Curve(5, np.zeros(3)).choices().tolist() == [5, 4, 3]
    assert Curve(3, np.zeros(1), step=8).choices().tolist() == [3]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_gradient_and_curvature_give_the_exact_cost_of_any_change(groups, seed):
    rng = np.random.default_rng(seed)
    _, cost = network(rng, groups, 9)
    kept, change = rng.integers(1, 20, groups), rng.integers(-5, 6, groups)
    predicted = cost(kept) + cost.gradient(kept) @ change + 0.5 * change @ cost.curvature() @ change
    assert predicted == pytest.approx(cost(kept + change), rel=1e-12)
    by_hand = sum(
        f * (a + p @ kept) * (b + q @ kept)
        for f, a, p, b, q in zip(
            cost.factor, cost.in_fixed, cost.in_per_unit, cost.out_fixed, cost.out_per_unit, strict=True
        )
    )
    assert cost(kept) == pytest.approx(by_hand, rel=1e-12)


def test_a_large_network_takes_little_time():
    curves, cost = network(np.random.default_rng(5), 80, 512, step=4)
    budget = 0.4 * cost([c.width for c in curves])
    start = time.process_time()
    kept = allocate(curves, cost, budget)
    assert time.process_time() - start < 5  # a tenth of that on an idle core
    assert 0.999 * budget < cost(kept) <= budget


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        BilinearCost(np.ones(2), np.ones(2), np.ones((2, 3)), np.ones(2), np.ones((2, 4)))
    with pytest.raises(ValueError, match="not negative"):
        BilinearCost(np.ones(1), np.ones(1), -np.ones((1, 1)), np.ones(1), np.ones((1, 1)))
    with pytest.raises(ValueError, match="cannot have"):
        Curve(4, np.zeros(5))
    with pytest.raises(ValueError, match="finite"):
        Curve(4, np.array([0, np.nan]))
