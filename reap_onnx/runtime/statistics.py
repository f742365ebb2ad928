"""Calibration data through the network, down to normal equations; activations are gone after their batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.targets import Target
from reap_onnx.model.edit import part
from reap_onnx.numerics.gram import Accumulator, Normal
from reap_onnx.numerics.rows import sample_positions
from reap_onnx.runtime.session import Session


POSITIONS = 128  # output positions of one sample at most: neighbours say much the same


@dataclass(frozen=True)
class Tap:
    """What to measure at one layer.

    The layer's input is read from the present network and its target from the original one: the
    branch by itself, or with ``residual`` the sum after the Add, less the other operand as it is by now.
    """

    layer: Layer
    target: Target
    residual: bool = False

    @property
    def wanted(self) -> str:
        """Tensor of the original network that the layer should produce."""
        return self.target.total if self.residual else self.target.branch

    @property
    def other(self) -> str:
        """Tensor of the present network that is subtracted; empty for none."""
        return self.target.other if self.residual else ""

    @property
    def intercept(self) -> bool:
        """Whether the rows end in a constant 1."""
        return self.target.intercept is not None


def collect(
    original: onnx.ModelProto,
    present: onnx.ModelProto,
    taps: Sequence[Tap],
    dataset: Dataset,
    *,
    batch: int,
    rows: int,
    seed: int,
    providers: Sequence[str] = ("cpu",),
    advance: Callable[[int], None] = lambda _: None,
) -> dict[int, list[Normal]]:
    """Normal equations of every tap, one a block, by the index of its node.

    Parameters
    ----------
    original, present
        The network as it was, and as it is by now; the same object where they are the same.
    rows
        Rows wanted per layer, over the whole data set; positions are sampled to reach it.

    Notes
    -----
    Where the intercept can be written, the last column is the constant 1; elsewhere the fixed shift is taken off the target. Positions are drawn per layer and batch from
    ``seed``, so that they do not depend on which other taps are measured.
    """
    streams = _streams(original, present, taps, providers)
    sums: dict[int, list[Accumulator]] = {}
    for number, feeds in enumerate(dataset.batches(batch)):
        tensors = [session.run(feeds, names) | feeds for session, names in streams]
        was, now = tensors[0], tensors[-1]
        for tap in taps:
            rng = np.random.default_rng((seed, tap.layer.node.index, number))
            target = was[tap.wanted] - now[tap.other] if tap.other else was[tap.wanted]
            _add(sums, tap, now[tap.layer.data], target, rows / len(dataset), rng)
        advance(len(next(iter(feeds.values()))))
    return {index: [accumulator.result() for accumulator in blocks] for index, blocks in sums.items()}


def samples_needed(taps: Sequence[Tap], shapes: Mapping[str, tuple[int, ...]], rows: int, batch: int) -> int:
    """How many samples, in whole batches, give ``rows`` rows at every tap, with at most ``POSITIONS`` of each sample."""
    positions = [tap.layer.geometry.positions(shapes[tap.layer.output]) for tap in taps if tap.layer.geometry]
    return batch * max(math.ceil(rows / min(POSITIONS, count) / batch) for count in positions)


def _streams(
    original: onnx.ModelProto, present: onnx.ModelProto, taps: Sequence[Tap], providers: Sequence[str]
) -> list[tuple[Session, list[str]]]:
    """Sessions over just the part of each network that the taps need; one where both networks are the same."""
    targets = [tap.wanted for tap in taps]
    inputs = [name for tap in taps for name in (tap.layer.data, tap.other) if name]
    if original is present:
        return [_stream(original, targets + inputs, providers)]
    return [_stream(original, targets, providers), _stream(present, inputs, providers)]


def _stream(model: onnx.ModelProto, names: Sequence[str], providers: Sequence[str]) -> tuple[Session, list[str]]:
    computed = {output for node in model.graph.node for output in node.output}
    wanted = [name for name in dict.fromkeys(names) if name in computed]
    return Session(part(model, wanted), providers), wanted


def _add(
    sums: dict[int, list[Accumulator]],
    tap: Tap,
    x: np.ndarray,
    y: np.ndarray,
    rows_per_sample: float,
    rng: np.random.Generator,
) -> None:
    """Add one batch of a layer to its sums."""
    layer, geometry = tap.layer, tap.layer.geometry
    assert geometry is not None
    total = geometry.positions(y.shape)
    positions = sample_positions(len(x), total, max(1, round(rows_per_sample)), rng)
    blocks = geometry.columns(layer.inputs).shape[0]
    for block in range(blocks):
        rows = geometry.rows(x.astype(np.float32, copy=False), positions, y.shape, block)
        targets = geometry.targets(y.astype(np.float32, copy=False), positions, block)
        if not tap.intercept:
            targets = targets - np.split(tap.target.shift, blocks)[block].astype(np.float32)
        accumulators = sums.setdefault(layer.node.index, [])
        if len(accumulators) == block:
            accumulators.append(Accumulator(rows.shape[1], targets.shape[1], tap.intercept))
        accumulators[block].add(rows, targets)
