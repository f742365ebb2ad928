"""Reports on a terminal."""

from __future__ import annotations

from typing import Literal, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from reap_onnx.report import tables
from reap_onnx.report.summary import Calibrated, Comparison, Frontier, Inspection, Report, Summary
from reap_onnx.report.tables import Table

_NARROWEST = 140  # columns, where no terminal says how many there are


def console_for(stream: TextIO) -> Console:
    """Console on a stream; as wide as the terminal, and wide enough for whole rows where there is none."""
    return Console(file=stream) if stream.isatty() else Console(file=stream, width=_NARROWEST)


def print_report(report: Report, stream: TextIO) -> None:
    """Print any report; commands to copy are left in one piece, however long."""
    console_for(stream).print(render(report), crop=False)


def render(report: Report) -> RenderableType:
    """Any report, as rich shows it; names from the model are never read as markup."""
    match report:
        case Summary():
            return render_summary(report)
        case Inspection():
            return render_inspection(report)
        case Comparison():
            return render_comparison(report)
        case Frontier():
            return render_frontier(report)
        case Calibrated():
            return render_calibrated(report)


def render_summary(summary: Summary) -> RenderableType:
    """Result, groups, groups left alone and why, and how to check the file."""
    parts: list[RenderableType] = [
        _heading(summary.source, summary.output, summary.target),
        _table(tables.result_table(summary)),
    ]
    if summary.comparison is not None:
        parts.append(_table(tables.outputs_table(summary.comparison)))
    parts.append(_table(tables.widths_table(summary.groups)))
    frozen = tables.frozen_table(summary.groups)
    if frozen.rows:
        parts.append(_table(frozen))
    parts += _lines(tables.facts(summary))
    if summary.output:
        parts.append(Text("\nCheck it with polygraphy, on random inputs:", style="bold"))
        commands = tables.check_commands(summary.source, summary.output)
        parts += [Text(f"  {line}", no_wrap=True, overflow="ignore") for line in commands]
    return Group(*parts)


def render_inspection(inspection: Inspection) -> RenderableType:
    """Cost and reach, groups that can be pruned, groups that cannot and why."""
    parts: list[RenderableType] = [
        Text(inspection.source, style="bold"),
        _table(tables.cost_table(inspection)),
        _table(tables.free_table(inspection.groups)),
    ]
    frozen = tables.frozen_table(inspection.groups)
    if frozen.rows:
        parts.append(_table(frozen))
    if (found := inspection.prunability) is not None:
        parts += [_table(tables.prunability_table(found)), *_lines(tables.prunability_facts(found))]
    return Group(*parts, *_lines(inspection.notes))


def render_comparison(comparison: Comparison) -> RenderableType:
    """Latency, agreement and accuracy, and how far each output moved."""
    return Group(_table(tables.comparison_table(comparison)), _table(tables.outputs_table(comparison)))


def render_frontier(frontier: Frontier) -> RenderableType:
    """Cost and quality of every budget, and the knee."""
    return Group(
        Text(frontier.source, style="bold"),
        _table(tables.frontier_table(frontier)),
        *_lines(tables.sweep_facts(frontier)),
    )


def render_calibrated(report: Calibrated) -> RenderableType:
    """What was measured, and where it lies."""
    return Group(
        Text.assemble((report.source, "bold"), " -> ", (report.output or "nothing written", "bold")),
        _table(tables.weights_table(report)),
        *_lines(tables.calibration_facts(report)),
    )


def _heading(source: str, output: str, target: str) -> Text:
    return Text.assemble((source, "bold"), " -> ", (output or "nothing written", "bold"), f", target {target}")


def _table(table: Table) -> RenderableType:
    rich = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_header=any(column.name for column in table.columns))
    for column in table.columns:
        justify: Literal["left", "right"] = "right" if column.number else "left"
        rich.add_column(Text(column.name), justify=justify, overflow="fold", no_wrap=column.number)
    for row in table.rows:
        rich.add_row(*(Text(cell) for cell in row))
    note = (Text(table.note, style="dim"),) if table.note else ()
    return Group(Text(f"\n{table.title}", style="bold"), *((rich,) if table.rows else ()), *note)


def _lines(texts: tuple[str, ...]) -> list[Text]:
    return [Text(""), *(Text(text) for text in texts)] if texts else []
