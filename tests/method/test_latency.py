from __future__ import annotations

import math

import numpy as np
import pytest

from nets import images, residual_net
from reap_onnx.graph.groups import Group, find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.method.latency import find_steps, latency_cost
from reap_onnx.model.operator import Operator
from reap_onnx.numerics.allocate import Curve
from reap_onnx.runtime.profile import OperatorTimer, Profile, Timing, profile_model
from wiring import read


@pytest.fixture(scope="module")
def network() -> tuple[Trace, list[Group]]:
    trace = Trace(read(residual_net()))
    return trace, [group for group in find_groups(trace) if not group.frozen]


def curves(groups: list[Group]) -> list[Curve]:
    return [Curve(len(group.units), np.zeros(len(group.units))) for group in groups]


def by_macs(step: int) -> object:
    """A machine whose time is that of weights padded to multiples of ``step`` along both axes of channels."""

    def timer(operator: Operator) -> Timing:
        padded = [math.ceil(size / step) * step for size in operator.weight[:2]]
        return Timing(float(np.prod(padded) * np.prod(operator.weight[2:])))

    return timer


def test_at_full_width_it_is_the_time_of_the_run(network: tuple[Trace, list[Group]]) -> None:
    trace, groups = network
    profile = profile_model(residual_net(), {"image": images(1)})
    cost = latency_cost(trace, groups, curves(groups), OperatorTimer(), profile)
    full = np.array([len(group.units) for group in groups])
    assert cost(full) == pytest.approx(profile.run)
    narrower = [cost(np.maximum(full * share // 4, 1)) for share in (4, 3, 2, 1)]
    assert narrower == sorted(narrower, reverse=True)
    assert narrower[-1] < narrower[0]


def test_the_time_of_every_layer_counts(network: tuple[Trace, list[Group]]) -> None:
    """On a machine whose time is known, the cost at timed widths is the sum over the layers."""
    trace, groups = network
    timer = by_macs(1)
    weights = [trace.shape(layer.node.inputs[1]) for layer in trace.layers]
    alone = sum(float(np.prod(shape)) for shape in weights)
    cost = latency_cost(trace, groups, curves(groups), timer, Profile(2 * alone, alone, 0.0))
    full = np.array([len(group.units) for group in groups])
    assert cost(full) == pytest.approx(2 * alone)
    for g, group in enumerate(groups):
        makers = {layer.node.index for layer in group.makers} & {layer.node.index for layer in group.readers}
        assert not makers or len(group.makers) > 1
        cut = full.copy()
        cut[g] = 1
        touched = [layer for layer in trace.layers if layer in (*group.makers, *group.readers)]
        left = sum(
            np.prod(trace.shape(layer.node.inputs[1]))
            * (1 / len(group.units)) ** ((layer in group.makers) + (layer in group.readers))
            for layer in touched
        )
        whole = sum(np.prod(trace.shape(layer.node.inputs[1])) for layer in touched)
        assert cost(full) - cost(cut) == pytest.approx(whole - left)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_the_steps_of_the_machine_are_found(network: tuple[Trace, list[Group]], step: int) -> None:
    trace, groups = network
    found = find_steps(trace, groups, by_macs(step))
    assert all(made == step for made, group in zip(found, groups, strict=True) if group.width >= 4 * step)


def test_a_machine_without_any_gain_leaves_a_choice(network: tuple[Trace, list[Group]]) -> None:
    trace, groups = network
    steps = find_steps(trace, groups, lambda operator: Timing(1.0))
    assert all(group.width / 4 <= step < group.width for step, group in zip(steps, groups, strict=True))
