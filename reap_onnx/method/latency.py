"""What a width costs in time: operators timed alone at a few widths, put together into a cost of the network."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from reap_onnx.data.times import Time
from reap_onnx.errors import DataError
from reap_onnx.graph.cost import elements_cost, weight_sides
from reap_onnx.graph.groups import Group
from reap_onnx.graph.trace import Trace
from reap_onnx.model.operator import Operator, find_operator
from reap_onnx.numerics.allocate import Curve
from reap_onnx.numerics.tables import Side, Table, TableCost
from reap_onnx.runtime.profile import Profile, Timing

Timer = Callable[[Operator], Timing]

POINTS, POINTS_LARGE = 6, 3  # widths that an axis is timed at; of a layer
LARGE = 4_000_000  # whose weight has more elements than that
STEPS = (16, 8, 4, 2, 1)  # what may be a step: 16 numbers are what the widest registers hold
WORTH = 0.6  # of the time that going down by a step would save in proportion: what it must save


def latency_cost(
    trace: Trace,
    groups: Sequence[Group],
    curves: Sequence[Curve],
    timer: Timer,
    profile: Profile,
    batch: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> TableCost:
    """Milliseconds of a run as a function of the units kept in each group.

    1. Every layer is timed alone, at a few of the widths that the curves allow; between them time is linear.
    2. All of these times are multiplied by what makes them, at full width, what the layers take within the network.
    3. The other operators take time in proportion to the elements that are computed; what is left of the time of a run
       (starting operators, above all) does not depend on the widths.

    Parameters
    ----------
    timer
        Times of an operator alone.
    profile
        Where the time of the original goes.
    batch
        Samples in a run.
    """
    full = [curve.width for curve in curves]
    timed = list(_timed(trace, groups, curves, timer, batch, advance))
    factor = profile.layers / max(sum(layer.alone for layer in timed), 1e-9)
    return _cost(trace, groups, full, [layer.scaled(factor) for layer in timed], profile)


def foreign_cost(
    trace: Trace,
    groups: Sequence[Group],
    curves: Sequence[Curve],
    timer: Timer,
    times: Sequence[Time],
    batch: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[TableCost, list[str]]:
    """Milliseconds of a run on a device that is known by the times of its layers alone, and the layers without one.

    How the time of a layer falls with its widths is measured here; at full width it is what the device takes. A time
    of several layers is parted among them as they are timed here, a layer without a time is as much slower or faster
    than here as the others together are. What is no layer takes time in proportion to the elements computed.

    Raises
    ------
    DataError
        No layer has a time.
    """
    full = [curve.width for curve in curves]
    timed = list(_timed(trace, groups, curves, timer, batch, advance))
    here = {layer.node: layer.alone for layer in timed}
    there, others = defaultdict[int, float](float), 0.0
    for time, reached in layers_of(trace, times):
        known = [node for node in reached if node in here]
        for node in known:
            there[node] += time.ms * here[node] / sum(here[other] for other in known)
        others += 0.0 if known else time.ms
    if not any(there.values()):
        raise DataError(
            "the times are of no layer of the model, or all zero",
            "give the names of its nodes, as inspect lists them",
        )
    usual = sum(there.values()) / sum(here[node] for node in there)
    scaled = [layer.scaled(there[layer.node] / layer.alone if layer.node in there else usual) for layer in timed]
    layers = sum(layer.alone for layer in scaled)
    missing = [trace.network.nodes[node].name for node in here if node not in there]
    return _cost(trace, groups, full, scaled, Profile(layers + others, layers, others)), missing


def layers_of(trace: Trace, times: Sequence[Time]) -> list[tuple[Time, list[int]]]:
    """The layers that every time is of, by the index of their nodes; none for what is no layer.

    A time that is known to be of a layer but names another node, as where a Conv runs together with its Relu, is of
    the nearest layer before that node that no other time is of.
    """
    network, layers = trace.network, {layer.node.index for layer in trace.layers}
    named = {node.name: node for node in network.nodes} | network.producer
    nodes = [[named[name] for name in time.names if name in named] for time in times]
    found = [sorted({node.index for node in each if node.index in layers}) for each in nodes]
    taken = {index for each in found for index in each}
    order = sorted(range(len(times)), key=lambda i: min((node.index for node in nodes[i]), default=0))
    for i in order:
        if times[i].layer and not found[i]:
            before = [
                index for node in nodes[i] for index in network.ancestors(node.outputs) if index in layers - taken
            ]
            found[i] = [max(before)] if before else []
            taken.update(found[i])
    return list(zip(times, found, strict=True))


class _Timed(NamedTuple):
    """A layer timed alone: index of its node, milliseconds at full width, and over the widths that it is cut to."""

    node: int
    alone: float
    table: Table | None

    def scaled(self, factor: float) -> _Timed:
        """The same layer on a machine that takes this many times as long."""
        table = self.table and replace(self.table, values=self.table.values * factor)
        return _Timed(self.node, self.alone * factor, table)


def _timed(
    trace: Trace,
    groups: Sequence[Group],
    curves: Sequence[Curve],
    timer: Timer,
    batch: int,
    advance: Callable[[int], None],
) -> Iterator[_Timed]:
    """Every layer that can be timed alone, in the order of the graph."""
    full = [curve.width for curve in curves]
    for layer in trace.layers:
        operator, sides = find_operator(trace.network, layer.node, batch), weight_sides(trace, list(groups), layer)
        if operator is not None:
            table = _table(operator, sides, curves, timer) if sides else None
            yield _Timed(layer.node.index, _at(table, full) if table else timer(operator).alone, table)
        advance(1)


def _cost(
    trace: Trace, groups: Sequence[Group], full: Sequence[int], timed: Sequence[_Timed], profile: Profile
) -> TableCost:
    """Layers that can be cut by their tables, other operators by their elements, the rest as it is."""
    alone = sum(layer.alone for layer in timed if layer.table)
    per_unit = profile.others * elements_cost(trace, list(groups))
    fixed = max(profile.run - alone - float(per_unit @ np.array(full)), 0.0)
    return TableCost(fixed, per_unit, tuple(layer.table for layer in timed if layer.table))


def _at(table: Table, kept: Sequence[int]) -> float:
    return float(table.at(table.first(kept), table.second(kept)))


def _table(operator: Operator, sides: dict[int, Side], curves: Sequence[Curve], timer: Timer) -> Table:
    """Times of one layer over the sizes of the axes of its weight, one or two, that shrink."""
    points = POINTS if math.prod(operator.weight) <= LARGE else POINTS_LARGE
    axes = list(sides)[:2]
    grids = [_sizes(sides[axis], curves, points) for axis in axes]
    smaller = [operator.resized(_shape(operator, dict(zip(axes, s, strict=True)))) for s in itertools.product(*grids)]
    times = [timer(other).among(timer(operator)) for other in smaller]
    if len(axes) < 2:
        sides, axes, grids = (
            {axes[0]: sides[axes[0]], -1: Side(1.0, np.zeros(len(curves)))},
            [axes[0], -1],
            [*grids, [1]],
        )
    values = np.array(times).reshape(len(grids[0]), len(grids[1]))
    rows, columns = (np.array(grid, np.float64) for grid in grids)
    return Table(sides[axes[0]], sides[axes[1]], rows, columns, values)


def _sizes(side: Side, curves: Sequence[Curve], points: int) -> list[int]:
    """Sizes of an axis between the smallest and the largest that the curves allow, and the whole one, ascending."""
    found = {round(side([curve.width for curve in curves]))}
    for share in np.linspace(0, 1, points):
        choices = [curve.choices() for curve in curves]
        found.add(round(side([kept[round(share * (len(kept) - 1))] for kept in choices])))
    return sorted(found)


def _shape(operator: Operator, sizes: dict[int, int]) -> tuple[int, ...]:
    return tuple(sizes.get(axis, size) for axis, size in enumerate(operator.weight))


def find_steps(
    trace: Trace,
    groups: Sequence[Group],
    timer: Timer,
    batch: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> list[int]:
    """Step of every group, in channels: the smallest of ``STEPS`` that is worth going down by.

    A step is worth it where going down by it, from the full width and from about half of it, saves at least 0.6
    of what the layers that make and read the group would save if time were proportional to the width. Of a group
    for which no step is, it is the largest that leaves a choice.
    """
    sides = [
        (find_operator(trace.network, layer.node, batch), weight_sides(trace, list(groups), layer))
        for layer in trace.layers
    ]
    steps = []
    for index, group in enumerate(groups):
        layers = [
            _Reach(operator, {axis: side.per_unit[index] for axis, side in found.items() if side.per_unit[index]})
            for operator, found in sides
            if operator is not None
        ]
        layers = [layer for layer in layers if layer.per_unit]
        allowed = [step for step in STEPS if step < group.width]
        steps.append(_step(layers, group, allowed, timer))
        advance(1)
    return steps


def _step(layers: Sequence[_Reach], group: Group, allowed: Sequence[int], timer: Timer) -> int:
    """The last of the steps allowed, descending, before one that is not worth it; else the first."""
    found = allowed[0] if allowed else 1
    for step in allowed:
        if not _worth(layers, group, step, timer):
            break
        found = step
    return found


class _Reach(NamedTuple):
    """A layer that makes or reads a group: elements of each axis of its weight that one unit stands for."""

    operator: Operator
    per_unit: dict[int, float]

    def without(self, units: int) -> Operator:
        """The layer when so many units are gone."""
        gone = {axis: round(self.operator.weight[axis] - each * units) for axis, each in self.per_unit.items()}
        return self.operator.resized(_shape(self.operator, gone))


def _worth(layers: Sequence[_Reach], group: Group, step: int, timer: Timer) -> bool:
    """Whether going down by a step saves enough time, from the top and from about half."""
    units, by = len(group.units), step // math.gcd(step, group.channels)
    tops = {whole for part in (1, 2) if (whole := units // part // (2 * by) * 2 * by)}
    return bool(tops) and all(_saves(layers, units, top, by, timer) for top in tops)


def _saves(layers: Sequence[_Reach], units: int, top: int, by: int, timer: Timer) -> bool:
    before, after = (
        sum(timer(layer.without(units - kept)).among(timer(layer.operator)) for layer in layers)
        for kept in (top, top - by)
    )
    return before - after >= WORTH * before * by / top
