"""How networks put operators together: no rule knows any of these."""

from __future__ import annotations

import numpy as np

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()


@EXAMPLES.add(6, 5)
def residual(net: Net) -> str:
    """Block with an identity shortcut: its inside, and the stream."""
    h = stem(net)
    branch = net.conv(net.op("Relu", net.conv(h, 6, 5, 3, 3, pads=[1, 1, 1, 1])), 5, 6)
    return head(net, net.op("Relu", net.op("Add", branch, h)))


@EXAMPLES.add(6, 5, 8)
def residual_projected(net: Net) -> str:
    """Shortcut with a 1 x 1 convolution: two streams."""
    h = stem(net)
    branch = net.conv(net.op("Relu", net.conv(h, 6, 5, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2])), 5, 8)
    shortcut = net.conv(h, 6, 8, strides=[2, 2])
    return head(net, net.op("Relu", net.op("Add", shortcut, branch)), 8)


@EXAMPLES.add(4, 5, 4)
def residual_padded(net: Net) -> str:
    """Shortcut without weights: every second row and column, two channels of zeros on either side."""
    h = stem(net, 4)
    branch = net.conv(net.op("Relu", net.conv(h, 4, 5, 3, 3, pads=[1, 1, 1, 1], strides=[2, 2])), 5, 8)
    short = net.op("Slice", h, [0, 0], [100, 100], [2, 3], [2, 2])
    short = net.op("Pad", short, [0, 2, 0, 0, 0, 2, 0, 0])
    return head(net, net.op("Relu", net.op("Add", short, branch)), 8)


@EXAMPLES.add(6, 12, 4)
def inverted_residual(net: Net) -> str:
    """MobileNet v3: expand, depthwise, gate, project."""
    h = stem(net)
    wide = net.op("HardSwish", net.conv(h, 6, 12))
    wide = net.op("HardSwish", net.conv(wide, 12, 12, 3, 3, group=12, pads=[1, 1, 1, 1]))
    gate = net.op("Relu", net.conv(net.op("GlobalAveragePool", wide), 12, 4))
    wide = net.op("Mul", wide, net.op("HardSigmoid", net.conv(gate, 4, 12)))
    return head(net, net.op("Add", h, net.conv(wide, 12, 6)))


@EXAMPLES.add(6, 3, 3, 5)
def dense(net: Net) -> str:
    """DenseNet: every layer reads all before it, through a norm of its own."""
    h = stem(net)
    for width in (6, 9):
        values = [1 + net.noise(width), net.noise(width), net.noise(width), net.noise(width) ** 2 + 0.5]
        h = net.op("Concat", h, net.conv(net.op("Relu", net.op("BatchNormalization", h, *values)), width, 3), axis=1)
    return head(net, net.conv(h, 12, 5), 5)


@EXAMPLES.add(6, 3, 4, 5)
def inception(net: Net) -> str:
    h = stem(net)
    narrow = net.op("Relu", net.conv(h, 6, 3))
    wide = net.op("Relu", net.conv(narrow, 3, 4, 3, 3, pads=[1, 1, 1, 1]))
    pooled = net.conv(net.op("AveragePool", h, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 6, 5)
    return head(net, net.op("Concat", wide, narrow, pooled, h, axis=1), 18)


@EXAMPLES.add(4, 4, 4)
def shuffle_unit(net: Net) -> str:
    """ShuffleNet v2: half of the channels pass by, then all are shuffled, so that the halves come to be one."""
    h = stem(net, 8)
    left, right = net.ops("Split", h, [4, 4], outputs=2, axis=1)
    right = net.conv(net.op("Relu", net.conv(right, 4, 4)), 4, 4)
    right = net.conv(right, 4, 4, 3, 3, group=4, pads=[1, 1, 1, 1])
    h = net.op("Reshape", net.op("Concat", left, right, axis=1), [-1, 2, 4, 8, 8])
    h = net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 1, 3, 4]), [-1, 8, 8, 8])
    return head(net, h, 8)


@EXAMPLES.add(2, 4, 3)
def cross_stage(net: Net) -> str:
    """YOLO's C2f: a split, a residual on one part, all of it concatenated."""
    h = net.op("Mul", stem(net), net.op("Sigmoid", "stem_out"))
    a, b = net.ops("Split", h, [2, 4], outputs=2, axis=1)
    c = net.op("Add", b, net.conv(net.op("Relu", net.conv(b, 4, 3)), 3, 4))
    return head(net, net.op("Concat", a, b, c, axis=1), 10)


