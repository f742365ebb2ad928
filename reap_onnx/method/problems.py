"""From normal equations and labels to the problems that the numerics solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reap_onnx.errors import DataError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.groups import Group
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.targets import Intercept, Target
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.numerics.few import StandIns, by_channel, shrinkage_ridge, stand_ins
from reap_onnx.numerics.gram import Equations, Rows
from reap_onnx.numerics.parallel import even_slices
from reap_onnx.numerics.path import Problem, RowProblem, ridge_of
from reap_onnx.numerics.refit import ClippedRows, held_out_ridge, refit, refit_clipped, with_intercept
from reap_onnx.runtime.statistics import ENOUGH, Halves, Tap, rows_of_a_sample

RIDGE = 1e-4  # relative to the mean of the Gram matrix's diagonal
RIDGES = (RIDGE, 1e-3, 1e-2, 1e-1, 1.0)  # to choose from where rows are few
ALIKE = 4  # rows of one sample, or places of one row, that say as much as one of another
CAUTION = 10  # with so many times the ridge that they call for, rows are missed about as much as others are
SLICE = 16_000_000  # weights of a layer that are refitted at a time: in float64 there are some seven of each


def column_labels(trace: Trace, tap: Tap) -> Labels:
    """Representative label of every column of a layer's blocks, (B, D); 0 for the intercept."""
    assert tap.layer.geometry is not None
    columns = trace.channels.roots(tap.layer.geometry.columns(tap.layer.inputs))
    return np.pad(columns, ((0, 0), (0, 1))) if tap.intercept else columns


def group_problems(
    trace: Trace, tap: Tap, normals: Sequence[Equations], group: Group, removed: Labels
) -> list[Problem | RowProblem]:
    """The problems of one layer in which the units of ``group`` compete; columns of ``removed`` channels are gone.

    The weight makes errors relative to the variance of the layer's target, so that layers can be added up. Features
    that are removed themselves do not count. The ridge is at least what the number of rows calls for: else a layer of
    fewer rows than columns could lose channels for nothing.
    """
    assert tap.layer.geometry is not None
    _check_rows(tap, normals)
    order = np.argsort(group.units)
    variance = sum(float(feature_variance(normal).sum()) for normal in normals)
    labels = trace.channels.roots(tap.layer.geometry.columns(tap.layer.inputs))
    features = np.isin(trace.channels.roots(tap.layer.features), removed).reshape(len(normals), -1)
    weight = 1.0 / variance if variance > 0 else 0.0
    problems: list[Problem | RowProblem] = []
    for block, normal in enumerate(normals):
        alive = ~np.isin(labels[block], removed)
        at = np.searchsorted(group.units, labels[block][alive], sorter=order).clip(max=len(order) - 1)
        units = np.where(group.units[order[at]] == labels[block][alive], order[at], -1)
        own = centred(tap, normal).on(alive)
        least = shrinkage_ridge(own, _alike(trace, tap))
        if isinstance(own, Rows):
            problems.append(RowProblem(own.x, own.y[:, ~features[block]], units, weight, least))
        else:
            cross = own.cross[:, ~features[block]]
            problems.append(Problem(own.gram / own.rows, cross / own.rows, units, weight, least))
    return problems


def centred(tap: Tap, normal: Equations) -> Equations:
    """The equations without their intercept, which is eliminated; as they are where they have none."""
    return normal.centred() if tap.intercept else normal


def _alike(trace: Trace, tap: Tap) -> float:
    """How many rows of a layer say as much as one: those of one sample are alike."""
    return ALIKE if rows_of_a_sample(tap.layer, trace.network) > 1 else 1


def _check_rows(tap: Tap, normals: Sequence[Equations]) -> None:
    if not all(normal.rows for normal in normals):
        name = tap.layer.node.name
        raise DataError(f"{name}: no sample reaches it", f"give samples that do, or leave it alone: --freeze '{name}'")


