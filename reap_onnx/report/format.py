"""Numbers for people."""

from __future__ import annotations

import math

NONE = "-"  # where there is nothing to show


def count(number: int) -> str:
    """``40813184`` as ``40.8 M``: three figures and a decimal prefix."""
    return _scaled(number, ("", " k", " M", " G", " T"))


def size(number: int) -> str:
    """``1127532`` bytes as ``1.13 MB``, decimal."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB"))


def percent(share: float | None) -> str:
    """``0.918`` as ``91.8 %``."""
    return NONE if share is None else f"{100 * share:.1f} %"


def points(before: float | None, after: float | None) -> str:
    """Difference of two shares, in percentage points with its sign."""
    return NONE if before is None or after is None else f"{100 * (after - before):+.1f} points"


def ratio(before: float, after: float) -> str:
    """What is left of ``before``, in percent; nothing can be left of nothing."""
    return percent(after / before) if before else NONE


def milliseconds(number: float) -> str:
    """Three figures: ``0.0213 ms``, ``21.3 ms``, ``213 ms``."""
    return f"{_three_figures(number)} ms"


def seconds(number: float) -> str:
    """``3.21 s``, ``1 min 16 s``, ``2 h 03 min``."""
    if number < 60:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def error(number: float) -> str:
    """A relative or absolute difference: two figures after the point, ``1.2e-06`` when small."""
    return f"{number:.4f}" if 1e-3 <= number < 1e4 else f"{number:.3g}"


def _scaled(number: int, prefixes: tuple[str, ...]) -> str:
    value, step = float(number), 0
    while abs(value) >= 999.5 and step < len(prefixes) - 1:
        value, step = value / 1000, step + 1
    return f"{number}{prefixes[0]}" if step == 0 else f"{_three_figures(value)}{prefixes[step]}"


def _three_figures(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = int(f"{value:.2e}".partition("e")[2])  # after rounding: 0.9999 counts as 1.00
    return f"{value:.{max(0, 2 - exponent)}f}"
