"""The original network and the present one side by side over the samples, one wave of layers after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from reap_onnx.graph.channels import Labels
from reap_onnx.graph.masking import mask_channels
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.runtime.memory import memory_for_rows, memory_for_stream
from reap_onnx.runtime.shards import Shard, batches_of_shard
from reap_onnx.runtime.statistics import Collector, Parts, Tap, batch_size
from reap_onnx.runtime.stream import Stream, Tensors

Sample = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Of some samples what a couple's maker reads, what its reader should produce, and what is subtracted from that."""


@dataclass(frozen=True)
class Whole:
    """The first ``count`` along the first axis of all samples, in whole: the tensor ``data``, what the tap says."""

    tap: Tap
    data: str
    count: int


@dataclass(frozen=True)
class Wave:
    """What one pass over the samples measures, and how far it takes both networks.

    Parameters
    ----------
    taps
        Layers to measure.
    whole
        Samples wanted in whole.
    read
        Tensors of the present network that are needed.
    final
        Those that stay as they are from now on.
    later_wanted, later_read
        Tensors of the original network, and of the present one, that later waves need.
    """

    taps: tuple[Tap, ...]
    whole: tuple[Whole, ...]
    read: tuple[str, ...]
    final: tuple[str, ...]
    later_wanted: tuple[str, ...]
    later_read: tuple[str, ...]


@dataclass(frozen=True)
class Course:
    """All waves, and what they have in common.

    Parameters
    ----------
    trace, waves
        The original network; the waves in their order.
    samples
        Samples of all shards together.
    batch, rows, seed, providers
        As for :func:`~reap_onnx.runtime.statistics.collect_dense`.
    memory
        Bytes, as ``--memory`` gives them.
    asymmetric
        Whether the present network has the constants that it has by now; else it is the original one.
    halves
        Whether halves of the samples are told apart where rows are few.
    """

    trace: Trace
    waves: tuple[Wave, ...]
    samples: int
    batch: int
    rows: int
    seed: int
    providers: tuple[str, ...]
    memory: int | None
    asymmetric: bool
    halves: bool

    @property
    def memory_for_sums(self) -> int:
        """Bytes that one layer may take."""
        return memory_for_rows(self.memory) // 2


@dataclass(frozen=True)
class Present:
    """What is new of the present network since the last wave: all channels removed by now, constants that changed."""

    removed: Labels
    changed: Mapping[Slot, np.ndarray]


@dataclass(frozen=True)
class Found:
    """What a wave finds on one shard: sums, and samples in whole by the index of the node of their tap."""

    parts: Parts
    whole: dict[int, list[Sample]]


class TwoStreams:
    """Samples of one shard or of several in a row on their way through both networks; a step is a wave.

    What has run stays as it is, even where its constants change later: so the waves before cannot be left out, and
    samples that take all of them have the same tensors wherever they do.

    Parameters
    ----------
    course
        Where the way leads.
    shard
        The samples.
    share
        How many of these have to get along with the memory of this process.
    """

    def __init__(self, course: Course, shard: Shard, share: int) -> None:
        self._course = course
        self._waves, self._changed = iter(course.waves), dict[Slot, np.ndarray]()
        self._first = shard.start // course.batch
        self._batches = math.ceil(len(shard.dataset) / course.batch)
        self._opened = ExitStack()
        self._original, self._present = (
            self._opened.enter_context(
                Stream(
                    course.trace.network,
                    shard.dataset,
                    batch=course.batch,
                    providers=course.providers,
                    memory=memory_for_stream(course.memory) // share,
                )
            )
            for _ in range(2)
        )

    def close(self) -> None:
        """Drop what is kept."""
        self._opened.close()

    def skip(self, present: Present) -> None:
        """Go on by a wave that has been measured."""
        for _ in self._run(next(self._waves), present, lambda number, was, now: None):
            pass

    def step(self, present: Present) -> Iterator[Found]:
        """Go on by a wave; what it finds, shard by shard.

        Raises
        ------
        DataError
            A tensor is not finite.
        """
        course, wave = self._course, next(self._waves)
        collector = Collector(
            wave.taps,
            samples=course.samples,
            batch=course.batch,
            rows=course.rows,
            seed=course.seed,
            providers=course.providers,
            memory=course.memory_for_sums,
            halves=course.halves,
        )
        whole: dict[int, list[Sample]] = {}
        end = self._first + self._batches

        def take(number: int, was: Tensors, now: Tensors) -> None:
            collector.add(number, was, now)
            for wanted in wave.whole:
                before = number * course.batch * len(was[wanted.tap.wanted])
                if (count := wanted.count - before // batch_size(course.samples, course.batch, number)) > 0:
                    whole.setdefault(wanted.tap.layer.node.index, []).append(_first(count, wanted, was, now))

        for number in self._run(wave, present, take):
            if number + 1 == end or (number + 1) % batches_of_shard(course.batch) == 0:
                yield Found(collector.result(), whole)
                whole = {}

    def _run(self, wave: Wave, present: Present, take: Callable[[int, Tensors, Tensors], None]) -> Iterator[int]:
        """Batch after batch of both networks is taken, by its number, and gone before the next one is made."""
        network = self._course.trace.network
        self._changed |= present.changed
        asymmetric = self._course.asymmetric
        model = mask_channels(self._course.trace, present.removed, self._changed) if asymmetric else network.proto
        was = self._original.run(network.proto, [tap.wanted for tap in wave.taps], wave.later_wanted)
        now = self._present.run(model, wave.read, wave.later_read, wave.final)
        for number in range(self._first, self._first + self._batches):
            take(number, next(was), next(now))
            yield number
        for stream in (was, now):
            assert next(stream, None) is None


def _first(count: int, wanted: Whole, was: Tensors, now: Tensors) -> Sample:
    """The first samples of a batch, copied: the batch itself goes."""
    tap = wanted.tap
    other = now[tap.other][:count].copy() if tap.other else None
    return now[wanted.data][:count].copy(), was[tap.wanted][:count].copy(), other
