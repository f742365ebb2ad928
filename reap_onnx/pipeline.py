"""The only place that knows the order of the steps.

load -> probe -> trace -> groups -> statistics -> error paths -> sensitivity -> allocation -> refit -> plan
-> surgery -> check -> save -> verify -> report
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from reap_onnx.data.dataset import Dataset, InputSpec, input_specs
from reap_onnx.data.images import ImageOptions
from reap_onnx.data.load import load_dataset
from reap_onnx.demo import CALIBRATION, IMAGES, MODEL, OPTIONS, TEST, shipped_file
from reap_onnx.errors import CheckError, ModelError, OutputError, PlanError, TargetError, UsageError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.cost import count_macs, count_params, node_macs, reached_macs
from reap_onnx.graph.groups import Group, find_groups
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.targets import find_target
from reap_onnx.graph.trace import Trace
from reap_onnx.method.budgets import meet_budgets
from reap_onnx.method.calibration import Calibration
from reap_onnx.method.costs import confirm_latency, describe_latency, exact_budget, latency_budget, size_budget, total
from reap_onnx.method.latency import find_steps, latency_cost
from reap_onnx.method.problems import layers_to_refit, refitted, solved_by_rows
from reap_onnx.method.reconstruct import reconstruct
from reap_onnx.method.select import GroupPath, Sensitivity, curve, error_paths
from reap_onnx.model.edit import copy_model
from reap_onnx.model.load import Source, load_model
from reap_onnx.model.network import Network, Slot
from reap_onnx.model.save import check_output, data_file, write_model, write_text
from reap_onnx.model.size import byte_size
from reap_onnx.numerics.allocate import Ints
from reap_onnx.options import Kind, PruneOptions, Target
from reap_onnx.plan import Plan, make_plan, read_plan
from reap_onnx.report.files import check_report, write_report
from reap_onnx.report.progress import Advance, Progress, Silent
from reap_onnx.report.summary import (
    Comparison,
    Cost,
    Frontier,
    GroupRow,
    Inspection,
    Latency,
    LatencySearch,
    Point,
    Summary,
)
from reap_onnx.runtime.compare import compare_models, samples_of
from reap_onnx.runtime.memory import memory_for_rows
from reap_onnx.runtime.profile import OperatorTimer, profile_model
from reap_onnx.runtime.session import Session, probe, probe_sizes
from reap_onnx.runtime.statistics import Tap, collect_dense, normals, samples_needed
from reap_onnx.runtime.verify import check_file, check_wiring, passes_in_full, wiring_error
from reap_onnx.version import VERSION

CHECK_SAMPLES = 4
SWEEP_TURNS = 10  # of each model in the latency of a point of a sweep
METADATA = "reap_onnx."
_NOTHING = "the target asks for nothing: the model is unchanged"

Model = str | Path | onnx.ModelProto


@dataclass(frozen=True)
class InspectResult:
    """What :func:`inspect` returns."""

    inspection: Inspection


@dataclass(frozen=True)
class PruneResult:
    """What :func:`prune` and :func:`apply` return: the pruned model, the plan that makes it, and what to say of it."""

    model: onnx.ModelProto
    plan: Plan
    summary: Summary


@dataclass
class _Run:
    """Stages of a run: progress shown, time kept."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        start = time.perf_counter()
        with self.progress.stage(name, total) as advance:
            yield advance
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def inspect(
    model: Model, *, data: object = None, freeze: Sequence[str] = (), progress: Progress | None = None
) -> InspectResult:
    """Find the groups of channels of a model, which can be pruned, and why the others cannot.

    Parameters
    ----------
    model
        Path of an ONNX file, or the model itself.
    data
        Samples, for their shape alone; needed where the model leaves its height or width open.
    freeze
        Glob patterns of node names whose channels are left alone.

    Raises
    ------
    ModelError
        The model cannot be read or does not run.
    """
    run = _Run(progress or Silent())
    with run.stage("reading the model"):
        source = load_model(model)
        specs = input_specs(source.model)
        dataset = None if data is None else load_dataset(data, specs, samples=_fixed_batch(specs) or 1)
    with run.stage("finding groups"):
        trace = _trace(source, _probe_shapes(specs, dataset), freeze)
        groups = find_groups(trace)
    rows = _rows(trace, groups, np.zeros(0, np.int64))
    notes = (*_unmatched(trace), *trace.left_alone())
    return InspectResult(Inspection(source.name, _cost(trace.network), rows, _reach(trace, groups), notes))


