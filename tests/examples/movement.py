"""Data movement."""

from __future__ import annotations

import sys

import numpy as np
from onnx import TensorProto

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()
LAST = sys.maxsize


def _axes(net: Net, kind: str, h: str, *axes: int) -> str:
    """Squeeze or Unsqueeze, whose axes became an input."""
    return net.op(kind, h, list(axes)) if net.opset >= 13 else net.op(kind, h, axes=list(axes))


def _slice(net: Net, h: str, starts: list[int], ends: list[int], axes: list[int]) -> str:
    """Slice, whose bounds became inputs."""
    if net.opset >= 10:
        return net.op("Slice", h, starts, ends, axes)
    return net.op("Slice", h, starts=starts, ends=ends, axes=axes)


def _pad(net: Net, h: str, pads: list[int], mode: str = "constant") -> str:
    """Pad, whose pads became an input."""
    return net.op("Pad", h, pads, mode=mode) if net.opset >= 11 else net.op("Pad", h, pads=pads, mode=mode)


# -- one input, one output ------------------------------------------------------------------------


@EXAMPLES.add(6)
def copies(net: Net) -> str:
    h = net.op("Identity", net.op("Cast", stem(net), to=TensorProto.DOUBLE))
    return head(net, net.op("Cast", h, to=TensorProto.FLOAT))


@EXAMPLES.add(6, opset=[7, 13, 21])
def squeezed(net: Net) -> str:
    last = -1 if net.opset >= 11 else 3
    h = _axes(net, "Squeeze", net.op("GlobalAveragePool", stem(net)), last, 2)
    h = _axes(net, "Unsqueeze", net.op("Relu", h), last, 1)
    h = net.op("Transpose", h, perm=[0, 2, 1, 3])
    return head(net, h)


@EXAMPLES.add(frozen=["it squeezes every axis of size 1"])
def squeezed_everywhere(net: Net) -> str:
    """With one channel left its axis would go too."""
    x = net.input(2, 3, 8, 8)
    pooled = net.op("GlobalAveragePool", net.conv(x, 3, 6))
    return net.linear(net.op("Squeeze", pooled), 6, 3)


@EXAMPLES.add(6)
def transposed(net: Net) -> str:
    h = net.op("Relu", net.op("Transpose", stem(net), perm=[3, 0, 1, 2]))
    return head(net, net.op("Transpose", h, perm=[1, 2, 0, 3]))


@EXAMPLES.add(5)
def turned_round(net: Net) -> str:
    """Transpose without perm."""
    h = net.op("Transpose", net.linear(net.input(2, 4), 4, 5))
    return net.linear(net.op("Transpose", net.op("Sigmoid", h)), 5, 3)


@EXAMPLES.add(6)
def tiled(net: Net) -> str:
    """Every channel stands three times."""
    return head(net, net.op("Tile", stem(net), [1, 3, 1, 2]), 18)


@EXAMPLES.add(6)
def expanded(net: Net) -> str:
    """Sizes with ones, and fewer than the tensor has axes."""
    h = net.op("Expand", net.op("GlobalMaxPool", stem(net)), [1, 1, 8, 8])
    h = net.op("Expand", net.op("Expand", h, [6, 8, 1]), [1])
    return head(net, net.op("Expand", h, [1, 6, 1, 1]))


@EXAMPLES.add(frozen=["carries no channels"])
def expanded_to_channels(net: Net) -> str:
    """What is repeated along channels has none: the join freezes those that it meets."""
    h = stem(net)
    plain = net.op("Expand", net.op("ReduceMean", "x", axes=[1]), [1, 6, 8, 8])
    return head(net, net.op("Add", h, plain))


@EXAMPLES.add(3, opset=[7, 11, 13])
def depth_to_space(net: Net) -> str:
    return net.conv(net.op("DepthToSpace", stem(net, 12), blocksize=2), 3, 4, 3, 3)


@EXAMPLES.add(3)
def depth_to_space_by_columns(net: Net) -> str:
    return head(net, net.op("DepthToSpace", stem(net, 12), blocksize=2, mode="CRD"), 3)


