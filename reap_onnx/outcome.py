"""A plan carried out: surgery, checks, comparison with the original, files, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.describe import cost_of, group_rows
from reap_onnx.errors import CheckError, UsageError
from reap_onnx.graph.groups import Group
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.method.costs import confirm_latency, total
from reap_onnx.model.edit import copy_model
from reap_onnx.model.load import Source
from reap_onnx.model.network import Network
from reap_onnx.model.save import check_output, data_file, write_model, write_text
from reap_onnx.options import Kind, PruneOptions, Target
from reap_onnx.plan import Plan, read_plan
from reap_onnx.report.files import check_report, write_report
from reap_onnx.report.summary import Comparison, Cost, DropSearch, Latency, LatencySearch, Summary
from reap_onnx.runtime.compare import compare_models, samples_of
from reap_onnx.runtime.feeds import probe_feeds
from reap_onnx.runtime.latency import load_pairs
from reap_onnx.runtime.session import Session, probe
from reap_onnx.runtime.verify import check_file, check_wiring, passes_in_full, wiring_error
from reap_onnx.steps import Run, runnable, stamp

_NOTHING = "the target asks for nothing: the model is unchanged"


@dataclass(frozen=True)
class PruneResult:
    """What :func:`prune` and :func:`apply` return: the pruned model, the plan that makes it, and what to say of it."""

    model: onnx.ModelProto
    plan: Plan
    summary: Summary


def carry_out(
    source: Source,
    trace: Trace,
    groups: Sequence[Group],
    plan: Plan,
    run: Run,
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
    drop: DropSearch | None = None,
) -> PruneResult:
    """Surgery, checks, files, report."""
    removed, weights = read_plan(plan, trace)
    with run.stage("surgery and checks"):
        pruned = Surgeon(trace, removed, weights).operate() if len(removed) else copy_model(source.original)
        if len(removed):
            stamp(pruned, plan)
        try:
            wiring = wiring_error(trace, removed, feeds, options.providers)
            check_wiring(wiring)
        except CheckError:
            if keep_failed and output is not None:
                write_model(pruned, output, external=source.external, check=lambda _: None)
            raise
        after = cost_of_pruned(pruned, plan)
        _check_budgets(options.targets, trace, after)
    comparison = None if judged is None else _compare(source, pruned, judged, options, run, cut=len(removed) > 0)
    if output is not None:
        check = partial(check_file, feeds=feeds, full=passes_in_full(source.model), providers=options.providers)
        write_model(pruned, output, external=source.external, check=check)
    if plan_file is not None:
        write_text(plan_file, plan.dumps())
    summary = Summary(
        source=source.name,
        output="" if output is None else str(output),
        target=target,
        before=cost_of(trace.network),
        after=after,
        groups=group_rows(trace, groups, removed),
        comparison=comparison,
        wiring_error=wiring,
        seconds=run.seconds,
        notes=(*run.notes, *trace.left_alone()) if len(removed) else (_NOTHING,),
        latency=search,
        drop=drop,
    )
    for path in report:
        write_report(summary, path)
    return PruneResult(pruned, plan, summary)


def _compare(
    source: Source, pruned: onnx.ModelProto, judged: Dataset, options: PruneOptions, run: Run, *, cut: bool
) -> Comparison:
    """Original and result on the same samples; a latency that is a target is measured until it is sure."""
    sessions = Session(runnable(source), options.providers), Session(pruned, options.providers)
    limit = options.target_of("latency") if cut and not options.latency_table else None
    batch = options.latency_batch
    confirmed: tuple[Latency, ...] = ()
    if limit is not None:
        with run.stage("measuring latency"):
            feeds = samples_of(judged, batch)
            load = partial(load_pairs, runnable(source), pruned, options.providers, feeds)
            confirmed = (confirm_latency(limit, load, feeds, batch),)
    with run.stage("comparing", len(judged)) as advance:
        timed = () if confirmed else (batch,)
        comparison = compare_models(*sessions, judged, batch=options.batch, latency_batches=timed, advance=advance)
    return replace(comparison, latency=confirmed or comparison.latency)


def check_outputs(
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


def cost_of_pruned(pruned: onnx.ModelProto, plan: Plan) -> Cost:
    """What a pruned model costs, run once on inputs of the shapes that its plan names."""
    feeds = probe_feeds(input_specs(pruned), {name: tuple(shape) for name, shape in plan.inputs.items()})
    return cost_of(Network(pruned, probe(pruned, feeds)))
