"""The sequential refit: each layer repairs, as well as it can, what the layers before it have lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.couple import Couple, find_couple
from reap_onnx.graph.groups import Group
from reap_onnx.graph.masking import coupled
from reap_onnx.graph.targets import clipped_to
from reap_onnx.graph.trace import Trace
from reap_onnx.method.pairs import Shelf, refit_couple
from reap_onnx.method.problems import RIDGE, group_problems, layers_to_refit, refitted
from reap_onnx.method.select import GroupPath
from reap_onnx.model.network import Network, Slot
from reap_onnx.numerics.gram import Equations
from reap_onnx.numerics.path import removal_path
from reap_onnx.options import Method, PruneOptions
from reap_onnx.runtime.memory import memory_for_rows
from reap_onnx.runtime.shards import HERE, Workers
from reap_onnx.runtime.statistics import Measured, Parts, Tap, finish, join_parts
from reap_onnx.runtime.waves import Course, Found, Present, TwoStreams, Wave


def reconstruct(
    trace: Trace,
    paths: Sequence[GroupPath],
    kept: Sequence[int],
    taps: Mapping[int, Tap],
    dataset: Dataset,
    options: PruneOptions,
    advance: Callable[[int], None] = lambda _: None,
    workers: Workers = HERE,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """Choose the channels at the given widths and refit every layer that lost some, in topological order.

    1. A layer's input comes from the network as pruned so far, its target from the original one; where its
       branch ends in an Add, the target is the original sum less the other operand as it is by now.
    2. Channels that only one layer reads are chosen anew on that layer's present input. Channels that
       several layers read, or whose values depend on which others go, keep the order found on the original network.
    3. Where one layer makes what the other reads, the two are refitted together.
    4. Layers that share a weight get one that fits the statistics of all that were reached so far.
    5. Removed channels have zero weights in their readers; the graph keeps its shape until surgery.

    Workers run the samples and add up, shard by shard; all else is here. What the memory has no room for is a ``note``.

    Returns
    -------
    removed, weights
        Labels of the removed channels; new constants by slot, in their original shapes.
    """
    cut = [(path, k) for path, k in zip(paths, kept, strict=True) if k < len(path.group.units)]
    removed = {path.group.name: path.removed(k) for path, k in cut}
    left = {path.group.name: k for path, k in cut}
    groups = [path.group for path, _ in cut]
    weights: dict[Slot, np.ndarray] = {}
    network, method = trace.network, options.method
    jobs = _jobs(trace, taps, groups, method)
    taps_of = {job.index: job.tap for job in jobs}
    pending = {group.name for job in jobs for group in job.groups}
    shared: dict[str, list[Equations]] = {}
    waves = list(_waves(network, jobs))
    shelves = _shelves(trace, jobs, method, memory_for_rows(options.memory), note)
    course = Course(
        trace,
        tuple(
            _wave(wave, [job for later in waves[number:] for job in later], shelves)
            for number, wave in enumerate(waves, 1)
        ),
        len(dataset),
        options.batch,
        method.refit_rows,
        options.seed,
        options.providers,
        options.memory,
        method.asymmetric,
        method.measured_ridges,
    )
    sent: dict[Slot, np.ndarray] = {}
    with workers.walk(TwoStreams, course, dataset, options.batch) as step:
        for wave in waves:
            changed = {slot: value for slot, value in weights.items() if sent.get(slot) is not value}
            sent |= changed
            measured = _measured(step(Present(_all(removed), changed)), shelves, course.memory_for_sums)
            for job in wave:
                blocks = measured[job.index]
                for line in _missing(job.tap, blocks, method):
                    note(line)
                normals, kept_rows = [block.normal for block in blocks], [block.rows for block in blocks]
                halves = [block.halves for block in blocks]
                sharers = trace.sharers(job.tap.layer)
                if len(sharers) > 1:
                    name = job.tap.layer.node.inputs[job.tap.layer.weight.input]
                    normals = shared[name] = _merged(normals, shared.get(name, ()))
                    kept_rows, halves = [], []
                for group in job.groups:
                    others = _all({name: units for name, units in removed.items() if name != group.name})
                    removed[group.name] = _choose(trace, job.tap, normals, group, others, left[group.name])
                    pending.discard(group.name)
                for layer in sharers:
                    weights |= refitted(
                        trace,
                        taps_of[layer.node.index],
                        normals,
                        _all(removed),
                        kept_rows,
                        method.clipped_rounds,
                        halves,
                    )
                if job.index in shelves:
                    gone = _all({name: units for name, units in removed.items() if name not in pending})
                    weights |= refit_couple(trace, shelves.pop(job.index), gone, weights, method)
                advance(1)
    return _all(removed), weights


@dataclass(frozen=True)
class _Job:
    """A layer to refit, the groups that it alone reads, and its couple where it is refitted together with its maker."""

    tap: Tap
    groups: tuple[Group, ...]
    couple: Couple | None

    @property
    def index(self) -> int:
        """Index of the layer's node."""
        return self.tap.layer.node.index

    @property
    def final(self) -> list[str]:
        """Tensors of the present network that are read, and that this refit does not change."""
        data = self.tap.layer.data if self.couple is None else self.couple.maker.data
        return [data, self.tap.other] if self.tap.other else [data]


