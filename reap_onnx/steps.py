"""The steps of a run that choose channels: samples and groups, calibration, widths, refit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx

from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.data.images import ImageOptions
from reap_onnx.data.load import load_dataset
from reap_onnx.data.times import Time, read_times
from reap_onnx.describe import unmatched
from reap_onnx.errors import DataError, LatencyError, ModelError, TargetError, UsageError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.groups import Group, find_groups
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.budgets import Budget, Way, best_way
from reap_onnx.method.calibration import Calibration
from reap_onnx.method.costs import exact_budget, latency_budget, macs_as_latency, size_budget
from reap_onnx.method.latency import find_steps, foreign_cost, latency_cost
from reap_onnx.method.problems import layers_to_refit, refitted, solved_by_rows
from reap_onnx.method.reconstruct import reconstruct
from reap_onnx.method.select import Sensitivity, Statistics, curve, error_paths, weighed
from reap_onnx.model.load import Source
from reap_onnx.model.network import Network, Slot
from reap_onnx.model.size import skeleton
from reap_onnx.numerics.allocate import Cost, Curve, Ints
from reap_onnx.numerics.parallel import one_blas_thread
from reap_onnx.numerics.tables import TableCost
from reap_onnx.options import PruneOptions
from reap_onnx.overrides import Override, merge_overrides
from reap_onnx.plan import Plan, make_plan
from reap_onnx.report.progress import Advance, Progress
from reap_onnx.report.summary import Latency, LatencySearch
from reap_onnx.runtime.compare import check_labels, count_classes, samples_of
from reap_onnx.runtime.feeds import fixed_batch, one_run, probe_feeds, probe_shapes
from reap_onnx.runtime.latency import load_sessions
from reap_onnx.runtime.memory import batch_within, memory_for_rows, memory_for_samples
from reap_onnx.runtime.profile import OperatorTimer, profile_model
from reap_onnx.runtime.session import probe, probe_sizes
from reap_onnx.runtime.shards import HERE, Measurement, Workers, add_sums, cut_shards, measure_shard
from reap_onnx.runtime.statistics import Tap, samples_needed
from reap_onnx.stats import Checkpoint, Origin, Stats, origin_of, read_stats
from reap_onnx.version import VERSION

CHECK_SAMPLES = 4
FEW_SAMPLES = 32  # fewer are worth a warning
METADATA = "reap_onnx."
CORRECTIONS = 2  # of widths whose network was measured to be too slow once it was refitted,
LESS = 0.01  # how much less than in proportion each asks for,
FAR = 1.1  # and from what share of the latency on a result is not corrected
_PLAIN = {"multiples of 16": 16, "multiples of 8": 8, "multiples of 4": 4, "free widths": 1}
Result = TypeVar("Result")


@dataclass
class Run:
    """Stages of a run: progress shown, time kept."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Show a stage and add up its seconds; the BLAS has one thread in it, but for large matrices."""
        start = time.perf_counter()
        with one_blas_thread(), self.progress.stage(name, total) as advance:
            yield advance
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Given:
    """What a run works on: the model and its channels, the samples, the options as they fit the model.

    ``dataset`` has the samples to calibrate on, shuffled; ``judged`` those to judge the result by, the same by default.
    ``asked`` is the batch that was asked for, of which the options have no more than large tensors leave room for.
    ``times`` are those of the layers on another device, where the latency is to be predicted for it.
    """

    source: Source
    trace: Trace
    groups: list[Group]
    options: PruneOptions
    dataset: Dataset
    judged: Dataset
    asked: int
    times: Sequence[Time] = ()

    @property
    def origin(self) -> Origin:
        """What statistics of these samples are made from."""
        return origin_of(self.source.sha256, replace(self.options, batch=self.asked), self.dataset)

    def plan(self, options: PruneOptions, removed: Labels, weights: dict[Slot, np.ndarray]) -> Plan:
        """The plan of what these options led to."""
        data = self.dataset
        described = {"description": data.description, "preprocessing": data.preprocessing, "samples": len(data)}
        sha256, options = self.source.sha256, replace(options, batch=self.asked)
        return make_plan(
            self.trace, self.groups, removed, weights, source_sha256=sha256, options=options, data=described
        )

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """Few samples, for the checks."""
        few = {name: array[: self.trace.network.batch * CHECK_SAMPLES] for name, array in self.dataset.inputs.items()}
        return one_run(input_specs(self.source.model), few)