@EXAMPLES.add(frozen=["a single unit"])
def depth_to_one_channel(net: Net) -> str:
    return net.conv(net.op("DepthToSpace", stem(net, 4), blocksize=2), 1, 4, 3, 3)


@EXAMPLES.add(6)
def space_to_depth(net: Net) -> str:
    return head(net, net.op("SpaceToDepth", stem(net), blocksize=2), 24)


@EXAMPLES.add(frozen=["channels do not lie on axis 1"])
def depth_elsewhere(net: Net) -> str:
    h = net.op("Transpose", stem(net), perm=[0, 2, 1, 3])
    return net.op("DepthToSpace", h, blocksize=2)


# -- reshape --------------------------------------------------------------------------------------


@EXAMPLES.add(6)
def reshaped(net: Net) -> str:
    """Channels named, copied by 0, left to -1, and before merged axes."""
    h = net.op("Reshape", stem(net), [0, 6, 64])
    h = net.op("Reshape", net.op("Relu", h), [0, 0, 4, -1])
    h = net.op("Reshape", net.op("Tanh", h), [-1, 6, 8, 8])
    return head(net, net.op("Reshape", h, [0, -1, 8, 8]))


@EXAMPLES.add(4, 4)
def shuffled(net: Net) -> str:
    """ShuffleNet's shuffle between grouped convolutions."""
    h = net.op("Reshape", net.conv(stem(net, 8), 8, 8, group=2), [-1, 2, 4, 8, 8])
    h = net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 1, 3, 4]), [-1, 8, 8, 8])
    return head(net, h, 8)


@EXAMPLES.add(3)
def rearranged(net: Net) -> str:
    """Channels i and i + 3 share a column on the way."""
    h = net.op("Reshape", net.linear(net.input("N", 4), 4, 6), [-1, 2, 3])
    return net.linear(net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 1]), [0, 6]), 6, 3)


@EXAMPLES.add(frozen=["a single unit"])
def torn_apart(net: Net) -> str:
    """Rows that end in the middle of the channels."""
    h = net.op("Relu", net.op("Reshape", net.linear(net.input(2, 4), 4, 5), [5, 2]))
    return net.linear(net.op("Reshape", h, [2, 5]), 5, 3)


@EXAMPLES.add(6)
def gather_nd(net: Net) -> str:
    """Rows of an image that is turned to H x W x N x C."""
    h = net.op("Transpose", stem(net), perm=[2, 3, 0, 1])
    h = net.op("GatherND", h, np.array([[[0, 1], [2, 2]], [[5, 1], [7, 7]]]))
    return head(net, net.op("Transpose", h, perm=[2, 3, 0, 1]))


@EXAMPLES.add(frozen=["it picks among channels"])
def gather_nd_among_channels(net: Net) -> str:
    h = net.op("Transpose", stem(net), perm=[1, 0, 2, 3])
    return net.op("Relu", net.op("GatherND", h, np.array([[0], [5]])))


@EXAMPLES.add(frozen=["has a size that never changes"])
def size_copied_from_others(net: Net) -> str:
    """The middle axis keeps its size by 0, but holds channels that it did not hold before."""
    h = net.op("Transpose", net.linear(net.input(6, 5), 5, 6))
    h = net.op("Relu", net.op("Reshape", net.op("Reshape", h, [6, 3, 2]), [2, 0, 6]))
    return net.linear(net.op("Transpose", net.op("Reshape", h, [6, 6])), 6, 3)


@EXAMPLES.add(6, opset=14)
def no_size_copied(net: Net) -> str:
    h = net.op("Reshape", stem(net), [-1, 6, 64], allowzero=1)
    return head(net, net.op("Reshape", h, [-1, 6, 8, 8]))


# -- several inputs or outputs --------------------------------------------------------------------


@EXAMPLES.add(6, 5)
def concat(net: Net) -> str:
    a, b = stem(net), stem(net, 5, name="other")
    return head(net, net.op("Concat", a, b, "x", axis=1), 14)


@EXAMPLES.add(6)
def concat_twice(net: Net) -> str:
    """The channels reach one layer twice."""
    h = stem(net)
    return head(net, net.op("Concat", h, net.op("Relu", h), axis=-3), 12)


