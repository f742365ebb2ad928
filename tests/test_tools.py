"""Every tool starts: what it takes from the package is there. Results of benchmarks are kept, resumed and averaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from nets import CLASSES, residual_net

ROOT = Path(__file__).parent.parent
OTHERS = ("torch", "tensorflow", "paddle", "keras")  # frameworks that some tools export from


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_it_starts(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / tool), "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    lines = done.stderr.splitlines()
    if lines and lines[-1].startswith(tuple(f"ModuleNotFoundError: No module named '{name}" for name in OTHERS)):
        pytest.skip(lines[-1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and 40 photographs with labels."""
    folder = tmp_path_factory.mktemp("bench")
    onnx.save(residual_net(), folder / "net.onnx")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    rows = ["filename,label"]
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "photos" / f"{number:02}.png")
        rows.append(f"{number:02}.png,{number % CLASSES}")
    (folder / "photos/labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def bench(place: Path, *argv: str) -> str:
    command = [sys.executable, str(ROOT / "tools/bench_accuracy.py"), *argv]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, check=True).stdout


def test_an_accuracy_benchmark_is_resumed_and_averaged(place: Path) -> None:
    run = [
        "run",
        "--data",
        "photos",
        "--results",
        "r.jsonl",
        "--models",
        "net.onnx",
        "--macs",
        "0.6",
        "--samples",
        "20",
    ]
    assert len(bench(place, *run, "--variants", "fast", "--seeds", "0").splitlines()) == 1
    made = bench(place, *run, "--variants", "fast", "least ridges", "--seeds", "0", "1").splitlines()
    assert [(row["variant"], row["seed"]) for row in map(json.loads, made)] == [
        ("least ridges", 0), ("fast", 1), ("least ridges", 1),
    ]  # fmt: skip
    assert bench(place, *run, "--variants", "fast", "--seeds", "0", "--held-out").count("\n") == 1
    rows = [json.loads(line) for line in (place / "r.jsonl").read_text().splitlines()]
    drops = [row["drop"] for row in rows if row["variant"] == "fast" and not row["held_out"]]
    assert len(drops) == 2
    page = bench(place, "table", "r.jsonl")
    [line] = [line for line in page.splitlines() if line.startswith("| net |") and "| fast |" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[5:8] == [
        f"{np.mean(drops):.2f} ± {np.std(drops, ddof=1):.2f}",
        f"{np.mean([row['output_error'] for row in rows if row['variant'] == 'fast' and not row['held_out']]):.3f}",
        "2",
    ]


def test_what_is_held_out_is_neither_calibrated_on_nor_in_the_test(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from bench_accuracy import calibration_and_held_out, calibration_and_test

    given, held = calibration_and_held_out(place / "net.onnx", place / "photos", 20, 0)
    _, test = calibration_and_test(place / "net.onnx", place / "photos", 20, 0)
    parts = [{sample.tobytes() for sample in part.inputs["image"]} for part in (given, held, test)]
    assert [len(part) for part in parts] == [10, 10, 20]
    assert len(set.union(*parts)) == 40
    assert held.labels is None