def read(
    source: Source,
    data: object,
    options: PruneOptions,
    evaluate: object,
    images: ImageOptions | None,
    samples: int | None,
    run: Run,
) -> Given:
    """Samples read, channels found."""
    specs, images = input_specs(source.model), images or ImageOptions()
    fixed = fixed_batch(specs)
    options = replace(options, batch=fixed or options.batch, latency_batch=fixed or options.latency_batch)
    with run.stage("reading the samples"):
        room = memory_for_samples(options.memory)
        dataset = load_dataset(data, specs, images=images, samples=samples, seed=options.seed, memory=room)
        dataset = dataset.shuffled(options.seed)
        if evaluate is not None:
            judged = load_dataset(evaluate, specs, images=images, seed=options.seed, memory=room)
        elif options.max_drop is not None:
            dataset, judged = _hold_out(dataset, options.seed, fixed or 1)
        else:
            judged = dataset
    if len(dataset) < FEW_SAMPLES:
        others = ", and others to compare on" if judged is dataset else ""
        told = f"Samples to calibrate on: {len(dataset)}. The result follows them, and may fail on all others"
        run.notes.append(f"{told}: a few hundred are better{others}.")
    with run.stage("finding groups"):
        trace = trace_model(source, probe_shapes(specs, dataset), options.frozen)
        groups = find_groups(trace)
    asked = options.batch
    if fixed is None:
        memory = memory_for_rows(options.memory)  # results depend on the batch
        options = replace(options, batch=batch_within(asked, trace.network.bytes_of_a_sample, memory))
    if lines := unmatched(trace):
        raise UsageError(lines[0], "reap-onnx inspect MODEL lists the names")
    _check_overrides(options.overrides, groups)
    for each in (dataset, judged):
        _check_labels(each, trace.network)
    times = [] if options.latency_table is None else read_times(Path(options.latency_table))
    return Given(source, trace, groups, options, dataset, judged, asked, times)


def _check_labels(dataset: Dataset, network: Network) -> None:
    """See that labels are classes of the first output, before hours of work end in a comparison that cannot be made.

    Raises
    ------
    DataError
        One is not.
    """
    first = network.proto.graph.output[0].name
    if dataset.labels is None or first not in network.shapes:
        return
    classes = count_classes(network.dtypes[first], network.shapes[first], network.batch)
    if classes is not None:
        check_labels(dataset.labels, classes)


def _check_overrides(overrides: Sequence[Override], groups: Sequence[Group]) -> None:
    """See that every override names a group, and every width that is to be kept is one that its group can have.

    Raises
    ------
    UsageError
        One does not.
    """
    for override in overrides:
        if not any(override.matches(group.made_as) for group in groups):
            raise UsageError(
                f"overrides of {override.nodes!r} match no layer", "reap-onnx inspect MODEL lists the names"
            )
    for group in groups:
        named = [override for override in overrides if override.matches(group.made_as)]
        keep = merge_overrides(named, group.made_as).keep
        if keep in (None, group.width) or any(override.freeze for override in named):
            continue
        if group.frozen or keep % group.channels or keep > group.width:
            why = group.frozen or f"it has {group.width} channels, which come and go {group.channels} at a time"
            last = next(override for override in reversed(named) if override.keep is not None)
            raise UsageError(
                f"overrides of {last.nodes!r}: {group.name} cannot keep {keep} channels: {why}",
                "name fewer layers, or another width",
            )


