"""Times of single operators: within a model, as onnxruntime profiles it, and alone, at any width."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort

from reap_onnx.data.times import LAYERS
from reap_onnx.errors import OutputError
from reap_onnx.model.operator import Operator
from reap_onnx.model.save import write_text
from reap_onnx.runtime.session import Session, find_providers

FORMAT = 1  # of the cache: grows when what is timed, or how, changes
CACHE = "REAP_ONNX_CACHE"  # environment variable: the folder that times are kept in
_RUNS, _SECONDS, _MOST = 7, 0.03, 60  # runs at least, seconds to fill with them, runs at most
_COLD = 2  # first runs, which do not count
_LEAST = 1e-4  # milliseconds: whole microseconds are counted, so that a quick operator takes none
_START = 0.005  # milliseconds that starting an operator takes at most
_BEFORE, _AFTER = "ReorderInput", "ReorderOutput"  # change the layout of data: NCHW, or blocks of channels


_REFERENCE = Operator("Conv", (), 13, 7, "float32", (1, 64, 28, 28), (64, 64, 3, 3), bias=True)


@dataclass(frozen=True)
class Profile:
    """Milliseconds of one run of a model: all of it, its layers (Conv, Gemm, MatMul), its other operators."""

    run: float
    layers: float
    others: float


def profile_model(
    model: onnx.ModelProto | Path, feeds: Mapping[str, np.ndarray], providers: Sequence[str] = ("cpu",)
) -> Profile:
    """Where the time of a model goes; the run as a whole is timed without the profiler, which takes time itself.

    Parameters
    ----------
    feeds
        Its inputs, as many samples as one run has.

    Raises
    ------
    ModelError
        The model does not run.
    """
    run = _typical(_run(Session(model, providers), feeds)) * 1e3
    layers, others = 0.0, 0.0
    kernels = _kernels(_run_profiled(model, feeds, providers))
    for (op, _), times in kernels.items():
        if any(name in op for name in LAYERS):
            layers += _typical(times) / 1e3
        else:
            others += _typical(times) / 1e3
    starting = min(max(run - layers - others, 0.0), _START * len(kernels))
    share = (run - starting) / max(layers + others, 1e-9)
    return Profile(run, layers * share, others * share)


class Timing(NamedTuple):
    """Milliseconds of one run of an operator alone, and of what changes the layout of its data before and after it.

    onnxruntime runs a convolution of suitable widths on blocks of channels. Alone it then has a change of layout at
    either end, in a row of its kind none; one of other widths has none alone, but among the others it needs both.
    """

    alone: float
    before: float = 0.0
    after: float = 0.0

    def among(self, others: Timing) -> float:
        """Milliseconds in a network whose layers run as ``others``, the same operator at full width, does."""
        needs = [
            there for here, there in ((self.before, others.before), (self.after, others.after)) if there and not here
        ]
        return self.alone + sum(needs)


class OperatorTimer:
    """Times operators alone in onnxruntime; a time that is known from earlier is not measured again.

    A machine is faster at one time than at another. So an operator runs in turns with a reference, always the same one,
    and its time is divided by how much slower the reference is than it was at first.

    Times are kept in a file for each version of onnxruntime, processor, number of cores and providers. A file that
    cannot be read, and entries that are no times, are forgotten.

    Parameters
    ----------
    providers
        Execution providers, as for :class:`Session`.
    folder
        Where times are kept: by default ``$REAP_ONNX_CACHE``, else the user's folder for caches.
    """

    def __init__(self, providers: Sequence[str] = ("cpu",), folder: Path | None = None) -> None:
        self._providers = tuple(providers)
        self._environment = _environment(providers)
        name = hashlib.sha256(json.dumps(self._environment, sort_keys=True).encode()).hexdigest()[:16]
        self.file = (folder or cache_folder()) / f"latency-{name}.json"
        self._new = False

    @cached_property
    def _reference(self) -> Session:
        return Session(_REFERENCE.model(), self._providers)

    @cached_property
    def _kept(self) -> tuple[float, dict[str, Timing]]:
        """Seconds of the reference, and the times known: read, or begun, when the first time is asked for."""
        return self._read()

    def __call__(self, operator: Operator) -> Timing:
        """How long an operator takes.

        Raises
        ------
        ModelError
            onnxruntime does not run it.
        """
        key = operator.key
        pace, known = self._kept
        if key not in known:
            paces: list[float] = []
            events = _run_profiled(
                operator.model(), operator.feeds(), self._providers, lambda: paces.append(self._time_reference())
            )
            slow = _typical(paces[_COLD:]) / pace
            times = {op: _typical(of_node) / 1e3 / slow for (op, _), of_node in _kernels(events).items()}
            before, after = times.pop(_BEFORE, 0.0), times.pop(_AFTER, 0.0)
            known[key] = Timing(max(sum(times.values()), _LEAST), before, after)
            self._new = True
        return known[key]

    def save(self) -> None:
        """Keep the times for the next run, with those kept meanwhile by others; a full disk is no reason to fail."""
        if not self._new:
            return
        pace, times = self._kept
        known = self._read()[1] | times
        document = {
            "format": FORMAT,
            "environment": self._environment,
            "reference_seconds": pace,
            "milliseconds": known,
        }
        with contextlib.suppress(OSError, OutputError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(document, indent=0, sort_keys=True) + "\n")
        self._new = False

    def _time_reference(self) -> float:
        """Seconds of one run of the reference now."""
        start = time.perf_counter()
        self._reference.run(_REFERENCE.feeds())
        return time.perf_counter() - start

    def _read(self) -> tuple[float, dict[str, Timing]]:
        """Seconds of the reference when the times were taken, and the times; none, and how long it takes now."""
        try:
            document = json.loads(self.file.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["environment"] != self._environment:
                raise ValueError("times of another machine")
            pace = float(document["reference_seconds"])
            known = {key: Timing(*map(float, times)) for key, times in document["milliseconds"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pace, known = 0.0, {}
        if not 0 < pace < math.inf:
            pace, known = _typical([self._time_reference() for _ in range(_MOST)][_COLD:]), {}
        return pace, {key: t for key, t in known.items() if all(map(math.isfinite, t)) and t.alone > 0 and min(t) >= 0}


def cache_folder() -> Path:
    """Where measured times are kept from run to run."""
    if given := os.environ.get(CACHE):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "reap-onnx"


def _environment(providers: Sequence[str]) -> dict[str, Any]:
    """What a time depends on besides the operator."""
    return {
        "onnxruntime": ort.__version__,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "providers": find_providers(providers),
    }


def _processor() -> str:
    """Name of the processor with its instruction sets, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    told = dict.fromkeys(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
    return hashlib.sha256("".join([platform.machine(), platform.processor(), *told]).encode()).hexdigest()[:16]


def _run_profiled(
    model: onnx.ModelProto | Path,
    feeds: Mapping[str, np.ndarray],
    providers: Sequence[str],
    between: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """What onnxruntime has timed in some runs of a model; ``between`` is called after each."""
    with tempfile.TemporaryDirectory(prefix="reap-onnx-") as folder:
        session = Session(model, providers, profile=str(Path(folder) / "profile"))
        _run(session, feeds, between)
        return session.events()


def _run(session: Session, feeds: Mapping[str, np.ndarray], between: Callable[[], None] = lambda: None) -> list[float]:
    """Run a model as often as it takes to time it, and twice before; seconds of each run."""
    inputs, times = dict(feeds), list[float]()
    for _ in range(_COLD):
        session.run(inputs)
        between()
    end = time.perf_counter() + _SECONDS
    while len(times) < _RUNS or (len(times) < _MOST and time.perf_counter() < end):
        start = time.perf_counter()
        session.run(inputs)
        times.append(time.perf_counter() - start)
        between()
    return times


def _kernels(events: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """Microseconds of each node in every run but the first two, by operator and name."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["args"]["op_name"], event["name"]].append(float(event["dur"]))
    return {node: times[_COLD:] for node, times in found.items()}


def _typical(times: Sequence[float]) -> float:
    """The lower quartile: what lies above it is owed to something else on the machine."""
    return float(np.quantile(times, 0.25))
