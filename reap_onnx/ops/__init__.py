"""Rules of the operators, one file per family; importing this package registers them all."""

from reap_onnx.ops import conv, elementwise, linear, movement, normalization, pooling, quantization, reduction
from reap_onnx.ops.registry import Rule, all_rules, find_rule

__all__ = [
    "Rule",
    "all_rules",
    "conv",
    "elementwise",
    "find_rule",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
]
