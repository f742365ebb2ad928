"""What a report says, as tables of plain text: console and HTML show the same ones."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from reap_onnx.report import format as fmt
from reap_onnx.report.summary import (
    Calibrated,
    Comparison,
    Cost,
    DropSearch,
    Frontier,
    GroupRow,
    Inspection,
    Latency,
    LatencySearch,
    Prunability,
    Summary,
)

BUSY = 0.15  # spread of measured latencies from which on a report says what is wrong
MACS = "MACs of Conv, ConvTranspose, Gemm and MatMul at batch 1"


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand to the right."""

    name: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under headings, with a title above and a note below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def result_table(summary: Summary) -> Table:
    """Costs, latency and quality before and after."""
    rows = _cost_rows(summary.before, summary.after)
    comparison = summary.comparison
    if summary.latency is not None:
        rows.append(_predicted_row(summary.latency))
    if comparison is None or not comparison.latency:
        rows.append(("latency", "not measured", "not measured", fmt.NONE))
    notes = [f"{MACS}."]
    if comparison is not None:
        rows += _comparison_rows(comparison)
        notes.append(_how_compared(comparison))
    if summary.drop is not None:
        rows += _drop_rows(summary.drop)
    return Table("Result", _BEFORE_AFTER, tuple(rows), " ".join(notes))


def comparison_table(comparison: Comparison) -> Table:
    """Latency and quality of two models."""
    return Table("Comparison", _BEFORE_AFTER, tuple(_comparison_rows(comparison)), _how_compared(comparison))


def outputs_table(comparison: Comparison) -> Table:
    """How far each output moved."""
    return Table(
        "Outputs",
        (Column("output"), Column("relative error", True), Column("largest difference", True)),
        tuple((o.name, fmt.error(o.relative), fmt.error(o.largest)) for o in comparison.outputs),
        "Relative error: root mean square of the difference over that of the original; "
        "for outputs that are not floats, the share of elements that differ.",
    )


def cost_table(inspection: Inspection) -> Table:
    """What the model costs and how much of it pruning can reach."""
    cost = inspection.cost
    free = sum(not group.frozen for group in inspection.groups)
    rows = (
        ("MACs", fmt.count(cost.macs)),
        ("parameters", fmt.count(cost.params)),
        ("file size", fmt.size(cost.size)),
        ("groups that can be pruned", f"{free} of {len(inspection.groups)}"),
        ("MACs within their reach", fmt.percent(inspection.reach)),
    )
    return Table("Model", (Column(""), Column("", True)), rows, f"{MACS}. Latency is measured by prune and compare.")


def widths_table(groups: Iterable[GroupRow]) -> Table:
    """Groups that can be pruned, before and after."""
    free = tuple(group for group in groups if not group.frozen)
    cut = sum(group.kept < group.width for group in free)
    return Table(
        f"Groups: {cut} of {len(free)} pruned",
        (*_WHOSE, Column("channels", True), Column("kept", True), Column("", True), *_COSTS),
        tuple(
            (*_whose(group), str(group.width), str(group.kept), fmt.ratio(group.width, group.kept), *_costs(group))
            for group in free
        ),
        f"MACs and parameters of the original layers that make or read the channels; {MACS}.",
    )


def free_table(groups: Iterable[GroupRow]) -> Table:
    """Groups that can be pruned."""
    free = tuple(group for group in groups if not group.frozen)
    return Table(
        f"Groups that can be pruned: {len(free)}",
        (*_WHOSE, Column("channels", True), *_COSTS),
        tuple((*_whose(group), str(group.width), *_costs(group)) for group in free),
        f"MACs and parameters of the layers that make or read the channels; {MACS}.",
    )


def prunability_table(found: Prunability) -> Table:
    """The fewest channels of each group, and the smallest share of the parameters."""
    rows = tuple(
        (group.name, str(group.width), str(group.kept), fmt.ratio(group.width, group.kept)) for group in found.groups
    )
    return Table(
        f"Prunability: {fmt.percent(found.params)} of the parameters are needed",
        (Column("group, if cut alone"), Column("channels", True), Column("needed", True), Column("", True)),
        rows,
        "Layers are refitted quickly here: prune loses less. The share of parameters was measured; channels of a group "
        "are predicted from its error path, at the error in the outputs that was predicted of the network measured.",
    )


def prunability_facts(found: Prunability) -> tuple[str, ...]:
    """What the shares mean and where they are from."""
    return tuple(_drop_facts(found.search))


