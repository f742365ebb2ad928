"""Times of the parts of a network on another device, as the user brings them."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from reap_onnx.errors import DataError

LAYERS = ("Conv", "Gemm", "MatMul")  # part of the name of every operator that mixes channels
_HINT = "a CSV with the columns name,ms, a JSON of them, of trtexec --exportProfile, or a profile of onnxruntime"
_COLUMNS = ("ms", "medianMs", "averageMs")
_UNREADABLE = (
    ValueError, LookupError, StopIteration, TypeError, AttributeError, RecursionError, OverflowError, csv.Error
)  # fmt: skip
_KERNEL = "_kernel_time"
_RENAMED = "_nchwc"  # what onnxruntime adds to the name of an operator that runs on blocks of channels


class Time(NamedTuple):
    """Milliseconds of one run of a part of a network.

    ``names`` are nodes, or tensors that they make; ``layer`` says that the part is known to be a layer, and what else
    it is made of.
    """

    names: tuple[str, ...]
    ms: float
    layer: bool = False


def read_times(path: Path) -> list[Time]:
    """Times from a file, one for each of its rows.

    * CSV with a header, columns ``name`` and ``ms`` among others.
    * JSON: ``{name: ms}``, or a list of ``{"name": ..., "ms": ...}``.
    * JSON of ``trtexec --exportProfile``: names of nodes that were fused are joined by `` + ``; medians, where it has
      them, else means.
    * The profile that onnxruntime writes: for every kernel the median of its runs.

    Raises
    ------
    DataError
        The file cannot be read or holds no times.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        times = list(_from_csv(text)) if path.suffix.lower() == ".csv" else list(_from_json(json.loads(text)))
    except OSError as error:
        raise DataError(f"--latency-table {path} cannot be read: {error.strerror}", "check the path") from error
    except _UNREADABLE as error:
        raise DataError(f"--latency-table {path} is no table of times", _HINT) from error
    if not times or not all(math.isfinite(time.ms) and time.ms >= 0 for time in times):
        raise DataError(f"--latency-table {path} holds no times, or some that are none", _HINT)
    if not any(time.ms for time in times):
        raise DataError(f"--latency-table {path} holds no time above zero", _HINT)
    return times


def _from_csv(text: str) -> Iterator[Time]:
    for row in csv.DictReader(text.splitlines()):
        yield Time(_split(row["name"]), float(row["ms"]))


def _from_json(document: Any) -> Iterable[Time]:
    if isinstance(document, dict):
        return [Time(_split(name), float(ms)) for name, ms in document.items()]
    if any("cat" in row for row in document):
        return _from_events(document)
    return [Time(_split(row["name"]), _milliseconds(row)) for row in document if "name" in row]


def _from_events(events: list[dict[str, Any]]) -> Iterator[Time]:
    """Kernels of a profile of onnxruntime; one that does the work of several nodes is named after the last tensor."""
    runs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            runs[event["name"].removesuffix(_KERNEL), event["args"]["op_name"]].append(float(event["dur"]) / 1e3)
    for (name, op), times in runs.items():
        yield Time((name.removesuffix(_RENAMED),), median(times), any(part in op for part in LAYERS))


def _milliseconds(row: dict[str, Any]) -> float:
    return float(next(row[key] for key in _COLUMNS if key in row))


def _split(name: str) -> tuple[str, ...]:
    """Names of the nodes that run as one."""
    return tuple(part.strip() for joined in name.split(" + ") for part in joined.split(" || "))
