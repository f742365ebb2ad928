from __future__ import annotations

import dataclasses
import json

from reap_onnx.report.as_json import SCHEMA, dumps
from reap_onnx.report.summary import Comparison, Cost, GroupRow, Inspection, Latency, Summary


def refuse_constant(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def test_summary_round_trips(summary: Summary) -> None:
    read = json.loads(dumps(summary), parse_constant=refuse_constant)
    assert (read["schema"], read["kind"]) == (SCHEMA, "summary")
    assert read["macs_definition"] == "MACs of Conv, ConvTranspose, Gemm and MatMul at batch 1"
    assert Cost(**read["before"]) == summary.before
    groups = [
        GroupRow(**(group | {"made_by": tuple(group["made_by"]), "read_by": tuple(group["read_by"])}))
        for group in read["groups"]
    ]
    assert tuple(groups) == summary.groups
    assert read["seconds"] == summary.seconds
    assert tuple(Latency(**latency) for latency in read["comparison"]["latency"]) == summary.comparison.latency
    assert read["comparison"]["accuracy_pruned"] == 0.8612


def test_no_number_is_null(comparison: Comparison) -> None:
    read = json.loads(dumps(comparison), parse_constant=refuse_constant)
    assert read["outputs"][1] == {"name": "mask", "relative": None, "largest": None}


def test_keys_stand_in_the_order_of_the_fields(inspection: Inspection) -> None:
    keys = list(json.loads(dumps(inspection)))
    assert keys == ["schema", "kind", "macs_definition", *(field.name for field in dataclasses.fields(Inspection))]


def test_same_report_same_text(summary: Summary) -> None:
    assert dumps(summary) == dumps(dataclasses.replace(summary))
    assert dumps(summary).endswith("}\n")
