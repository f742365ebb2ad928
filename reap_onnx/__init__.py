"""Channel pruning for ONNX models, without training.

The verbs of the command ``reap-onnx`` as functions, their options and results as frozen dataclasses.
"""

from __future__ import annotations

from reap_onnx.data.images import ImageOptions
from reap_onnx.errors import (
    CheckError,
    DataError,
    ModelError,
    OutputError,
    PlanError,
    ReapError,
    TargetError,
    UsageError,
)
from reap_onnx.options import EFFORTS, MaxDrop, Method, PruneOptions, Target
from reap_onnx.overrides import Override
from reap_onnx.pipeline import InspectResult, PruneResult, apply, compare, demo, inspect, prune, sweep
from reap_onnx.plan import Plan
from reap_onnx.report.summary import Comparison, Frontier
from reap_onnx.version import VERSION

__version__ = VERSION

__all__ = [
    "EFFORTS",
    "CheckError",
    "Comparison",
    "DataError",
    "Frontier",
    "ImageOptions",
    "InspectResult",
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
    "Target",
    "TargetError",
    "UsageError",
    "__version__",
    "apply",
    "compare",
    "demo",
    "inspect",
    "prune",
    "sweep",
]
