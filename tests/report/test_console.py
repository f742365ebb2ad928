from __future__ import annotations

import dataclasses
import io
import re

from reap_onnx.report.console import print_report
from reap_onnx.report.summary import Comparison, Inspection, Report, Summary


def shown(report: Report) -> str:
    stream = io.StringIO()
    print_report(report, stream)
    return stream.getvalue()


def has_row(text: str, *cells: str) -> bool:
    return re.search(r"\s{2,}".join(map(re.escape, cells)), text) is not None


def test_result_stands_before_and_after(summary: Summary) -> None:
    text = shown(summary)
    assert has_row(text, "MACs", "40.8 M", "20.4 M", "50.0 %")
    assert has_row(text, "parameters", "272 k", "136 k", "49.9 %")
    assert has_row(text, "file size", "1.13 MB", "564 kB", "50.0 %")
    assert has_row(text, "latency, batch 1", "2.00 ms", "1.00 ms", "50.0 %")
    assert has_row(text, "latency, batch 32", "0.0457 ms", "0.0321 ms", "70.3 %")
    assert has_row(text, "same top class", "-", "95.2 %", "-")
    assert has_row(text, "accuracy", "91.7 %", "86.1 %", "-5.6 points")
    assert has_row(text, "logits", "0.1235", "3.5000")
    assert "1.2e-06" in text
    assert "1 min 16 s (load 0.2 s, statistics 1 min 16 s)" in text


def test_macs_are_defined_and_latency_stands_beside(summary: Summary) -> None:
    flat = " ".join(shown(summary).split())
    assert "MACs of Conv, ConvTranspose, Gemm and MatMul at batch 1" in flat
    assert "500 samples of test.npz, 500 of 10000 samples, run by onnxruntime on CUDA, CPU" in flat
    assert "median of 18 turns of each model, taken alternately, half of their ratios within ±3.1 %." in flat
    unmeasured = shown(dataclasses.replace(summary, comparison=None))
    assert has_row(unmeasured, "latency", "not measured", "not measured", "-")


def test_a_busy_machine_is_said_to_be_busy(summary: Summary, comparison: Comparison) -> None:
    unsure = dataclasses.replace(comparison.latency[0], spread=0.4)
    text = shown(dataclasses.replace(summary, comparison=dataclasses.replace(comparison, latency=(unsure,))))
    assert "within ±40.0 %: something else keeps this machine busy" in " ".join(text.split())


def test_groups_and_the_reasons_of_those_left_alone(summary: Summary) -> None:
    text = shown(summary)
    assert "Groups: 1 of 2 pruned" in text
    assert has_row(text, "layer1.conv1", "layer1.conv1", "layer1.conv2 +2", "64", "32", "50.0 %")
    assert "Groups left alone: 1" in text
    assert has_row(text, "stem", "24", "9.00 M", "node 'odd' (<LSTM>) has no rule")


def test_names_are_not_markup(summary: Summary) -> None:
    text = shown(summary)
    assert "<b>&[red]" in text
    assert "a[0]" in text


def test_polygraphy_commands_quote_paths(summary: Summary) -> None:
    text = shown(summary)
    assert "polygraphy run 'my models/net.onnx' --onnxrt --save-inputs inputs.json" in text
    assert "polygraphy run net-pruned.onnx --onnxrt --load-inputs inputs.json --load-outputs outputs.json" in text
    assert "--validate --check-error-stat median --rtol 0.1\n" in text


def test_a_dry_run_says_that_nothing_is_written(summary: Summary) -> None:
    dry = dataclasses.replace(summary, output="", after=dataclasses.replace(summary.after, size=0))
    text = shown(dry)
    assert "nothing written" in text
    assert has_row(text, "file size", "1.13 MB", "not written", "-")
    assert "polygraphy" not in text


def test_inspection(inspection: Inspection) -> None:
    text = shown(inspection)
    assert has_row(text, "groups that can be pruned", "2 of 3")
    assert has_row(text, "MACs within their reach", "87.5 %")
    assert has_row(text, "layer1.conv1", "layer1.conv1", "layer1.conv2 +2", "64", "40.1 M", "36.9 k")
    assert "has no rule" in text
    assert "one note" in text
    assert "MACs of Conv, ConvTranspose, Gemm and MatMul at batch 1" in " ".join(text.split())


def test_comparison(comparison: Comparison) -> None:
    text = shown(comparison)
    assert has_row(text, "mask", "inf", "nan")
    assert has_row(text, "accuracy", "91.7 %", "86.1 %")
    plain = dataclasses.replace(comparison, agreement=None, accuracy_original=None, accuracy_pruned=None)
    assert "accuracy" not in shown(plain)
    assert "top class" not in shown(plain)


def test_long_names_lose_nothing_where_there_is_no_terminal(summary: Summary) -> None:
    name = "/model/" + "/".join(f"block{i}" for i in range(40))
    group = dataclasses.replace(summary.groups[0], name=name)
    text = shown(dataclasses.replace(summary, groups=(group,)))
    assert "\x1b" not in text
    rows = text[text.index("/model/block0") :].splitlines()
    assert "".join(row.split("  ")[0].strip() for row in rows).startswith(name)
    assert has_row(rows[0], "64", "32", "50.0 %", "40.1 M")
