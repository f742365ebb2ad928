"""Reports for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from reap_onnx.report.summary import Calibrated, Comparison, Frontier, Inspection, Report, Summary
from reap_onnx.report.tables import MACS

SCHEMA = 4  # grows with every change that a reader of the file could notice

_KINDS: dict[type, str] = {
    Summary: "summary",
    Inspection: "inspection",
    Comparison: "comparison",
    Frontier: "frontier",
    Calibrated: "calibration",
}


def dumps(report: Report) -> str:
    """Report as JSON text that ends in a newline.

    The keys ``schema``, ``kind`` and ``macs_definition`` come first, then the fields of the dataclass in the order
    they are declared in, and for a frontier the index of its ``knee``; NaN and infinities, which JSON has no words for,
    become ``null``.
    """
    head = {"schema": SCHEMA, "kind": _KINDS[type(report)], "macs_definition": MACS}
    more = {"knee": report.knee} if isinstance(report, Frontier) else {}
    return json.dumps(head | _plain(report) | more, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
