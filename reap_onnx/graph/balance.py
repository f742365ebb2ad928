"""Ties that keep the groups of grouped convolutions equally wide, whichever channels go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from reap_onnx.graph.channels import Channels, Labels

Blocks = tuple[Labels, str]
"""Labels (blocks, size) of blocks that must lose equally many channels, and the reason to freeze those that cannot."""

_SEARCH = 1000  # nodes of one search for a smallest set; beyond them the best one found will do


def balance(channels: Channels, layers: Sequence[Blocks]) -> None:
    """Tie channels until whatever goes takes equally many from all blocks of a layer, in every layer at once.

    1. Channels that are frozen already are left out: they stay.
    2. Layers that share channels are balanced together, by the smallest sets that are balanced in all of them.
    3. Channels that no set can hold are frozen.
    """
    roots = [channels.roots(blocks) for blocks, _ in layers]
    labels = np.unique(np.concatenate([np.zeros(1, np.int64), *(blocks.reshape(-1) for blocks in roots)]))
    free = np.array([label for label in labels[labels > 0].tolist() if not channels.reason(label)], np.int64)
    counts = [np.stack([_count(block, free) for block in blocks], axis=1) for blocks in roots]
    for units, chosen in _components(counts) if len(free) else ():
        stuck = np.ones(len(units), bool)
        uneven = [counts[layer][units, 1:] - counts[layer][units, :1] for layer in chosen]
        for part in balanced_sets(np.concatenate(uneven, axis=1)):
            channels.tie(free[units[part]], free[units[part[:1]]])
            stuck[part] = False
        channels.freeze(free[units[stuck]], layers[chosen[0]][1])


def balanced_sets(uneven: np.ndarray) -> Iterator[np.ndarray]:
    """Disjoint sets of units whose rows add up to zero, the smallest first.

    Units with the same row are alike. How many of each kind make a smallest set is an integer program; sets are
    filled in the order of the units.

    Parameters
    ----------
    uneven
        How much each unit takes from blocks beyond what it takes from the first one, int (units, blocks).

    Yields
    ------
    Indices of the units of a set. Units that no set can hold are in none.
    """
    kinds, kind = np.unique(uneven, axis=0, return_inverse=True)
    members = [np.flatnonzero(kind.reshape(-1) == k) for k in range(len(kinds))]
    left = np.array([len(units) for units in members])
    while (taken := _smallest_set(kinds, left)) is not None:
        for _ in range(int((left[taken > 0] // taken[taken > 0]).min())):
            ends = [len(units) - n for units, n in zip(members, left, strict=True)]
            yield np.concatenate([units[end : end + n] for units, end, n in zip(members, ends, taken, strict=True)])
            left = left - taken


def _smallest_set(kinds: np.ndarray, left: np.ndarray) -> np.ndarray | None:
    """How many units of each kind make a smallest set, int (kinds,); None where there is none."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes a tenth of a second to import

    found = milp(
        np.ones(len(kinds)),
        integrality=np.ones(len(kinds), np.int64),
        bounds=Bounds(0, left),
        constraints=[LinearConstraint(np.ones((1, len(kinds))), 1, np.inf), LinearConstraint(kinds.T, 0, 0)],
        options={"node_limit": _SEARCH},
    )
    return None if found.x is None else np.array(np.rint(found.x), np.int64)


def _count(block: Labels, free: Labels) -> Labels:
    """How often each of the sorted labels ``free`` is in a block."""
    at = np.searchsorted(free, block).clip(max=len(free) - 1)
    return np.bincount(at[free[at] == block], minlength=len(free)) if len(free) else np.zeros(0, np.int64)


def _components(counts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Units and layers that hang together, as indices."""
    meets = np.array([layer.any(1) for layer in counts])
    size = sum(meets.shape)
    layers, units = np.nonzero(meets)
    graph = csr_array((np.ones(len(units)), (layers, len(meets) + units)), shape=(size, size))
    number, part = connected_components(graph, directed=False)
    for n in range(number):
        if (part[len(meets) :] == n).any():
            yield np.flatnonzero(part[len(meets) :] == n), np.flatnonzero(part[: len(meets)] == n)
