"""Samples in shards of a fixed size: what is measured of one does not depend on where, or when, that is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol, TypeVar

from reap_onnx.data.dataset import Dataset
from reap_onnx.model.network import Network
from reap_onnx.numerics.gram import Equations, join
from reap_onnx.numerics.parallel import in_parallel
from reap_onnx.runtime.statistics import Tap, add_blocks, collect_dense, normals

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


def batches_of_shard(batch: int) -> int:
    """How many batches of so many samples make a shard."""
    return math.ceil(SHARD / batch)


def cut_shards(dataset: Dataset, batch: int) -> list[Shard]:
    """All samples, in shards of whole batches."""
    size = batch * batches_of_shard(batch)
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
    """Merge the sums of the next shard into those of all before it; ``more`` is empty afterwards."""
    add_blocks(sums, more, partial(join, memory=memory))


Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
Step = TypeVar("Step")
Step_contra = TypeVar("Step_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Walk(Protocol[Step_contra, Result_co]):
    """Samples that go on step by step from what they keep; it hangs on nothing but the samples and the steps so far."""

    def step(self, step: Step_contra) -> Iterator[Result_co]:
        """Take the next step; one result for each shard of the samples, in their order."""
        ...

    def skip(self, step: Step_contra) -> None:
        """Take the next step for its own sake, as all others do that hang on it."""
        ...

    def close(self) -> None:
        """Drop what is kept."""
        ...


class Workers(Protocol):
    """Somebody who does pieces of work on samples."""

    def run(
        self,
        work: Callable[[Shared, Item, Callable[[int], None]], Result],
        shared: Shared,
        items: Iterable[Item],
        advance: Callable[[int], None],
        at_once: int = 1,
    ) -> Iterator[Result]:
        """``work(shared, item, advance)`` of every item, independent of the others, in the order of the items.

        A process has memory for ``at_once`` of them at a time.
        """
        ...

    def walk(
        self,
        begin: Callable[[Shared, Shard, int], Walk[Step, Result]],
        shared: Shared,
        dataset: Dataset,
        batch: int,
    ) -> AbstractContextManager[Callable[[Step], Iterator[Result]]]:
        """What takes a step with all samples, and gives a result for each shard, in their order.

        ``begin(shared, shard, share)`` sets samples on their way, ``share`` such ways lying side by side in a process.
        """
        ...


class ThisProcess:
    """Does one piece after the other; one for each core at once where it may."""

    def run(
        self,
        work: Callable[[Shared, Item, Callable[[int], None]], Result],
        shared: Shared,
        items: Iterable[Item],
        advance: Callable[[int], None],
        at_once: int = 1,
    ) -> Iterator[Result]:
        """Each result as it is asked for, or all of them where several are worked on at once."""
        if at_once == 1:
            return (work(shared, item, advance) for item in items)
        told = Lock()

        def one_by_one(count: int) -> None:
            with told:
                advance(count)

        return iter(in_parallel(lambda item: work(shared, item, one_by_one), items, at_once))

    @contextmanager
    def walk(
        self,
        begin: Callable[[Shared, Shard, int], Walk[Step, Result]],
        shared: Shared,
        dataset: Dataset,
        batch: int,
    ) -> Iterator[Callable[[Step], Iterator[Result]]]:
        """All shards in one go."""
        with closing(begin(shared, Shard(0, dataset), 1)) as walk:
            yield walk.step


HERE = ThisProcess()
