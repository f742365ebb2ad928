"""The smallest of some networks that still holds what a measurement asks of it, found by few measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

MOST = 11  # measurements at most
GUIDED = 3  # of which follow the prediction; the others halve what is left
FIRST = 0.02  # predicted error of the first network measured


def find_smallest(
    errors: Sequence[float], measure: Callable[[int], float], most: float, *, sure: bool = False
) -> int | None:
    """The last network that measures at most ``most``, next to one that does not, or the last of all.

    What is measured is taken to be in proportion to the predicted error, first as a guess, then between the nearest
    networks measured on either side; after ``GUIDED`` measurements halving is quicker than a guess.

    Parameters
    ----------
    errors
        Predicted errors of the networks, from the largest network to the smallest; they do not fall.
    measure
        What an index measures; called at most ``MOST`` times.
    most
        The largest value that holds.
    sure
        Measure the first network first, and give up where it does not hold.

    Returns
    -------
    int or None
        Index of the network; None where none that was measured holds.
    """
    good, bad = -1, len(errors)
    low, high = (0.0, 0.0), (np.inf, np.inf)  # predicted error and value of the two
    for number in range(MOST):
        if bad - good <= 1:
            break
        if sure and number == 0:
            index = 0
        elif number < GUIDED:
            index = int(np.searchsorted(errors, _guess(low, high, most), side="right")) - 1
        else:
            index = (good + bad) // 2
        index = min(max(index, good + 1), bad - 1)
        value = measure(index)
        if value <= most:
            good, low = index, (errors[index], max(value, 0.0))
        else:
            bad, high = index, (errors[index], value)
        if sure and bad == 0:
            break
    return good if good >= 0 else None


def _guess(low: tuple[float, float], high: tuple[float, float], most: float) -> float:
    """Predicted error at which ``most`` would be measured."""
    if np.isfinite(high[0]):
        return low[0] + (high[0] - low[0]) * (most - low[1]) / (high[1] - low[1])
    if low[0] == 0:
        return FIRST
    return low[0] * (min(most / low[1], 4.0) if low[1] > 0 else 4.0)
