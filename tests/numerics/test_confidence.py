from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from reap_onnx.numerics.confidence import resampled_bound, share_bound

TRIALS = 2000


@pytest.mark.parametrize("samples", [60, 500])
@pytest.mark.parametrize(("loss", "gain"), [(0.01, 0.0), (0.03, 0.02), (0.1, 0.1), (0.3, 0.05)])
def test_the_bound_on_a_share_holds_as_often_as_it_says(samples: int, loss: float, gain: float) -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(samples, [loss, gain, 1 - loss - gain], size=TRIALS)
    outcomes, times = np.unique(counts[:, :2], axis=0, return_counts=True)
    held = [share_bound(int(a), int(b), samples, 0.95) >= loss - gain for a, b in outcomes]
    assert times[held].sum() >= 0.95 * TRIALS


@pytest.mark.parametrize("loss", [0.004, 0.02, 0.2])
def test_without_gains_the_bound_is_exact(loss: float) -> None:
    """Missed with at most 5 % of all outcomes, and one count less would miss with more: by sums of probabilities."""
    counts = np.arange(301)
    bounds = np.array([share_bound(int(c), 0, 300, 0.95, can_gain=False) for c in counts])
    assert binom.pmf(counts[bounds < loss], 300, loss).sum() <= 0.05
    for count in (0, 3, 30):
        assert binom.cdf(count, 300, bounds[count]) == pytest.approx(0.05, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(losses=st.integers(0, 40), gains=st.integers(0, 40), confidence=st.floats(0.5, 0.99))
def test_the_bound_is_above_what_was_seen_and_grows(losses: int, gains: int, confidence: float) -> None:
    bound = share_bound(losses, gains, 100, confidence)
    assert (losses - gains) / 100 <= bound <= 1
    assert share_bound(losses + 1, gains, 100, confidence) >= bound
    assert share_bound(losses, gains + 1, 100, confidence) <= bound
    assert share_bound(losses, gains, 100, (1 + confidence) / 2) >= bound


def test_the_resampled_bound_holds_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(1), []
    for seed in range(25):
        falls = rng.gamma(2.0, 0.5, 80)
        held.append(resampled_bound(lambda i, falls=falls: float(falls[i].mean()), 80, 0.95, seed) >= 1.0)
    assert np.mean(held) >= 0.8


def test_where_all_samples_are_alike_nothing_is_resampled() -> None:
    assert resampled_bound(lambda _: 0.25, 10, 0.95, 0) == 0.25
