from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.method.search import MOST, find_smallest


class Measured:
    def __init__(self, values: list[float]) -> None:
        self.values, self.asked = values, list[int]()

    def __call__(self, index: int) -> float:
        assert index not in self.asked
        self.asked.append(index)
        return self.values[index]


ascending = st.lists(st.floats(0, 1), min_size=1, max_size=240).map(sorted)


@settings(deadline=None, max_examples=300)
@given(values=ascending, errors=st.data(), most=st.floats(0, 1))
def test_whatever_is_predicted_the_last_that_holds_is_found(
    values: list[float], errors: st.DataObject, most: float
) -> None:
    guess = sorted(errors.draw(st.lists(st.floats(0, 10), min_size=len(values), max_size=len(values))))
    measured = Measured(values)
    found = find_smallest(guess, measured, most)
    holding = [index for index, value in enumerate(values) if value <= most]
    assert found == (holding[-1] if holding else None)
    assert len(measured.asked) <= MOST < 12


def test_a_good_prediction_saves_measurements() -> None:
    errors = [0.5 * 0.97 ** (150 - i) for i in range(150)]
    measured = Measured([0.2 * error for error in errors])
    found = find_smallest(errors, measured, 0.01)
    assert found == max(i for i, error in enumerate(errors) if 0.2 * error <= 0.01)
    assert len(measured.asked) < math.log2(len(errors))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000))
def test_what_is_found_holds_though_values_rise_and_fall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (np.linspace(0, 0.05, 120) + 0.01 * rng.standard_normal(120)).tolist()
    measured = Measured(values)
    found = find_smallest(np.linspace(0, 1, 120).tolist(), measured, 0.02)
    if found is None:
        assert all(values[index] > 0.02 for index in measured.asked)
    else:
        assert values[found] <= 0.02
        assert found == 119 or (found + 1 in measured.asked and values[found + 1] > 0.02)


@pytest.mark.parametrize(("most", "asked"), [(0.0, [0]), (0.5, [0, 1, 2])])
def test_the_first_is_measured_first_where_it_must_hold(most: float, asked: list[int]) -> None:
    measured = Measured([0.1, 0.6, 0.9])
    found = find_smallest([0.1, 0.2, 0.3], measured, most, sure=True)
    assert measured.asked[0] == 0
    assert found == (None if most == 0 else 0)
    assert set(measured.asked) <= set(asked)
