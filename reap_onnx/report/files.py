"""Reports as files, in the format that their names ask for."""

from __future__ import annotations

from pathlib import Path

from reap_onnx.errors import OutputError, UsageError
from reap_onnx.model.save import write_text
from reap_onnx.report import as_json, html
from reap_onnx.report.summary import Frontier, Summary

_FORMATS = {".html": html.render, ".json": as_json.dumps}


def check_report(path: Path) -> None:
    """See that a report can be written to ``path``, before a long run.

    Raises
    ------
    UsageError
        The name ends in neither ``.html`` nor ``.json``.
    OutputError
        The folder does not exist.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"--report {path} is of no known format", f"end the name in {' or '.join(_FORMATS)}")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write the report {path}: there is no folder {path.parent}", "create it first")


def write_report(summary: Summary | Frontier, path: Path) -> None:
    """Write a report, replacing an older one as a whole.

    Raises
    ------
    UsageError
        The name ends in neither ``.html`` nor ``.json``.
    OutputError
        The file cannot be written.
    """
    check_report(path)
    write_text(path, _FORMATS[path.suffix.lower()](summary))
