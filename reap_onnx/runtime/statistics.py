"""Calibration data through the network, down to normal equations and a bounded sample of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import DataError
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.targets import Target
from reap_onnx.model.network import Network
from reap_onnx.numerics.gram import Accumulator, Equations, Products, Rows, join
from reap_onnx.numerics.parallel import in_parallel
from reap_onnx.numerics.refit import ClippedRows
from reap_onnx.numerics.rows import sample_positions
from reap_onnx.runtime.products import products_on
from reap_onnx.runtime.stream import Stream

KEPT_ROWS = 24_000  # of one block at most,
KEPT_NUMBERS = 80_000_000  # and no more numbers than these, 320 MB, nor than a run's memory has room for,
KEPT_COST = 16  # bytes for each: itself, put together with those of other batches, without what is gone, a product
TELLING = 2  # rows for each column, where not all are kept, that tell of the others what an activation hides
ENOUGH = 16  # rows for each column; with fewer, halves of the samples are told apart, to choose a ridge by
POSITIONS = 128  # output positions of one sample at most: neighbours say much the same

Batch = Mapping[str, np.ndarray]
AnyBlock = TypeVar("AnyBlock")


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
    """What is known of one block of a layer: its normal equations, rows where its tap is clipped, halves where few.

    ``offered`` is how many rows there were; the equations have fewer where the memory has no room for them.
    """

    normal: Equations
    rows: ClippedRows | None
    halves: Halves = None
    offered: int = 0


@dataclass(frozen=True)
class Part:
    """What some of the samples leave behind of one block of a layer.

    Parameters
    ----------
    sums
        One, or those of two halves of the samples.
    rows
        Of every batch, where the tap is clipped.
    offered
        How many rows there were.
    """

    sums: tuple[Equations, ...]
    rows: tuple[ClippedRows, ...] = ()
    offered: int = 0

    def join(self, later: Part, memory: int | None = None) -> Part:
        """Return what these samples and later ones leave behind; ``memory`` as for :func:`collect`."""
        room = _room(memory, len(self.sums))
        sums = tuple(join(a, b, room) for a, b in zip(self.sums, later.sums, strict=True))
        return Part(sums, self.rows + later.rows, self.offered + later.offered)

    def measured(self) -> Measured:
        """Return what is known once all samples are in."""
        normal = self.sums[0] if len(self.sums) == 1 else self.sums[0].merge(self.sums[1])
        if isinstance(normal, Rows) and normal.rows >= normal.x.shape[1]:
            normal = normal.sums()  # which the memory has room for: halves of it had room for as many rows
        halves = (self.sums[0], self.sums[1]) if len(self.sums) == 2 and min(s.rows for s in self.sums) else None
        whole = normal.rows == self.offered  # rows that the equations lack would pull a fit where nothing holds it
        rows = ClippedRows.concatenate(self.rows) if self.rows and whole else None
        return Measured(normal, rows, halves, self.offered)


Parts = dict[int, list[Part]]
"""Of each layer's blocks, by the index of its node."""


def join_parts(parts: Parts, more: Parts, memory: int | None) -> None:
    """Join what the next samples leave behind to ``parts``; ``more`` is empty afterwards."""
    add_blocks(parts, more, partial(Part.join, memory=memory))


def add_blocks(
    total: dict[int, list[AnyBlock]], more: dict[int, list[AnyBlock]], join: Callable[[AnyBlock, AnyBlock], AnyBlock]
) -> None:
    """Join ``more`` to ``total``, layer by layer and block by block; ``more`` is empty afterwards."""
    for index in list(more):
        blocks = more.pop(index)
        total[index] = [join(a, b) for a, b in zip(total[index], blocks, strict=True)] if index in total else blocks


def finish(parts: Parts) -> dict[int, list[Measured]]:
    """What is known of every layer once all samples are in; ``parts`` is empty afterwards."""
    return {index: [part.measured() for part in parts.pop(index)] for index in list(parts)}


class Collector:
    """Adds batches to the sums of some taps; parameters as for :func:`collect`."""

    def __init__(
        self,
        taps: Sequence[Tap],
        *,
        samples: int,
        batch: int,
        rows: int,
        seed: int,
        providers: Sequence[str] = ("cpu",),
        memory: int | None = None,
        halves: bool = True,
    ) -> None:
        self._multiply = products_on(providers)
        self._taps, self._seed, self._memory, self._halves = taps, seed, memory, halves
        self._samples, self._batch, self._wanted = samples, batch, rows
        self._blocks: dict[int, list[_Block]] = {}

    def add(self, number: int, was: Batch, now: Batch) -> None:
        """Add a batch, by its number among all, of the original network and of the present one.

        Raises
        ------
        DataError
            A tensor is not finite.
        """
        in_parallel(lambda tap: self._add(tap, number, was, now), self._taps)

    def result(self) -> Parts:
        """What the batches since the last result leave behind."""
        indices = [tap.layer.node.index for tap in self._taps]
        found = in_parallel(lambda index: [block.result() for block in self._blocks.pop(index)], indices)
        return dict(zip(indices, found, strict=True))

    def _add(self, tap: Tap, number: int, was: Batch, now: Batch) -> None:
        index, total, geometry = tap.layer.node.index, was[tap.wanted], tap.layer.geometry
        assert geometry is not None
        each = len(total) / batch_size(self._samples, self._batch, number)  # more where a model folds an axis into it
        wanted = max(1, round(self._wanted / self._samples / max(each, 1e-9)))
        count = min(wanted, geometry.positions(total.shape))
        if index not in self._blocks:
            rows = max(1, round(self._samples * each * count))
            self._blocks[index] = _blocks(tap, rows, self._memory, self._halves, self._multiply)
        if not total.size:
            return  # no sample of this batch gets as far
        other = now[tap.other] if tap.other else None
        rng = np.random.default_rng((self._seed, index, number))
        _add(self._blocks[index], tap, now[tap.layer.data], total, other, count, number, rng)