def _hold_out(dataset: Dataset, seed: int, batch: int) -> tuple[Dataset, Dataset]:
    """Half of the samples to calibrate on, half to judge on, drawn by the seed."""
    used, held = dataset.halves(seed, batch)
    if not len(held):
        raise DataError(
            f"{dataset.description}: {len(dataset)} samples are too few to hold half of them out",
            "give more, or others by --eval-data",
        )
    told = f"{dataset.description}, {{}} drawn by seed {seed}"
    return (
        replace(used, description=told.format(f"half ({len(used)})")),
        replace(held, description=told.format(f"the other half ({len(held)})")),
    )


def trace_model(source: Source, shapes: dict[str, tuple[int, ...]], freeze: Sequence[str]) -> Trace:
    """The channels of a model, from one run on made-up inputs of these shapes.

    Raises
    ------
    ModelError
        It does not run.
    """
    feeds = probe_feeds(input_specs(source.model), shapes)
    try:
        network = Network(skeleton(source.model), probe(source.model, feeds), probe_sizes(source.model, feeds))
        return Trace(network, freeze)
    except ModelError as error:
        raise ModelError(f"{source.name}: {error}", error.hint) from error


def measure(given: Given, run: Run, workers: Workers = HERE, checkpoint: Checkpoint | None = None) -> Calibration:
    """Statistics, error paths, sensitivity: all that does not depend on the targets.

    Parameters
    ----------
    given, run
        The model, its samples, the options; who is told.
    workers
        Who measures.
    checkpoint
        Keeps what is measured as it grows, and has what an earlier run measured.
    """
    trace, options, method = given.trace, given.options, given.options.method
    prunable, taps = _free(given.groups), _taps(trace, given.groups)
    dataset = given.dataset
    statistics = _statistics(trace, taps, dataset, options, run, workers, checkpoint)
    run.notes += solved_by_rows(trace, statistics)
    with run.stage("error paths", len(prunable)) as advance:
        memory = memory_for_rows(options.memory)
        paths = error_paths(trace, prunable, taps, statistics, method.criterion, advance, workers, memory)
    if method.sensitivity_samples:
        few = dataset.first(options.batch * math.ceil(method.sensitivity_samples / options.batch))
        with run.stage("sensitivity", len(paths)) as advance:
            paths = weighed(Sensitivity(trace, taps, few, options), paths, statistics, advance, workers)
    return Calibration(trace, tuple(paths), taps, statistics, dataset)


def read_calibration(stats: Stats, given: Given, run: Run) -> Calibration:
    """What was measured by an earlier run; the samples to refit on are those at hand."""
    paths, statistics = read_stats(stats, given.trace, given.groups)
    run.notes += solved_by_rows(given.trace, statistics)
    taps = _taps(given.trace, given.groups)
    return Calibration(given.trace, paths, taps, statistics, given.dataset)


def _free(groups: Sequence[Group]) -> list[Group]:
    free = [group for group in groups if not group.frozen]
    if not free:
        raise TargetError("no group of channels can be pruned", "reap-onnx inspect MODEL says why")
    return free


def _taps(trace: Trace, groups: Sequence[Group]) -> dict[int, Tap]:
    return {layer.node.index: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(_free(groups))}


def _statistics(
    trace: Trace,
    taps: Mapping[int, Tap],
    dataset: Dataset,
    options: PruneOptions,
    run: Run,
    workers: Workers,
    checkpoint: Checkpoint | None,
) -> Statistics:
    """Normal equations of all taps, shard by shard; shards that the checkpoint has are not measured again."""
    rows, memory = options.method.selection_rows, memory_for_rows(options.memory) // 2
    count = samples_needed(list(taps.values()), trace.network, rows, options.batch)
    enough = dataset.first(count)
    shards = cut_shards(enough, options.batch)
    how = Measurement(
        trace.network, tuple(taps.values()), len(enough), options.batch, rows, options.seed, options.providers, memory
    )
    done, sums = checkpoint.load(trace) if checkpoint else (0, {})
    if done:
        run.notes.append(f"Went on from {done} of {len(shards)} shards of samples that an earlier run measured.")
    with run.stage("collecting statistics", len(enough)) as advance:
        advance(sum(len(shard.dataset) for shard in shards[:done]))
        for number, more in enumerate(workers.run(measure_shard, how, shards[done:], advance), done + 1):
            add_sums(sums, more, memory)
            if checkpoint:
                checkpoint.save(number, trace, sums)
    return sums


