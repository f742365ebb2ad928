from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.graph.channels import Channels, on_axis, varying

PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=15)


@given(st.lists(PAIRS, max_size=4), st.lists(st.integers(0, 12), max_size=4))
@settings(deadline=None, max_examples=60)
def test_ties_are_an_equivalence(rounds: list[list[tuple[int, int]]], stuck: list[int]) -> None:
    """Against sets that are merged one by one; a channel stays where any that it is tied to stays."""
    channels, sets = Channels(), [{n} for n in range(13)]
    channels.fresh(12)
    channels.freeze(np.array(stuck, np.int64), "stuck")
    for pairs in rounds:
        channels.tie(*np.array(pairs, np.int64).reshape(-1, 2).T)
        for a, b in pairs:
            if a and b:
                merged = sets[a] | sets[b]
                for n in merged:
                    sets[n] = merged
    roots = channels.roots(np.arange(13))
    for n in range(13):
        assert roots[n] == min(sets[n])
        assert channels.reason(n) == ("stuck" if sets[n] & set(stuck) - {0} else "")


def test_ties_broadcast_and_skip_zeros() -> None:
    channels = Channels()
    a, b = channels.fresh(3), channels.fresh(1)
    channels.tie(np.array([[1, 0, 3]]), b.reshape(1, 1))
    assert channels.roots(np.array([*a, *b])).tolist() == [1, 2, 1, 1]


def test_the_first_reason_is_kept() -> None:
    channels = Channels()
    labels = channels.fresh(2)
    channels.freeze(labels[:1], "first")
    channels.freeze(labels, "second")
    assert [channels.reason(n) for n in (0, 1, 2)] == ["", "first", "second"]
    channels.tie(labels[:1], labels[1:])
    assert channels.reason(2) == "first"


def test_compact_shrinks_axes_along_which_nothing_varies() -> None:
    channels = Channels()
    labels = np.broadcast_to(on_axis(channels.fresh(4), 1, 3), (2, 4, 5))
    assert channels.compact(labels).shape == (1, 4, 1)
    assert varying(channels.compact(labels)) == (1,)
    channels.tie(np.arange(1, 5), np.array(1))
    assert channels.compact(labels).tolist() == [[[1]]]


def test_alike_is_about_channels_not_their_order() -> None:
    channels = Channels()
    labels = channels.fresh(3)
    assert channels.alike(labels, labels[::-1])
    assert not channels.alike(labels, np.array([1, 1, 2]))
    channels.tie(labels[:1], labels[2:])
    assert channels.alike(labels, np.array([1, 1, 2]))
