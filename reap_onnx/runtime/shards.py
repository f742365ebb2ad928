"""Samples in shards of a fixed size: what is measured of one does not depend on where, or when, that is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from reap_onnx.data.dataset import Dataset
from reap_onnx.model.network import Network
from reap_onnx.numerics.gram import Equations, join
from reap_onnx.runtime.statistics import Tap, collect_dense, normals

SHARD = 200  # samples of a shard, rounded up to whole batches; the same on any machine, since sums of floats hang on it

Sums = dict[int, list[Equations]]
"""Normal equations of each layer's blocks, by the index of its node."""


@dataclass(frozen=True)
class Shard:
    """Samples that are measured in one go; ``start`` is the place of the first one among all."""

    start: int
    dataset: Dataset


@dataclass(frozen=True)
class Measurement:
    """What is measured on every shard.

    Parameters
    ----------
    network, taps
        The network, and the layers whose normal equations are wanted.
    samples
        Samples of all shards together.
    batch, rows, seed, providers, memory
        As for :func:`~reap_onnx.runtime.statistics.collect_dense`.
    """

    network: Network
    taps: tuple[Tap, ...]
    samples: int
    batch: int
    rows: int
    seed: int
    providers: tuple[str, ...]
    memory: int | None


def cut_shards(dataset: Dataset, batch: int) -> list[Shard]:
    """All samples, in shards of whole batches."""
    size = batch * math.ceil(SHARD / batch)
    return [Shard(start, dataset.slice(start, start + size)) for start in range(0, len(dataset), size)]


def measure_shard(how: Measurement, shard: Shard, advance: Callable[[int], None]) -> Sums:
    """Sums over one shard; ``advance`` is told how many samples are done."""
    measured = collect_dense(
        how.network,
        how.taps,
        shard.dataset,
        batch=how.batch,
        rows=how.rows,
        seed=how.seed,
        samples=how.samples,
        first=shard.start // how.batch,
        providers=how.providers,
        memory=how.memory,
        advance=advance,
    )
    return normals(measured)


def add_sums(sums: Sums, more: Sums, memory: int | None) -> None:
    """Merge the sums of the next shard into those of all before it, layer by layer; ``more`` is empty afterwards."""
    for index in list(more):
        blocks = more.pop(index)
        sums[index] = (
            [join(a, b, memory) for a, b in zip(sums[index], blocks, strict=True)] if index in sums else blocks
        )


Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """Somebody who does independent pieces of work."""

    def run(
        self,
        work: Callable[[Shared, Item, Callable[[int], None]], Result],
        shared: Shared,
        items: Iterable[Item],
        advance: Callable[[int], None],
    ) -> Iterator[Result]:
        """``work(shared, item, advance)`` of every item, in the order of the items."""
        ...


class ThisProcess:
    """Does one piece after the other."""

    def run(
        self,
        work: Callable[[Shared, Item, Callable[[int], None]], Result],
        shared: Shared,
        items: Iterable[Item],
        advance: Callable[[int], None],
    ) -> Iterator[Result]:
        """Each result as it is asked for."""
        return (work(shared, item, advance) for item in items)


HERE = ThisProcess()