@dataclass
class Trials:
    """What was measured on the way to a latency; ``advance`` is told of each."""

    found: list[Latency] = field(default_factory=list)
    advance: Callable[[int], None] = lambda _: None

    def __call__(self, latency: Latency) -> None:
        """Add one."""
        self.found.append(latency)
        self.advance(1)


@dataclass(frozen=True)
class Choice:
    """What widths are chosen from, and within what: error curves of the groups, budgets of the targets.

    ``others`` are other ways to the same targets, where only a measurement can tell which is best. ``predicted`` is the
    cost of a latency target, ``trials`` what was measured for it so far, ``source`` the file of times where they are
    of another device.
    """

    curves: list[Curve]
    budgets: list[Budget]
    predicted: TableCost | None
    trials: Trials = field(default_factory=Trials)
    source: str = ""
    others: tuple[Way, ...] = ()

    def latency(self, kept: Ints, batch: int) -> LatencySearch | None:
        """How a latency target was met by the kept units."""
        if self.predicted is None:
            return None
        whole = self.predicted([curve.width for curve in self.curves])
        return LatencySearch(batch, whole, self.predicted(kept), tuple(self.trials.found), self.source)


def find_choice(calibration: Calibration, given: Given, options: PruneOptions, run: Run) -> Choice:
    """Steps of the groups and budgets of all targets, timed where they need to be."""
    trace, groups = calibration.trace, calibration.groups
    timer, batch = OperatorTimer(options.providers), options.latency_batch
    budgets = _budgets_of_counts(calibration, given, options)
    try:
        steps: list[int] | list[None] = [None] * len(groups)
        if options.rounding == "auto":
            with run.stage("finding steps", len(groups)) as advance:
                steps = find_steps(trace, groups, timer, batch, advance)
        curves = [curve(path, options, step) for path, step in zip(calibration.paths, steps, strict=True)]
        target = options.target_of("latency")
        if target is None:
            return Choice(curves, budgets, None)
        feeds = samples_of(calibration.dataset, batch)
        with run.stage("timing operators", len(trace.layers)) as advance:
            if given.times:
                cost, missing = foreign_cost(trace, groups, curves, timer, given.times, batch, advance)
            else:
                profile = profile_model(runnable(given.source), feeds, options.providers)
                cost, missing = latency_cost(trace, groups, curves, timer, profile, batch, advance), []
    finally:
        timer.save()
    run.notes += [f"{options.latency_table} has no time of {name}" for name in missing]
    whole, trials = cost([curve.width for curve in curves]), Trials()
    if given.times:
        budgets.append(Budget("--latency", cost, target.budget(whole)))
    elif target.budget(whole) < whole:
        originals = load_sessions(runnable(given.source), options.providers, feeds)

        def measured(cost: Cost) -> Budget:
            return latency_budget(calibration, target, cost, originals, feeds, batch, trials)

        others = []
        if options.rounding == "auto":
            count = measured(macs_as_latency(calibration, whole))
            others = [
                Way(name, [curve(path, options, step) for path in calibration.paths], [*budgets, count])
                for name, step in _PLAIN.items()
            ]
        return Choice(curves, [*budgets, measured(cost)], cost, trials, others=tuple(others))
    return Choice(curves, budgets, cost, trials, options.latency_table or "")


