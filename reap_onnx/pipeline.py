"""The only place that knows the order of the steps.

load -> probe -> trace -> groups -> statistics -> error paths -> sensitivity -> allocation -> refit -> plan
-> surgery -> check -> save -> verify -> report
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from reap_onnx.data.dataset import input_specs
from reap_onnx.data.images import ImageOptions
from reap_onnx.data.load import load_dataset
from reap_onnx.demo import CALIBRATION, IMAGES, MODEL, OPTIONS, TEST, shipped_file
from reap_onnx.describe import cost_of, describe_targets, group_rows, reach, unmatched
from reap_onnx.errors import LatencyError, ModelError, OutputError, PlanError, TargetError, UsageError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.method.calibration import Calibration
from reap_onnx.method.costs import total
from reap_onnx.model.load import Source, load_model
from reap_onnx.model.network import Slot
from reap_onnx.numerics.allocate import Ints
from reap_onnx.options import PruneOptions, Target
from reap_onnx.outcome import PruneResult, carry_out, check_outputs, cost_of_pruned
from reap_onnx.plan import Plan
from reap_onnx.report.files import write_report
from reap_onnx.report.progress import Progress, Silent
from reap_onnx.report.summary import (
    Calibrated,
    Comparison,
    DropSearch,
    Frontier,
    GroupWeight,
    Inspection,
    LatencySearch,
    Point,
)
from reap_onnx.runtime.cluster import workers_at
from reap_onnx.runtime.compare import compare_models
from reap_onnx.runtime.feeds import fixed_batch, probe_shapes, random_feeds
from reap_onnx.runtime.memory import memory_for_samples
from reap_onnx.runtime.session import Session
from reap_onnx.runtime.shards import Workers
from reap_onnx.smallest import Jury, find_limits, find_within_drop
from reap_onnx.stats import Checkpoint, Stats, check_origin, make_stats
from reap_onnx.steps import (
    Given,
    Run,
    allocate_widths,
    find_choice,
    measure,
    quick_refit,
    read,
    read_calibration,
    refit,
    runnable,
    stamp,
    trace_model,
    within_latency,
)

SWEEP_TURNS = 10  # of each model in the latency of a point of a sweep
_ALL = Target("macs", fraction=1.0)
_FROM_STATS = "Layers are refitted from the statistics alone: with --data the model would be more accurate."

Model = str | Path | onnx.ModelProto


@dataclass(frozen=True)
class InspectResult:
    """What :func:`inspect` returns."""

    inspection: Inspection


@dataclass(frozen=True)
class CalibrateResult:
    """What :func:`calibrate` returns: what was measured, for :func:`prune` and :func:`sweep`, and what to say of it."""

    stats: Stats
    report: Calibrated


def inspect(
    model: Model,
    *,
    data: object = None,
    freeze: Sequence[str] = (),
    prunability: PruneOptions | None = None,
    evaluate: object = None,
    images: ImageOptions | None = None,
    samples: int | None = None,
    progress: Progress | None = None,
) -> InspectResult:
    """Find the groups of channels of a model, which can be pruned, and why the others cannot.

    With ``prunability`` the smallest share of the parameters is found with which the metric of a :class:`MaxDrop` falls
    by no more than that, and the fewest channels of each group alone. Layers are refitted quickly, on the statistics
    of the original network: :func:`prune` loses less. Shares of the network are measured, on samples held out; those of
    the groups are predicted: what a group may do to the outputs, by its error path and its sensitivity, is what all
    groups together were predicted to do at the measured share.

    Parameters
    ----------
    model
        Path of an ONNX file, or the model itself.
    data
        Samples, for their shape alone; needed where the model leaves its height or width open. For ``prunability`` as
        for :func:`prune`, with ``evaluate``, ``images``, ``samples``.
    freeze
        Glob patterns of node names whose channels are left alone.
    prunability
        The drop, with all else that a run goes by; costs among its targets do not count.

    Raises
    ------
    ModelError
        The model cannot be read or does not run.
    TargetError
        Every network tried loses more than it may.
    """
    run = Run(progress or Silent())
    if prunability is not None:
        return _inspect_prunability(model, data, freeze, prunability, evaluate, images, samples, run)
    with run.stage("reading the model"):
        source = load_model(model)
        specs = input_specs(source.model)
        one = fixed_batch(specs) or 1
        images, room = images or ImageOptions(), memory_for_samples(None)
        dataset = None if data is None else load_dataset(data, specs, images=images, samples=one, memory=room)
    with run.stage("finding groups"):
        trace = trace_model(source, probe_shapes(specs, dataset), freeze)
        groups = find_groups(trace)
    rows = group_rows(trace, groups, np.zeros(0, np.int64))
    notes = (*unmatched(trace), *trace.left_alone())
    return InspectResult(Inspection(source.name, cost_of(trace.network), rows, reach(trace, groups), notes))


def _inspect_prunability(
    model: Model,
    data: object,
    freeze: Sequence[str],
    options: PruneOptions,
    evaluate: object,
    images: ImageOptions | None,
    samples: int | None,
    run: Run,
) -> InspectResult:
    if data is None or options.max_drop is None:
        raise UsageError("prunability needs samples and a drop", "give --data and --max-drop 1%")
    with run.stage("reading the model"):
        source = load_model(model)
    options = replace(options, target=options.max_drop, freeze=(*options.freeze, *freeze))
    given = read(source, data, options, evaluate, images, samples, run)
    jury, trace = Jury(given, run), given.trace
    calibration = measure(given, run)
    choice = find_choice(calibration, given, given.options, run)
    found, search = find_within_drop(
        calibration, given, choice, jury, lambda kept: quick_refit(calibration, kept), run, "params"
    )
    rows = group_rows(trace, given.groups, np.zeros(0, np.int64))
    limits = find_limits(choice, calibration.groups, found, search)
    reached, notes = reach(trace, given.groups), tuple(trace.left_alone())
    return InspectResult(Inspection(source.name, cost_of(trace.network), rows, reached, notes, limits))


def calibrate(
    model: Model,
    data: object,
    *,
    output: Path | str | None = None,
    options: PruneOptions | None = None,
    force: bool = False,
    images: ImageOptions | None = None,
    samples: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> CalibrateResult:
    """Measure all that does not depend on a target, once: normal equations, error paths, sensitivity.

    Parameters
    ----------
    model, data, images, samples, dask, progress
        As for :func:`prune`.
    output
        Where the statistics go; None to write none. Until they are complete, ``OUTPUT.partial`` has what is measured
        so far; a run that was interrupted or killed goes on from there when it is repeated.
    options
        All that the statistics depend on; the target in it does not count.
    force
        Overwrite ``output`` where it exists, and begin anew where what an earlier run left is damaged, or is of
        another model, other samples or other options.

    Raises
    ------
    ReapError
        Of the kind that names what went wrong (see ``reap_onnx.errors``).
    """
    run = Run(progress or Silent())
    file = None if output is None else Path(output)
    with run.stage("reading the model"):
        source = load_model(model)
    check_outputs(source, (data,), file, None, (), force)
    options = replace(options or PruneOptions(_ALL), target=_ALL, latency_table=None)
    given = read(source, data, options, None, images, samples, run)
    origin = given.origin
    checkpoint = None if file is None else Checkpoint(file, origin, force)
    with workers_at(dask) as workers:
        found = measure(given, run, workers, checkpoint)
    stats = make_stats(origin, given.trace, found.paths, found.statistics, found.dataset)
    if file is not None:
        with run.stage("writing"):
            stats.save(file)
    if checkpoint:
        checkpoint.remove()
    report = Calibrated(
        source=source.name,
        output="" if file is None else str(file),
        size=0 if file is None else file.stat().st_size,
        data=given.dataset.description,
        layers=len(stats.layers),
        groups=tuple(GroupWeight(path.group.name, path.group.width, path.weight) for path in found.paths),
        seconds=run.seconds,
        notes=tuple(run.notes),
    )
    return CalibrateResult(stats, report)


def prune(
    model: Model,
    data: object,
    options: PruneOptions,
    *,
    stats: Stats | Path | str | None = None,
    output: Path | str | None = None,
    force: bool = False,
    plan: Path | str | None = None,
    dry_run: bool = False,
    keep_failed: bool = False,
    evaluate: object = None,
    images: ImageOptions | None = None,
    samples: int | None = None,
    dask: str | None = None,
    report: Sequence[Path] = (),
    progress: Progress | None = None,
) -> PruneResult:
    """Remove channels of a model until it meets a target, and refit what is left, without training.

    Parameters
    ----------
    model
        Path of an ONNX file, or the model itself; never changed.
    data
        Unlabelled samples to calibrate with: anything that :func:`reap_onnx.data.load.load_dataset` takes. None with
        ``stats`` alone: layers are refitted from these, which takes seconds and costs accuracy.
    options
        The target, and what limits the choice.
    stats
        What :func:`calibrate` has measured on this model with the same options, or the file of it: nothing is
        calibrated then.
    output
        Where the pruned model goes; None to write none.
    force
        Overwrite ``output``, and ``plan``, where they exist.
    plan
        Where the plan goes, for :func:`apply`.
    dry_run
        Do everything, but write no model.
    keep_failed
        Write the model even where the check of its wiring fails; the failure is raised all the same.
    evaluate
        Samples to report on, best with labels; those of ``data`` by default.
    images, samples
        How images become inputs; how many samples are used.
    dask
        Address of a dask scheduler whose workers calibrate, and run the samples for the refit; the result is the same.
    report
        Reports to write, ``.html`` or ``.json``.

    Raises
    ------
    ReapError
        Of the kind that names what went wrong (see ``reap_onnx.errors``); nothing is written then.
    """
    _check_samples(data, stats, dask, refits=True)
    if options.max_drop is not None and stats is not None and evaluate is None:
        raise UsageError("a drop is not decided by the samples of --stats", "give others by --eval-data")
    run = Run(progress or Silent())
    target_file = None if dry_run or output is None else Path(output)
    plan_file = None if plan is None else Path(plan)
    with run.stage("reading the model"):
        source = load_model(model)
    inputs = data, evaluate, stats, options.latency_table
    check_outputs(source, inputs, target_file, plan_file, report, force)
    stats = _load_stats(stats, run)
    given = read(source, _samples_of(stats, data), options, evaluate, images, samples, run)
    options, trace = given.options, given.trace
    in_full = data is not None

    def finish(
        removed: Labels,
        weights: dict[Slot, np.ndarray],
        search: LatencySearch | None = None,
        drop: DropSearch | None = None,
    ) -> PruneResult:
        return carry_out(
            source,
            trace,
            given.groups,
            given.plan(options, removed, weights),
            run,
            feeds=given.feeds,
            judged=given.judged,
            options=options,
            target=describe_targets(options.given, trace),
            output=target_file,
            keep_failed=keep_failed,
            plan_file=plan_file,
            report=report,
            search=search,
            drop=drop,
        )

    with workers_at(dask) as workers:
        if options.max_drop is not None:
            jury = Jury(given, run, None if stats is None else stats.origin.data["sha256"])
            calibration = _calibration(given, stats, run, workers)

            def search_within(aimed: PruneOptions) -> PruneResult:
                choice = find_choice(calibration, given, aimed, run)
                (kept, removed, weights), drop = find_within_drop(
                    calibration,
                    given,
                    choice,
                    jury,
                    lambda kept: _refit(calibration, kept, options, run, workers, in_full=in_full),
                    run,
                    "macs",
                )
                return finish(removed, weights, choice.latency(kept, options.latency_batch), drop)

            return within_latency(search_within, options, run)
        if any(o.keep for o in options.overrides) or not all(_asks_nothing(t, trace) for t in options.targets):
            calibration = _calibration(given, stats, run, workers)
            if in_full:
                calibration = replace(calibration, statistics={})  # they may take gigabytes, and have said all

            refits = dict[tuple[int, ...], tuple[Labels, dict[Slot, np.ndarray], list[str]]]()

            def attempt(aimed: PruneOptions) -> PruneResult:
                kept, search = allocate_widths(calibration, given, aimed, run)
                if (widths := tuple(kept.tolist())) in refits:
                    run.notes += refits[widths][-1]
                else:
                    refits.clear()
                    before = len(run.notes)
                    found = _refit(calibration, kept, options, run, workers, in_full=in_full)
                    refits[widths] = *found, run.notes[before:]
                removed, weights, _ = refits[widths]
                return finish(removed, weights, search)

            return within_latency(attempt, options, run)
    return finish(np.zeros(0, np.int64), {})


def sweep(
    model: Model,
    data: object,
    targets: Sequence[Target],
    *,
    options: PruneOptions | None = None,
    stats: Stats | Path | str | None = None,
    write: Path | str | None = None,
    force: bool = False,
    evaluate: object = None,
    images: ImageOptions | None = None,
    samples: int | None = None,
    dask: str | None = None,
    report: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Frontier:
    """Prune a model to several targets from one calibration: what each costs, and which is the knee.

    Statistics, error paths and sensitivity are measured once. Without ``write`` the layers of each pruned model are
    refitted from these same statistics alone, which takes no time and costs accuracy: the figures say how the models
    compare, and are a lower bound on what :func:`prune` gives. With ``write`` every model is refitted as in
    :func:`prune`, checked, written, and the figures are its own.

    Parameters
    ----------
    model, data, stats, evaluate, images, samples, dask, report, progress
        As for :func:`prune`.
    targets
        At least two different ones of one kind.
    options
        All else that decides which channels go; the target in it does not count.
    write
        Folder that the models are written to, each named after its target; made where it does not exist.
    force
        Overwrite models that exist.

    Raises
    ------
    ReapError
        As for :func:`prune`; a target that is out of reach, or a latency that a result misses, is left out, unless all
        are.
    """
    _check_samples(data, stats, dask, refits=write is not None)
    run = Run(progress or Silent())
    targets = _ordered(targets)
    with run.stage("reading the model"):
        source = load_model(model)
    files = [None] * len(targets) if write is None else _places(Path(write), source, targets)
    for file in files:
        place = file if file is None or file.parent.is_dir() else file.parent
        check_outputs(source, (data, evaluate, stats), place, None, report, force)
    options = replace(options or PruneOptions(targets[0]), target=targets[0])
    if options.latency_table is not None:
        raise UsageError("a sweep measures latency here, it takes no table of times", "use prune for another device")
    stats = _load_stats(stats, run)
    given = read(source, _samples_of(stats, data), options, evaluate, images, samples, run)
    points, notes, failure = list[Point](), list[str](), None
    with workers_at(dask) as workers:
        calibration = _calibration(given, stats, run, workers)
        for target, file in zip(targets, files, strict=True):
            asked = replace(given.options, target=target)
            point = partial(_point, calibration, given, asked, file, run, workers, data is not None)
            try:
                points.append(within_latency(point, asked, run))
            except (TargetError, LatencyError) as error:
                notes.append(f"{describe_targets((target,), given.trace)}: {error}")
                failure = error
    if failure is not None and not points:
        raise failure
    frontier = Frontier(
        source.name, targets[0].kind, cost_of(given.trace.network), tuple(points), written=write is not None,
        seconds=run.seconds, notes=(*run.notes, *notes),
    )  # fmt: skip
    for path in report:
        write_report(frontier, path)
    return frontier


def apply(
    model: Model,
    plan: Plan | str | Path,
    *,
    output: Path | str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> PruneResult:
    """Replay a plan on the model that it was made for: the same file as the run that made the plan, bit for bit.

    Raises
    ------
    PlanError
        The plan cannot be read, or was made for another model.
    """
    run = Run(progress or Silent())
    with run.stage("reading the model"):
        source = load_model(model)
        given, plan = plan, plan if isinstance(plan, Plan) else Plan.load(plan)
    if plan.source_sha256 != source.sha256:
        raise PlanError(
            f"the plan was made for another model (SHA-256 {plan.source_sha256[:12]}..., {source.name} has "
            f"{source.sha256[:12]}...)",
            "apply it to the very file that was pruned",
        )
    target_file = None if output is None else Path(output)
    check_outputs(source, (given,), target_file, None, (), force)
    with run.stage("finding groups"):
        trace = trace_model(source, {name: tuple(shape) for name, shape in plan.inputs.items()}, ())
        groups = find_groups(trace)
    targets = plan.targets
    return carry_out(
        source,
        trace,
        groups,
        plan,
        run,
        feeds=random_feeds(input_specs(source.model), trace.network),
        judged=None,
        options=PruneOptions(targets),
        target=describe_targets(targets, trace),
        output=target_file,
        keep_failed=False,
        plan_file=None,
        report=(),
    )


def compare(
    original: Model,
    pruned: Model,
    data: object,
    *,
    images: ImageOptions | None = None,
    samples: int | None = None,
    seed: int = 0,
    batch: int = 50,
    providers: Sequence[str] = ("cpu",),
    latency_batches: Sequence[int] = (1,),
    progress: Progress | None = None,
) -> Comparison:
    """Compare two models on the same samples: outputs, top class, accuracy where there are labels, latency in turns.

    Raises
    ------
    ReapError
        A model or the samples cannot be read, or the models do not go together.
    """
    run = Run(progress or Silent())
    with run.stage("reading the models"):
        first, second = load_model(original), load_model(pruned)
        specs = input_specs(first.model)
        if specs != input_specs(second.model):
            raise ModelError(
                f"{first.name} and {second.name} have different inputs", "compare a model with its pruned self"
            )
        room = memory_for_samples(None)
        dataset = load_dataset(data, specs, images=images or ImageOptions(), samples=samples, seed=seed, memory=room)
    sessions = Session(runnable(first), providers), Session(runnable(second), providers)
    with run.stage("comparing", len(dataset)) as advance:
        return compare_models(*sessions, dataset, batch=batch, latency_batches=tuple(latency_batches), advance=advance)


def demo(output: Path | str | None = None, *, force: bool = False, progress: Progress | None = None) -> PruneResult:
    """Prune the small network that comes with the package, on images that come with it (see ``reap_onnx.demo``)."""
    return prune(
        shipped_file(MODEL),
        shipped_file(CALIBRATION),
        OPTIONS,
        output=output,
        force=force,
        evaluate=shipped_file(TEST),
        images=IMAGES,
        progress=progress,
    )


# -- statistics of an earlier run --------------------------------------------------------------------------------------


def _check_samples(data: object, stats: object, dask: str | None, *, refits: bool) -> None:
    """``refits``: layers are refitted on the samples, where these are given."""
    if data is None and stats is None:
        raise UsageError("no samples", "give --data SOURCE, or --stats FILE of an earlier calibration, or both")
    if dask is not None and stats is not None and not (refits and data is not None):
        hint = "give --data too, to refit on" if refits else "it also spreads the refit that --write asks for"
        raise UsageError("--dask has nothing to do: --stats has been measured already", hint)


def _load_stats(stats: Stats | Path | str | None, run: Run) -> Stats | None:
    """The statistics that are given; None where the samples are to be calibrated on."""
    if stats is None or isinstance(stats, Stats):
        return stats
    with run.stage("reading the statistics"):
        return Stats.load(stats)


def _samples_of(stats: Stats | None, data: object) -> object:
    return stats.samples if data is None and stats is not None else data


def _calibration(given: Given, stats: Stats | None, run: Run, workers: Workers) -> Calibration:
    """Measured now, or read."""
    if stats is None:
        return measure(given, run, workers)
    origin = given.origin
    check_origin(stats, origin, given.source.name)
    if origin.data["sha256"] not in (stats.origin.data["sha256"], stats.samples.shuffled(given.options.seed).digest()):
        run.notes.append("The statistics were measured on other samples than those that the layers are refitted on.")
    return read_calibration(stats, given, run)


def _refit(
    calibration: Calibration, kept: Ints, options: PruneOptions, run: Run, workers: Workers, *, in_full: bool
) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """On the samples, in full; or on the statistics alone."""
    if in_full:
        return refit(calibration, kept, options, run, workers)
    if _FROM_STATS not in run.notes:
        run.notes.append(_FROM_STATS)
    with run.stage("refit"):
        return quick_refit(calibration, kept)


# -- sweeps ----------------------------------------------------------------------------------------------------------


def _point(
    calibration: Calibration,
    given: Given,
    options: PruneOptions,
    file: Path | None,
    run: Run,
    workers: Workers,
    in_full: bool,
    aimed: PruneOptions,
) -> Point:
    """One budget of a sweep: refitted quickly, or in full, checked and written where a file is asked for.

    ``aimed`` are the options that widths are chosen by.
    """
    trace, target = given.trace, options.targets[0]
    kept, _ = allocate_widths(calibration, given, aimed, run)
    if file is None:
        removed, weights = quick_refit(calibration, kept)
    else:
        removed, weights = _refit(calibration, kept, options, run, workers, in_full=in_full)
    plan = given.plan(options, removed, weights)
    described = describe_targets((target,), trace)
    if file is not None:
        _make_folder(file.parent)
        result = carry_out(
            given.source, trace, given.groups, plan, run, feeds=given.feeds, judged=given.judged, options=options,
            target=described, output=file, keep_failed=False, plan_file=None, report=(),
        )  # fmt: skip
        assert result.summary.comparison is not None
        return Point(described, result.summary.after, result.summary.comparison, str(file))
    with run.stage("comparing", len(given.judged)) as advance:
        pruned = Surgeon(trace, removed, weights).operate()
        stamp(pruned, plan)
        sessions = Session(runnable(given.source), options.providers), Session(pruned, options.providers)
        batches = (options.latency_batch,)
        comparison = compare_models(
            *sessions, given.judged, batch=options.batch, latency_batches=batches, rounds=SWEEP_TURNS, advance=advance
        )
    return Point(described, cost_of_pruned(pruned, plan), comparison)


def _ordered(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Targets of a sweep, the smallest first.

    Raises
    ------
    UsageError
        They are fewer than two, of several kinds, fractions and absolute numbers, or twice the same.
    """
    if wrong := [target for target in targets if not isinstance(target, Target)]:
        raise UsageError(f"{wrong[0]!r} is no target of a sweep", 'one is Target("macs", fraction=0.5)')
    alike = {(target.kind, target.fraction is None) for target in targets}
    if len(set(targets)) < 2 or len(set(targets)) < len(targets) or len(alike) != 1:
        raise UsageError(
            "a sweep needs two or more different targets of one kind, all of them shares or none",
            "seven budgets from 0.3 to 0.9 are --macs 0.3:0.9:7",
        )
    return tuple(sorted(targets, key=lambda target: target.fraction or target.absolute or 0.0))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}", "choose another place") from error


def _places(folder: Path, source: Source, targets: Sequence[Target]) -> list[Path]:
    """A file for the model of each target, in a folder that is there or can be made."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: cannot be made: it is a file", "choose another place")
    stem = Path(source.name).stem or "model"
    return [folder / f"{stem}-{target.kind}-{target.fraction or target.absolute:.15g}.onnx" for target in targets]


def _asks_nothing(target: Target, trace: Trace) -> bool:
    """Whether the original meets a target, as far as can be told without a measurement."""
    if target.kind == "latency":
        return target.fraction == 1
    return 0 < total(trace, target.kind) <= target.budget(total(trace, target.kind))
