"""The pruned graph proves its wiring, and the written file that it is sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from reap_onnx.errors import CheckError, ReapError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.masking import mask_channels
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.model.size import is_large
from reap_onnx.runtime.session import Session

TOLERANCE = 1e-3  # of the largest value of an output; a wrong wire is off by about 1


def masked_weights(trace: Trace, removed: Labels) -> dict[Slot, np.ndarray]:
    """Weights of all layers with zeros for the removed channels that they read.

    Zeros at the makers would not do: a bias, a norm or a sigmoid turns zero into something.
    """
    weights = {}
    for layer in trace.layers:
        if layer.geometry is None:
            continue
        columns = trace.channels.roots(layer.geometry.columns(layer.inputs))
        gone = np.isin(columns, trace.channels.roots(removed))
        if gone.any():
            value = trace.network.constants[layer.node.inputs[layer.weight.input]]
            matrix = np.where(gone[:, :, None], 0, layer.geometry.matrix(value))
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
    masks = mask_channels(trace, removed, masked_weights(trace, removed))
    masked = Session(masks, providers, weights=trace.network.weights, as_written=True, full_precision=True)
    try:
        pruned = Session(Surgeon(trace, removed, {}).operate(), providers, as_written=True, full_precision=True)
        return difference(masked.run(feeds), pruned.run(feeds))
    except ReapError as error:
        raise CheckError(f"wiring check: the pruned graph is not sound: {error}", _HINT) from error


_HINT = "this is a fault of reap-onnx, please report the model; --freeze the layers named to go on"


def check_wiring(error: float) -> None:
    """Raise CheckError where the wiring check found a difference beyond rounding."""
    if not error <= TOLERANCE:
        raise CheckError(f"wiring check: outputs differ by {error:.2g} of their largest value", _HINT)


def difference(expected: Mapping[str, object], actual: Mapping[str, object]) -> float:
    """Largest difference over all outputs, relative to each tensor's largest magnitude.

    Values that are not finite must be the same; a difference between them counts as infinite. Of anything but floats
    the share of elements that differ counts: where a float is rounded or a top class is found, rounding may tip one.

    Raises
    ------
    CheckError
        An output has another shape or type.
    """
    worst = 0.0
    for name, value in expected.items():
        before, after = _tensors(value), _tensors(actual[name])
        shapes = [" and ".join(f"{t.dtype} {t.shape}" for t in tensors) for tensors in (before, after)]
        if shapes[0] != shapes[1]:
            raise CheckError(f"output {name}: {shapes[0]} became {shapes[1]}", _HINT)
        worst = max([worst, *(_apart(x, y) for x, y in zip(before, after, strict=True))])
    return worst


def _tensors(value: object) -> list[np.ndarray]:
    """Tensors of an output: one, or those of a sequence or map."""
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in _tensors(item)] if isinstance(value, list) else [np.asarray(value)]


def _apart(expected: np.ndarray, actual: np.ndarray) -> float:
    if expected.dtype.kind != "f":
        return float((expected != actual).mean()) if expected.size else 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], actual[~finite], equal_nan=True):
        return np.inf
    before, after = expected[finite].astype(float), actual[finite].astype(float)
    apart = np.abs(before - after).max(initial=0.0) / (np.abs(before).max(initial=0.0) or 1.0)
    return float(apart) if np.isfinite(apart) else np.inf


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
    """Whether a model passes ``onnx.checker`` with strict shape inference; one too large for it does not."""
    if is_large(model):
        return False
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True
