from __future__ import annotations

import numpy as np
import pytest

from examples.net import Net, head, stem
from examples.normalization import EXAMPLES
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.masking import coupled, mask_channels
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.model.edit import with_constants
from reap_onnx.runtime.session import Session, probe
from reap_onnx.runtime.verify import difference, masked_weights
from wiring import cut, random_feeds, read

BY_NAME = {example.name: example for example in EXAMPLES}


def neighbours() -> Trace:
    return Trace(read(BY_NAME["neighbours@13"].model()))


def test_neighbours_that_are_gone_are_seen_by_nobody() -> None:
    """The definition of an LRN with channels gone, written out: the squares of the neighbours that are left."""
    net = Net()
    model = net.model(head(net, net.op("LRN", stem(net), size=3, alpha=2.0)))
    trace = Trace(read(model))
    removed = find_groups(trace)[0].units[[1, 2, 4]]
    feeds = random_feeds(model)
    values = probe(mask_channels(trace, removed, {}), feeds)
    kept = [0, 3, 5]
    x = values["stem_out"][:, kept].astype(float)
    squares = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    expected = x / (1 + 2 / 3 * (squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:])) ** 0.75
    assert np.allclose(values["LRN_1_out"][:, kept], expected, atol=1e-5)
    assert values["LRN_1_out"].shape == trace.shape("LRN_1_out")


def test_without_it_the_masked_original_is_another_network() -> None:
    """The wiring check of an LRN would fail, or mean nothing, if only the weights were masked."""
    trace = neighbours()
    groups = [group for group in find_groups(trace) if not group.frozen]
    removed = cut(groups, [3, 2])
    feeds, weights = random_feeds(trace.network.proto), masked_weights(trace, removed)
    pruned = Session(Surgeon(trace, removed, {}).operate()).run(feeds)
    assert difference(Session(mask_channels(trace, removed, weights)).run(feeds), pruned) < 1e-5
    assert difference(Session(with_constants(trace.network, weights)).run(feeds), pruned) > 1e-2


@pytest.mark.parametrize("name", ["neighbours@13", "batch@15"])
def test_with_nothing_removed_it_is_the_original(name: str) -> None:
    trace = Trace(read(BY_NAME[name].model()))
    same = mask_channels(trace, (), {})
    assert same.SerializeToString(deterministic=True) == trace.network.proto.SerializeToString(deterministic=True)


def test_channels_that_are_coupled() -> None:
    net = Net()
    h = net.op("Relu", net.conv(net.op("LRN", stem(net), size=3), 6, 5, name="plain"))
    trace = Trace(read(net.model(head(net, h, 5))))
    first, second, _ = find_groups(trace)
    assert np.isin(first.units, coupled(trace)).all()
    assert not np.isin(second.units, coupled(trace)).any()
