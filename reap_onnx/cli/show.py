"""Results on stdout."""

from __future__ import annotations

import sys

from reap_onnx.report import as_json
from reap_onnx.report.console import print_report
from reap_onnx.report.summary import Report


def show(report: Report, *, json: bool) -> None:
    """Print a report: tables for people, JSON for programs."""
    if json:
        sys.stdout.write(as_json.dumps(report))
    else:
        print_report(report, sys.stdout)
