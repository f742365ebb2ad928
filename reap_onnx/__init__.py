"""Channel pruning for ONNX models, without training.

The verbs of the command ``reap-onnx`` as functions, their options and results as frozen dataclasses.
"""

from __future__ import annotations

from reap_onnx.data.images import ImageOptions
from reap_onnx.errors import (
    CheckError,
    ClusterError,
    DataError,
    LatencyError,
    ModelError,
    OutputError,
    PlanError,
    ReapError,
    StatsError,
    TargetError,
    UsageError,
)
from reap_onnx.options import EFFORTS, MaxDrop, Method, PruneOptions, Target
from reap_onnx.outcome import PruneResult
from reap_onnx.overrides import Override
from reap_onnx.pipeline import (
    CalibrateResult,
    InspectResult,
    apply,
    calibrate,
    compare,
    demo,
    inspect,
    prune,
    sweep,
)
from reap_onnx.plan import Plan
from reap_onnx.report.summary import Comparison, Frontier
from reap_onnx.stats import Stats
from reap_onnx.version import VERSION

__version__ = VERSION

__all__ = [
    "EFFORTS",
    "CalibrateResult",
    "CheckError",
    "ClusterError",
    "Comparison",
    "DataError",
    "Frontier",
    "ImageOptions",
    "InspectResult",
    "LatencyError",
    "MaxDrop",
    "Method",
    "ModelError",
    "OutputError",
    "Override",
    "Plan",
    "PlanError",
    "PruneOptions",
    "PruneResult",
    "ReapError",
    "Stats",
    "StatsError",
    "Target",
    "TargetError",
    "UsageError",
    "__version__",
    "apply",
    "calibrate",
    "compare",
    "demo",
    "inspect",
    "prune",
    "sweep",
]
