from __future__ import annotations

import json
from pathlib import Path

import pytest

from reap_onnx.errors import OutputError, UsageError
from reap_onnx.report.files import check_report, write_report
from reap_onnx.report.summary import Summary


def test_the_name_decides_the_format(tmp_path: Path, summary: Summary) -> None:
    write_report(summary, tmp_path / "out.html")
    write_report(summary, tmp_path / "out.JSON")
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads((tmp_path / "out.JSON").read_text(encoding="utf-8"))["kind"] == "summary"


def test_an_older_report_is_replaced_and_nothing_is_left_over(tmp_path: Path, summary: Summary) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    write_report(summary, path)
    assert path.read_text(encoding="utf-8").startswith("{")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_what_cannot_be_written_is_known_before(tmp_path: Path, summary: Summary) -> None:
    with pytest.raises(UsageError, match=r"out\.pdf is of no known format") as caught:
        check_report(tmp_path / "out.pdf")
    assert ".html or .json" in caught.value.hint
    with pytest.raises(OutputError, match="there is no folder"):
        check_report(tmp_path / "missing" / "out.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OutputError, match=r"folder\.html: cannot be written"):
        write_report(summary, tmp_path / "folder.html")
