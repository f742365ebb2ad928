"""Upper confidence bounds on how far a metric falls, from samples that had no part in the choice of what is judged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

RESAMPLES = 2000


def share_bound(losses: int, gains: int, samples: int, confidence: float, *, can_gain: bool = True) -> float:
    """Upper bound on the fall of a share of right answers, from paired answers.

    With ``p`` the probability of a loss (right before, wrong after) and ``q`` that of a gain, the share falls by
    ``p - q``. Both counts are binomial; the upper limit of ``p`` less the lower limit of ``q``, each missed in half of
    the cases that may be missed, is a bound whatever ``p`` and ``q`` are and however their counts depend on each other
    (Bonferroni). The limits are exact (Clopper & Pearson, *The use of confidence or fiducial limits illustrated in the
    case of the binomial*, Biometrika 26, 1934).

    Parameters
    ----------
    losses, gains
        Samples right before and wrong after, and the other way; counts out of ``samples``.
    samples
        Number of samples, at least 1, drawn independently.
    confidence
        Probability that the bound holds, at least; in (0, 1).
    can_gain
        Whether gains are possible; where they are not, all that may be missed is left to the losses.

    Returns
    -------
    float
        In [-1, 1].
    """
    if not can_gain:
        return _limits(losses, samples, confidence)[1]
    half = (1 + confidence) / 2
    return _limits(losses, samples, half)[1] - _limits(gains, samples, half)[0]


def _limits(count: int, samples: int, confidence: float) -> tuple[float, float]:
    """Exact lower and upper limit of a probability, each of this confidence on its own."""
    low = betaincinv(count, samples - count + 1, 1 - confidence) if count else 0.0
    high = betaincinv(count + 1, samples - count, confidence) if count < samples else 1.0
    return float(low), float(high)


def resampled_bound(
    fall: Callable[[npt.NDArray[np.int64]], float], samples: int, confidence: float, seed: int
) -> float:
    """Upper bound on what a statistic of independent samples falls by, from samples drawn again: an approximation.

    Bias-corrected and accelerated bootstrap (Efron, *Better bootstrap confidence intervals*, JASA 82, 1987).

    Parameters
    ----------
    fall
        What the statistic falls by on the samples at indices (n,), repeats among them.
    samples
        Number of samples, at least 2.
    confidence
        In (0, 1); ``seed`` seeds what is drawn.

    Returns
    -------
    float
        The bound; where every sample counts the same, the fall itself.
    """
    from scipy.stats import bootstrap  # takes a third of a second to import

    everything = np.arange(samples)
    alone = np.array([fall(everything[i : i + 1]) for i in range(samples)])
    if np.ptp(alone) == 0:
        return float(alone[0])
    found = bootstrap(
        (everything,),
        fall,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        alternative="less",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.high)