def prune(
    model: Model,
    data: object,
    options: PruneOptions,
    *,
    output: Path | str | None = None,
    force: bool = False,
    plan: Path | str | None = None,
    dry_run: bool = False,
    keep_failed: bool = False,
    evaluate: object = None,
    images: ImageOptions | None = None,
    samples: int | None = None,
    report: Sequence[Path] = (),
    progress: Progress | None = None,
) -> PruneResult:
    """Remove channels of a model until it meets a target, and refit what is left, without training.

    Parameters
    ----------
    model
        Path of an ONNX file, or the model itself; never changed.
    data
        Unlabelled samples to calibrate with: anything that :func:`reap_onnx.data.load.load_dataset` takes.
    options
        The target, and what limits the choice.
    output
        Where the pruned model goes; None to write none.
    force
        Overwrite ``output``, and ``plan``, where they exist.
    plan
        Where the plan goes, for :func:`apply`.
    dry_run
        Do everything, but write no model.
    keep_failed
        Write the model even where a check fails; the failure is raised all the same.
    evaluate
        Samples to report on, best with labels; those of ``data`` by default.
    images, samples
        How images become inputs; how many samples are used.
    report
        Reports to write, ``.html`` or ``.json``.

    Raises
    ------
    ReapError
        Of the kind that names what went wrong (see ``reap_onnx.errors``); nothing is written then.
    """
    run = _Run(progress or Silent())
    target_file = None if dry_run or output is None else Path(output)
    plan_file = None if plan is None else Path(plan)
    with run.stage("reading the model"):
        source = load_model(model)
    _check_outputs(source, (data, evaluate), target_file, plan_file, report, force)
    given = _read(source, data, options, evaluate, images, samples, run)
    options, trace = given.options, given.trace
    removed, weights, search = np.zeros(0, np.int64), dict[Slot, np.ndarray](), None
    if not all(_asks_nothing(target, trace) for target in options.targets):
        calibration = _calibrate(trace, given.groups, given.dataset, options, run)
        kept, search = _allocate(calibration, given, options, run)
        removed, weights = _refit(calibration, kept, options, run)
    return _carry_out(
        source,
        trace,
        given.groups,
        given.plan(options, removed, weights),
        run,
        feeds=given.feeds,
        judged=given.judged,
        options=options,
        target=_describe(options.targets, trace),
        output=target_file,
        keep_failed=keep_failed,
        plan_file=plan_file,
        report=report,
        search=search,
    )


