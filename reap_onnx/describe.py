"""What is said of a model: its costs, its groups, the targets in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reap_onnx.graph.channels import Labels
from reap_onnx.graph.cost import count_macs, count_params, node_macs, reached_macs
from reap_onnx.graph.groups import Group
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.trace import Trace
from reap_onnx.method.costs import describe_latency, total
from reap_onnx.model.network import Network
from reap_onnx.model.size import byte_size
from reap_onnx.options import MaxDrop, Target
from reap_onnx.report.summary import Cost, GroupRow


def cost_of(network: Network) -> Cost:
    """MACs, parameters and bytes."""
    return Cost(count_macs(network), count_params(network), byte_size(network.proto))


def group_rows(trace: Trace, groups: Sequence[Group], removed: Labels) -> tuple[GroupRow, ...]:
    """One row per group, for the report."""
    rows = []
    for group in groups:
        nodes = {layer.node.index: layer for layer in (*group.makers, *group.readers)}
        rows.append(
            GroupRow(
                name=group.name,
                made_by=tuple(layer.node.name for layer in group.makers),
                read_by=tuple(layer.node.name for layer in group.readers),
                width=group.width,
                kept=group.width - group.channels * int(np.isin(group.units, removed).sum()),
                macs=round(sum(node_macs(trace.network, layer.node) for layer in nodes.values())),
                params=sum(_weight(trace, layer).size for layer in nodes.values()),
                frozen=group.frozen,
            )
        )
    return tuple(rows)


def _weight(trace: Trace, layer: Layer) -> np.ndarray:
    return trace.network.constants[layer.node.inputs[layer.weight.input]]


def reach(trace: Trace, groups: Sequence[Group]) -> float:
    """Share of the model's MACs in layers that make or read channels of a group that can be pruned."""
    reached = reached_macs(trace, [group for group in groups if not group.frozen])
    return reached / max(count_macs(trace.network), 1)


def unmatched(trace: Trace) -> list[str]:
    """A line for each pattern of ``--freeze`` that matches nothing."""
    return [f"--freeze {pattern} matches no layer" for pattern, count in trace.matched.items() if count == 0]


def describe_targets(targets: Sequence[Target | MaxDrop], trace: Trace) -> str:
    """The targets in words."""
    return ", ".join(_describe_one(target, trace) for target in targets)


def _describe_one(target: Target | MaxDrop, trace: Trace) -> str:
    if isinstance(target, MaxDrop):
        return f"drop <= {target.show(target.drop)}"
    if target.kind == "latency":
        return f"latency <= {describe_latency(target)}"
    whole = total(trace, target.kind)
    return f"{target.kind} <= {target.budget(whole) / max(whole, 1):.1%} of the original"
