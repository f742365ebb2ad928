"""How many channels of each group go: error paths, sensitivity of the outputs, allocation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import onnx

from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.groups import Group
from reap_onnx.graph.masking import first_changed, mask_channels
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import RIDGE, group_problems, layers_to_refit, refitted
from reap_onnx.model.network import Slot
from reap_onnx.numerics.allocate import Curve
from reap_onnx.numerics.gram import Equations, bytes_to_solve
from reap_onnx.numerics.path import Path, removal_path
from reap_onnx.options import PruneOptions
from reap_onnx.overrides import merge_overrides
from reap_onnx.runtime.compare import class_scores
from reap_onnx.runtime.memory import memory_for_stream
from reap_onnx.runtime.session import Session
from reap_onnx.runtime.shards import HERE, Workers
from reap_onnx.runtime.statistics import Tap
from reap_onnx.runtime.stream import Stream

Statistics = Mapping[int, list[Equations]]
"""Normal equations of each layer's blocks, by the index of its node."""

WIDE = 50_000_000  # bytes to solve a group from which on several are worked on at once: a thousand columns
TOGETHER = 8  # groups whose sensitivities are measured on one way of the samples through the network
_NONE: Labels = np.zeros(0, np.int64)


@dataclass(frozen=True)
class GroupPath:
    """A group, the order in which its units go, and the error after each; ``weight`` is what its error costs."""

    group: Group
    path: Path
    weight: float = 1.0

    def removed(self, kept: int) -> Labels:
        """Labels of the units that are gone when ``kept`` are left."""
        return self.group.units[self.path.order[: len(self.group.units) - kept]]


