from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reap_onnx.cli import main

RNG = np.random.default_rng(3)


def write_model(path: Path) -> None:
    """A chain of three convolutions and a classifier of five classes; images of 3 x 8 x 8."""
    widths = (3, 12, 16, 12)
    nodes, weights, tensor = [], [], "image"
    for i, (before, after) in enumerate(pairwise(widths)):
        weights.append((f"w{i}", RNG.standard_normal((after, before, 3, 3)) / np.sqrt(9 * before)))
        weights.append((f"b{i}", 0.1 * RNG.standard_normal(after)))
        nodes += [
            helper.make_node("Conv", [tensor, f"w{i}", f"b{i}"], [f"c{i}"], name=f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"),
        ]
        tensor = f"r{i}"
    weights.append(("head", RNG.standard_normal((widths[-1], 5))))
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "head"], ["scores"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verbs")
    write_model(folder / "net.onnx")
    images = RNG.standard_normal((60, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "samples.npz", image=images, labels=RNG.integers(0, 5, 60))
    return folder


@pytest.fixture(autouse=True)
def work_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


PRUNE = ["prune", "net.onnx", "--data", "samples.npz", "--macs", "0.5"]


def read_json(capsys: pytest.CaptureFixture[str], argv: list[str]) -> dict[str, Any]:
    assert main([*argv, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document: dict[str, Any] = json.loads(out)
    return document


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    found = read_json(capsys, ["inspect", "net.onnx"])
    assert found["kind"] == "inspection"
    assert sorted(group["width"] for group in found["groups"] if not group["frozen"]) == [12, 12, 16]
    frozen = read_json(capsys, ["inspect", "net.onnx", "--freeze", "conv1"])
    assert sorted(group["width"] for group in frozen["groups"] if not group["frozen"]) == [12, 12]
    assert main(["inspect", "net.onnx", "-q"]) == 0
    assert "Groups that can be pruned: 3" in capsys.readouterr().out


def test_prune_writes_model_and_reports(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    argv = [*PRUNE, "-o", "pruned.onnx", "--report", "out.html", "--report", "out.json"]
    summary = read_json(capsys, argv)
    assert summary["after"]["macs"] <= summary["before"]["macs"] / 2
    assert summary["comparison"]["accuracy_original"] is not None
    assert onnx.load(place / "pruned.onnx").graph.output[0].name == "scores"
    assert json.loads((place / "out.json").read_text(encoding="utf-8"))["groups"] == summary["groups"]
    assert "pruned.onnx" in (place / "out.html").read_text(encoding="utf-8")

    written = (place / "pruned.onnx").read_bytes()
    assert main([*PRUNE, "-o", "pruned.onnx"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err
    assert "--force" in err
    assert (place / "pruned.onnx").read_bytes() == written
    assert main([*PRUNE, "-o", "pruned.onnx", "--force", "-q"]) == 0
    assert (place / "pruned.onnx").read_bytes() == written
    assert "MACs of Conv, ConvTranspose, Gemm and MatMul at batch 1" in capsys.readouterr().out


def test_apply_replays_a_dry_run_bit_for_bit(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    read_json(capsys, [*PRUNE, "--dry-run", "--plan", "plan.json"])
    assert not (place / "dry.onnx").exists()
    read_json(capsys, ["apply", "net.onnx", "plan.json", "-o", "applied.onnx"])
    read_json(capsys, [*PRUNE, "-o", "direct.onnx"])
    assert (place / "applied.onnx").read_bytes() == (place / "direct.onnx").read_bytes()


def test_compare(capsys: pytest.CaptureFixture[str]) -> None:
    compared = read_json(capsys, ["compare", "net.onnx", "net.onnx", "--data", "samples.npz", "--latency-batch", "4"])
    assert compared["agreement"] == 1.0
    assert compared["samples"] == 60
    assert compared["outputs"] == [{"name": "scores", "relative": 0.0, "largest": 0.0}]
    assert [latency["batch"] for latency in compared["latency"]] == [4]


@pytest.mark.parametrize(
    ("argv", "status", "name"),
    [
        (["inspect", "missing.onnx"], 1, "missing.onnx"),
        (["prune", "net.onnx", "--data", "missing.npz", "--macs", "0.5", "-o", "failed.onnx"], 1, "missing.npz"),
        (["prune", "net.onnx", "--data", "samples.npz", "--params", "2", "-o", "failed.onnx"], 3, "--params keeps"),
        ([*PRUNE, "-o", "failed.onnx", "--report", "out.pdf"], 2, "out.pdf"),
        ([*PRUNE, "-o", "net.onnx", "--force"], 1, "net.onnx"),
        (["apply", "net.onnx", "samples.npz", "-o", "failed.onnx"], 1, "samples.npz"),
    ],
)
def test_failures_are_said_in_a_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], place: Path, argv: list[str], status: int, name: str
) -> None:
    before = (place / "net.onnx").read_bytes()
    assert main([*argv, "-q"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert name in err
    assert err.count("\n") <= 2
    assert not (place / "failed.onnx").exists()
    assert (place / "net.onnx").read_bytes() == before
