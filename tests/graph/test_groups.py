from __future__ import annotations

import numpy as np

from examples.net import Net, head, stem
from examples.networks import EXAMPLES
from reap_onnx.graph.groups import Group, find_groups
from reap_onnx.graph.trace import Trace
from wiring import read

BY_NAME = {example.name: example for example in EXAMPLES}


def groups_of(name: str) -> dict[str, Group]:
    return {group.name: group for group in find_groups(Trace(read(BY_NAME[name].model())))}


def test_a_stream_is_one_group() -> None:
    """The stem and the end of the branch make it; the branch, and the head behind the Add, read it."""
    groups = groups_of("residual")
    stream, inside, out = groups.values()
    assert [layer.node.name for layer in stream.makers] == ["stem", "Conv_3"]
    assert [layer.node.name for layer in stream.readers] == ["Conv_1", "head"]
    assert [layer.node.name for layer in inside.makers] == ["Conv_1"]
    assert [layer.node.name for layer in inside.readers] == ["Conv_3"]
    assert (stream.name, inside.name, out.name) == ("stem", "Conv_1", "head")
    assert (stream.width, inside.width, out.width) == (6, 5, 4)


def test_units_of_several_channels() -> None:
    """Channels tied by a shuffle in groups of two: 4 units of 2."""
    net = Net()
    h = net.op("Reshape", stem(net, 8), [0, 2, 4, 8, 8])
    h = net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 1, 3, 4]), [0, 8, 8, 8])
    group = find_groups(Trace(read(net.model(head(net, h, 8)))))[0]
    assert (len(group.units), group.channels, group.width) == (4, 2, 8)


def test_parts_of_one_layer_are_groups_of_their_own() -> None:
    """Split apart, they live on different tensors, and each part must keep one."""
    net = Net()
    a, b = net.ops("Split", stem(net), [2, 4], outputs=2, axis=1)
    model = net.model(head(net, a, 2), head(net, b, 4, name="other"))
    groups = [group for group in find_groups(Trace(read(model))) if not group.frozen]
    assert [(group.name, len(group.units)) for group in groups] == [("stem", 2), ("stem #2", 4)]
    assert [group.readers[0].node.name for group in groups] == ["head", "other"]


def test_channels_without_a_reader_to_refit_stay() -> None:
    """A depthwise layer passes them on, the model returns what is made of them, but no layer mixes them."""
    net = Net()
    h = net.conv(stem(net), 6, 6, group=6)
    kept = net.op("Gather", h, [0, 1], axis=1)
    groups = find_groups(Trace(read(net.model(head(net, kept, 2)))))
    assert [(len(group.units), bool(group.frozen)) for group in groups] == [(2, False), (4, True), (4, True)]
    assert groups[1].frozen == "no layer reads them that could be refitted"


def test_units_are_told_apart_and_in_order() -> None:
    for example in EXAMPLES:
        trace = Trace(read(example.model()))
        groups = find_groups(trace)
        units = np.concatenate([group.units for group in groups])
        assert len(np.unique(units)) == len(units)
        assert np.array_equal(trace.channels.roots(units), units)
        assert len({group.name for group in groups}) == len(groups)