@EXAMPLES.add(6)
def concat_along_space(net: Net) -> str:
    """Along another axis channels are tied, and a constant is cut like them."""
    border = net.constant(net.noise(1, 6, 2, 8))
    h = net.op("Concat", border, net.conv(net.input(1, 3, 8, 8), 3, 6), border, net.conv("x", 3, 6), axis=2)
    return head(net, h)


@EXAMPLES.add(6, 3)
def concat_with_constant(net: Net) -> str:
    """A constant brings channels of its own, twice."""
    more = net.constant(net.noise(1, 3, 8, 8))
    h = net.op("Concat", more, net.conv(net.input(1, 3, 8, 8), 3, 6), axis=1)
    return head(net, h, 9)


@EXAMPLES.add(frozen=["mixes them with values that carry no channels"])
def concat_plain_along_space(net: Net) -> str:
    return head(net, net.op("Concat", stem(net, 3), "x", axis=2), 3)


@EXAMPLES.add(2, 4, opset=[7, 11, 13, 18])
def split(net: Net) -> str:
    """Two branches of unequal width."""
    sizes = ([2, 4],) if net.opset >= 13 else ()
    a, b = net.ops("Split", stem(net), *sizes, outputs=2, axis=1, **({} if sizes else {"split": [2, 4]}))
    return net.op("Add", net.conv(a, 2, 4), net.conv(net.op("Relu", b), 4, 4))


@EXAMPLES.add(3, opset=[11, 13, 18])
def split_evenly(net: Net) -> str:
    a, b = net.ops("Split", stem(net), outputs=2, axis=1, **({"num_outputs": 2} if net.opset >= 18 else {}))
    return head(net, net.op("Mul", a, net.op("Sigmoid", b)), 3)


@EXAMPLES.add(6)
def split_space(net: Net) -> str:
    top, bottom = net.ops("Split", stem(net), outputs=2, axis=-2)
    return head(net, net.op("Max", top, bottom))


@EXAMPLES.add(6, opset=[7, 10, 13])
def sliced_space(net: Net) -> str:
    """The upper and the lower half, one behind the other."""
    h = stem(net)
    parts = [_slice(net, h, [start], [start + 4], [2]) for start in (0, 4)]
    return head(net, net.op("Concat", *parts, axis=1), 12)


@EXAMPLES.add(2, 3, 2, opset=[7, 10, 13])
def sliced_channels(net: Net) -> str:
    """Bounds that are negative, or the largest number there is."""
    h = stem(net, 7)
    parts = [_slice(net, h, [0], [2], [1]), _slice(net, h, [-5], [-2], [1]), _slice(net, h, [5], [LAST], [-3])]
    return net.op("Sum", *(net.conv(part, width, 4) for part, width in zip(parts, (2, 3, 2), strict=True)))


@EXAMPLES.add(6)
def sliced_in_steps(net: Net) -> str:
    """Focus, on space."""
    h = stem(net)
    parts = [net.op("Slice", h, [y, x], [LAST, LAST], [2, 3], [2, 2]) for y in (0, 1) for x in (0, 1)]
    return head(net, net.op("Concat", *parts, axis=1), 24)


@EXAMPLES.add(6)
def sliced_backwards(net: Net) -> str:
    return head(net, net.op("Slice", stem(net), [-1], [-LAST], [3], [-1]))


@EXAMPLES.add(frozen=["it takes every n-th channel"])
def sliced_every_second(net: Net) -> str:
    return head(net, net.op("Slice", stem(net), [0], [6], [1], [2]), 3)


@EXAMPLES.add(6)
def sliced_all(net: Net) -> str:
    """Bounds around every axis, as int32."""
    bounds = np.array([0, 0, 1, 1], np.int32), np.array([9, 6, 7, 7], np.int32)
    return head(net, net.op("Slice", stem(net), *bounds))


@EXAMPLES.add(6, 5, opset=[15, 19])
def cast_like(net: Net) -> str:
    """A number of the type of a tensor, and a tensor of the type of a number."""
    h = stem(net)
    h = net.op("Mul", h, net.op("CastLike", np.array(0.5, np.float16), h))
    return head(net, net.conv(net.op("CastLike", h, np.float32(1)), 6, 5), 5)


