"""Convolutions."""

from __future__ import annotations

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()


@EXAMPLES.add(6)
def plain(net: Net) -> str:
    return head(net, stem(net))


@EXAMPLES.add(6, 5)
def one_axis(net: Net) -> str:
    h = net.conv(net.input("N", 3, 20), 3, 6, 5, pads=[2, 2], strides=[2])
    h = net.conv(h, 6, 5, 3, pads=[0, 2], dilations=[2])
    return net.conv(h, 5, 4, 1)


@EXAMPLES.add(6, 5)
def three_axes(net: Net) -> str:
    h = net.conv(net.input("N", 2, 5, 6, 7), 2, 6, 3, 3, 3, strides=[1, 2, 1])
    h = net.conv(h, 6, 5, 1, 2, 3, pads=[0, 1, 0, 1, 0, 2], bias=False)
    return net.conv(h, 5, 4, 1, 1, 1)


@EXAMPLES.add(6, 5, 4, 7)
def geometry(net: Net) -> str:
    h = net.conv(stem(net), 6, 5, 3, 2, pads=[0, 1, 2, 0], strides=[2, 1])
    h = net.conv(h, 5, 4, 3, 3, auto_pad="SAME_UPPER", strides=[2, 2])
    h = net.conv(h, 4, 7, 2, 2, auto_pad="SAME_LOWER", bias=False)
    return net.conv(h, 7, 3, 2, 2, auto_pad="VALID")


@EXAMPLES.add(6, 6)
def depthwise_separable(net: Net) -> str:
    h = net.conv(stem(net), 6, 6, 3, 3, group=6, pads=[1, 1, 1, 1])
    h = net.conv(h, 6, 6)
    h = net.conv(h, 6, 6, 3, 3, group=6, bias=False, pads=[1, 1, 1, 1])
    return head(net, h)


@EXAMPLES.add(6)
def depthwise_multiplier(net: Net) -> str:
    """Every channel read is made into three."""
    return head(net, net.conv(stem(net), 6, 18, 3, 3, group=6), 18)


@EXAMPLES.add(5, 3)
def few_groups(net: Net) -> str:
    """Two groups of five channels in, of three out: both shrink alike."""
    return head(net, net.conv(stem(net, 10), 10, 6, 3, 3, group=2))


@EXAMPLES.add(4)
def many_groups(net: Net) -> str:
    """Four groups of two channels in, of three out: groups go whole."""
    return head(net, net.conv(stem(net, 8), 8, 12, 3, 3, group=4), 12)


@EXAMPLES.add(5, 2, 4)
def groups_across_groups(net: Net) -> str:
    """Three groups make what two groups read: whatever goes takes equally many from each of the five."""
    h = net.conv(net.conv(stem(net, 15), 15, 12, group=3), 12, 8, 3, 3, group=2)
    return head(net, h, 8)


@EXAMPLES.add(6, 2, 2, frozen=["a single unit"])
def groups_shuffled(net: Net) -> str:
    """Two groups of five shuffled into two groups of five: the third pair falls into both, the others into one."""
    h = net.op("Relu", net.conv(stem(net, 12), 12, 10, group=2))
    h = net.op("Transpose", net.op("Reshape", h, [0, 2, 5, 8, 8]), perm=[0, 2, 1, 3, 4])
    return head(net, net.conv(net.op("Reshape", h, [0, -1, 8, 8]), 10, 4, group=2), 4)


@EXAMPLES.add(3, 6, frozen=["cannot shrink alike"])
def groups_beside_frozen(net: Net) -> str:
    """An output holds one channel of the first group of eight, so that one more of the second stays."""
    h = stem(net, 8)
    return [head(net, net.conv(h, 8, 12, 3, 3, group=2), 12), net.op("Slice", h, [0], [1], [1])]


@EXAMPLES.add(5)
def groups_on_the_input(net: Net) -> str:
    """Nothing can be taken off the input, but every group may make less."""
    h = net.conv(net.input("N", 8, 4, 4), 8, 10, group=2)
    return head(net, h, 10)


@EXAMPLES.add()
def depthwise_on_the_input(net: Net) -> str:
    return head(net, net.conv(net.input("N", 6, 4, 4), 6, 6, group=6))


@EXAMPLES.add(4, frozen=["cannot shrink alike"])
def groups_beside_the_input(net: Net) -> str:
    """The second group reads the input, so that the first cannot shrink."""
    x = net.input("N", 4, 4, 4)
    h = net.op("Concat", net.conv(x, 4, 4), x, axis=1)
    return head(net, net.conv(h, 8, 8, group=2), 8)


@EXAMPLES.add(2, frozen=["they share a group of Conv"])
def whole_groups_beside_the_input(net: Net) -> str:
    """Four groups of two: one reads the input alone, one half of it, so that this half of the stem stays."""
    x = net.input("N", 3, 4, 4)
    h = net.op("Concat", x, net.conv(x, 3, 5), axis=1)
    return head(net, net.conv(h, 8, 8, 3, 3, group=4), 8)