def collect(
    taps: Sequence[Tap],
    batches: Iterable[tuple[Batch, Batch]],
    *,
    samples: int,
    batch: int,
    rows: int,
    seed: int,
    providers: Sequence[str] = ("cpu",),
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
    samples, batch
        Samples in all batches together, those of other shards included; in each of them but the last.
    rows
        Rows wanted per layer, over all samples; positions are sampled to reach it.
    providers
        Execution providers, as for :class:`~reap_onnx.runtime.session.Session`; the preferred one makes the products.
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
    collector = Collector(
        taps, samples=samples, batch=batch, rows=rows, seed=seed, providers=providers, memory=memory, halves=halves
    )
    number, ahead = first, iter(batches)
    while (both := next(ahead, None)) is not None:
        collector.add(number, *both)
        advance(batch_size(samples, batch, number))
        number, both = number + 1, None  # gone before the next one is made
    return finish(collector.result())


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
        batches = map(_as_both, stream.run(network.proto, wanted))  # which holds none, as a generator would
        total = len(dataset) if samples is None else samples
        return collect(
            taps,
            batches,
            samples=total,
            batch=batch,
            rows=rows,
            seed=seed,
            providers=providers,
            memory=memory,
            first=first,
            halves=False,
            advance=advance,
        )


def _as_both(tensors: Batch) -> tuple[Batch, Batch]:
    """A batch of the original network, which is the present one."""
    return tensors, tensors


def samples_needed(taps: Sequence[Tap], network: Network, rows: int, batch: int) -> int:
    """How many samples, in whole batches, give ``rows`` rows at every tap."""
    each = [rows_of_a_sample(tap.layer, network) for tap in taps]
    return batch * max((math.ceil(rows / count / batch) for count in each if count), default=1)


def rows_of_a_sample(layer: Layer, network: Network) -> float:
    """Rows that a sample gives of a layer, ``POSITIONS`` of each of those that a model makes of it at most."""
    assert layer.geometry is not None
    shape = network.shapes[layer.output]
    return min(POSITIONS, layer.geometry.positions(shape)) * shape[0] / network.batch


def batch_size(samples: int, batch: int, number: int) -> int:
    """Samples of a batch, by its number, where so many come in batches of so many."""
    return min(batch, samples - number * batch)


def normals(measured: Mapping[int, Sequence[Measured]]) -> dict[int, list[Equations]]:
    """The normal equations alone."""
    return {index: [block.normal for block in blocks] for index, blocks in measured.items()}


class _Block:
    """Sums of one block of a layer, by halves of the samples where rows are few, and every so many rows themselves.

    No rows where the memory has room for fewer of them than twice the columns, and not for all: what so few say of
    others is chance, which a fit amplifies.
    """

    def __init__(
        self, tap: Tap, columns: int, features: int, rows: int, memory: int | None, halves: bool, multiply: Products
    ) -> None:
        self._tap = tap
        parts = 2 if halves and rows < ENOUGH * columns else 1
        room = _room(memory, parts)
        self._sums = [Accumulator(columns, features, tap.intercept, room, multiply) for _ in range(parts)]
        numbers = KEPT_NUMBERS if memory is None else min(KEPT_NUMBERS, memory // KEPT_COST)
        kept = min(KEPT_ROWS, numbers // (columns + 2 * features))
        self._every, self._seen = max(1, math.ceil(rows / max(kept, 1))), 0
        self._clip = tap.clip if self._every == 1 or rows / self._every >= TELLING * columns else None
        self._kept: list[ClippedRows] = []
        self._offered = 0

    def add(self, x: np.ndarray, total: np.ndarray, offset: np.ndarray, half: int) -> None:
        """Add rows, the first ``half`` of them to the first half."""
        y = total - offset
        self._offered += len(x)
        if len(self._sums) == 1:
            self._sums[0].add(x, y)
        else:
            self._sums[0].add(x[:half], y[:half])
            self._sums[1].add(x[half:], y[half:])
        if self._clip is not None:
            some = slice(-self._seen % self._every, None, self._every)
            self._seen += len(x)
            x = np.pad(x[some], ((0, 0), (0, int(self._tap.intercept))), constant_values=1)
            self._kept.append(ClippedRows(x, total[some].copy(), offset[some].copy(), *self._clip))

    def result(self) -> Part:
        return Part(tuple(part.result() for part in self._sums), tuple(self._kept), self._offered)


def _room(memory: int | None, parts: int) -> int | None:
    """Bytes that either half may take where there are two, for they are merged in the end."""
    return memory if memory is None or parts == 1 else memory // 3


def _blocks(tap: Tap, rows: int, memory: int | None, halves: bool, multiply: Products) -> list[_Block]:
    geometry = tap.layer.geometry
    assert geometry is not None
    blocks, columns = geometry.columns(tap.layer.inputs).shape
    features, room = len(tap.layer.features) // blocks, None if memory is None else memory // blocks
    return [_Block(tap, columns, features, rows, room, halves, multiply) for _ in range(blocks)]


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