def sweep(
    model: Model,
    data: object,
    targets: Sequence[Target],
    *,
    options: PruneOptions | None = None,
    write: Path | str | None = None,
    force: bool = False,
    evaluate: object = None,
    images: ImageOptions | None = None,
    samples: int | None = None,
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
    model, data, evaluate, images, samples, report, progress
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
        As for :func:`prune`; a target that is out of reach is left out, unless all are.
    """
    run = _Run(progress or Silent())
    targets = _ordered(targets)
    with run.stage("reading the model"):
        source = load_model(model)
    files = [None] * len(targets) if write is None else _make_places(Path(write), source, targets)
    for file in files:
        _check_outputs(source, (data, evaluate), file, None, report, force)
    options = replace(options or PruneOptions(targets[0]), target=targets[0])
    given = _read(source, data, options, evaluate, images, samples, run)
    calibration = _calibrate(given.trace, given.groups, given.dataset, given.options, run)
    points, notes, failure = list[Point](), list[str](), None
    for target, file in zip(targets, files, strict=True):
        asked = replace(given.options, target=target)
        try:
            kept, _ = _allocate(calibration, given, asked, run)
        except TargetError as error:
            notes.append(f"{_describe((target,), given.trace)}: {error}")
            failure = error
            continue
        points.append(_point(calibration, given, asked, kept, file, run))
    if failure is not None and not points:
        raise failure
    frontier = Frontier(
        source.name, targets[0].kind, _cost(given.trace.network), tuple(points), written=write is not None,
        seconds=run.seconds, notes=tuple(notes),
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
    run = _Run(progress or Silent())
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
    _check_outputs(source, (given,), target_file, None, (), force)
    with run.stage("finding groups"):
        trace = _trace(source, {name: tuple(shape) for name, shape in plan.inputs.items()}, ())
        groups = find_groups(trace)
    targets = plan.targets
    return _carry_out(
        source,
        trace,
        groups,
        plan,
        run,
        feeds=_random_feeds(input_specs(source.model), trace.network),
        judged=None,
        options=PruneOptions(targets),
        target=_describe(targets, trace),
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
    run = _Run(progress or Silent())
    with run.stage("reading the models"):
        first, second = load_model(original), load_model(pruned)
        specs = input_specs(first.model)
        if specs != input_specs(second.model):
            raise ModelError(
                f"{first.name} and {second.name} have different inputs", "compare a model with its pruned self"
            )
        dataset = load_dataset(data, specs, images=images or ImageOptions(), samples=samples, seed=seed)
    sessions = Session(_runnable(first), providers), Session(_runnable(second), providers)
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


# -- steps ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """What a run works on: the model and its channels, the samples, the options as they fit the model."""

    source: Source
    trace: Trace
    groups: list[Group]
    options: PruneOptions
    dataset: Dataset
    judged: Dataset

    def plan(self, options: PruneOptions, removed: Labels, weights: dict[Slot, np.ndarray]) -> Plan:
        """The plan of what these options led to."""
        data = self.dataset
        described = {"description": data.description, "preprocessing": data.preprocessing, "samples": len(data)}
        sha256 = self.source.sha256
        return make_plan(
            self.trace, self.groups, removed, weights, source_sha256=sha256, options=options, data=described
        )

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """Few samples, for the checks."""
        few = {name: array[: self.trace.network.batch * CHECK_SAMPLES] for name, array in self.dataset.inputs.items()}
        return _one_run(input_specs(self.source.model), few)


def _read(
    source: Source,
    data: object,
    options: PruneOptions,
    evaluate: object,
    images: ImageOptions | None,
    samples: int | None,
    run: _Run,
) -> _Given:
    """Samples read, channels found."""
    specs, images = input_specs(source.model), images or ImageOptions()
    fixed = _fixed_batch(specs)
    options = replace(options, batch=fixed or options.batch, latency_batch=fixed or options.latency_batch)
    with run.stage("reading the samples"):
        dataset = load_dataset(data, specs, images=images, samples=samples, seed=options.seed)
        judged = dataset if evaluate is None else load_dataset(evaluate, specs, images=images, seed=options.seed)
    with run.stage("finding groups"):
        trace = _trace(source, _probe_shapes(specs, dataset), options.freeze)
        groups = find_groups(trace)
    unmatched = _unmatched(trace)
    if unmatched:
        raise UsageError(unmatched[0], "reap-onnx inspect MODEL lists the names")
    return _Given(source, trace, groups, options, dataset, judged)


def _calibrate(
    trace: Trace, groups: Sequence[Group], dataset: Dataset, options: PruneOptions, run: _Run
) -> Calibration:
    """Statistics, error paths, sensitivity: all that does not depend on the targets."""
    prunable = [group for group in groups if not group.frozen]
    if not prunable:
        raise TargetError("no group of channels can be pruned", "reap-onnx inspect MODEL says why")
    method = options.method
    taps = {layer.node.index: Tap(layer, find_target(trace, layer)) for layer in layers_to_refit(prunable)}
    dataset = dataset.subset(np.random.default_rng(options.seed).permutation(len(dataset)))
    enough = dataset.first(
        samples_needed(list(taps.values()), trace.network.shapes, method.selection_rows, options.batch)
    )
    with run.stage("collecting statistics", len(enough)) as advance:
        measured = collect_dense(
            trace.network,
            list(taps.values()),
            enough,
            batch=options.batch,
            rows=method.selection_rows,
            seed=options.seed,
            providers=options.providers,
            memory=memory_for_rows(options.memory) // 2,
            advance=advance,
        )
    statistics = normals(measured)
    run.notes += solved_by_rows(trace, statistics)
    with run.stage("error paths", len(prunable)) as advance:
        paths = error_paths(trace, prunable, taps, statistics, method.criterion, advance)
    if method.sensitivity_samples:
        few = dataset.first(options.batch * math.ceil(method.sensitivity_samples / options.batch))
        with run.stage("sensitivity", len(paths)) as advance:
            sensitivity = Sensitivity(trace, taps, statistics, few, options)
            paths = [_weighed(sensitivity, path, advance) for path in paths]
    return Calibration(trace, tuple(paths), taps, statistics, dataset)


def _allocate(
    calibration: Calibration, given: _Given, options: PruneOptions, run: _Run
) -> tuple[Ints, LatencySearch | None]:
    """The widths that meet all targets, and how the latency was met."""
    trace, groups, source = calibration.trace, calibration.groups, given.source
    timer, batch = OperatorTimer(options.providers), options.latency_batch
    biases = calibration.new_biases(pairs=options.method.pairs)
    budgets = [exact_budget(calibration, t, biases) for t in options.targets if t.kind in ("macs", "params")]
    if size := options.target_of("size"):
        budgets.append(
            size_budget(calibration, size, biases, lambda model, gone: _stamp(model, given.plan(options, gone, {})))
        )
    try:
        steps: list[int] | list[None] = [None] * len(groups)
        if options.round_to == "auto":
            with run.stage("finding steps", len(groups)) as advance:
                steps = find_steps(trace, groups, timer, batch, advance)
        curves = [curve(path, options, step) for path, step in zip(calibration.paths, steps, strict=True)]
        target, trials = options.target_of("latency"), list[Latency]()
        if target is not None:
            with run.stage("timing operators", len(trace.layers)) as advance:
                feeds = samples_of(calibration.dataset, batch)
                profile = profile_model(_runnable(source), feeds, options.providers)
                cost = latency_cost(trace, groups, curves, timer, profile, batch, advance)
            if target.budget(profile.run) < profile.run:
                original = Session(_runnable(source), options.providers)
                budgets.append(latency_budget(calibration, target, cost, original, feeds, batch, trials.append))
    finally:
        timer.save()
    with run.stage("allocation"):
        kept = meet_budgets(curves, budgets)
    search = LatencySearch(batch, cost([c.width for c in curves]), cost(kept), tuple(trials)) if target else None
    return kept, search


def _refit(
    calibration: Calibration, kept: Ints, options: PruneOptions, run: _Run
) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """Which channels go at the given widths, and the new weights."""
    units = zip(calibration.groups, kept, strict=True)
    changed = [group for group, k in units if k < len(group.units)]
    with run.stage("refit", len(layers_to_refit(changed))) as advance:
        return reconstruct(
            calibration.trace, calibration.paths, kept.tolist(), calibration.taps, calibration.dataset, options, advance
        )


def _quick_refit(calibration: Calibration, kept: Ints) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """Channels that go in the order of the error paths, and weights refitted on the statistics of the original."""
    removed = calibration.removed(kept)
    weights: dict[Slot, np.ndarray] = {}
    cut = [group for group, k in zip(calibration.groups, kept, strict=True) if k < len(group.units)]
    for layer in layers_to_refit(cut):
        index = layer.node.index
        weights |= refitted(calibration.trace, calibration.taps[index], calibration.statistics[index], removed)
    return removed, weights


def _point(
    calibration: Calibration, given: _Given, options: PruneOptions, kept: Ints, file: Path | None, run: _Run
) -> Point:
    """One budget of a sweep: refitted quickly, or in full, checked and written where a file is asked for."""
    trace, target = given.trace, options.targets[0]
    removed, weights = _quick_refit(calibration, kept) if file is None else _refit(calibration, kept, options, run)
    plan = given.plan(options, removed, weights)
    described = _describe((target,), trace)
    if file is not None:
        result = _carry_out(
            given.source, trace, given.groups, plan, run, feeds=given.feeds, judged=given.judged, options=options,
            target=described, output=file, keep_failed=False, plan_file=None, report=(),
        )  # fmt: skip
        assert result.summary.comparison is not None
        return Point(described, result.summary.after, result.summary.comparison, str(file))
    with run.stage("comparing", len(given.judged)) as advance:
        pruned = Surgeon(trace, removed, weights).operate()
        _stamp(pruned, plan)
        sessions = Session(_runnable(given.source), options.providers), Session(pruned, options.providers)
        batches = (options.latency_batch,)
        comparison = compare_models(
            *sessions, given.judged, batch=options.batch, latency_batches=batches, rounds=SWEEP_TURNS, advance=advance
        )
    return Point(described, _cost_of(pruned, plan), comparison)


def _ordered(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Targets of a sweep, the smallest first.

    Raises
    ------
    UsageError
        They are fewer than two, of several kinds, fractions and absolute numbers, or twice the same.
    """
    alike = {(target.kind, target.fraction is None) for target in targets}
    if len(set(targets)) < 2 or len(set(targets)) < len(targets) or len(alike) != 1:
        raise UsageError(
            "a sweep needs two or more different targets of one kind, all of them shares or none",
            "seven budgets from 0.3 to 0.9 are --macs 0.3:0.9:7",
        )
    return tuple(sorted(targets, key=lambda target: target.fraction or target.absolute or 0.0))


def _make_places(folder: Path, source: Source, targets: Sequence[Target]) -> list[Path]:
    """A file for the model of each target."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}", "choose another place") from error
    stem = Path(source.name).stem or "model"
    return [folder / f"{stem}-{target.kind}-{target.fraction or target.absolute:g}.onnx" for target in targets]


def _weighed(sensitivity: Sensitivity, path: GroupPath, advance: Callable[[int], None]) -> GroupPath:
    weighed = sensitivity.weigh(path)
    advance(1)
    return weighed


def _carry_out(
    source: Source,
    trace: Trace,
    groups: Sequence[Group],
    plan: Plan,
    run: _Run,
    *,
    feeds: dict[str, np.ndarray],
    judged: Dataset | None,
    options: PruneOptions,
    target: str,
    output: Path | None,
    keep_failed: bool,
    plan_file: Path | None,
    report: Sequence[Path],
    search: LatencySearch | None = None,
) -> PruneResult:
    """Surgery, checks, files, report."""
    removed, weights = read_plan(plan, trace)
    with run.stage("surgery and checks"):
        pruned = Surgeon(trace, removed, weights).operate() if len(removed) else copy_model(source.original)
        if len(removed):
            _stamp(pruned, plan)
        wiring, failure = math.inf, None
        try:
            wiring = wiring_error(trace, removed, feeds, options.providers)
            check_wiring(wiring)
        except CheckError as error:
            failure = error
            if not keep_failed:
                raise
        after = _cost_of(pruned, plan)
        _check_budgets(options.targets, trace, after)
    comparison = None
    if judged is not None:
        sessions = Session(_runnable(source), options.providers), Session(pruned, options.providers)
        limit, batch = options.target_of("latency") if len(removed) else None, options.latency_batch
        with run.stage("comparing", len(judged)) as advance:
            timed = () if limit else (batch,)
            comparison = compare_models(*sessions, judged, batch=options.batch, latency_batches=timed, advance=advance)
        if limit is not None:
            with run.stage("measuring latency"):
                latency = confirm_latency(limit, *sessions, samples_of(judged, batch), batch)
            comparison = replace(comparison, latency=(latency,))
    if output is not None:
        full = passes_in_full(source.model)

        def check(path: Path) -> None:
            if failure is None:
                check_file(path, feeds, full=full, providers=options.providers)

        write_model(pruned, output, external=source.external, check=check)
    if plan_file is not None:
        write_text(plan_file, plan.dumps())
    summary = Summary(
        source=source.name,
        output="" if output is None else str(output),
        target=target,
        before=_cost(trace.network),
        after=after,
        groups=_rows(trace, groups, removed),
        comparison=comparison,
        wiring_error=wiring,
        seconds=run.seconds,
        notes=(*run.notes, *trace.left_alone()) if len(removed) else (_NOTHING,),
        latency=search,
    )
    for path in report:
        write_report(summary, path)
    if failure is not None:
        raise failure
    return PruneResult(pruned, plan, summary)


def _trace(source: Source, shapes: dict[str, tuple[int, ...]], freeze: Sequence[str]) -> Trace:
    feeds = _probe_feeds(input_specs(source.model), shapes)
    try:
        network = Network(source.model, probe(source.model, feeds), probe_sizes(source.model, feeds))
        return Trace(network, freeze)
    except ModelError as error:
        raise ModelError(f"{source.name}: {error}", error.hint) from error


def _probe_shapes(specs: Sequence[InputSpec], dataset: Dataset | None) -> dict[str, tuple[int, ...]]:
    """Shapes of one run of one sample: what the model fixes, else what the samples have."""
    shapes = {}
    for spec in specs:
        shape = [spec.batch or _fixed_batch(specs) or 1, *spec.shape[1:]][: len(spec.shape)]
        if dataset is not None:
            shape[1:] = dataset.inputs[spec.name].shape[1:]
        if None in shape:
            raise ModelError(f"input {spec} leaves a size open", "give samples with --data, for their shape")
        shapes[spec.name] = tuple(int(size or 1) for size in shape)
    return shapes


def _fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    """Number of samples that the model takes at once, None for any."""
    fixed = {spec.name: spec.batch for spec in specs if spec.batch}
    if len(set(fixed.values())) > 1:
        listing = ", ".join(f"{name!r} {batch}" for name, batch in fixed.items())
        raise ModelError(
            f"the inputs differ in the batch they are fixed to: {listing}", "make the first axis the batch"
        )
    return next(iter(fixed.values()), None)


def _probe_feeds(specs: Sequence[InputSpec], shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Made-up inputs, the same whenever the shapes are: seeded noise, ones for integers and truth values."""
    rng = np.random.default_rng(0)
    feeds = {}
    for spec in specs:
        noise = rng.standard_normal(shapes[spec.name])
        feeds[spec.name] = (noise if spec.dtype.kind == "f" else np.ones_like(noise)).astype(spec.dtype)
    return feeds


def _random_feeds(specs: Sequence[InputSpec], network: Network) -> dict[str, np.ndarray]:
    return _probe_feeds(specs, {spec.name: network.shapes[spec.name] for spec in specs})


def _one_run(specs: Sequence[InputSpec], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds for a single run: cut to the model's own batch size, where it has one."""
    return {spec.name: feeds[spec.name][: _fixed_batch(specs)] for spec in specs}


def _check_outputs(
    source: Source,
    others: Sequence[object],
    output: Path | None,
    plan: Path | None,
    report: Sequence[Path],
    force: bool,
) -> None:
    """Refuse files that cannot or must not be written: above all the model's own, and ``others`` that are paths."""
    inputs = [*source.files, *(Path(other) for other in others if isinstance(other, str | Path))]
    data = data_file(output) if output is not None and source.external else None
    files = [file for file in (output, data, plan) if file is not None]
    for file in files:
        check_output(file, inputs, force=force)
    for path in report:
        check_report(path)
        check_output(path, inputs, force=True)
    everything = [file.resolve() for file in (*files, *report)]
    if len(set(everything)) < len(everything):
        raise UsageError("two outputs have the same name", "give each a name of its own")


def _check_budgets(targets: Sequence[Target], trace: Trace, after: Cost) -> None:
    left: dict[Kind, int] = {"macs": after.macs, "params": after.params, "size": after.size}
    for target in targets:
        if target.kind in left and left[target.kind] > target.budget(total(trace, target.kind)):
            allowed = target.budget(total(trace, target.kind))
            raise CheckError(f"the pruned model has {target.kind} {left[target.kind]}, {allowed} were asked for")


def _asks_nothing(target: Target, trace: Trace) -> bool:
    """Whether the original meets a target, as far as can be told without a measurement."""
    if target.kind == "latency":
        return target.fraction == 1
    return 0 < total(trace, target.kind) <= target.budget(total(trace, target.kind))


def _cost(network: Network) -> Cost:
    return Cost(count_macs(network), count_params(network), byte_size(network.proto))


def _cost_of(pruned: onnx.ModelProto, plan: Plan) -> Cost:
    feeds = _probe_feeds(input_specs(pruned), {name: tuple(shape) for name, shape in plan.inputs.items()})
    return _cost(Network(pruned, probe(pruned, feeds)))


def _stamp(model: onnx.ModelProto, plan: Plan) -> None:
    """Say in the model's metadata what was done to it."""
    values = {"version": VERSION, "plan": plan.summary(), "source_sha256": plan.source_sha256}
    names = {METADATA + name for name in values}
    for entry in [e for e in model.metadata_props if e.key in names]:
        model.metadata_props.remove(entry)
    for name, value in values.items():
        model.metadata_props.add(key=METADATA + name, value=value)


def _runnable(source: Source) -> onnx.ModelProto | Path:
    """The file where there is one (onnxruntime reads any size), else the model."""
    return source.model if source.path is None else source.path


def _rows(trace: Trace, groups: Sequence[Group], removed: Labels) -> tuple[GroupRow, ...]:
    """One row per group, for the report."""
    rows = []
    for group in groups:
        nodes = {layer.node.index: layer for layer in (*group.makers, *group.readers)}
        rows.append(
            GroupRow(
                name=group.name,
                made_by=tuple(layer.node.name for layer in group.makers),
                read_by=tuple(layer.node.name for layer in group.readers),
                width=group.width,
                kept=group.width - group.channels * int(np.isin(group.units, removed).sum()),
                macs=round(sum(node_macs(trace.network, layer.node) for layer in nodes.values())),
                params=sum(_weight(trace, layer).size for layer in nodes.values()),
                frozen=group.frozen,
            )
        )
    return tuple(rows)


def _weight(trace: Trace, layer: Layer) -> np.ndarray:
    return trace.network.constants[layer.node.inputs[layer.weight.input]]


def _reach(trace: Trace, groups: Sequence[Group]) -> float:
    """Share of the model's MACs in layers that make or read channels of a group that can be pruned."""
    reached = reached_macs(trace, [group for group in groups if not group.frozen])
    return reached / max(count_macs(trace.network), 1)


def _unmatched(trace: Trace) -> list[str]:
    return [f"--freeze {pattern} matches no layer" for pattern, count in trace.matched.items() if count == 0]


def _describe(targets: Sequence[Target], trace: Trace) -> str:
    """The targets in words."""
    return ", ".join(_describe_one(target, trace) for target in targets)


def _describe_one(target: Target, trace: Trace) -> str:
    if target.kind == "latency":
        return f"latency <= {describe_latency(target)}"
    whole = total(trace, target.kind)
    return f"{target.kind} <= {target.budget(whole) / max(whole, 1):.1%} of the original"