@EXAMPLES.add(6, 5)
def transpose(net: Net) -> str:
    h = net.conv(stem(net), 6, 5, 3, 2, kind="ConvTranspose", strides=[2, 3], pads=[0, 1, 1, 0], dilations=[1, 2])
    return head(net, h, 5)


@EXAMPLES.add(6, 5, 4)
def transpose_sizes(net: Net) -> str:
    h = net.conv(stem(net), 6, 5, 3, 3, kind="ConvTranspose", strides=[2, 2], output_padding=[1, 0])
    h = net.conv(h, 5, 4, 3, 3, kind="ConvTranspose", strides=[2, 2], output_shape=[36, 34], bias=False)
    return head(net, h, 4)


@EXAMPLES.add(6, 5, 4)
def transpose_auto(net: Net) -> str:
    h = net.conv(stem(net), 6, 5, 3, 3, kind="ConvTranspose", strides=[2, 2], auto_pad="SAME_UPPER")
    h = net.conv(h, 5, 4, 2, 3, kind="ConvTranspose", strides=[1, 2], auto_pad="SAME_LOWER")
    return head(net, h, 4)


@EXAMPLES.add(5, 3)
def transpose_few_groups(net: Net) -> str:
    return head(net, net.conv(stem(net, 10), 10, 6, 2, 2, group=2, kind="ConvTranspose", strides=[2, 2]))


@EXAMPLES.add(6)
def transpose_depthwise(net: Net) -> str:
    return head(net, net.conv(stem(net), 6, 12, 2, 2, group=6, kind="ConvTranspose", strides=[2, 2]), 12)


@EXAMPLES.add(6, 5)
def transpose_one_axis(net: Net) -> str:
    h = net.conv(net.input("N", 3, 9), 3, 6, 3)
    return net.conv(net.conv(h, 6, 5, 4, kind="ConvTranspose", strides=[2], pads=[1, 1]), 5, 2, 1)


@EXAMPLES.add(frozen=["its weight is computed"])
def computed_weight(net: Net) -> str:
    h = stem(net)
    kernel = net.op("Slice", net.op("Reshape", h, [-1, 6, 1, 1]), [0], [4], [0])
    return net.op("Conv", h, kernel)


@EXAMPLES.add(frozen=["its bias is computed"])
def computed_bias(net: Net) -> str:
    h = stem(net)
    bias = net.op("Slice", net.op("Reshape", net.input("N", 4, name="b"), [-1]), [0], [4])
    return net.op("Conv", h, net.noise(4, 6, 1, 1), bias)


@EXAMPLES.add(5)
def single_channel(net: Net) -> str:
    """A convolution that makes one channel makes none to choose among."""
    h = net.conv(stem(net, 5), 5, 1, 3, 3)
    return net.conv(h, 1, 4)


@EXAMPLES.add(6)
def shared_weight(net: Net) -> str:
    h = stem(net)
    weight = net.constant(net.noise(6, 6, 1, 1), "shared")
    h = net.op("Conv", h, weight, name="first")
    return head(net, net.op("Conv", net.op("Relu", h), weight, name="second"))


@EXAMPLES.add(6, 5)
def shared_head(net: Net) -> list[str]:
    """Two levels read by one head: weight and bias are cut alike, and stay shared."""
    fine = stem(net)
    coarse = net.conv(net.op("Relu", fine), 6, 6, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    weight, bias = net.constant(net.noise(5, 6, 3, 3), "weight"), net.constant(net.noise(5), "bias")
    levels = [net.op("Relu", net.op("Conv", h, weight, bias, pads=[1, 1, 1, 1])) for h in (fine, coarse)]
    return [head(net, h, 5, name=f"head of {h}") for h in levels]


@EXAMPLES.add(frozen=["weight shared is shared by first, second"])
def shared_weight_transposed(net: Net) -> str:
    """Two layers make different matrices of one weight."""
    h = net.linear(net.input("N", 4), 4, 6)
    weight = net.constant(net.noise(6, 6), "shared")
    h = net.op("Gemm", h, weight, name="first")
    return net.linear(net.op("Gemm", net.op("Relu", h), weight, transB=1, name="second"), 6, 3)


@EXAMPLES.add(6, 6)
def shared_bias(net: Net) -> str:
    """Two layers that read one bias are cut apart."""
    bias = net.constant(net.noise(6), "bias")
    h = net.op("Conv", net.input("N", 3, 4, 4), net.noise(6, 3, 1, 1), bias)
    h = net.op("Conv", net.op("Relu", h), net.noise(6, 6, 1, 1), bias)
    return head(net, h)


@EXAMPLES.add(frozen=["channels do not lie on axis 1"])
def channels_on_axis_2(net: Net) -> str:
    h = net.op("Transpose", stem(net), perm=[0, 2, 1, 3])
    return net.conv(h, 8, 4)
