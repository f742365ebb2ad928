"""The sequential refit: each layer repairs, as well as it can, what the layers before it have lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from reap_onnx.data.dataset import Dataset
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.groups import Group
from reap_onnx.graph.masking import coupled, mask_channels
from reap_onnx.graph.targets import clipped_to
from reap_onnx.graph.trace import Trace
from reap_onnx.method.problems import RIDGE, group_problems, layers_to_refit, refitted
from reap_onnx.method.select import GroupPath
from reap_onnx.model.network import Network, Slot
from reap_onnx.numerics.gram import Normal
from reap_onnx.numerics.path import removal_path
from reap_onnx.options import PruneOptions
from reap_onnx.runtime.statistics import Tap, collect
from reap_onnx.runtime.stream import Stream


def reconstruct(
    trace: Trace,
    paths: Sequence[GroupPath],
    kept: Sequence[int],
    taps: Mapping[int, Tap],
    dataset: Dataset,
    options: PruneOptions,
    rows: int,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """Choose the channels at the given widths and refit every layer that lost some, in topological order.

    1. A layer's input comes from the network as pruned so far, its target from the original one; where its
       branch ends in an Add, the target is the original sum less the other operand as it is by now.
    2. Channels that only one layer reads are chosen anew on that layer's present input. Channels that
       several layers read, or whose values depend on which others go, keep the order found on the original network.
    3. Removed channels have zero weights in their readers; the graph keeps its shape until surgery.

    Returns
    -------
    removed, weights
        Labels of the removed channels; new constants by slot, in their original shapes.
    """
    cut = [(path, k) for path, k in zip(paths, kept, strict=True) if k < len(path.group.units)]
    removed = {path.group.name: path.removed(k) for path, k in cut}
    left = {path.group.name: k for path, k in cut}
    groups = [path.group for path, _ in cut]
    weights: dict[Slot, np.ndarray] = {}
    network, fixed = trace.network, coupled(trace)
    refits = [_tap(network, taps[layer.node.index], groups) for layer in layers_to_refit(groups)]
    waves = list(_waves(network, refits))
    with (
        Stream(network, dataset, batch=options.batch, providers=options.providers) as original,
        Stream(network, dataset, batch=options.batch, providers=options.providers) as present,
    ):
        for number, wave in enumerate(waves):
            later = [tap for wave in waves[number + 1 :] for tap in wave]
            was = original.run(network.proto, _wanted(wave), _wanted(later))
            now = present.run(mask_channels(trace, _all(removed), weights), _read(wave), _read(later))
            measured = collect(wave, zip(was, now, strict=True), samples=len(dataset), rows=rows, seed=options.seed)
            for tap in wave:
                blocks = measured[tap.layer.node.index]
                normals, kept_rows = [block.normal for block in blocks], [block.rows for block in blocks]
                for group in groups:
                    if layers_to_refit([group]) == [tap.layer] and not np.isin(group.units, fixed).any():
                        others = _all({name: units for name, units in removed.items() if name != group.name})
                        removed[group.name] = _choose(trace, tap, normals, group, others, left[group.name])
                weights |= refitted(trace, tap, normals, _all(removed), kept_rows)
                advance(1)
    return _all(removed), weights


def _all(removed: Mapping[str, Labels]) -> Labels:
    return np.concatenate([np.zeros(0, np.int64), *removed.values()])


def _choose(trace: Trace, tap: Tap, normals: Sequence[Normal], group: Group, others: Labels, kept: int) -> Labels:
    problems = group_problems(trace, tap, normals, group, others)
    return group.units[removal_path(problems, len(group.units), RIDGE, stop=kept).order]


def _tap(network: Network, tap: Tap, groups: Sequence[Group]) -> Tap:
    """The tap with its target after the Add, where the other operand is final by the time the layer is refitted.

    Where only clipping activations read the target, it says so.
    """
    if not tap.target.other:
        return replace(tap, clip=clipped_to(network, tap.target.branch))
    before = network.ancestors([tap.target.other])
    later = [layer.node.index for layer in layers_to_refit(groups) if layer.node.index in before]
    if any(index > tap.layer.node.index for index in later):
        return tap
    return replace(tap, residual=True, clip=clipped_to(network, tap.target.total))


def _waves(network: Network, taps: Sequence[Tap]) -> Iterator[list[Tap]]:
    """Taps in topological order, in runs that do not depend on each other."""
    wave: list[Tap] = []
    for tap in taps:
        before = network.ancestors(tap.read)
        if any(earlier.layer.node.index in before for earlier in wave):
            yield wave
            wave = []
        wave.append(tap)
    if wave:
        yield wave


def _wanted(taps: Sequence[Tap]) -> list[str]:
    return [tap.wanted for tap in taps]


def _read(taps: Sequence[Tap]) -> list[str]:
    return [name for tap in taps for name in tap.read]
