"""Channel labels: numbers for the channels of a graph, tied where they must come and go together.

A tensor's labels are an integer array of the tensor's rank whose axes have the tensor's size where the
labels vary along them and size 1 elsewhere (so an N x C x H x W activation has labels 1 x C x 1 x 1).
Label 0 means: no channel, never removed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]


class Channels:
    """Union-find over channel labels, with the reason why a channel must stay."""

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
        parent = self._parent[labels]
        while True:
            above = self._parent[parent]
            if np.array_equal(above, parent):
                return parent
            parent = above

    def tie(self, a: Labels, b: Labels) -> None:
        """Channels that come and go together, pairwise after broadcasting; pairs with a 0 are skipped."""
        a, b = np.broadcast_arrays(self.roots(a), self.roots(b))
        apart = (a > 0) & (b > 0) & (a != b)
        for x, y in np.unique(np.stack([a[apart], b[apart]], 1), axis=0):
            low, high = sorted((int(self.roots(x)), int(self.roots(y))))
            if low != high:
                self._parent[high] = low
                reason = self._frozen.pop(high, None)
                if reason is not None:
                    self._frozen.setdefault(low, reason)

    def freeze(self, labels: Labels, reason: str) -> None:
        """These channels stay, because of ``reason``; the first reason given is kept."""
        for root in np.unique(self.roots(labels)):
            if root > 0:
                self._frozen.setdefault(int(root), reason)

    def reason(self, label: int) -> str:
        """Why a channel must stay, empty where it may go."""
        return self._frozen.get(int(self.roots(np.int64(label))), "")

    def compact(self, labels: Labels) -> Labels:
        """Representatives, with every axis along which they are constant shrunk to size 1."""
        labels = self.roots(labels)
        for axis in range(labels.ndim):
            first = labels.take([0], axis) if labels.shape[axis] > 1 else labels
            if first is not labels and (labels == first).all():
                labels = first
        return labels


def varying(labels: Labels) -> tuple[int, ...]:
    """Axes along which the labels vary."""
    return tuple(axis for axis, size in enumerate(labels.shape) if size > 1)


def on_axis(vector: Labels, axis: int, rank: int) -> Labels:
    """Labels of a tensor of ``rank`` axes whose channels lie on ``axis``."""
    return vector.reshape([-1 if a == axis else 1 for a in range(rank)])
