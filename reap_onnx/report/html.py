"""Reports as one HTML file: no script, nothing loaded from anywhere."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reap_onnx.report import tables
from reap_onnx.report.summary import Frontier, GroupRow, Summary
from reap_onnx.report.tables import Table

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; } td { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
.note { opacity: .75; font-size: .9rem; max-width: 48rem; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; }
svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif; } text { fill: currentColor; }
"""


@dataclass(frozen=True)
class Markup:
    """HTML that is safe as it stands; any other text is escaped on its way into an element."""

    text: str


def element(name: str, attributes: Mapping[str, str | float], *children: Markup | str) -> Markup:
    """One element; attribute values and text children are escaped."""
    pairs = "".join(f' {key}="{html.escape(str(value))}"' for key, value in attributes.items())
    inside = "".join(child.text if isinstance(child, Markup) else html.escape(child) for child in children)
    return Markup(f"<{name}{pairs}>{inside}</{name}>")


def render(report: Summary | Frontier) -> str:
    """Whole page about a run."""
    if isinstance(report, Frontier):
        return _page(f"{report.source} swept", _frontier(report))
    return _page(f"{report.source} pruned", _story(report))


def _page(title: str, story: Iterable[Markup]) -> str:
    head = (
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        ),
        element("title", {}, title),
        element("style", {}, Markup(_STYLE)),
    )
    body = (element("h1", {}, title), *story)
    page = element("html", {"lang": "en"}, element("head", {}, *head), element("body", {}, *body))
    return f"<!doctype html>\n{page.text}\n"


def width_bars(groups: Iterable[GroupRow]) -> Markup:
    """One bar for each group that can be pruned: its whole length is the original width, the dark part what is kept."""
    free = [group for group in groups if not group.frozen]
    widest = max((group.width for group in free), default=1)
    rows = [_bar(group, row, _BAR_LENGTH / widest) for row, group in enumerate(free)]
    size = {"viewBox": f"0 0 {_BAR_START + _BAR_LENGTH + 120} {_BAR_STEP * len(free)}", "role": "img"}
    label = "channels kept of each group's original width"
    return element("svg", {**size, "aria-label": label, "width": _BAR_START + _BAR_LENGTH + 120}, *rows)


_BAR_START, _BAR_LENGTH, _BAR_STEP, _LABEL_LENGTH = 260, 480, 20, 38


def frontier_picture(frontier: Frontier) -> Markup:
    """Quality over cost, a point for each budget; the knee has a ring."""
    costs, qualities = [frontier.share(p) for p in frontier.points], [p.quality for p in frontier.points]
    low = min(qualities)
    span = max(max(qualities) - low, 1e-9)
    across = [_PLOT_LEFT + _PLOT_WIDTH * cost / max(*costs, 1.0) for cost in costs]
    down = [_PLOT_TOP + _PLOT_HEIGHT * (1 - (quality - low) / span) for quality in qualities]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    parts = [element("polyline", {"points": line, "fill": "none", "stroke": "#2f7ed8", "stroke-width": 2})]
    for index, (point, x, y) in enumerate(zip(frontier.points, across, down, strict=True)):
        spot = {"cx": f"{x:.1f}", "cy": f"{y:.1f}"}
        parts.append(element("circle", {**spot, "r": 4, "fill": "#2f7ed8"}, element("title", {}, point.target)))
        if index == frontier.knee:
            parts.append(element("circle", {**spot, "r": 9, "fill": "none", "stroke": "#d8562f", "stroke-width": 2}))
        label = {"x": f"{x:.1f}", "y": f"{y - 14:.1f}", "text-anchor": "middle"}
        parts.append(element("text", label, f"{point.quality:.1%}"))
        parts.append(element("text", {**label, "y": _PLOT_TOP + _PLOT_HEIGHT + 30}, f"{costs[index]:.2f}"))
    size = {"viewBox": f"0 0 {_PLOT_LEFT * 2 + _PLOT_WIDTH} {_PLOT_TOP + _PLOT_HEIGHT + 40}", "role": "img"}
    return element("svg", {**size, "aria-label": f"quality over {frontier.swept} kept", "width": 640}, *parts)


_PLOT_LEFT, _PLOT_TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 40, 40, 560, 260


def _frontier(frontier: Frontier) -> list[Markup]:
    return [
        element("p", {}, f"Quality over {frontier.swept} kept; the knee has a ring."),
        *_section(tables.frontier_table(frontier), frontier_picture(frontier)),
        *(element("p", {}, line) for line in tables.sweep_facts(frontier)),
    ]


def _story(summary: Summary) -> list[Markup]:
    written = summary.output or "nothing written"
    parts = [
        element("p", {}, f"Channels pruned without training. Target: {summary.target}. Output: {written}."),
        *_section(tables.result_table(summary)),
    ]
    if summary.comparison is not None:
        parts += _section(tables.outputs_table(summary.comparison))
    frozen = [group for group in summary.groups if group.frozen]
    bars = (width_bars(summary.groups),) if len(frozen) < len(summary.groups) else ()
    parts += _section(tables.widths_table(summary.groups), *bars)
    if frozen:
        parts += _section(tables.frozen_table(summary.groups))
    parts += [element("h2", {}, "The run"), *(element("p", {}, line) for line in tables.facts(summary))]
    if summary.output:
        commands = "\n".join(tables.check_commands(summary.source, summary.output))
        parts += [element("h2", {}, "Check it with polygraphy, on random inputs"), element("pre", {}, commands)]
    return parts


def _section(table: Table, *before: Markup) -> list[Markup]:
    parts = [element("h2", {}, table.title), *before, element("div", {"class": "scroll"}, _table(table))]
    return [*parts, element("p", {"class": "note"}, table.note)] if table.note else parts


def _table(table: Table) -> Markup:
    styles = [{"class": "number"} if column.number else {} for column in table.columns]
    heads = [element("th", style, column.name) for column, style in zip(table.columns, styles, strict=True)]
    rows = [
        element("tr", {}, *(element("td", style, cell) for cell, style in zip(row, styles, strict=True)))
        for row in table.rows
    ]
    return element("table", {}, element("thead", {}, element("tr", {}, *heads)), element("tbody", {}, *rows))


def _bar(group: GroupRow, row: int, scale: float) -> Markup:
    top, whole, kept = row * _BAR_STEP, group.width * scale, group.kept * scale
    name = group.name if len(group.name) <= _LABEL_LENGTH else "..." + group.name[3 - _LABEL_LENGTH :]
    bar = {"x": _BAR_START, "y": top + 3, "height": _BAR_STEP - 6}
    return element(
        "g",
        {},
        element("text", {"x": _BAR_START - 8, "y": top + 15, "text-anchor": "end"}, name),
        element("rect", {**bar, "width": f"{whole:.1f}", "fill": "#9999"}),
        element("rect", {**bar, "width": f"{kept:.1f}", "fill": "#2f7ed8"}),
        element("text", {"x": f"{_BAR_START + whole + 8:.1f}", "y": top + 15}, f"{group.width} -> {group.kept}"),
    )
