"""The pruned graph proves its wiring, and the written file that it is sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from reap_onnx.errors import CheckError, ReapError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.model.edit import with_constants
from reap_onnx.model.network import Slot
from reap_onnx.runtime.session import Session

TOLERANCE = 1e-3  # of the largest value of an output; a wrong wire is off by about 1


def masked_weights(trace: Trace, removed: Labels) -> dict[Slot, np.ndarray]:
    """Weights of all layers with zeros for the removed channels that they read.

    Zeros at the makers would not do: a bias, a norm or a sigmoid turns zero into something.
    """
    weights = {}
    for layer in trace.layers:
        columns = np.isin(trace.channels.roots(layer.inputs), removed)
        if layer.geometry is None or not columns.any():
            continue
        value = trace.network.constants[layer.node.inputs[layer.weight.input]]
        matrix = layer.geometry.matrix(value).copy()
        matrix[np.isin(trace.channels.roots(layer.geometry.columns(layer.inputs)), removed)] = 0
        weights[layer.weight] = layer.geometry.weight(matrix, value)
    return weights


def wiring_error(
    trace: Trace, removed: Labels, feeds: dict[str, np.ndarray], providers: Sequence[str] = ("cpu",)
) -> float:
    """Largest relative difference between the masked original and the pruned graph, both unrefitted.

    Raises
    ------
    CheckError
        The pruned graph does not run, or an output has another shape or type.
    """
    masked = Session(with_constants(trace.network, masked_weights(trace, removed)), providers)
    try:
        pruned = Session(Surgeon(trace, removed, {}).operate(), providers)
        return difference(masked.run(feeds), pruned.run(feeds))
    except ReapError as error:
        raise CheckError(f"wiring check: the pruned graph is not sound: {error}", _HINT) from error


_HINT = "this is a fault of reap-onnx, please report the model; --freeze the layers named to go on"


def check_wiring(error: float) -> None:
    """Raise CheckError where the wiring check found a difference beyond rounding."""
    if not error <= TOLERANCE:
        raise CheckError(f"wiring check: outputs differ by {error:.2g} of their largest value", _HINT)


def difference(expected: dict[str, object], actual: dict[str, object]) -> float:
    """Largest difference over all outputs, relative to each output's largest magnitude; 1 for other integers.

    Raises
    ------
    CheckError
        An output has another shape or type.
    """
    worst = 0.0
    for name, value in expected.items():
        other = actual[name]
        if not isinstance(value, np.ndarray) or not isinstance(other, np.ndarray):
            continue
        if value.shape != other.shape or value.dtype != other.dtype:
            shapes = f"{value.dtype} {value.shape} became {other.dtype} {other.shape}"
            raise CheckError(f"output {name}: {shapes}", _HINT)
        if value.dtype.kind != "f":
            worst = max(worst, float((value != other).any()))
        elif value.size:
            scale = float(np.abs(value).max()) or 1.0
            apart = np.abs(value.astype(float) - other.astype(float)).max() / scale
            worst = max(worst, float(apart)) if np.isfinite(apart) else np.inf
    return worst


def check_file(path: Path, feeds: dict[str, np.ndarray], *, full: bool, providers: Sequence[str] = ("cpu",)) -> None:
    """The written file passes ``onnx.checker`` (in full, where the original did) and runs.

    Raises
    ------
    CheckError
        It does not.
    """
    try:
        onnx.checker.check_model(str(path), full_check=full)
        Session(path, providers).run(feeds)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ReapError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckError(f"the written model is not valid: {reason}", _HINT) from error


def passes_in_full(model: onnx.ModelProto) -> bool:
    """Whether a model passes ``onnx.checker`` with strict shape inference."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True
