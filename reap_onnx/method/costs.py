"""Targets as budgets: what of each cost is allowed, how it follows from the widths, and how it is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx

from reap_onnx.errors import LatencyError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.cost import count_macs, count_params, macs_cost, params_cost, size_cost
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.method.budgets import Budget
from reap_onnx.method.calibration import Calibration
from reap_onnx.model.size import byte_size
from reap_onnx.numerics.allocate import BilinearCost, Cost, Ints
from reap_onnx.options import Kind, Target
from reap_onnx.report.summary import Latency
from reap_onnx.runtime.latency import measure_pairs, middle_pair
from reap_onnx.runtime.session import Session

TURNS, SECONDS = 60, 6.0  # of a trial of the latency, whichever ends it
MARGIN = 0.025  # of the original's latency: how far under its target a trial is aimed
NEAR = 0.045  # and how far under it may stay
FRAME = 64  # bytes of a tensor besides its numbers and its name


def total(trace: Trace, kind: Kind) -> int:
    """MACs, parameters or bytes of the original."""
    if kind == "size":
        return byte_size(trace.network.proto)
    return count_macs(trace.network) if kind == "macs" else count_params(trace.network)


def exact_budget(calibration: Calibration, target: Target, biases: Sequence[Layer]) -> Budget:
    """MACs or parameters; ``biases`` are layers that the refit may add a bias to."""
    trace, groups = calibration.trace, calibration.groups
    most = target.budget(total(trace, target.kind))
    if target.kind == "macs":
        return Budget("--macs", macs_cost(trace, groups), most)
    return Budget("--params", params_cost(trace, groups), most - sum(len(layer.features) for layer in biases))


def macs_as_latency(calibration: Calibration, whole: float) -> BilinearCost:
    """Milliseconds as if they were in proportion to the MACs; ``whole`` are those of the original."""
    cost = macs_cost(calibration.trace, calibration.groups)
    full = cost([len(group.units) for group in calibration.groups])
    return replace(cost, factor=cost.factor * (whole / full))


def size_budget(
    calibration: Calibration, target: Target, biases: Sequence[Layer], stamp: Callable[[onnx.ModelProto, Labels], None]
) -> Budget:
    """Bytes of the file, tried on the pruned model; ``stamp`` writes its metadata, given the labels that are gone."""
    trace = calibration.trace
    added = sum(len(layer.features) * _itemsize(trace, layer) + len(layer.node.name) + FRAME for layer in biases)

    def trial(kept: Ints) -> float:
        gone = calibration.without_first(kept)
        model = Surgeon(trace, gone, {}).operate()
        stamp(model, gone)
        return byte_size(model) + added

    cost = size_cost(trace, calibration.groups)
    return Budget("--size", cost, target.budget(total(trace, "size")), trial, aim=0.999, near=0.99)


def latency_budget(
    calibration: Calibration,
    target: Target,
    cost: Cost,
    originals: Sequence[Session],
    feeds: dict[str, np.ndarray],
    batch: int,
    measured: Callable[[Latency], None],
) -> Budget:
    """Milliseconds of a run, tried on the pruned model in turns with the original.

    Parameters
    ----------
    cost
        What is predicted; that of the original is the unit of the target.
    originals
        The original, loaded once or more.
    feeds
        ``batch`` samples.
    measured
        Told the result of every trial.
    """
    full = cost([len(group.units) for group in calibration.groups])

    def trial(kept: Ints, effort: int = 1) -> float:
        model = Surgeon(calibration.trace, calibration.without_first(kept), {}).operate()
        pruned = [Session(model, original.providers) for original in originals]
        rounds, seconds = effort * TURNS, effort * SECONDS
        found = measure_pairs(originals, pruned, feeds, batch=batch, rounds=rounds, seconds=seconds)
        latency = middle_pair(found, absolute=bool(target.absolute))
        measured(latency)
        return latency.pruned_ms if target.absolute else latency.ratio * full

    most = target.budget(full)
    aim, near = 1 - MARGIN * full / most, 1 - NEAR * full / most
    return Budget("--latency", cost, most, trial, aim, near, partial(trial, effort=3))


def confirm_latency(
    target: Target,
    load: Callable[[], tuple[Sequence[Session], Sequence[Session]]],
    feeds: dict[str, np.ndarray],
    batch: int,
) -> Latency:
    """The latency of the result in turns with the original; where it is too long, with more sessions and for longer.

    Sessions of one model differ for as long as they live: so ``load``, which makes those of both models, is called
    again, and all pairs so far are counted together.

    Raises
    ------
    LatencyError
        It is longer than the target allows.
    """
    found: list[Latency] = []
    for effort in (1, 2, 4):
        found += measure_pairs(*load(), feeds, batch=batch, rounds=effort * TURNS, seconds=effort * SECONDS)
        latency = middle_pair(found, absolute=bool(target.absolute))
        most = target.budget(latency.original_ms)
        if latency.pruned_ms <= most:
            return latency
    raise LatencyError(
        f"the pruned model was measured at {latency.pruned_ms:.3g} ms, {latency.ratio:.3f} of the original: "
        f"more than {describe_latency(target)}",
        "is the machine busy with something else? try again, or ask for a little less",
        latency.pruned_ms / most,
    )


def describe_latency(target: Target) -> str:
    """A latency target in words."""
    return f"{target.absolute:g} ms" if target.absolute else f"{target.fraction:.1%} of the original"


def _itemsize(trace: Trace, layer: Layer) -> int:
    return int(trace.network.constants[layer.node.inputs[layer.weight.input]].itemsize)
