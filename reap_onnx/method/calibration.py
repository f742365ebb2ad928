"""What is measured once on a network, whatever it is to be cut to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.couple import find_couple
from reap_onnx.graph.groups import Group
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.trace import Trace
from reap_onnx.method.select import GroupPath, Statistics
from reap_onnx.runtime.statistics import Tap


@dataclass(frozen=True)
class Calibration:
    """All that a budget needs to be met: nothing in it depends on one, so that many can be read off it.

    Parameters
    ----------
    trace
        Channels of the original network.
    paths
        One for each group that can be pruned: the order of its units, their errors, what they weigh in the outputs.
    taps
        Layers that read these groups, by the index of their nodes.
    statistics
        Normal equations of these layers on the original network.
    dataset
        Samples to refit on, in the order that the seed gives them.
    """

    trace: Trace
    paths: tuple[GroupPath, ...]
    taps: Mapping[int, Tap]
    statistics: Statistics
    dataset: Dataset

    @property
    def groups(self) -> list[Group]:
        """Groups that can be pruned, in the order of the paths."""
        return [path.group for path in self.paths]

    def removed(self, kept: Iterable[int]) -> Labels:
        """Labels of the units that the error paths remove first, all but ``kept`` (G,)."""
        gone = [path.removed(k) for path, k in zip(self.paths, kept, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *gone])

    def without_first(self, kept: Iterable[int]) -> Labels:
        """Labels of the first units of every group, all but ``kept`` (G,): a network of these widths, not the best one.

        The channels that it keeps have the largest numbers, so that its plan is no shorter than that of any other.
        """
        units = zip(self.groups, kept, strict=True)
        return np.concatenate([np.zeros(0, np.int64), *(group.units[: len(group.units) - k] for group, k in units)])

    def new_biases(self, *, pairs: bool) -> list[Layer]:
        """Layers that the refit may add a bias to; ``pairs``: layers are refitted in pairs."""
        couples = [find_couple(self.trace, group) for group in self.groups] if pairs else []
        layers = [tap.layer for tap in self.taps.values() if tap.adds_bias]
        layers += [couple.maker for couple in couples if couple is not None and couple.adds_bias]
        return list({layer.node.index: layer for layer in layers}.values())
