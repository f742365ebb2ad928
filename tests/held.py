"""What onnxruntime has made and somebody still holds."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from reap_onnx.runtime.session import Session


def watch_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of earlier outputs that are still held whenever a session runs again; grows as sessions run."""
    made: list[weakref.ref[np.ndarray]] = []
    held: list[int] = []
    run = Session.run

    def watched(self: Session, *words: Any, **named: Any) -> dict[str, Any]:
        held.append(sum(array.nbytes for ref in made if (array := ref()) is not None))
        found = run(self, *words, **named)
        made.extend(weakref.ref(array) for array in found.values())
        return found

    monkeypatch.setattr(Session, "run", watched)
    return held
