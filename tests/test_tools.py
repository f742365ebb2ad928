"""Every tool starts: what it takes from the package is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
