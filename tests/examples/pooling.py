"""Pooling and resizing."""

from __future__ import annotations

import numpy as np

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()


@EXAMPLES.add(6)
def windows(net: Net) -> str:
    h = net.op("MaxPool", stem(net), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    h = net.op("AveragePool", h, kernel_shape=[2, 2], auto_pad="SAME_UPPER")
    return head(net, net.op("LpPool", h, kernel_shape=[2, 2]))


@EXAMPLES.add(5)
def windows_of_one_axis(net: Net) -> str:
    h = net.conv(net.input("N", 3, 9), 3, 5, 3)
    return net.conv(net.op("AveragePool", h, kernel_shape=[2], strides=[2]), 5, 2, 1)


@EXAMPLES.add(6, 6, 6)
def whole_images(net: Net) -> list[str]:
    kinds = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    return [head(net, net.op(kind, stem(net, name=kind)), name=f"head {kind}") for kind in kinds]


@EXAMPLES.add(6)
def unread_indices(net: Net) -> str:
    return head(net, net.ops("MaxPool", stem(net), kernel_shape=[2, 2], outputs=2)[0])


@EXAMPLES.add(frozen=["no rule for its output 2"])
def read_indices(net: Net) -> list[str]:
    h, places = net.ops("MaxPool", stem(net), kernel_shape=[2, 2], outputs=2)
    return [head(net, h), places]


@EXAMPLES.add(6, 6, opset=[16, 20], ir=9)
def places_elsewhere(net: Net) -> list[str]:
    grid = net.op("Tanh", net.input("N", 4, 5, 2, name="grid"))
    boxes = net.op("Abs", net.input(3, 4, name="boxes"))
    whose = np.zeros(3, np.int64)
    regions = net.op("RoiAlign", stem(net, name="other"), boxes, whose, output_height=2, output_width=3)
    return [head(net, net.op("GridSample", stem(net), grid)), head(net, regions, name="head of regions")]


@EXAMPLES.add(6)
def regions_pooled(net: Net) -> str:
    rois = np.array([[0, 0, 0, 4, 5], [0, 1, 2, 7, 7]], np.float32)
    return head(net, net.op("MaxRoiPool", stem(net), rois, pooled_shape=[2, 2]))


@EXAMPLES.add(frozen=["channels are not on axis 1"])
def places_of_other_layouts(net: Net) -> str:
    h = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    return net.op("GridSample", h, net.op("Tanh", net.input("N", 4, 5, 2, name="grid")))


@EXAMPLES.add(frozen=["channels lie on an axis that it pools over"])
def over_channels(net: Net) -> str:
    return net.op("MaxPool", net.op("Transpose", stem(net), perm=[0, 2, 3, 1]), kernel_shape=[2, 2])


@EXAMPLES.add(6, opset=[11, 13, 19])
def resize_by_scales(net: Net) -> str:
    return head(net, net.op("Resize", stem(net), [], [1.0, 1.0, 2.0, 1.5], mode="linear"))


@EXAMPLES.add(6, opset=10)
def resize_first_version(net: Net) -> str:
    return head(net, net.op("Resize", stem(net), [1.0, 1.0, 2.0, 2.0]))


@EXAMPLES.add(6, opset=[7, 8])
def upsample_by_attribute(net: Net) -> str:
    return head(net, net.op("Upsample", stem(net), scales=[1.0, 1.0, 2.0, 3.0]))


@EXAMPLES.add(6, opset=9)
def upsample_by_input(net: Net) -> str:
    return head(net, net.op("Upsample", stem(net), [1.0, 1.0, 2.0, 2.0], mode="linear"))


@EXAMPLES.add(6, opset=[11, 13, 19])
def resize_by_sizes(net: Net) -> str:
    return head(net, net.op("Resize", stem(net), [], [], [1, 6, 12, 10])) if net.opset < 13 else _sizes(net)


def _sizes(net: Net) -> str:
    h = stem(net)
    sizes = net.op("Concat", net.op("Slice", net.op("Shape", h), [0], [1]), [6, 12, 9], axis=0)
    return head(net, net.op("Resize", h, None, None, sizes))


@EXAMPLES.add(6)
def resize_like_another(net: Net) -> str:
    """The sizes are computed: channels of one tensor, height and width of another."""
    h = stem(net)
    small = net.conv(net.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2]), 6, 6)
    channels = net.op("Slice", net.op("Shape", small), [0], [2])
    space = net.op("Slice", net.op("Shape", h), [2], [4])
    sizes = net.op("Concat", channels, net.op("Cast", space, to=7), axis=0)
    return head(net, net.op("Add", h, net.op("Resize", small, None, None, sizes)))


@EXAMPLES.add(6, opset=18)
def resize_some_axes(net: Net) -> str:
    return head(net, net.op("Resize", stem(net), None, None, [12, 6, 9], axes=[2, 1, 3]))


@EXAMPLES.add(6)
def resize_by_computed_scales(net: Net) -> str:
    """Scales are quotients of heights and widths."""
    h = stem(net)
    small = net.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    to, of = (net.op("Cast", net.op("Slice", net.op("Shape", t), [2], [4]), to=1) for t in (h, small))
    scales = net.op("Concat", [1.0, 1.0], net.op("Div", to, of), axis=0)
    return head(net, net.op("Add", h, net.op("Resize", small, None, scales)))


@EXAMPLES.add(frozen=["it resizes the axis of channels"])
def resize_channels(net: Net) -> str:
    return head(net, net.op("Resize", stem(net), None, [1.0, 2.0, 1.0, 1.0]), 12)


@EXAMPLES.add(frozen=["it crops"])
def resize_crops(net: Net) -> str:
    region = [0.0, 0.0, 0.25, 0.0, 1.0, 1.0, 0.75, 1.0]
    mode = "tf_crop_and_resize"
    return head(net, net.op("Resize", stem(net), region, [1.0, 1.0, 2.0, 1.0], coordinate_transformation_mode=mode))