def frozen_table(groups: Iterable[GroupRow]) -> Table:
    """Groups left alone, and why."""
    frozen = tuple(group for group in groups if group.frozen)
    return Table(
        f"Groups left alone: {len(frozen)}",
        (Column("group"), Column("channels", True), Column("MACs", True), Column("why")),
        tuple((group.name, str(group.width), fmt.count(group.macs), group.frozen) for group in frozen),
        f"{MACS}." if frozen else "",
    )


def frontier_table(frontier: Frontier) -> Table:
    """Cost and quality of every budget of a sweep."""
    before, rows = frontier.before, []
    for index, point in enumerate(frontier.points):
        cost, compared = point.cost, point.comparison
        rows.append(
            (
                point.target,
                fmt.ratio(before.macs, cost.macs),
                fmt.ratio(before.params, cost.params),
                fmt.ratio(before.size, cost.size),
                fmt.ratio(compared.latency[0].original_ms, compared.latency[0].pruned_ms)
                if compared.latency
                else fmt.NONE,
                fmt.error(max((output.relative for output in compared.outputs), default=0.0)),
                fmt.percent(compared.agreement),
                fmt.percent(compared.accuracy_pruned),
                point.output or ("knee" if index == frontier.knee else ""),
            )
        )
    names = ("MACs", "parameters", "file size", "latency", "output error", "same top class", "accuracy")
    refit = "" if frontier.written else " Layers are refitted quickly here: prune, or --write, gives more accuracy."
    return Table(
        "Frontier",
        (Column("target"), *(Column(name, True) for name in names), Column("")),
        tuple(rows),
        f"{MACS}. Costs over those of the original.{refit} {_how_compared(frontier.points[0].comparison)}",
    )


def sweep_facts(frontier: Frontier) -> tuple[str, ...]:
    """Lines under the frontier: the knee, the time taken, the notes."""
    lines = []
    if frontier.knee is not None:
        lines.append(f"Knee: {frontier.points[frontier.knee].target}; a smaller model loses more than it saves.")
    if frontier.seconds:
        lines.append(f"Time: {fmt.seconds(sum(frontier.seconds.values()))}.")
    return (*lines, *frontier.notes)


def weights_table(report: Calibrated) -> Table:
    """Groups that were measured, and what their errors do to the outputs."""
    return Table(
        f"Groups measured: {len(report.groups)}",
        (Column("group"), Column("channels", True), Column("sensitivity", True)),
        tuple((group.name, str(group.width), f"{group.weight:.3g}") for group in report.groups),
        "Sensitivity: relative squared error of the outputs (of class scores, the highest) per unit of the group's "
        "own error.",
    )


def calibration_facts(report: Calibrated) -> tuple[str, ...]:
    """Lines under the groups: the samples, the file, the time taken, the notes."""
    lines = [f"Measured {report.layers} layers on {report.data}."]
    if report.output:
        lines.append(f"File: {fmt.size(report.size)}.")
    return (*lines, f"Time: {fmt.seconds(sum(report.seconds.values()))}.", *report.notes)


def facts(summary: Summary) -> tuple[str, ...]:
    """Lines under the tables: the wiring check, the time taken, and the notes of the run."""
    lines = [f"Wiring check: the outputs differ by at most {fmt.error(summary.wiring_error)}, relative."]
    if summary.seconds:
        stages = ", ".join(f"{stage} {fmt.seconds(seconds)}" for stage, seconds in summary.seconds.items())
        lines.append(f"Time: {fmt.seconds(sum(summary.seconds.values()))} ({stages}).")
    if summary.latency is not None and summary.latency.trials:
        ratios = ", ".join(f"{latency.ratio:.3f}" for latency in summary.latency.trials)
        lines.append(f"Latency over that of the original, of every network measured on the way: {ratios}.")
    if summary.latency is not None and summary.latency.source:
        lines.append(f"The latency target is predicted from {summary.latency.source}; no such device was measured.")
    if summary.drop is not None:
        lines += _drop_facts(summary.drop)
    return (*lines, *summary.notes)


def _drop_facts(drop: DropSearch) -> list[str]:
    """What a drop was decided on, what it is worth, and what was tried."""
    judged, tried = drop.judged, ", ".join(f"{t.share:.3f}: {_lost(drop, t.drop)}" for t in drop.trials)
    unit = "points of " if drop.share else "of "
    surely = (
        "no bound follows from a metric that gives one number."
        if judged.bound is None
        else f"at 95 % confidence it falls by less than {_lost(drop, judged.bound)}{' points' if drop.share else ''}."
    )
    of = "points lost" if drop.share else "what was lost"
    return [
        f"Drop: {_lost(drop, drop.decided.drop)} {unit}{drop.metric} on the {drop.decided.samples} samples that "
        f"decided, {_lost(drop, drop.asked)} allowed; {_lost(drop, judged.drop)} on {judged.samples} others, which had "
        f"no part in it: {surely}",
        f"{len(drop.trials)} networks were tried, {_KINDS[drop.swept]} kept and {of}: {tried}.",
    ]


