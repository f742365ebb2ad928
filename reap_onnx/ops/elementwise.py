"""Element by element: activations pass channels on, joins tie the channels that meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from reap_onnx.graph.channels import Labels, varying
from reap_onnx.model.network import Node, Slot
from reap_onnx.ops.registry import rule

if TYPE_CHECKING:
    from reap_onnx.graph.trace import Trace


_ACTIVATIONS = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus "
    "Softsign Sqrt Swish Tan Tanh ThresholdedRelu com.microsoft.Gelu com.microsoft.QuickGelu"
).split()
_JOINS = (
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
    "Mod Mul Or PRelu Pow Sub Sum Where Xor com.microsoft.BiasGelu com.microsoft.FastGelu"
).split()


@rule(*_ACTIVATIONS, limits="bounds are single numbers")
def activation(node: Node, trace: Trace) -> None:
    """One input, one output, the same channels."""
    trace.put(node.outputs[0], trace.labelled(node.inputs[0]))


@rule("Dropout", outputs=2, limits="not in training mode")
def dropout(node: Node, trace: Trace) -> None:
    """One input, the same channels in the output and in the mask."""
    training = trace.constant(node.input(2)) if node.input(2) else np.array(False)
    if training is None or training.any():
        trace.freeze(node, "it drops at random")
        return
    for name in node.outputs:
        trace.put(name, trace.labelled(node.inputs[0]))


@rule(*_JOINS, reads=None, limits="channels that meet computed values without channels are frozen; constants are cut")
def join(node: Node, trace: Trace) -> None:
    """Inputs broadcast together; channels that meet are tied.

    1. Where two inputs carry channels at the same place, the two are one.
    2. Where one carries a channel and another that is as large does not, the channel is frozen.
    3. An input without channels is harmless where it broadcasts, cut where it is constant, else it freezes.
    """
    if any(name in node.attributes for name in ("axis", "broadcast")):
        trace.freeze(node, "it broadcasts as before opset 7")
        return
    rank = len(trace.shape(node.outputs[0]))
    found = [labels for name in node.inputs if (labels := trace.labelled(name)) is not None]
    if not found:
        return
    joined = meet(node, trace, [labels.reshape((1,) * (rank - labels.ndim) + labels.shape) for labels in found])
    trace.put(node.outputs[0], joined)
    for position, name in enumerate(node.inputs):
        if trace.labelled(name) is None:
            _meet_other(node, trace, position, joined)


def meet(node: Node, trace: Trace, carried: Sequence[Labels]) -> Labels:
    """Labels of one rank broadcast together: channels that meet are one; one that meets none stays."""
    joined = np.zeros((1,) * carried[0].ndim, np.int64)
    for labels in carried:
        trace.channels.tie(joined, labels)
        joined = np.where(joined > 0, joined, labels)
    for labels in carried:
        alone = np.where((labels == 0) & (joined > 0), joined, 0)
        trace.channels.freeze(alone, f"{node.op} {node.name} joins them with values that carry no channels")
    return trace.channels.compact(joined)


def _meet_other(node: Node, trace: Trace, position: int, joined: Labels) -> None:
    """An input without channels meets those of the other inputs."""
    name = node.inputs[position]
    shape = (1,) * (joined.ndim - len(trace.shape(name))) + trace.shape(name)
    if all(shape[axis] == 1 for axis in varying(joined)):
        return
    if trace.constant(name) is None:
        trace.channels.freeze(joined, f"{node.op} {node.name} joins them with {name}, which carries no channels")
    else:
        trace.cut_like(Slot(node.index, position), node.outputs[0])