def _budgets_of_counts(calibration: Calibration, given: Given, options: PruneOptions) -> list[Budget]:
    """Budgets of the targets that nothing needs to be timed for."""
    biases = calibration.new_biases(pairs=options.method.pairs)
    budgets = [exact_budget(calibration, t, biases) for t in options.targets if t.kind in ("macs", "params")]
    if size := options.target_of("size"):
        budgets.append(
            size_budget(calibration, size, biases, lambda model, gone: stamp(model, given.plan(options, gone, {})))
        )
    return budgets


def allocate_widths(
    calibration: Calibration, given: Given, options: PruneOptions, run: Run
) -> tuple[Ints, LatencySearch | None]:
    """The widths that meet all targets, and how the latency was met."""
    choice = find_choice(calibration, given, options, run)
    ways = [Way("steps found by timing", choice.curves, choice.budgets), *choice.others]
    with run.stage("allocation") as choice.trials.advance:
        way, kept = best_way(ways)
    if choice.others:
        tried = ", ".join(each.name for each in ways)
        run.notes.append(f"Of the widths within the latency, {way.name} lose the least (tried: {tried}).")
    return kept, choice.latency(kept, options.latency_batch)


def within_latency(attempt: Callable[[PruneOptions], Result], options: PruneOptions, run: Run) -> Result:
    """What ``attempt`` makes of the options; made anew, for a little less, where it is measured to be too slow.

    Sessions of one model differ for as long as they live, so that the widths found by trials may miss their latency by
    a percent once it is measured again. By more than ``FAR`` they miss it where the machine is busy.

    Raises
    ------
    LatencyError
        The result is far too slow, or the last of ``CORRECTIONS`` is too slow as well, or no widths are left for one.
    """
    notes, aimed, missed = list(run.notes), options, list[LatencyError]()
    while True:
        try:
            return attempt(aimed)
        except LatencyError as error:
            missed.append(error.with_traceback(None))  # which holds all that was made
            if len(missed) > CORRECTIONS or error.share > FAR:
                break
            aimed = aimed.aimed("latency", (1 - LESS) / error.share)
            run.notes[:] = [*notes, *(f"Widths were chosen again, for less: {miss}." for miss in missed)]
        except TargetError:
            if not missed:
                raise
            break
    run.notes[:] = notes
    raise missed[-1]


def refit(
    calibration: Calibration, kept: Ints, options: PruneOptions, run: Run, workers: Workers = HERE
) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """Which channels go at the given widths, and the new weights; workers run the samples."""
    units = zip(calibration.groups, kept, strict=True)
    changed = [group for group, k in units if k < len(group.units)]
    with run.stage("refit", len(layers_to_refit(changed))) as advance:
        return reconstruct(
            calibration.trace,
            calibration.paths,
            kept.tolist(),
            calibration.taps,
            calibration.dataset,
            options,
            advance,
            workers,
            lambda line: None if line in run.notes else run.notes.append(line),
        )


def quick_refit(calibration: Calibration, kept: Ints) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """Channels that go in the order of the error paths, and weights refitted on the statistics of the original."""
    removed = calibration.removed(kept)
    weights: dict[Slot, np.ndarray] = {}
    cut = [group for group, k in zip(calibration.groups, kept, strict=True) if k < len(group.units)]
    for layer in layers_to_refit(cut):
        index = layer.node.index
        weights |= refitted(calibration.trace, calibration.taps[index], calibration.statistics[index], removed)
    return removed, weights


def runnable(source: Source) -> onnx.ModelProto | Path:
    """The file where there is one (onnxruntime reads any size), else the model."""
    return source.model if source.path is None else source.path


def stamp(model: onnx.ModelProto, plan: Plan) -> None:
    """Say in the model's metadata what was done to it."""
    values = {"version": VERSION, "plan": plan.summary(), "source_sha256": plan.source_sha256}
    names = {METADATA + name for name in values}
    for entry in [e for e in model.metadata_props if e.key in names]:
        model.metadata_props.remove(entry)
    for name, value in values.items():
        model.metadata_props.add(key=METADATA + name, value=value)
