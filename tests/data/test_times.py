from __future__ import annotations

import json
from pathlib import Path

import pytest

from reap_onnx.data.times import Time, read_times
from reap_onnx.errors import DataError

TRTEXEC = [
    {"count": 100},
    {"name": "/1/Conv + /2/Relu", "timeMs": 150.0, "averageMs": 1.5, "medianMs": 1.25, "percentage": 60.0},
    {"name": "/3/Conv || /4/Conv", "timeMs": 50.0, "averageMs": 0.5, "percentage": 20.0},
    {"name": "Reformatting CopyNode for Input Tensor 0 to /1/Conv", "timeMs": 50.0, "averageMs": 0.5, "medianMs": 0.5},
]


def test_trtexec_joins_what_it_fused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(TRTEXEC))
    assert read_times(tmp_path / "t.json") == [
        Time(("/1/Conv", "/2/Relu"), 1.25),
        Time(("/3/Conv", "/4/Conv"), 0.5),
        Time(("Reformatting CopyNode for Input Tensor 0 to /1/Conv",), 0.5),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'name,calls,ms\nconv1,3,0.5\n"conv2, the second",1,2\n'),
        ("t.json", '{"conv1": 0.5, "conv2, the second": 2}'),
        ("t.json", '[{"name": "conv1", "ms": 0.5}, {"name": "conv2, the second", "ms": 2}]'),
    ],
)
def test_tables_of_the_user(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_times(tmp_path / name) == [Time(("conv1",), 0.5), Time(("conv2, the second",), 2.0)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", ""),
        ("t.csv", "name,seconds\na,1\n"),
        ("t.csv", "name,ms\na,fast\n"),
        ("t.csv", "name,ms\na,-1\n"),
        ("t.csv", "name,ms\na,nan\n"),
        ("t.json", "{"),
        ("t.json", "[]"),
        ("t.json", "3"),
        ("t.json", '[{"name": "a"}]'),
        ("t.json", '["a"]'),
        ("t.json", '{"a": [1]}'),
        ("t.json", '[{"count": 10}]'),
        ("t.json", '{"a": 1' + "0" * 400 + "}"),
        ("t.csv", "name,ms\na,0\nb,0\n"),
    ],
)
def test_files_that_hold_no_times(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="--latency-table"):
        read_times(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_times(tmp_path / "t.csv")
