from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.errors import TargetError
from reap_onnx.method.budgets import TRIES, Budget, Way, best_way, meet_budgets
from reap_onnx.numerics.allocate import BilinearCost, Curve

Trial = Callable[[np.ndarray], float]


def chain(rng: np.random.Generator, groups: int = 4, width: int = 64) -> tuple[list[Curve], BilinearCost]:
    ins, outs = np.vstack([np.zeros(groups), np.eye(groups)]), np.vstack([np.eye(groups), np.zeros(groups)])
    cost = BilinearCost(
        rng.uniform(1, 9, groups + 1), np.eye(groups + 1)[0] * 3, ins, np.eye(groups + 1)[-1] * 10, outs
    )
    curves = [Curve(width, np.append(0, np.cumsum(rng.gamma(0.5, size=width - 2)))) for _ in range(groups)]
    return curves, cost


def counted(trial: Trial) -> tuple[Trial, list[float]]:
    values: list[float] = []

    def told(kept: np.ndarray) -> float:
        values.append(trial(kept))
        return values[-1]

    return told, values


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 2.0), st.floats(0, 0.2), st.floats(0.35, 0.9), st.integers(0, 2**32 - 1))
def test_a_wrong_model_is_corrected(factor: float, offset: float, share: float, seed: int) -> None:
    curves, cost = chain(np.random.default_rng(seed))
    full = cost([c.width for c in curves])
    true, values = counted(lambda kept: full * ((1 - offset) * (cost(kept) / full) ** factor + offset))
    budget = Budget("--latency", cost, share * full, true, aim=0.97, near=0.92)
    kept = meet_budgets(curves, [budget])
    assert 0.85 * share * full <= true(kept) <= share * full
    assert len(values) - 1 <= TRIES


def test_all_budgets_hold() -> None:
    curves, cost = chain(np.random.default_rng(1))
    _, other = chain(np.random.default_rng(2))
    full, whole = cost([64] * 4), other([64] * 4)
    budgets = [
        Budget("--macs", cost, 0.7 * full),
        Budget("--size", other, 0.6 * whole, lambda kept: other(kept) + 0.1 * whole, aim=0.99, near=0.95),
        Budget("--latency", other, 0.8 * whole, lambda kept: 1.1 * other(kept), aim=0.97, near=0.92),
    ]
    kept = meet_budgets(curves, budgets)
    assert cost(kept) <= 0.7 * full
    assert 0.54 * whole < other(kept) + 0.1 * whole <= 0.6 * whole


def test_what_is_not_confirmed_is_no_answer() -> None:
    """The first trial flatters: what comes of it is measured again for longer, and is out."""
    curves, cost = chain(np.random.default_rng(6))
    full = cost([64] * 4)
    trials: list[float] = []

    def trial(kept: np.ndarray) -> float:
        trials.append(cost(kept))
        return cost(kept) * (0.8 if len(trials) == 1 else 1.0)

    confirm, confirmed = counted(cost)
    model = BilinearCost(0.8 * cost.factor, cost.in_fixed, cost.in_per_unit, cost.out_fixed, cost.out_per_unit)
    budget = Budget("--latency", model, 0.6 * full, trial, 0.98, 0.95, confirm)
    kept = meet_budgets(curves, [budget])
    assert confirmed[0] > 0.6 * full
    assert confirmed[-1] == cost(kept) <= 0.6 * full
    with pytest.raises(TargetError, match="no network was found"):
        meet_budgets(curves, [Budget("--latency", cost, 0.6 * full, cost, 0.97, 0.92, lambda _: full)])


def test_a_budget_that_does_not_bind_costs_one_or_two_trials() -> None:
    curves, cost = chain(np.random.default_rng(3))
    full = cost([64] * 4)
    trial, values = counted(cost)
    meet_budgets(curves, [Budget("--macs", cost, 0.5 * full), Budget("--latency", cost, 0.9 * full, trial, 0.97, 0.92)])
    assert len(values) <= 2


def test_what_cannot_be_reached_is_said_with_what_was_tried() -> None:
    curves, cost = chain(np.random.default_rng(4))
    full = cost([64] * 4)
    trial, values = counted(lambda kept: max(cost(kept), 0.5 * full))
    with pytest.raises(TargetError, match=r"--latency is out of reach: .* 1\.25 of what is allowed") as caught:
        meet_budgets(curves, [Budget("--latency", cost, 0.4 * full, trial, 0.97, 0.92)])
    assert caught.value.hint
    assert len(values) <= TRIES


def test_exact_budgets_need_no_trial() -> None:
    curves, cost = chain(np.random.default_rng(5))
    full = cost([64] * 4)
    assert 0.49 * full < cost(meet_budgets(curves, [Budget("--macs", cost, 0.5 * full)])) <= 0.5 * full


def test_the_original_is_never_the_answer_to_less_than_it() -> None:
    """A measurement may say anything of a network, but not that nothing has to go."""
    curves, cost = chain(np.random.default_rng(6))
    full = cost([64] * 4)
    kept = meet_budgets(curves, [Budget("--latency", cost, 0.8 * full, lambda _: 0.4 * full, 0.97, 0.92)])
    assert cost(kept) < full


def test_the_way_of_least_error_is_taken() -> None:
    curves, cost = chain(np.random.default_rng(4))
    rounded = [Curve(c.width, c.errors, step=16) for c in curves]
    full = cost([64] * 4)
    stairs = Budget("--latency", cost, 0.6 * full, lambda kept: cost(np.ceil(kept / 16) * 16), aim=0.97, near=0.8)
    ways = [Way("free", curves, [stairs]), Way("steps", rounded, [stairs])]
    way, kept = best_way(ways)
    errors = {
        w.name: sum(float(c.error(k)) for c, k in zip(curves, meet_budgets(w.curves, w.budgets), strict=True))
        for w in ways
    }
    assert errors[way.name] == min(errors.values())
    assert best_way(ways[::-1])[1].tolist() == kept.tolist()


def test_a_way_that_is_out_of_reach_is_passed_over() -> None:
    curves, cost = chain(np.random.default_rng(5))
    full = cost([64] * 4)
    wide = [Curve(c.width, c.errors, least=60) for c in curves]
    budget = Budget("--macs", cost, 0.5 * full)
    way, kept = best_way([Way("wide", wide, [budget]), Way("free", curves, [budget])])
    assert way.name == "free"
    assert cost(kept) <= 0.5 * full
    with pytest.raises(TargetError, match="the smallest that can be reached"):
        best_way([Way("wide", wide, [budget])])


def test_a_way_that_can_only_lose_is_given_up() -> None:
    curves, cost = chain(np.random.default_rng(6))
    full = cost([64] * 4)
    slow, trials = counted(lambda kept: min(full, 1.5 * cost(kept)))
    good = Way("good", curves, [Budget("--latency", cost, 0.8 * full)])
    bad = Way("bad", curves, [Budget("--latency", cost, 0.8 * full, slow, aim=0.97, near=0.95)])
    assert best_way([good, bad])[0].name == "good"
    given_up = len(trials)
    assert best_way([bad])[0].name == "bad"
    assert given_up < len(trials) - given_up
