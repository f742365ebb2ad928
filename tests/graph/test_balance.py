from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.graph.balance import balance, balanced_sets
from reap_onnx.graph.channels import Channels

COUNTS = st.integers(1, 3).flatmap(
    lambda blocks: st.lists(st.lists(st.integers(-2, 2), min_size=blocks, max_size=blocks), min_size=1, max_size=7)
)


def all_balanced(uneven: np.ndarray) -> list[frozenset[int]]:
    """Every balanced set, by trying all of them."""
    subsets = (np.flatnonzero([number >> bit & 1 for bit in range(len(uneven))]) for number in range(2 ** len(uneven)))
    return [frozenset(chosen.tolist()) for chosen in subsets if len(chosen) and not uneven[chosen].sum(0).any()]


@given(COUNTS)
@settings(deadline=None, max_examples=60)
def test_sets_are_balanced_disjoint_and_smallest_first(rows: list[list[int]]) -> None:
    """Against all subsets: each set is as small as any that is balanced and still free, until there is none."""
    uneven = np.array(rows)
    possible, taken = all_balanced(uneven), frozenset[int]()
    for found in (frozenset(part.tolist()) for part in balanced_sets(uneven)):
        assert found in possible
        assert not found & taken
        assert len(found) == min(len(other) for other in possible if not other & taken)
        taken |= found
    assert not [other for other in possible if not other & taken]


def test_one_layer_is_tied_by_position() -> None:
    channels = Channels()
    blocks = channels.fresh(6).reshape(2, 3)
    balance(channels, [(blocks, "uneven")])
    assert channels.roots(blocks).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_layers_that_share_channels_are_balanced_at_once() -> None:
    """Four rows and four columns: tied row by row and then column by column, all would be one."""
    channels = Channels()
    square = channels.fresh(16).reshape(4, 4)
    balance(channels, [(square, "rows"), (square.T, "columns")])
    roots = channels.roots(square)
    assert len(np.unique(roots)) == 4
    for unit in np.unique(roots):
        assert (roots == unit).sum(0).tolist() == (roots == unit).sum(1).tolist() == [1, 1, 1, 1]


def test_layers_apart_are_balanced_apart() -> None:
    channels = Channels()
    first, second = channels.fresh(4).reshape(2, 2), channels.fresh(6).reshape(3, 2)
    balance(channels, [(first, "first"), (second, "second")])
    assert len(np.unique(channels.roots(first))) == len(np.unique(channels.roots(second))) == 2


@pytest.mark.parametrize("stuck", ["plain", "frozen"])
def test_channels_without_a_counterpart_stay(stuck: str) -> None:
    """The first block has a value that stays, so that one channel of the second has nothing to go with."""
    channels = Channels()
    labels = channels.fresh(4)
    if stuck == "plain":
        labels[0] = 0
    else:
        channels.freeze(labels[:1], "held")
    balance(channels, [(labels.reshape(2, 2), "uneven")])
    reasons = [channels.reason(label) for label in labels]
    assert reasons == ["" if stuck == "plain" else "held", "", "", "uneven"]
    assert channels.roots(labels[1:2]) == channels.roots(labels[2:3])


def test_nothing_to_balance() -> None:
    channels = Channels()
    balance(channels, [])
    balance(channels, [(np.zeros((2, 3), np.int64), "uneven")])
    assert channels.reason(0) == ""