@EXAMPLES.add(frozen=["its bounds are computed"])
def sliced_by_computed(net: Net) -> str:
    end = net.op("Mul", net.input(1, name="end", dtype=TensorProto.INT64), [3])
    h = net.op("Slice", stem(net), [0], end, [1])
    return net.op("ReduceSum", h, [1], keepdims=0)


@EXAMPLES.add(3, frozen=["a single unit", "no layer reads them"])
def gathered(net: Net) -> str:
    """Channels by a list, one twice, some never, in any order."""
    h = net.op("Gather", stem(net, 7), [4, -1, 0, 4, 2], axis=1)
    return head(net, h, 5)


@EXAMPLES.add(frozen=["takes this one channel"])
def gathered_one(net: Net) -> str:
    h = stem(net)
    one = net.op("Unsqueeze", net.op("Gather", h, np.array(-2), axis=1), [1])
    return head(net, net.op("Mul", h, one))


@EXAMPLES.add(6)
def gathered_rows(net: Net) -> str:
    h = net.op("Gather", stem(net), [[0, 2], [3, 1]], axis=2)
    return head(net, net.op("Reshape", h, [0, 6, 4, 8]))


@EXAMPLES.add(frozen=["its indices are not a constant list"])
def gathered_table(net: Net) -> str:
    h = net.op("Gather", stem(net), [[0, 2], [3, 1]], axis=1)
    return net.op("ReduceSum", h, [1], keepdims=0)


@EXAMPLES.add(frozen=["its numbers are computed"])
def gathered_by_many(net: Net) -> str:
    places = net.op("Mul", net.input(100, name="places", dtype=TensorProto.INT64), [2])
    return head(net, net.op("Gather", stem(net), places, axis=2))


@EXAMPLES.add(7)
def gathered_words(net: Net) -> str:
    """An embedding: a plain table."""
    words = net.op("Gather", net.noise(9, 4), net.input("N", 5, name="words", dtype=TensorProto.INT64))
    return net.op("MatMul", net.op("Relu", net.op("MatMul", words, net.noise(4, 7))), net.noise(7, 3))


@EXAMPLES.add(6, opset=[7, 10, 11, 13, 18])
def padded_space(net: Net) -> str:
    h = _pad(net, stem(net), [0, 0, 1, 2, 0, 0, 0, 1])
    h = _pad(net, h, [0, 0, 1, 0, 0, 0, 0, 1], "reflect")
    return head(net, _pad(net, h, [0, 0, 0, -1, 0, 0, 1, 0], "edge"))


@EXAMPLES.add(6, opset=19)
def padded_round(net: Net) -> str:
    return head(net, net.op("Pad", stem(net), [1, 2, 0, 1], None, [2, -1], mode="wrap"))


@EXAMPLES.add(4, 2, opset=[7, 11])
def padded_channels(net: Net) -> str:
    """A shortcut without weights: channels are padded, and meet those of a convolution."""
    h = stem(net, 4)
    return head(net, net.op("Add", _pad(net, h, [0, 1, 0, 0, 0, 1, 0, 0]), net.conv(net.op("Relu", h), 4, 6)))


@EXAMPLES.add(5, 4, frozen=["no layer reads them"])
def padded_with_a_value(net: Net) -> str:
    """What is padded is not zero, and some is cropped again; its readers must not miss it."""
    h = net.op("Pad", stem(net, 5), [0, 3, 0, 0, 0, 2, 0, 0], 0.7)
    a = net.op("Pad", h, [0, -1, 0, 0, 0, 0, 0, 0])
    return net.conv(net.op("Relu", a), 9, 4)


@EXAMPLES.add(frozen=["it pads channels in mode reflect"])
def padded_channels_reflected(net: Net) -> str:
    return head(net, net.op("Pad", stem(net), [0, 1, 0, 0, 0, 0, 0, 0], mode="reflect"), 7)


@EXAMPLES.add(frozen=["its pads are computed"])
def padded_by_computed(net: Net) -> str:
    pads = net.op("Mul", net.input(8, name="pads", dtype=TensorProto.INT64), [0, 1, 0, 0, 0, 0, 0, 0])
    return net.op("ReduceSum", net.op("Pad", stem(net), pads), [1], keepdims=0)
