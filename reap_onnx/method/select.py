"""How many channels of each group go: error paths, sensitivity of the outputs, allocation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
COUNTED = 4_000_000  # numbers of an output that count at most, over all samples
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
    relative to the variance of the layer's target. Wide groups go at once, as many as ``memory``, in bytes, has
    room for; others one by one, since most of their time is Python's own.
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
    Of outputs of more than ``COUNTED`` numbers so many count, drawn at random. What the original leaves infinite or
    undefined does not count; what becomes so is as bad as the mean of the output.

    Parameters
    ----------
    trace, taps
        As for :func:`error_paths`.
    dataset
        Samples to measure with.
    options
        Batch size, providers, memory and seed; of the method, how many scores count.
    """

    def __init__(self, trace: Trace, taps: Mapping[int, Tap], dataset: Dataset, options: PruneOptions) -> None:
        self._trace, self._taps = trace, taps
        self._dataset, self._options = dataset, options
        session = Session(trace.network.proto, options.providers, weights=trace.network.weights, full_precision=True)
        scores, most = options.method.sensitivity_scores, max(1, COUNTED // math.ceil(len(dataset) / options.batch))
        rng = np.random.default_rng(options.seed)

        def reference(feeds: dict[str, np.ndarray]) -> dict[str, _Counted]:
            samples, outputs = len(next(iter(feeds.values()))), session.run(feeds)
            return {name: _counted(outputs[name], samples, scores, most, rng) for name in self._floats(outputs)}

        self._reference = [*map(reference, dataset.batches(options.batch))]  # a batch is gone before the next one
        self._means = {name: _mean([part[name].values for part in self._reference]) for name in self._reference[0]}
        self._spreads = {
            name: sum(float(((part[name].values - mean) ** 2).sum()) for part in self._reference)
            for name, mean in self._means.items()
        }

    def first(self, path: GroupPath) -> int:
        """Index of the first node that changes where half of a group goes."""
        return first_changed(self._trace, _removed(path), layers_to_refit([path.group]))

    def weigh(
        self, items: Sequence[tuple[GroupPath, Statistics]], advance: Callable[[int], None] = lambda _: None
    ) -> list[float]:
        """The weight of every path, given the statistics of the layers that read its group; 1 for one without error.

        Paths come in the order of :meth:`first`: what lies before that node is run once for all of them.
        """
        trace, options, names, weights = self._trace, self._options, list(self._means), list[float]()
        memory = memory_for_stream(options.memory)
        with Stream(
            trace.network, self._dataset, batch=options.batch, providers=options.providers, memory=memory
        ) as stream:
            for path, statistics in items:
                weight, error = 1.0, float(path.path.errors[_half(path)])
                if error > 0:
                    before = [name for node in trace.network.nodes[: self.first(path)] for name in node.outputs if name]
                    runs = stream.run(self._without_half(path, statistics), names, names, before)
                    weight = self._damage(runs) / error
                weights.append(weight)
                advance(1)
        return weights

    def _without_half(self, path: GroupPath, statistics: Statistics) -> onnx.ModelProto:
        """The network without half of a group, its readers refitted."""
        removed, weights = _removed(path), dict[Slot, np.ndarray]()
        for index, normals in statistics.items():
            weights |= refitted(self._trace, self._taps[index], normals, removed, cautious=True)
        return mask_channels(self._trace, removed, weights)

    def _floats(self, outputs: Mapping[str, object]) -> list[str]:
        """Outputs of floating point; only nodes make some that channels can change."""
        made = {name: value for name, value in outputs.items() if name in self._trace.network.producer}
        return [name for name, value in made.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]

    def _damage(self, runs: Iterable[Mapping[str, np.ndarray]]) -> float:
        """Squared error of the outputs relative to their variance, the mean over the outputs that keep their shape."""
        moved = [*map(self._moved, self._reference, runs)]  # a batch is gone before the next one
        totals = {name: sum(part[name] for part in moved) for name in self._means}
        shares = [total / self._spreads[name] for name, total in totals.items() if self._spreads[name] > 0]
        found = [share for share in shares if math.isfinite(share)]
        return float(np.mean(found)) if found else 1.0

    def _moved(self, reference: Mapping[str, _Counted], outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Squared error of what counts of every output over one batch; infinite where its shape is another one."""
        return {name: part.squared_error(outputs[name], self._means[name]) for name, part in reference.items()}


@dataclass(frozen=True)
class _Counted:
    """What counts of one output over a batch: numbers (n,) at places (n,) of the flat output."""

    shape: tuple[int, ...]
    places: np.ndarray
    values: np.ndarray

    def squared_error(self, output: np.ndarray, blank: float) -> float:
        """Of another output, ``blank`` standing for what is not finite there; infinite if it has another shape."""
        if output.shape != self.shape:
            return math.inf
        now = output.reshape(-1)[self.places].astype(float)
        return float(((np.where(np.isfinite(now), now, blank) - self.values) ** 2).sum())


def _counted(output: np.ndarray, samples: int, scores: int, most: int, rng: np.random.Generator) -> _Counted:
    """Of class scores the highest of every sample, where not all count; else all numbers, or ``most`` at random."""
    flat, found = output.reshape(-1), class_scores(output, samples)
    if found is not None and 0 < scores < found.shape[1]:
        highest = np.argsort(-found, axis=1, kind="stable")[:, :scores]
        places = (highest + found.shape[1] * np.arange(samples)[:, None]).reshape(-1)
    else:
        places = np.arange(flat.size) if flat.size <= most else np.sort(rng.integers(flat.size, size=most))
    places = places[np.isfinite(flat[places])]
    return _Counted(output.shape, places, flat[places].astype(float))


def _mean(parts: Sequence[np.ndarray]) -> float:
    count = sum(part.size for part in parts)
    return sum(float(part.sum()) for part in parts) / max(count, 1)


def _half(path: GroupPath) -> int:
    """How many units of a group are half of them, one at least; of a single one, which no path removes, none."""
    return min(len(path.path.order), max(1, len(path.group.units) // 2))


def _removed(path: GroupPath) -> Labels:
    return path.group.units[path.path.order[: _half(path)]]


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
    step = own.round_to or step or (1 if options.rounding == "auto" else options.rounding)
    step //= math.gcd(step, channels)
    max_cut = options.max_cut if own.max_cut is None else own.max_cut
    min_channels = own.min_channels or options.min_channels
    least = max(1, math.ceil(min_channels / channels), units - math.floor(units * max_cut + 1e-9))
    return Curve(units, errors, step=step, least=min(units, least))