@EXAMPLES.add(6, 2, 3, 4, 5)
def aggregation(net: Net) -> str:
    """ELAN: two branches, one of which goes on twice, every stage of it concatenated."""
    h = stem(net)
    a, b = net.conv(h, 6, 2), net.conv(h, 6, 3)
    c = net.conv(net.op("Relu", b), 3, 4, 3, 3, pads=[1, 1, 1, 1])
    d = net.conv(net.op("Relu", c), 4, 5, 3, 3, pads=[1, 1, 1, 1])
    return head(net, net.op("Concat", d, c, b, a, axis=1), 14)


@EXAMPLES.add(6, 8, 6)
def hourglass(net: Net) -> str:
    """U-Net: down, up by a ConvTranspose, and across."""
    h = stem(net)
    low = net.conv(net.op("Relu", h), 6, 8, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1])
    up = net.conv(net.op("Relu", low), 8, 6, 2, 2, kind="ConvTranspose", strides=[2, 2])
    return head(net, net.op("Concat", up, h, axis=1), 12)


@EXAMPLES.add(6, 4)
def pyramid(net: Net) -> list[str]:
    """FPN: two levels, one resized to the other's size and added to it."""
    h = stem(net)
    low = net.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    fine, coarse = net.conv(h, 6, 4), net.conv(low, 6, 4)
    size = net.op("Concat", net.op("Slice", net.op("Shape", coarse), [0], [2]), [8, 8], axis=0)
    fine = net.op("Add", fine, net.op("Resize", coarse, None, None, size))
    return [head(net, fine, 4), head(net, coarse, 4, name="second")]


@EXAMPLES.add(6, 4)
def ghost(net: Net) -> str:
    """GhostNet: half of the channels are made from the other half."""
    h = net.op("Relu", net.conv(stem(net), 6, 4))
    ghosts = net.op("Relu", net.conv(h, 4, 4, 3, 3, group=4, pads=[1, 1, 1, 1]))
    return head(net, net.op("Concat", h, ghosts, axis=1), 8)


@EXAMPLES.add(6, 12)
def modern(net: Net) -> str:
    """ConvNeXt without its norm, which would hold the stream: depthwise, MLP in channels-last, a learnt scale."""
    h = net.conv(stem(net), 6, 6, 3, 3, group=6, pads=[1, 1, 1, 1])
    rows = net.op("Transpose", h, perm=[0, 2, 3, 1])
    rows = net.op("Add", net.op("MatMul", net.op("Relu", rows), net.noise(6, 12)), net.noise(12))
    rows = net.op("Add", net.op("MatMul", net.op("Erf", rows), net.noise(12, 6)), net.noise(6))
    rows = net.op("Mul", rows, net.noise(6))
    return head(net, net.op("Add", net.op("Transpose", rows, perm=[0, 3, 1, 2]), "stem_out"))


@EXAMPLES.add(7, 5, 4)
def words_and_image(net: Net) -> str:
    """A vector of one branch scales and shifts the channels of another."""
    words = net.op("Relu", net.linear(net.input("N", 4, name="words"), 4, 7))
    scale, shift = (net.op("Unsqueeze", net.linear(words, 7, 5), [2, 3]) for _ in range(2))
    h = net.op("Add", net.op("Mul", stem(net, 5), scale), shift)
    return net.op("GlobalMaxPool", head(net, net.conv(net.op("Relu", h), 5, 4), 4))


@EXAMPLES.add(6, 5)
def classifier(net: Net) -> str:
    """Pooling, flattening by a computed shape, dropout, and a linear layer."""
    h = net.conv(net.op("Relu", stem(net)), 6, 5, 3, 3, strides=[2, 2])
    h = net.op("GlobalAveragePool", h)
    batch = net.op("Unsqueeze", net.op("Gather", net.op("Shape", h), np.array(0)), [0])
    h = net.op("Reshape", h, net.op("Concat", batch, [-1], axis=0))
    return net.op("Softmax", net.linear(net.op("Dropout", h), 5, 3))


@EXAMPLES.add(6, 5)
def focal(net: Net) -> str:
    """Space is folded into channels, first on the image, then on channels."""
    x = net.input("N", 3, 8, 8)
    parts = [net.op("Slice", x, [r, c], [99, 99], [2, 3], [2, 2]) for c in (0, 1) for r in (0, 1)]
    h = net.conv(net.op("Concat", *parts, axis=1), 12, 6)
    return head(net, net.conv(net.op("SpaceToDepth", h, blocksize=2), 24, 5), 5)