def check_commands(original: str, pruned: str) -> tuple[str, ...]:
    """Shell commands that check the result with polygraphy, on random inputs.

    The first runs the original and saves inputs and outputs, the second runs the pruned model on the same inputs and
    fails where an output holds NaN or the median relative difference is above a tenth.
    """
    files = "inputs.json", "outputs.json"
    first = ["polygraphy", "run", original, "--onnxrt", "--save-inputs", files[0], "--save-outputs", files[1]]
    second = ["polygraphy", "run", pruned, "--onnxrt", "--load-inputs", files[0], "--load-outputs", files[1]]
    return shlex.join(first), shlex.join([*second, "--validate", "--check-error-stat", "median", "--rtol", "0.1"])


_KINDS = {"macs": "MACs", "params": "parameters"}
_WHOSE = (Column("group"), Column("made by"), Column("read by"))
_COSTS = (Column("MACs", True), Column("parameters", True))
_BEFORE_AFTER = (Column(""), Column("before", True), Column("after", True), Column("after / before", True))


def _whose(group: GroupRow) -> tuple[str, str, str]:
    return group.name, _first(group.made_by), _first(group.read_by)


def _first(names: tuple[str, ...]) -> str:
    """The first name and how many more there are."""
    return f"{names[0]} +{len(names) - 1}" if len(names) > 1 else "".join(names)


def _costs(group: GroupRow) -> tuple[str, str]:
    return fmt.count(group.macs), fmt.count(group.params)


def _cost_rows(before: Cost, after: Cost) -> list[tuple[str, ...]]:
    file_sizes = (fmt.size(after.size), fmt.ratio(before.size, after.size)) if after.size else ("not written", fmt.NONE)
    return [
        ("MACs", fmt.count(before.macs), fmt.count(after.macs), fmt.ratio(before.macs, after.macs)),
        ("parameters", fmt.count(before.params), fmt.count(after.params), fmt.ratio(before.params, after.params)),
        ("file size", fmt.size(before.size), *file_sizes),
    ]


def _comparison_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    rows = [_latency_row(latency) for latency in comparison.latency]
    if comparison.agreement is not None:
        rows.append(("same top class", fmt.NONE, fmt.percent(comparison.agreement), fmt.NONE))
    before, after = comparison.accuracy_original, comparison.accuracy_pruned
    if before is not None and after is not None:
        rows.append(("accuracy", fmt.percent(before), fmt.percent(after), fmt.points(before, after)))
    return rows


def _drop_rows(drop: DropSearch) -> list[tuple[str, ...]]:
    named = (f"{drop.metric}, deciding", drop.decided), (f"{drop.metric}, others", drop.judged)
    if not drop.share:
        return [(name, f"{d.before:.4g}", f"{d.after:.4g}", f"{d.after - d.before:+.4g}") for name, d in named]
    return [(name, fmt.percent(d.before), fmt.percent(d.after), fmt.points(d.before, d.after)) for name, d in named]


def _lost(drop: DropSearch, amount: float) -> str:
    return f"{100 * amount:.2f}" if drop.share else f"{amount:.4g}"


def _latency_row(latency: Latency) -> tuple[str, ...]:
    before, after = latency.original_ms, latency.pruned_ms
    return (
        f"latency, batch {latency.batch}",
        fmt.milliseconds(before),
        fmt.milliseconds(after),
        fmt.ratio(before, after),
    )


def _predicted_row(search: LatencySearch) -> tuple[str, ...]:
    before, after = search.original_ms, search.predicted_ms
    name = f"latency, batch {search.batch}, predicted" + (" for the device" if search.source else "")
    return (name, fmt.milliseconds(before), fmt.milliseconds(after), fmt.ratio(before, after))


def _how_compared(comparison: Comparison) -> str:
    text = f"Compared on {comparison.samples} samples of {comparison.data}"
    if comparison.providers:
        providers = ", ".join(name.removesuffix("ExecutionProvider") for name in comparison.providers)
        text += f", run by onnxruntime on {providers}"
    if comparison.latency:
        rounds = min(latency.rounds for latency in comparison.latency)
        spread = max(latency.spread for latency in comparison.latency)
        text += f"; latency is the median of {rounds} turns of each model, taken alternately"
        text += f", half of their ratios within ±{100 * spread:.1f} %"
        if spread >= BUSY:
            text += ": something else keeps this machine busy, so measure again (reap-onnx compare) when it is idle"
    return text + "."
