"""A layer and the one behind it refitted together, from tensors to constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from reap_onnx.graph.channels import Labels
from reap_onnx.graph.couple import Couple
from reap_onnx.graph.layer import Geometry, Layer
from reap_onnx.graph.surgery import cut_constant
from reap_onnx.graph.targets import Target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import written
from reap_onnx.model.network import Slot
from reap_onnx.numerics.linearize import Operator, chain
from reap_onnx.numerics.pair import Batch, Pair, refit_pair
from reap_onnx.numerics.parallel import even_slices, in_parallel
from reap_onnx.numerics.patches import col2im, im2col
from reap_onnx.ops.between import Between, operator
from reap_onnx.options import Method
from reap_onnx.runtime.statistics import Tap
from reap_onnx.runtime.waves import Sample, Whole

NUMBERS = 256_000_000  # in the rows of either layer at most,
SHARE = 32  # bytes of the memory for each of them, for there are some seven others made of it
WEIGHTS = 32_000_000  # and in the weights of both
CHUNK = 2_000_000  # numbers in the rows of either layer worked on at a time: with fewer, calls outweigh the work
AGAIN = 0.7  # a round that leaves less than this share of the error is followed by another
RIDGES = 0.01, 0.3  # relative: the least, and the largest where halves of the samples want different weights

Constants = Mapping[Slot, np.ndarray]


class Shelf:
    """The first samples, in whole, of a couple: what its maker reads, what its reader should produce.

    Parameters
    ----------
    trace, couple
        The two layers.
    tap
        Of the reader.
    method
        How many rows are wanted.
    memory
        Bytes that the run may take.
    """

    def __init__(self, trace: Trace, couple: Couple, tap: Tap, method: Method, memory: int) -> None:
        self.couple, self.tap = couple, tap
        self.samples: list[Sample] = []
        self._network, self._numbers = trace.network, min(NUMBERS, memory // SHARE)
        layers = couple.maker, couple.reader
        weights = sum(trace.network.constants[layer.node.inputs[layer.weight.input]].size for layer in layers)
        rows = min(method.pair_rows, method.pair_work // weights) if weights <= WEIGHTS else 0
        room = min(rows // self._places(couple.reader), *map(self._fitting, layers))
        self.whole = Whole(tap, couple.maker.data, room)
        self._chunk = min(CHUNK // (self._places(layer) * self._columns(layer)) for layer in layers)

    def add(self, batches: Iterable[Sample]) -> None:
        """Keep the samples of some batches, those that ``whole`` asks for, in even pieces for the cores."""
        for data, total, other in batches:
            for some in even_slices(len(total), self._chunk):
                self.samples.append((data[some], total[some], None if other is None else other[some]))

    def _places(self, layer: Layer) -> int:
        assert layer.geometry is not None
        return layer.geometry.positions(self._network.shapes[layer.output])

    def _columns(self, layer: Layer) -> int:
        assert layer.geometry is not None
        return layer.geometry.columns(layer.inputs).size

    def _fitting(self, layer: Layer) -> int:
        numbers = self._columns(layer) + 4 * len(layer.features)  # rows, and what is made of them
        return self._numbers // (self._places(layer) * numbers)


def refit_couple(
    trace: Trace, shelf: Shelf, removed: Labels, weights: Constants, method: Method
) -> dict[Slot, np.ndarray]:
    """New constants of both layers of a couple, in their original shapes; none where no sample had room.

    Parameters
    ----------
    shelf
        The couple and its samples.
    removed
        Channels that are gone for good.
    weights
        Constants that are new by now; the others are as they were.
    method
        How many Gauss-Newton rounds, and conjugate gradients in each; whether the ridge is measured.
    """
    couple, tap = shelf.couple, shelf.tap
    if not shelf.samples:
        return {}
    first = _Side(trace, couple.maker, couple.made, removed, weights)
    second = _Side(trace, couple.reader, tap.target, removed, weights)
    low, high = tap.clip or (-np.inf, np.inf)
    pair = Pair(_between(trace, couple, removed, weights), second.gather, second.scatter, low, high)
    made = trace.network.shapes[couple.maker.output]

    def batch(sample: Sample) -> Batch:
        data, total, other = sample
        rows = first.gather(first.image(data))
        rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
        goal = second.features(total)
        offset = np.zeros_like(goal) if other is None else second.features(other)
        return Batch(rows, first.shape(len(data), made), goal, offset)

    batches = in_parallel(batch, shelf.samples)
    one, two = refit_pair(
        pair,
        batches,
        first.matrix,
        second.matrix,
        ridges=RIDGES if method.measured_ridges else (RIDGES[0], RIDGES[0]),
        rounds=method.pair_rounds,
        again=AGAIN,
        steps=method.pair_steps,
        gain=method.pair_gain,
    )
    return first.slots(one) | second.slots(two)


class _Side:
    """A layer without the channels that are gone, its rows tap by tap."""

    def __init__(self, trace: Trace, layer: Layer, target: Target, removed: Labels, weights: Constants) -> None:
        assert layer.geometry is not None
        self._layer, self._target = layer, target
        self._geometry: Geometry = layer.geometry
        roots = trace.channels.roots
        self._like = _value(trace, layer.weight, weights)
        self._old = self._geometry.matrix(self._like.astype(float))
        self._shift = self._present_shift(trace, weights)
        self._inputs = ~np.isin(roots(layer.inputs), removed)
        self._features = ~np.isin(roots(layer.features), removed)
        columns = np.flatnonzero(~np.isin(roots(self._geometry.columns(layer.inputs)[0]), removed))
        self._columns = columns.reshape(int(self._inputs.sum()), -1).T.reshape(-1)

    def _present_shift(self, trace: Trace, weights: Constants) -> np.ndarray:
        intercept = self._target.intercept
        if intercept is None or intercept.slot not in weights:
            return self._target.shift
        change = weights[intercept.slot].astype(float) - intercept.value.astype(float)
        return np.asarray(self._target.shift + change.reshape(-1) * intercept.scale)

    @property
    def matrix(self) -> np.ndarray:
        """(D + 1, M), the shift last."""
        kept = self._old[0][np.ix_(self._columns, self._features)] * self._target.scale[self._features]
        return np.concatenate([kept, self._shift[self._features][None]])

    def image(self, tensor: np.ndarray) -> np.ndarray:
        """What the layer reads, channels last, without those that are gone."""
        last = np.moveaxis(tensor, self._geometry.feature_axis, -1)
        return np.asarray(last[..., self._inputs], np.float32)

    def features(self, tensor: np.ndarray) -> np.ndarray:
        """A tensor of the output's shape as rows, (n, M)."""
        last = np.moveaxis(tensor, self._geometry.feature_axis, -1)[..., self._features]
        return np.asarray(last.reshape(-1, last.shape[-1]), np.float32)

    def shape(self, samples: int, output: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what the layer makes of so many samples, channels last."""
        axis = self._geometry.feature_axis % len(output)
        spatial = [size for a, size in enumerate(output) if a not in (0, axis)]
        return (samples, *spatial, int(self._features.sum()))

    def gather(self, x: np.ndarray) -> np.ndarray:
        """Channels last -> rows."""
        window = self._geometry.window
        return x.reshape(-1, x.shape[-1]) if window is None else im2col(x, window)

    def scatter(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The adjoint of ``gather``."""
        window = self._geometry.window
        return rows.reshape(shape) if window is None else col2im(rows, window, shape)

    def slots(self, matrix: np.ndarray) -> dict[Slot, np.ndarray]:
        """The constants that hold ``matrix``."""
        new, shift = self._old[0] * self._target.scale, self._shift.copy()
        new[np.ix_(self._columns, self._features)] = matrix[:-1]
        shift[self._features] = matrix[-1]
        return written(self._layer, self._target, new[None], shift, self._old, self._like)


def _value(trace: Trace, slot: Slot, weights: Constants) -> np.ndarray:
    """A constant as it is by now."""
    return (
        weights[slot] if slot in weights else trace.network.constants[trace.network.nodes[slot.node].inputs[slot.input]]
    )


def _between(trace: Trace, couple: Couple, removed: Labels, weights: Constants) -> Operator:
    """The operators between the layers, without the channels that are gone."""
    operators = []
    for node in couple.between:
        constants = {}
        for position, name in enumerate(node.inputs):
            if name in trace.network.constants:
                slot = Slot(node.index, position)
                constants[position] = cut_constant(
                    _value(trace, slot, weights),
                    trace.cuts.get(slot, {}),
                    lambda labels: ~np.isin(trace.channels.roots(labels), removed),
                )
        assert couple.maker.geometry is not None
        found = operator(Between(trace.network, node, constants, couple.maker.geometry.feature_axis))
        assert found is not None
        operators.append(found)
    return chain(operators)
