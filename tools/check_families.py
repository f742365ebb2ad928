"""Prune every model in a folder, made by ``tools/families.py``, and print what came of it.

    python tools/check_families.py FOLDER [NAME ...]

A row for each: share of the MACs in layers that groups which can be pruned reach, MACs kept, largest difference of the
wiring check, seconds of ``inspect``; below it the groups that stay, and why. The exit status is 1 where a model is not
pruned to the target, or a group stays for lack of a rule.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from reap_onnx import PruneOptions, Target, inspect, prune
from reap_onnx.data.dataset import input_specs
from reap_onnx.errors import ReapError
from reap_onnx.model.load import load_model

MACS = 0.5
SAMPLES = 8


def check(path: Path) -> bool:
    """Print the row of a model; whether it could be pruned and nothing stays for lack of a rule."""
    start = time.perf_counter()
    inspection = inspect(path).inspection
    seconds = time.perf_counter() - start
    frozen = [group for group in inspection.groups if group.frozen]
    passed = not any("no rule" in group.frozen for group in frozen)
    name, _, exporter = path.stem.rpartition(".")
    try:
        with tempfile.TemporaryDirectory() as folder:
            options = PruneOptions(Target("macs", fraction=MACS), batch=4)
            summary = prune(path, samples(path), options, output=Path(folder) / "pruned.onnx").summary
        result = f"{summary.after.macs / summary.before.macs:.1%} | {summary.wiring_error:.1g}"
    except ReapError as error:
        passed, result = False, f"- | {error}"
    print(f"| {name} | {exporter} | {inspection.reach:.1%} | {result} | {seconds:.1f} |", flush=True)
    for group in frozen:
        print(f"    {group.name} ({group.width}): {group.frozen}")
    return passed


def samples(path: Path) -> dict[str, np.ndarray]:
    """Seeded noise for every input; sizes left open, but for the batch, are 1."""
    rng = np.random.default_rng(0)
    specs = input_specs(load_model(path).model)
    return {s.name: rng.standard_normal((SAMPLES, *(n or 1 for n in s.shape[1:]))).astype(s.dtype) for s in specs}


if __name__ == "__main__":
    print("| model | exporter | reach | MACs kept | wiring error | seconds of inspect |\n|---|---|---|---|---|---|")
    folder, *names = sys.argv[1:]
    models = [path for path in sorted(Path(folder).glob("*.onnx")) if not names or path.name.split(".")[0] in names]
    passed = [check(path) for path in models]
    sys.exit(0 if all(passed) else 1)