def _jobs(trace: Trace, taps: Mapping[int, Tap], groups: Sequence[Group], method: Method) -> list[_Job]:
    """All layers to refit, in topological order."""
    fixed, anew = coupled(trace), method.reselect and method.criterion == "reap"
    couples = {c.reader.node.index: c for c in (find_couple(trace, group) for group in groups) if c is not None}
    jobs = []
    for layer in layers_to_refit(groups):
        tap = _tap(trace.network, taps[layer.node.index], groups, method.residual)
        own = [g for g in groups if anew and layers_to_refit([g]) == [layer] and not np.isin(g.units, fixed).any()]
        couple = couples.get(layer.node.index) if tap.intercept and method.pairs else None
        jobs.append(_Job(tap, tuple(own), couple))
    return jobs


def _shelves(
    trace: Trace, jobs: Sequence[_Job], method: Method, memory: int, note: Callable[[str], None]
) -> dict[int, Shelf]:
    """Places for the samples of all couples, by the index of the reader's node; a note on those that none fits into."""
    shelves = {job.index: Shelf(trace, job.couple, job.tap, method, memory) for job in jobs if job.couple}
    for shelf in shelves.values():
        if shelf.whole.count < 1:
            one, two = shelf.couple.maker.node.name, shelf.couple.reader.node.name
            note(f"{one} and {two} are refitted one after the other: a pair takes more memory or work than it may.")
    return shelves


def _wave(jobs: Sequence[_Job], later: Sequence[_Job], shelves: Mapping[int, Shelf]) -> Wave:
    """What the samples are run for, where these layers are refitted at once and those later."""
    return Wave(
        taps=tuple(job.tap for job in jobs),
        whole=tuple(shelves[job.index].whole for job in jobs if job.index in shelves),
        read=_read(jobs),
        final=tuple(name for job in jobs for name in job.final),
        later_wanted=tuple(job.tap.wanted for job in later),
        later_read=_read(later),
    )


def _measured(
    found: Iterable[Found], shelves: Mapping[int, Shelf], memory: int | None
) -> Mapping[int, Sequence[Measured]]:
    """What is known of every layer of a wave; samples wanted in whole go to their shelves."""
    parts: Parts = {}
    for shard in found:
        join_parts(parts, shard.parts, memory)
        for index, samples in shard.whole.items():
            shelves[index].add(samples)
    return finish(parts)


def _missing(tap: Tap, blocks: Sequence[Measured], method: Method) -> Iterator[str]:
    """A line for what the memory had no room for of what a layer is refitted on."""
    name = tap.layer.node.name
    if short := next((block for block in blocks if block.normal.rows < block.offered), None):
        told = f"{short.normal.rows:,} of {short.offered:,} rows"
        yield f"{name}: refitted on the first {told}: more would not fit into the memory."
    if tap.clip is not None and method.clipped_rounds and any(block.rows is None for block in blocks):
        yield f"{name}: what its activation hides counts as an error: rows to see it by would not fit into the memory."


def _read(jobs: Iterable[_Job]) -> tuple[str, ...]:
    return tuple(name for job in jobs for name in (*job.tap.read, *job.final))


def _merged(normals: Sequence[Equations], earlier: Sequence[Equations]) -> list[Equations]:
    """Normal equations of one block each, with those of layers before that share the weight."""
    return [a.merge(b) for a, b in zip(normals, earlier, strict=True)] if earlier else list(normals)


def _all(removed: Mapping[str, Labels]) -> Labels:
    return np.concatenate([np.zeros(0, np.int64), *removed.values()])


def _choose(trace: Trace, tap: Tap, normals: Sequence[Equations], group: Group, others: Labels, kept: int) -> Labels:
    problems = group_problems(trace, tap, normals, group, others)
    return group.units[removal_path(problems, len(group.units), RIDGE, stop=kept).order]


def _tap(network: Network, tap: Tap, groups: Sequence[Group], residual: bool) -> Tap:
    """The tap with its target after the Add, where the other operand is final by the time the layer is refitted.

    Where only clipping activations read the target, it says so.
    """
    if not tap.target.other:
        return replace(tap, clip=clipped_to(network, tap.target.branch))
    before = network.ancestors([tap.target.other])
    later = [layer.node.index for layer in layers_to_refit(groups) if layer.node.index in before]
    if not residual or any(index > tap.layer.node.index for index in later):
        return tap
    return replace(tap, residual=True, clip=clipped_to(network, tap.target.total))


def _waves(network: Network, jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Jobs in topological order, in runs that do not depend on each other."""
    wave: list[_Job] = []
    for job in jobs:
        before = network.ancestors(job.tap.read)
        if any(earlier.index in before for earlier in wave):
            yield wave
            wave = []
        wave.append(job)
    if wave:
        yield wave
