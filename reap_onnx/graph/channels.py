"""Channel labels: numbers for the channels of a graph, tied where they must come and go together.

A tensor's labels are an integer array of the tensor's rank whose axes have the tensor's size where the
labels vary along them and size 1 elsewhere (so an N x C x H x W activation has labels 1 x C x 1 x 1).
Label 0 means: no channel, never removed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Labels = npt.NDArray[np.int64]


class Channels:
    """Union of channel labels, with the reason why a channel must stay."""

    def __init__(self) -> None:
        self._parent: Labels = np.zeros(1, np.int64)
        self._frozen: dict[int, str] = {}

    def fresh(self, count: int) -> Labels:
        """``count`` new labels, shape (count,)."""
        first = len(self._parent)
        new = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, new])
        return new

    def roots(self, labels: Labels) -> Labels:
        """The representative of each label, same shape."""
        parent: Labels = self._parent[labels]
        while not np.array_equal(above := self._parent[parent], parent):
            parent = above
        return parent

    def tie(self, a: Labels, b: Labels) -> None:
        """Channels that come and go together, pairwise after broadcasting; pairs with a 0 are skipped."""
        a, b = np.broadcast_arrays(self.roots(a), self.roots(b))
        apart = (a > 0) & (b > 0) & (a != b)
        if not apart.any():
            return
        roots, ends = np.unique(np.stack([a[apart], b[apart]]), return_inverse=True)
        first, second = ends.reshape(2, -1)
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(roots), len(roots)))
        _, parts = connected_components(graph, directed=False)
        lowest = roots[np.unique(parts, return_index=True)[1]][parts]
        self._parent[roots] = lowest
        for root, low in zip(roots.tolist(), lowest.tolist(), strict=True):
            if root != low and root in self._frozen:
                self._frozen.setdefault(low, self._frozen.pop(root))

    def freeze(self, labels: Labels, reason: str) -> None:
        """These channels stay, because of ``reason``; the first reason given is kept."""
        for root in np.unique(self.roots(labels)).tolist():
            if root > 0:
                self._frozen.setdefault(root, reason)

    def reason(self, label: int) -> str:
        """Why a channel must stay, empty where it may go."""
        return self._frozen.get(int(self.roots(np.array(label))), "")

    def compact(self, labels: Labels) -> Labels:
        """Representatives, with every axis along which they are constant shrunk to size 1."""
        labels = self.roots(labels)
        for axis in range(labels.ndim):
            if labels.shape[axis] > 1:
                first = labels.take([0], axis)
                labels = first if (labels == first).all() else labels
        return labels

    def alike(self, a: Labels, b: Labels) -> bool:
        """Whether two vectors hold the same channels in the same numbers, whatever their order."""
        return np.array_equal(np.sort(self.roots(a)), np.sort(self.roots(b)))


def varying(labels: Labels) -> tuple[int, ...]:
    """Axes along which the labels vary."""
    return tuple(axis for axis, size in enumerate(labels.shape) if size > 1)


def on_axis(vector: Labels, axis: int, rank: int) -> Labels:
    """Labels of a tensor of ``rank`` axes whose channels lie on ``axis``."""
    return vector.reshape([-1 if a == axis else 1 for a in range(rank)])
