"""Element by element: activations pass channels on, joins tie the channels that meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.graph.channels import Labels, varying
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


_ACTIVATIONS = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Swish Tan Tanh ThresholdedRelu"
).split()
_JOINS = (
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or "
    "Pow Sub Sum Where Xor"
).split()


@rule(*_ACTIVATIONS)
def activation(node: Node, trace: Trace) -> None:
    """One input, one output, the same channels."""
    trace.put(node.outputs[0], trace.labelled(node.inputs[0]))


@rule("Clip", "Dropout", limits="bounds and ratio are single numbers")
def activation_with_numbers(node: Node, trace: Trace) -> None:
    """As an activation; further inputs are single numbers, further outputs have the shape of the first."""
    labels = trace.labelled(node.inputs[0])
    if any(name in trace.labels for name in node.inputs[1:]):
        trace.freeze(node, "a bound is computed from channels")
        return
    for name in node.outputs:
        trace.put(name, labels)


@rule(*_JOINS, limits="channels joined with values that carry none are frozen; constants are cut")
def join(node: Node, trace: Trace) -> None:
    """Inputs broadcast together; channels that meet are tied."""
    trace.put(node.outputs[0], tie_inputs(node, trace))


@rule("PRelu", limits="constant slope")
def prelu(node: Node, trace: Trace) -> None:
    """A join with the slope; a slope that is computed freezes."""
    if trace.constant(node.inputs[1]) is None:
        trace.freeze(node, "the slope is computed")
        return
    trace.put(node.outputs[0], tie_inputs(node, trace))


def tie_inputs(node: Node, trace: Trace) -> Labels | None:
    """Tie the channels of inputs that broadcast together; the labels of the result."""
    rank = len(trace.shape(node.outputs[0]))
    joined = np.zeros((1,) * rank, np.int64)
    seen: list[Labels] = []
    for name in node.inputs:
        labels = trace.labelled(name)
        if labels is None:
            trace.use_sizes(name, node)
            continue
        labels = labels.reshape((1,) * (rank - labels.ndim) + labels.shape)
        trace.channels.tie(joined, labels)
        joined = np.where(joined > 0, joined, labels)
        seen.append(labels)
    if not seen:
        return None
    for labels in seen:
        alone = (labels == 0) & (joined > 0)
        trace.channels.freeze(
            np.where(alone, joined, 0), f"{node.op} {node.name} joins them with values that carry no channels"
        )
    joined = trace.channels.compact(joined)
    for position, name in enumerate(node.inputs):
        _join_plain(node, trace, position, name, joined)
    return joined


def _join_plain(node: Node, trace: Trace, position: int, name: str, joined: Labels) -> None:
    """An input without channels: harmless where it broadcasts, cut where it is constant, else it freezes."""
    if not name or trace.labelled(name) is not None:
        return
    shape = (1,) * (joined.ndim - len(trace.shape(name))) + trace.shape(name)
    if all(shape[axis] == 1 for axis in varying(joined)):
        return
    if trace.constant(name) is None or len(varying(joined)) > 1:
        trace.channels.freeze(joined, f"{node.op} {node.name} joins them with {name}, which carries no channels")
        return
    trace.cut_like(Slot(node.index, position), joined)
