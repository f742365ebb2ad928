"""Rules of the operators, one file per family; importing this package registers them all."""

from reap_onnx.ops import (
    conv,
    elementwise,
    linear,
    movement,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
)
from reap_onnx.ops.registry import Rule, all_rules, find_rule, left_alone

__all__ = [
    "Rule",
    "all_rules",
    "conv",
    "elementwise",
    "find_rule",
    "left_alone",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
]