def error_paths(
    trace: Trace,
    groups: Sequence[Group],
    taps: Mapping[int, Tap],
    statistics: Statistics,
    criterion: str = "reap",
    advance: Callable[[int], None] = lambda _: None,
    workers: Workers = HERE,
    memory: int = 0,
) -> list[GroupPath]:
    """The removal path of every group, all other groups being whole; by norms, units of small weights go first.

    The error of a path is the sum, over the layers that read the group, of the growth of the squared error
    relative to the variance of the layer's target. Wide groups go at once where there are enough for all cores and
    ``memory``, in bytes, has room; else one by one, which keeps the cores busy as well.
    """
    items = [(group, statistics_of(group, statistics)) for group in groups]
    sizes = [_bytes_to_solve(own) for _, own in items]
    wide = sum(size > WIDE for size in sizes)
    at_once = max(1, min(wide, memory // max(sizes))) if wide else 1
    order = sorted(range(len(items)), key=lambda place: -sizes[place])  # the largest first: what ends last is short
    priced = workers.run(_error_path, _Pricing(trace, taps, criterion), (items[p] for p in order), advance, at_once)
    found = dict(zip(order, priced, strict=True))
    return [GroupPath(group, found[place]) for place, group in enumerate(groups)]


def statistics_of(group: Group, statistics: Statistics) -> Statistics:
    """Those of the layers that read a group."""
    return {layer.node.index: statistics[layer.node.index] for layer in layers_to_refit([group])}


def _bytes_to_solve(statistics: Statistics) -> int:
    return sum(bytes_to_solve(normal) for normals in statistics.values() for normal in normals)


@dataclass(frozen=True)
class _Pricing:
    """What the error path of any group takes besides its own statistics."""

    trace: Trace
    taps: Mapping[int, Tap]
    criterion: str


def _error_path(pricing: _Pricing, item: tuple[Group, Statistics], advance: Callable[[int], None]) -> Path:
    trace, criterion, (group, statistics) = pricing.trace, pricing.criterion, item
    problems = [
        problem
        for index, normals in statistics.items()
        for problem in group_problems(trace, pricing.taps[index], normals, group, _NONE)
    ]
    order = None if criterion == "reap" else np.argsort(_norms(trace, group, int(criterion[1:])), kind="stable")
    path = removal_path(problems, len(group.units), RIDGE, order=order)
    advance(1)
    return path


def _norms(trace: Trace, group: Group, power: int) -> np.ndarray:
    """Sum of the powers of the weights that make each unit, (U,); as an order, that of its norm."""
    total = np.zeros(len(group.units))
    for layer in group.makers:
        if layer.geometry is not None:
            matrix = layer.geometry.matrix(trace.network.constants[layer.node.inputs[layer.weight.input]].astype(float))
            sums = (np.abs(matrix) ** power).sum(axis=1).reshape(-1)
            units = trace.channels.roots(layer.features)
            total += [sums[units == unit].sum() for unit in group.units]
    return total


class Sensitivity:
    """What the error of a group does to the outputs of the network.

    A group alone is cut to half of its units and its readers are refitted; the relative squared error of the
    outputs, per unit of the group's own error, is its weight (after Kamma, Inoue & Wada, PRO, 2022). Of class scores,
    (N, K), those alone count that the original puts highest for each sample: the others are many, and decide little.

    Parameters
    ----------
    trace, taps
        As for :func:`error_paths`.
    dataset
        Samples to measure with.
    options
        Batch size, providers and memory; of the method, how many scores count.
    """

    def __init__(self, trace: Trace, taps: Mapping[int, Tap], dataset: Dataset, options: PruneOptions) -> None:
        self._trace, self._taps = trace, taps
        self._dataset, self._options = dataset, options
        batches = list(dataset.batches(options.batch))
        self._counts = [len(next(iter(feeds.values()))) for feeds in batches]
        session = Session(trace.network.proto, options.providers, weights=trace.network.weights)
        outputs = self._floats([session.run(feeds) for feeds in batches])
        self._shapes = {name: values.shape for name, values in outputs.items()}
        count = options.method.sensitivity_scores or None
        self._highest = {name: _highest(values, count) for name, values in outputs.items() if values.ndim == 2}
        self._reference = {name: self._counted(name, values) for name, values in outputs.items()}

    def first(self, path: GroupPath) -> int:
        """Index of the first node that changes where half of a group goes."""
        return first_changed(self._trace, _removed(path), layers_to_refit([path.group]))

    def weigh(
        self, items: Sequence[tuple[GroupPath, Statistics]], advance: Callable[[int], None] = lambda _: None
    ) -> list[float]:
        """The weight of every path, given the statistics of the layers that read its group; 1 for one without error.

        Paths come in the order of :meth:`first`: what lies before that node is run once for all of them.
        """
        trace, options, names, weights = self._trace, self._options, list(self._reference), list[float]()
        memory = memory_for_stream(options.memory)
        with Stream(
            trace.network, self._dataset, batch=options.batch, providers=options.providers, memory=memory
        ) as stream:
            for path, statistics in items:
                weight, error = 1.0, float(path.path.errors[_half(path)])
                if error > 0:
                    before = [name for node in trace.network.nodes[: self.first(path)] for name in node.outputs if name]
                    runs = list(stream.run(self._without_half(path, statistics), names, names, before))
                    weight = self._damage(self._floats(runs)) / error
                weights.append(weight)
                advance(1)
        return weights

    def _without_half(self, path: GroupPath, statistics: Statistics) -> onnx.ModelProto:
        """The network without half of a group, its readers refitted."""
        removed, weights = _removed(path), dict[Slot, np.ndarray]()
        for index, normals in statistics.items():
            weights |= refitted(self._trace, self._taps[index], normals, removed)
        return mask_channels(self._trace, removed, weights)

    def _floats(self, runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Outputs of floating point over all batches; only nodes make some that channels can change."""
        made = [n for n, v in runs[0].items() if n in self._trace.network.producer and isinstance(v, np.ndarray)]
        names = [name for name in made if runs[0][name].dtype.kind == "f"]
        return {name: _joined([run[name] for run in runs], self._counts) for name in names}

    def _damage(self, outputs: Mapping[str, np.ndarray]) -> float:
        """Squared error of the outputs relative to their variance, the mean over the outputs."""
        shares = []
        for name, values in outputs.items():
            reference = self._reference[name]
            spread = float(((reference - reference.mean()) ** 2).sum())
            if values.shape == self._shapes[name] and spread > 0:
                shares.append(float(((self._counted(name, values) - reference) ** 2).sum()) / spread)
        return float(np.mean(shares)) if shares else 1.0

    def _counted(self, name: str, values: np.ndarray) -> np.ndarray:
        """What counts of an output."""
        return np.take_along_axis(values, self._highest[name], 1) if name in self._highest else values


def _half(path: GroupPath) -> int:
    """How many units of a group are half of them, one at least; of a single one, which no path removes, none."""
    return min(len(path.path.order), max(1, len(path.group.units) // 2))


def _removed(path: GroupPath) -> Labels:
    return path.group.units[path.path.order[: _half(path)]]


def _joined(outputs: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """Class scores of all runs, (N, K), where they are such; else all numbers in a row. float64."""
    scores = [class_scores(output, count) for output, count in zip(outputs, counts, strict=True)]
    parts = [found for found in scores if found is not None]
    if len(parts) < len(outputs) or len({part.shape[1] for part in parts}) > 1:
        parts = [np.ravel(output) for output in outputs]
    return np.concatenate(parts).astype(float)


def _highest(scores: np.ndarray, count: int | None) -> np.ndarray:
    """Classes of the highest scores (N, K) of every sample, (N, at most ``count``)."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def weighed(
    sensitivity: Sensitivity,
    paths: Sequence[GroupPath],
    statistics: Statistics,
    advance: Callable[[int], None] = lambda _: None,
    workers: Workers = HERE,
) -> list[GroupPath]:
    """The same paths with their weights measured, ``TOGETHER`` neighbours in the network at a time."""
    order = sorted(range(len(paths)), key=lambda number: sensitivity.first(paths[number]))
    runs = [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
    items = ([(paths[number], statistics_of(paths[number].group, statistics)) for number in run] for run in runs)
    weights = chain.from_iterable(workers.run(Sensitivity.weigh, sensitivity, items, advance))
    found = dict(zip(order, weights, strict=True))
    return [replace(path, weight=found[number]) for number, path in enumerate(paths)]


def curve(path: GroupPath, options: PruneOptions, step: int | None = None) -> Curve:
    """What the allocation is told about a group: its weighted error path, steps and smallest width.

    ``step`` is in channels; by default that of the options, or 1 where they leave it to timing. Overrides come first.
    """
    units = len(path.group.units)
    channels = path.group.channels
    own = merge_overrides(options.overrides, path.group.made_as)
    errors = path.weight * path.path.errors
    if own.keep is not None:
        return Curve(units, errors, least=own.keep // channels, most=own.keep // channels)
    step = own.round_to or step or (options.round_to if isinstance(options.round_to, int) else 1)
    step //= math.gcd(step, channels)
    max_cut = options.max_cut if own.max_cut is None else own.max_cut
    min_channels = own.min_channels or options.min_channels
    least = max(1, math.ceil(min_channels / channels), units - math.floor(units * max_cut + 1e-9))
    return Curve(units, errors, step=step, least=min(units, least))