def feature_variance(normal: Equations) -> np.ndarray:
    """Variance of each target feature, (M,)."""
    return np.maximum(normal.square / normal.rows - (normal.total / normal.rows) ** 2, 0.0)


def refitted(
    trace: Trace,
    tap: Tap,
    normals: Sequence[Equations],
    removed: Labels,
    rows: Sequence[ClippedRows | None] = (),
    rounds: int = 0,
    halves: Sequence[Halves] = (),
    *,
    cautious: bool = False,
) -> dict[Slot, np.ndarray]:
    """New weight and intercept of a layer that has lost the channels ``removed``, in their original shapes.

    Columns of removed channels are zero. With ``rows``, one per block, errors that the activation behind the
    layer hides stop to count in so many ``rounds``. With ``halves``, one per block, the ridge is that which serves
    the other half best. With ``cautious`` few rows are met no better than others would be. Output features that the
    target barely depends on keep their weights.
    """
    layer, target = tap.layer, tap.target
    assert layer.geometry is not None
    _check_rows(tap, normals)
    old_weight = trace.network.constants[layer.node.inputs[layer.weight.input]]
    old = layer.geometry.matrix(old_weight)
    blocks, columns, features = old.shape
    labels, channels = column_labels(trace, tap), layer.geometry.columns(layer.inputs)
    scale, shift = (vector.reshape(blocks, features) for vector in (target.scale, target.shift.copy()))
    seen, new = _seen(target).reshape(blocks, features), np.empty_like(old)
    for block, normal in enumerate(normals):
        keep = ~np.isin(labels[block], removed)
        about, split = centred(tap, normal), halves[block] if halves else None
        fit = _Fit(
            normal=normal,
            keep=keep,
            intercept=tap.intercept,
            ridge=None if split else _ridge(about.on(keep[:columns]), normal.scale, _alike(trace, tap), cautious),
            others=_stand_ins(about, channels[block], keep[:columns]),
            rows=rows[block] if rows else None,
            rounds=rounds,
            halves=split,
            cautious=cautious,
        )
        for some in even_slices(features, SLICE // columns):
            own = old[block][:, some].astype(float)
            prior = own * scale[block, some]
            if tap.intercept:
                prior = np.concatenate([prior, shift[block][None, some]])
            solution = np.zeros_like(prior)
            solution[keep] = fit.weights(some, prior)
            own[~keep[:columns]] = 0
            new[block][:, some] = _unscaled(solution[:columns], scale[block, some], seen[block, some], own)
            if tap.intercept:
                shift[block, some] = solution[-1]
    return _constants(layer, target, new, shift.reshape(-1), old_weight)


def _ridge(about: Equations, scale: float, alike: float, cautious: bool) -> float:
    """The ridge of a refit, absolute: the least that goes, or what the number of rows calls for."""
    return max(ridge_of(scale, RIDGE), shrinkage_ridge(about, alike) * (CAUTION if cautious else 1))


def _stand_ins(about: Equations, channels: Labels, keep: np.ndarray) -> StandIns | None:
    """What stays in place of what goes, where rows are too few to leave it to them."""
    return stand_ins(about, channels, keep, RIDGE, ALIKE) if about.rows < ENOUGH * len(channels) else None


@dataclass(frozen=True)
class _Fit:
    """How one block of a layer is refitted, some of its features at a time; names as for :func:`refitted`."""

    normal: Equations
    keep: np.ndarray
    intercept: bool
    ridge: float | None  # halves tell it where it is none
    others: StandIns | None
    rows: ClippedRows | None
    rounds: int
    halves: Halves
    cautious: bool

    def weights(self, some: slice, prior: np.ndarray) -> np.ndarray:
        """Weights on the columns that stay, (K, M), for those of all before, (D, M), of some features."""
        normal, keep = self.normal.of(some), self.keep
        if self.others is not None:
            prior = self.others.give(prior)
            if self.cautious and normal.rows < len(keep):  # which would be met, whatever they are
                return with_intercept(normal, keep, prior) if self.intercept else prior[keep]
        ridge = self._held_out(some, prior) if self.ridge is None else self.ridge
        if self.rows is None:
            return refit(normal, keep, ridge, prior, intercept=self.intercept)
        return refit_clipped(
            normal, keep, ridge, prior, self.rows.of(some), rounds=self.rounds, intercept=self.intercept
        )

    def _held_out(self, some: slice, prior: np.ndarray) -> float:
        assert self.halves is not None
        halves = self.halves[0].of(some), self.halves[1].of(some)
        ridges = [ridge_of(self.normal.scale, relative) for relative in RIDGES]
        return held_out_ridge(halves, self.keep, ridges, prior, intercept=self.intercept)


def written(
    layer: Layer, target: Target, matrix: np.ndarray, shift: np.ndarray, old: np.ndarray, like: np.ndarray
) -> dict[Slot, np.ndarray]:
    """The constants of a layer that make ``branch = rows @ matrix + shift``.

    Parameters
    ----------
    matrix : (B, D, M), shift : (features,)
        Behind the affine operators of the target.
    old : (B, D, M)
        The layer's own weights, kept for features that the target barely depends on.
    like
        The weight in its shape and dtype.
    """
    scale, seen = (vector.reshape(len(old), 1, -1) for vector in (target.scale, _seen(target)))
    return _constants(layer, target, _unscaled(matrix, scale, seen, old), shift, like)


def _seen(target: Target) -> np.ndarray:
    """Features that the target depends on, (features,)."""
    return np.asarray(np.abs(target.scale) > 1e-8 * np.abs(target.scale).max())


def _unscaled(matrix: np.ndarray, scale: np.ndarray, seen: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Weights of the layer from those behind the affine operators of its target; ``old`` where nothing is seen."""
    return np.where(seen, matrix / np.where(seen, scale, 1.0), old)


def _constants(
    layer: Layer, target: Target, matrix: np.ndarray, shift: np.ndarray, like: np.ndarray
) -> dict[Slot, np.ndarray]:
    assert layer.geometry is not None
    slots = {layer.weight: layer.geometry.weight(matrix, like)}
    if target.intercept is not None:
        slots |= _intercept(target, target.intercept, shift, _seen(target))
    return slots


def _intercept(target: Target, intercept: Intercept, shift: np.ndarray, seen: np.ndarray) -> dict[Slot, np.ndarray]:
    """The intercept written where the target says it can be."""
    change = np.where(seen, (shift - target.shift) / intercept.scale, 0.0)
    value = intercept.value.astype(float) + change.reshape(intercept.value.shape)
    return {intercept.slot: value.astype(intercept.value.dtype)}


def layers_to_refit(groups: Sequence[Group]) -> list[Layer]:
    """Layers that read any of these groups and can be refitted, in the order of the graph."""
    found = {layer.node.index: layer for group in groups for layer in group.readers if layer.geometry is not None}
    return [found[index] for index in sorted(found)]


def solved_by_rows(trace: Trace, statistics: Mapping[int, Sequence[Equations]]) -> list[str]:
    """A line for each layer that is so wide that its rows were kept instead of their sums."""
    layers = {layer.node.index: layer for layer in trace.layers}
    return [_told(layers[index], normals[0]) for index, normals in statistics.items() if isinstance(normals[0], Rows)]


def _told(layer: Layer, rows: Rows) -> str:
    assert layer.geometry is not None
    channels = layer.geometry.columns(layer.inputs)[0]
    told = f"{layer.node.name}: {len(channels):,} columns, solved by {rows.rows:,} rows"
    columns = by_channel(channels)
    return (
        told if columns is None else f"{told} and what the {columns.shape[1]:,} places of each channel have in common"
    )
