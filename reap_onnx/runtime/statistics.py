"""Calibration data through the network, down to normal equations and a bounded sample of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.targets import Target
from reap_onnx.model.network import Network
from reap_onnx.numerics.gram import Accumulator, Equations
from reap_onnx.numerics.parallel import in_parallel
from reap_onnx.numerics.refit import ClippedRows
from reap_onnx.numerics.rows import sample_positions
from reap_onnx.runtime.stream import Stream

KEPT_ROWS = 24_000  # of one block at most,
KEPT_NUMBERS = 64_000_000  # and no more numbers than these, 256 MB
ENOUGH = 16  # rows for each column; with fewer, halves of the samples are told apart, to choose a ridge by
POSITIONS = 128  # output positions of one sample at most: neighbours say much the same

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Tap:
    """What to measure at one layer.

    The layer's input is read from the present network and its target from the original one: the
    branch by itself, or with ``residual`` the sum after the Add, less the other operand as it is by now.
    Where an activation clips what the target reaches, ``clip`` has its bounds, and rows are kept to refit with.
    """

    layer: Layer
    target: Target
    residual: bool = False
    clip: tuple[float, float] | None = None

    @property
    def wanted(self) -> str:
        """Tensor of the original network that the layer should produce."""
        return self.target.total if self.residual else self.target.branch

    @property
    def other(self) -> str:
        """Tensor of the present network that is subtracted; empty for none."""
        return self.target.other if self.residual else ""

    @property
    def read(self) -> tuple[str, ...]:
        """Tensors of the present network that are needed."""
        return (self.layer.data, self.other) if self.other else (self.layer.data,)

    @property
    def intercept(self) -> bool:
        """Whether the rows end in a constant 1."""
        return self.target.intercept is not None

    @property
    def adds_bias(self) -> bool:
        """Whether a refit gives the layer a bias that it does not have yet."""
        intercept = self.target.intercept
        return intercept is not None and intercept.slot == self.layer.bias and not self.layer.has_bias


Halves = tuple[Equations, Equations] | None
"""Normal equations of two halves of the samples, where rows are few for the columns."""


@dataclass(frozen=True)
class Measured:
    """What is known of one block of a layer: its normal equations, rows where its tap is clipped, halves where few."""

    normal: Equations
    rows: ClippedRows | None
    halves: Halves = None


def collect(
    taps: Sequence[Tap],
    batches: Iterable[tuple[Batch, Batch]],
    *,
    samples: int,
    rows: int,
    seed: int,
    memory: int | None = None,
    first: int = 0,
    halves: bool = True,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[int, list[Measured]]:
    """Normal equations of every tap, and some of its rows where it is clipped; one a block, by the index of its node.

    Parameters
    ----------
    batches
        Tensors of the original network and of the present one, batch after batch.
    samples
        Samples in all batches together, those of other shards included.
    rows
        Rows wanted per layer, over all samples; positions are sampled to reach it.
    memory
        Bytes that one layer may take, as for :class:`~reap_onnx.numerics.gram.Accumulator`.
    first
        Number of the first batch, where other shards have those before it.
    halves
        Whether halves of the samples are told apart where rows are few: they take twice the memory more.

    Notes
    -----
    Where the intercept can be written, the last column is the constant 1; elsewhere the fixed shift is taken off
    the target. Positions are drawn per layer and batch from ``seed``, so that they do not depend on which other taps
    are measured.
    """
    wanted = max(1, round(rows / samples))
    sums: dict[int, list[_Block]] = {}
    for number, (was, now) in enumerate(batches, first):

        def add(tap: Tap, number: int = number, was: Batch = was, now: Batch = now) -> None:
            index, total = tap.layer.node.index, was[tap.wanted]
            assert tap.layer.geometry is not None
            count = min(wanted, tap.layer.geometry.positions(total.shape))
            blocks = sums[index] = sums.get(index) or _blocks(tap, samples * count, memory, halves)
            other = now[tap.other] if tap.other else None
            rng = np.random.default_rng((seed, index, number))
            _add(blocks, tap, now[tap.layer.data], total, other, count, number, rng)

        in_parallel(add, taps)
        advance(len(was[taps[0].wanted]))
    return {tap.layer.node.index: [block.result() for block in sums.pop(tap.layer.node.index)] for tap in taps}


def collect_dense(
    network: Network,
    taps: Sequence[Tap],
    dataset: Dataset,
    *,
    batch: int,
    rows: int,
    seed: int,
    samples: int | None = None,
    first: int = 0,
    providers: Sequence[str] = ("cpu",),
    memory: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[int, list[Measured]]:
    """As :func:`collect`, without halves, where the present network is the original one.

    ``samples`` are those given by default.
    """
    wanted = [name for tap in taps for name in (tap.wanted, *tap.read)]
    with Stream(network, dataset, batch=batch, providers=providers) as stream:
        batches = ((tensors, tensors) for tensors in stream.run(network.proto, wanted))
        total = len(dataset) if samples is None else samples
        return collect(
            taps,
            batches,
            samples=total,
            rows=rows,
            seed=seed,
            memory=memory,
            first=first,
            halves=False,
            advance=advance,
        )


def samples_needed(taps: Sequence[Tap], shapes: Mapping[str, tuple[int, ...]], rows: int, batch: int) -> int:
    """How many samples, in whole batches, give ``rows`` rows at every tap, ``POSITIONS`` of each at most."""
    positions = [tap.layer.geometry.positions(shapes[tap.layer.output]) for tap in taps if tap.layer.geometry]
    return batch * max(math.ceil(rows / min(POSITIONS, count) / batch) for count in positions)


def normals(measured: Mapping[int, Sequence[Measured]]) -> dict[int, list[Equations]]:
    """The normal equations alone."""
    return {index: [block.normal for block in blocks] for index, blocks in measured.items()}


class _Block:
    """Sums of one block of a layer, by halves of the samples where rows are few, and every so many rows themselves."""

    def __init__(
        self, tap: Tap, columns: int, features: int, rows: int, memory: int | None, halves: bool = True
    ) -> None:
        self._tap = tap
        parts = 2 if halves and rows < ENOUGH * columns else 1
        room = memory if memory is None or parts == 1 else memory // 3
        self._sums = [Accumulator(columns, features, tap.intercept, room) for _ in range(parts)]
        kept = min(KEPT_ROWS, KEPT_NUMBERS // (columns + 2 * features))
        self._every = math.ceil(rows / max(kept, 1))
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, x: np.ndarray, total: np.ndarray, offset: np.ndarray, half: int) -> None:
        """Add rows, the first ``half`` of them to the first half."""
        y = total - offset
        if len(self._sums) == 1:
            self._sums[0].add(x, y)
        else:
            self._sums[0].add(x[:half], y[:half])
            self._sums[1].add(x[half:], y[half:])
        if self._tap.clip is not None:
            some = slice(None, None, self._every)
            x = np.pad(x[some], ((0, 0), (0, int(self._tap.intercept))), constant_values=1)
            self._kept.append((x, total[some].copy(), offset[some].copy()))

    def result(self) -> Measured:
        sums = [part.result() for part in self._sums]
        normal = sums[0] if len(sums) == 1 else sums[0].merge(sums[1])
        halves = (sums[0], sums[1]) if len(sums) == 2 and min(part.rows for part in sums) else None
        if self._tap.clip is None:
            return Measured(normal, None, halves)
        x, total, offset = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        return Measured(normal, ClippedRows(x, total, offset, *self._tap.clip), halves)


def _blocks(tap: Tap, rows: int, memory: int | None, halves: bool) -> list[_Block]:
    geometry = tap.layer.geometry
    assert geometry is not None
    blocks, columns = geometry.columns(tap.layer.inputs).shape
    return [_Block(tap, columns, len(tap.layer.features) // blocks, rows, memory, halves) for _ in range(blocks)]


def _add(
    blocks: list[_Block],
    tap: Tap,
    x: np.ndarray,
    total: np.ndarray,
    other: np.ndarray | None,
    count: int,
    number: int,
    rng: np.random.Generator,
) -> None:
    """Add ``count`` positions of every sample of a batch to the sums of a layer."""
    geometry = tap.layer.geometry
    assert geometry is not None
    positions = sample_positions(len(x), geometry.positions(total.shape), count, rng)
    half = (len(x) + (number + 1) % 2) // 2 * count  # of a single sample, all in even batches
    x, total = x.astype(np.float32, copy=False), total.astype(np.float32, copy=False)
    fixed = np.zeros_like(tap.target.shift) if tap.intercept else tap.target.shift
    for place, (block, shift) in enumerate(zip(blocks, np.split(fixed, len(blocks)), strict=True)):
        rows = geometry.rows(x, positions, total.shape, place)
        targets = geometry.targets(total, positions, place)
        offset = np.broadcast_to(shift.astype(np.float32), targets.shape)
        if other is not None:
            offset = offset + geometry.targets(other.astype(np.float32, copy=False), positions, place)
        try:
            block.add(rows, targets, offset, half)
        except ValueError as error:
            raise DataError(
                f"{tap.layer.node.name}: what it reads or makes is not finite or far too large", _HINT
            ) from error


_HINT = "are the samples prepared as the model expects them?"
