"""The constant and shape arithmetic that exporters leave around, and where constants can come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()


def stem_of_any_size(net: Net) -> str:
    return net.conv(net.input("N", 3, "H", "W"), 3, 6, 3, 3, pads=[1, 1, 1, 1], name="stem")


def _size(net: Net, h: str, axis: int) -> str:
    """One size of a tensor, as a list of one."""
    return net.op("Unsqueeze", net.op("Gather", net.op("Shape", h), np.array(axis)), [0])


# -- shapes ---------------------------------------------------------------------------------------


@EXAMPLES.add(6)
def flatten_by_batch(net: Net) -> str:
    """x.view(x.size(0), -1)"""
    h = net.op("GlobalAveragePool", stem(net))
    return net.linear(net.op("Reshape", h, net.op("Concat", _size(net, h, 0), [-1], axis=0)), 6, 3)


@EXAMPLES.add(6)
def flatten_by_numbers(net: Net) -> str:
    """The width stands in a constant that a Concat reads."""
    h = net.op("GlobalAveragePool", stem(net))
    return net.linear(net.op("Reshape", h, net.op("Concat", _size(net, h, 0), [6], axis=0)), 6, 3)


@EXAMPLES.add(6)
def reshape_like_itself(net: Net) -> str:
    h = stem(net)
    flat = net.op("Relu", net.op("Reshape", h, [0, 0, -1]))
    return head(net, net.op("Reshape", flat, net.op("Shape", h)))


@EXAMPLES.add(6)
def reshape_by_every_size(net: Net) -> str:
    h = stem(net)
    sizes = net.op("Concat", *(_size(net, h, axis) for axis in range(4)), axis=0)
    return head(net, net.op("Reshape", net.op("Flatten", h), net.op("Cast", sizes, to=TensorProto.INT64)))


@EXAMPLES.add(6)
def reshape_like_another(net: Net) -> str:
    """Two tensors of one width, one reshaped by the sizes of the other: the two are tied."""
    a, b = stem(net), stem(net, name="other")
    flat = net.op("Flatten", net.op("Relu", b))
    b = net.op("Reshape", flat, net.op("Shape", a))
    return net.op("Add", head(net, a), head(net, b, name="second"))


@EXAMPLES.add(frozen=["has a size that never changes"])
def reshape_like_the_input(net: Net) -> str:
    """As wide as the input by chance, and by a shape that reads the input: it cannot change."""
    h = stem(net, 3)
    return head(net, net.op("Reshape", net.op("Flatten", h), net.op("Shape", "x")), 3)


@EXAMPLES.add(6, 6)
def one_number_for_one_width(net: Net) -> list[str]:
    """Two constants with the same number each follow their own width."""
    made = []
    for name in ("stem", "other"):
        h = net.op("Flatten", net.op("GlobalAveragePool", stem(net, name=name)))
        shape = net.op("Concat", _size(net, h, 0), [6], [1, 1], axis=0)
        made.append(head(net, net.op("Reshape", h, shape), name=f"head {name}"))
    return made


@EXAMPLES.add(6)
def one_number_for_two_widths(net: Net) -> list[str]:
    """One number that sizes two tensors ties them."""
    flats = [net.op("Flatten", net.op("GlobalAveragePool", stem(net, name=name))) for name in ("stem", "other")]
    shape = net.op("Concat", _size(net, flats[0], 0), [6, 1, 1], axis=0)
    return [head(net, net.op("Reshape", h, shape), name=f"head of {h}") for h in flats]


@EXAMPLES.add(6)
def number_computed_with(net: Net) -> str:
    """One number is a size here and a factor there."""
    h = net.op("GlobalAveragePool", stem(net))
    number = net.op("Slice", net.op("Concat", _size(net, h, 0), [6, 1, 1], axis=0), [1], [2])
    shape = net.op("Concat", _size(net, h, 0), number, [1, 1], axis=0)
    factor = net.op("Cast", net.op("Mul", number, [2]), to=TensorProto.FLOAT)
    return head(net, net.op("Mul", net.op("Reshape", net.op("Flatten", h), shape), factor))


@EXAMPLES.add(6)
def mean_by_hand(net: Net) -> str:
    """A sum divided by how many there were."""
    h = stem(net)
    count = net.op("Cast", net.op("Mul", _size(net, h, 1), [2]), to=TensorProto.FLOAT)
    return head(net, net.op("Div", h, count))


@EXAMPLES.add(frozen=["computes with the number of channels"])
def size_of_all(net: Net) -> str:
    h = stem(net)
    return head(net, net.op("Div", h, net.op("Cast", net.op("Size", h), to=TensorProto.FLOAT)))


@EXAMPLES.add(3, 3)
def half_of_the_width(net: Net) -> str:
    """torch's chunk: a bound of a Slice that is computed from the width."""
    h = stem(net)
    half = net.op("Div", net.op("Add", _size(net, h, 1), [1]), [2])
    return net.op("Add", *(net.conv(net.op("Slice", h, *b, [1]), 3, 4) for b in (([0], half), (half, [6]))))


@EXAMPLES.add(3, 3)
def slice_up_to_the_width(net: Net) -> str:
    h = stem(net)
    return net.op("Add", net.conv(net.op("Slice", h, [3], _size(net, h, 1), [1]), 3, 4), net.conv(h, 6, 4))


@EXAMPLES.add(3, 3)
def shuffle_by_halves(net: Net) -> str:
    """A channel shuffle whose two halves are computed, on space of any size."""
    h = net.conv(stem_of_any_size(net), 6, 6, group=2)
    n, c, y, x = (net.op("Gather", net.op("Shape", h), np.array(axis)) for axis in range(4))
    half = net.op("Cast", net.op("Div", c, np.array(2)), to=TensorProto.INT64)
    n, c, y, x, half = (net.op("Unsqueeze", size, [0]) for size in (n, c, y, x, half))
    h = net.op("Reshape", h, net.op("Concat", n, [2], half, y, x, axis=0))
    h = net.op("Reshape", net.op("Transpose", h, perm=[0, 2, 1, 3, 4]), net.op("Concat", n, c, y, x, axis=0))
    return net.op("GlobalMaxPool", head(net, net.op("Relu", h)))


@EXAMPLES.add(frozen=["computes with the number of channels"])
def size_that_varies(net: Net) -> str:
    """What is computed from a width of maps of any size is no constant."""
    h = net.op("Relu", stem_of_any_size(net))
    flat = net.op("Flatten", h)
    count = net.op("Cast", net.op("Mul", _size(net, flat, 1), [2]), to=TensorProto.FLOAT)
    return net.op("GlobalMaxPool", head(net, net.op("Div", h, count)))


@EXAMPLES.add(3)
def heads_times_batch(net: Net) -> str:
    """Heads folded into the batch by a size that is computed: so many for each sample."""
    x = net.op("Transpose", net.input("N", 5, 4), perm=[1, 0, 2])
    tokens, batch = (net.op("Gather", net.op("Shape", x), np.array(axis)) for axis in (0, 1))
    size = net.op(
        "Div", net.op("Gather", net.op("Shape", net.op("MatMul", x, net.noise(4, 6))), np.array(2)), np.array(3)
    )
    folded = [net.op("Unsqueeze", part, [0]) for part in (tokens, net.op("Mul", batch, np.array(3)), size)]
    parts = []
    for _ in range(3):
        h = net.op("Reshape", net.op("MatMul", x, net.noise(4, 6)), net.op("Concat", *folded, axis=0))
        parts.append(net.op("Transpose", h, perm=[1, 0, 2]))
    q, k, v = parts
    scale = net.op("Sqrt", net.op("Cast", net.op("Slice", net.op("Shape", q), [-1], [9]), to=TensorProto.FLOAT))
    scores = net.op("MatMul", net.op("Div", q, scale), net.op("Transpose", k, perm=[0, 2, 1]))
    mixed = net.op("Transpose", net.op("MatMul", net.op("Softmax", scores), v), perm=[1, 0, 2])
    width = net.op("Concat", net.op("Unsqueeze", tokens, [0]), net.op("Unsqueeze", batch, [0]), [6], axis=0)
    return net.op("MatMul", net.op("Reshape", mixed, width), net.noise(6, 3))


@EXAMPLES.add(frozen=["computes with the number of channels"])
def width_is_an_output(net: Net) -> list[str]:
    h = stem(net)
    return [head(net, h), net.op("Identity", net.op("Shape", h))]


@EXAMPLES.add(6, opset=15)
def part_of_a_shape(net: Net) -> str:
    h = stem(net)
    sizes = net.op("Concat", net.op("Shape", h, start=0, end=1), [6], net.op("Shape", h, start=-2), axis=0)
    return head(net, net.op("Reshape", net.op("Flatten", h), sizes))


@EXAMPLES.add(6)
def sizes_of_the_batch(net: Net) -> str:
    """Arithmetic on other sizes freezes nothing."""
    h = stem(net)
    rows = net.op("Div", net.op("Mul", _size(net, h, 2), [4]), [2])
    flat = net.op("Reshape", h, net.op("Concat", _size(net, h, 0), [6], rows, [-1], axis=0))
    return head(net, net.op("Reshape", net.op("Relu", flat), [0, 6, 8, 8]))


@EXAMPLES.add(6)
def expand_by_computed(net: Net) -> str:
    """expand_as."""
    h = stem(net)
    pooled = net.op("GlobalAveragePool", h)
    return head(net, net.op("Sub", h, net.op("Expand", pooled, net.op("Shape", h))))


@EXAMPLES.add(6)
def expand_to_listed_sizes(net: Net) -> str:
    """expand(b, c, h, w) as PyTorch writes it, with its question for -1."""
    h = stem(net)
    shape = net.op("Concat", *(_size(net, h, axis) for axis in range(3)), [8], axis=0)
    ones = net.op("ConstantOfShape", [4], value=numpy_helper.from_array(np.ones(1, np.int64)))
    asked = net.op("Equal", shape, net.op("Mul", ones, np.array(-1)))
    shape = net.op("Where", asked, ones, shape)
    return head(net, net.op("Sub", h, net.op("Expand", net.op("GlobalAveragePool", h), shape)))


@EXAMPLES.add(frozen=["Equal question computes with the number of channels"])
def sizes_chosen_by_sizes(net: Net) -> str:
    """A question that other widths would answer otherwise."""
    h = stem(net)
    shape = net.op("Shape", h)
    shape = net.op("Where", net.op("Equal", shape, [9, 6, 9, 9], name="question"), shape, [0, 0, 0, 0], name="chosen")
    return head(net, net.op("Reshape", net.op("Relu", h), shape))


@EXAMPLES.add(6)
def expand_space_by_computed(net: Net) -> str:
    h = stem(net)
    shape = net.op("Concat", [1, 1], _size(net, h, 2), _size(net, h, 3), axis=0)
    return head(net, net.op("Sub", h, net.op("Expand", net.op("GlobalAveragePool", h), shape)))


@EXAMPLES.add(frozen=["carries no channels"])
def zeros_like(net: Net) -> str:
    h = stem(net)
    return head(net, net.op("Max", h, net.op("ConstantOfShape", net.op("Shape", h))))


@EXAMPLES.add(frozen=["carries no channels"])
def constant_expanded(net: Net) -> str:
    h = stem(net)
    return head(net, net.op("Add", h, net.op("Expand", net.noise(1, 1, 1), net.op("Shape", h))))


@EXAMPLES.add(6, frozen=["makes or reads a computed size"])
def shape_from_data(net: Net) -> str:
    """The sizes are an input of the model."""
    h = net.conv(stem(net), 6, 6)
    sizes = net.op("Mul", net.input(4, name="sizes", dtype=TensorProto.INT64), [-1, 6, 8, 8])
    return head(net, net.op("Reshape", net.op("Flatten", h), sizes))


@EXAMPLES.add(4, 4)
def shuffle_by_arithmetic(net: Net) -> str:
    """A channel shuffle whose batch is read off the tensor."""
    h = net.conv(stem(net, 8), 8, 8, group=2)
    batch = _size(net, h, 0)
    split = net.op("Reshape", h, net.op("Concat", batch, [2], [4], _size(net, h, 2), _size(net, h, 3), axis=0))
    turned = net.op("Transpose", split, perm=[0, 2, 1, 3, 4])
    return head(net, net.op("Reshape", turned, net.op("Concat", batch, [-1], [8, 8], axis=0)), 8)


# -- constants ------------------------------------------------------------------------------------


def _node_constant(net: Net, value: np.ndarray) -> str:
    return net.op("Constant", value=numpy_helper.from_array(value))


@EXAMPLES.add(6, 5)
def constant_nodes(net: Net) -> str:
    """Weights in nodes, which go with the channels; attributes of later nodes are rewritten all the same."""
    x = net.input("N", 3, 8, 8)
    h = net.op("Conv", x, _node_constant(net, net.noise(6, 3, 1, 1)), _node_constant(net, net.noise(6)))
    h = net.op("Conv", h, _node_constant(net, net.noise(6, 1, 3, 3)), group=6)
    shape = net.op("Constant", value_ints=[0, 6, 36, 1])
    h = net.op("Conv", net.op("Reshape", h, shape), _node_constant(net, net.noise(5, 6, 1, 1)))
    return head(net, h, 5)


@EXAMPLES.add(6, 5)
def constants_behind_nodes(net: Net) -> str:
    """Weights that are copied, cast, turned and multiplied before they are read."""
    kernel = net.op("Cast", net.op("Identity", net.noise(6, 3, 1, 1).astype(np.float16)), to=TensorProto.FLOAT)
    h = net.op("Conv", net.input("N", 3, 4, 4), kernel)
    kernel = net.op("Mul", net.noise(5, 6, 1, 1), net.noise(5, 1, 1, 1))
    h = net.op("Flatten", net.op("Conv", h, kernel))
    return net.op("MatMul", h, net.op("Transpose", net.noise(3, 80)))


@EXAMPLES.add(6, 5)
def constants_of_one_node(net: Net) -> str:
    """Two layers read one copied constant, through other nodes each."""
    copy = net.op("Identity", net.noise(5, 6))
    h = net.op("MatMul", net.input("N", 5), copy)
    h = net.op("MatMul", h, net.op("Transpose", copy))
    return net.linear(h, 5, 3)


@EXAMPLES.add(6, 5, ir=3, opset=[7, 8])
def constants_are_inputs(net: Net) -> str:
    """Before IR version 4 every initializer is an input too; a new one has to be."""
    h = stem(net)
    h = net.op("BatchNormalization", h, *_statistics(net))
    return head(net, net.conv(h, 6, 5), 5)


def _statistics(net: Net) -> list[str]:
    ones = net.constant(np.ones(6, np.float32), "ones")
    return [ones, net.constant(net.noise(6)), net.constant(net.noise(6)), ones]


@EXAMPLES.add(6, 6, ir=3, opset=7)
def shared_constants_are_inputs(net: Net) -> str:
    """Two norms share a constant and lose other channels: one gets an initializer, and input, of its own."""
    ones = net.constant(np.ones(6, np.float32), "ones")
    h = net.op("BatchNormalization", stem(net), ones, net.noise(6), net.noise(6), ones)
    h = net.op("BatchNormalization", net.conv(h, 6, 6), ones, net.noise(6), net.noise(6), ones)
    return head(net, h)


@EXAMPLES.add(6)
def constant_is_an_output(net: Net) -> list[str]:
    kernel = net.constant(net.noise(4, 6, 1, 1), "kernel")
    return [net.op("Conv", stem(net), kernel), net.op("Identity", kernel), "kernel"]


@EXAMPLES.add(6)
def constant_is_read_by_a_body(net: Net) -> str:
    """A branch reads a weight as it was."""
    kernel = net.constant(net.noise(4, 6, 1, 1), "kernel")
    h = net.op("Conv", stem(net), kernel)
    number = _branches(net, ["ReduceSum", "ReduceMax"], "kernel", keepdims=0)
    return net.op("Add", h, number)


@EXAMPLES.add(frozen=["no rule for bodies"])
def body_reads_channels(net: Net) -> str:
    h = stem(net)
    return head(net, net.op("Add", h, _branches(net, ["Relu", "Neg"], h)))


@EXAMPLES.add(frozen=["computes with the number of channels"])
def body_reads_a_shape(net: Net) -> str:
    h = stem(net)
    number = _branches(net, ["ReduceSum", "ReduceMax"], net.op("Shape", h), keepdims=0)
    return head(net, net.op("Mul", h, net.op("Cast", number, to=TensorProto.FLOAT)))


@EXAMPLES.add(6)
def body_beside(net: Net) -> str:
    """A body that reads no channels is left alone."""
    h = stem(net)
    return net.op("Mul", head(net, h), _branches(net, ["ReduceMax", "ReduceMin"], "x", keepdims=0))


def _branches(net: Net, kinds: Sequence[str], tensor: str, **attributes: object) -> str:
    """If, by an input, one operator or another on a tensor from outside."""
    condition = "condition"
    if all(i.name != condition for i in net.graph.input):
        net.input(1, name=condition, dtype=TensorProto.BOOL)
    bodies = []
    for kind in kinds:
        node = helper.make_node(kind, [tensor], ["inner"], **attributes)
        bodies.append(helper.make_graph([node], kind, [], [onnx.ValueInfoProto(name="inner")]))
    for body in bodies:
        body.output[0].type.tensor_type.elem_type = TensorProto.INT64 if "Shape" in tensor else TensorProto.FLOAT
    return net.op("If", condition, then_branch=bodies[0], else_branch=bodies[1])


# -- operators without a rule ---------------------------------------------------------------------


@EXAMPLES.add(frozen=["NonZero NonZero_1: no rule"])
def non_zero(net: Net) -> str:
    return net.op("NonZero", stem(net))


@EXAMPLES.add(6, frozen=["TopK best: no rule"])
def top_k(net: Net) -> list[str]:
    h = net.conv(stem(net), 6, 5)
    values, places = net.ops("TopK", h, [2], outputs=2, axis=1, name="best")
    return [values, places]


@EXAMPLES.add(frozen=["LSTM memory: recurrent cells are left alone"])
def recurrent(net: Net) -> str:
    h = net.op("MatMul", net.input(5, 1, 4), net.noise(4, 6))
    return net.ops("LSTM", h, net.noise(1, 12, 6), net.noise(1, 12, 3), outputs=3, hidden_size=3, name="memory")[0]


@EXAMPLES.add(frozen=["GRU memory: recurrent cells are left alone"])
def recurrent_gates(net: Net) -> str:
    h = net.op("MatMul", net.input(5, 1, 4), net.noise(4, 6))
    return net.ops("GRU", h, net.noise(1, 9, 6), net.noise(1, 9, 3), outputs=2, hidden_size=3, name="memory")[0]


@EXAMPLES.add(frozen=["RNN memory: recurrent cells are left alone"])
def recurrent_plain(net: Net) -> str:
    h = net.op("MatMul", net.input(5, 1, 4), net.noise(4, 6))
    return net.ops("RNN", h, net.noise(1, 3, 6), net.noise(1, 3, 3), outputs=2, hidden_size=3, name="memory")[0]


@EXAMPLES.add(frozen=["RandomNormalLike RandomNormalLike_1: no rule"])
def random(net: Net) -> str:
    h = stem(net)
    return head(net, net.op("Add", h, net.op("Mul", net.op("RandomNormalLike", h), 0.0)))


@EXAMPLES.add(6)
def random_beside(net: Net) -> str:
    """What is drawn anew in every run is no constant."""
    h = head(net, stem(net))
    return net.op("Add", h, net.op("Mul", net.op("RandomNormal", shape=[4, 1, 1]), 0.0))


# -- inputs, outputs, batches ---------------------------------------------------------------------


@EXAMPLES.add(6, 5)
def two_inputs(net: Net) -> str:
    image = net.op("GlobalAveragePool", stem(net))
    words = net.linear(net.input("N", 4, name="words"), 4, 5)
    h = net.op("Concat", net.op("Flatten", image), net.op("Relu", words), axis=-1)
    return net.linear(h, 11, 3)


@EXAMPLES.add(6, frozen=["output Conv_1_out of the model"])
def output_in_between(net: Net) -> list[str]:
    h = net.conv(stem(net), 6, 5)
    return [h, head(net, net.op("Relu", h), 5)]


@EXAMPLES.add(5)
def input_is_an_output(net: Net) -> list[str]:
    return [net.op("Identity", net.input("N", 4)), net.linear(net.linear("x", 4, 5), 5, 3)]


@EXAMPLES.add(6, 5)
def fixed_batch(net: Net) -> str:
    h = net.op("Relu", net.conv(net.input(4, 3, 8, 8), 3, 6, 3, 3, strides=[2, 2]))
    h = net.op("Reshape", h, [4, 54])
    return net.linear(net.linear(h, 54, 5), 5, 3)


@EXAMPLES.add(6)
def batch_among_the_channels(net: Net) -> str:
    """Maps are treated one by one on the way."""
    h = net.op("Reshape", stem(net), [-1, 1, 8, 8])
    h = net.op("AveragePool", h, kernel_shape=[3, 3])
    return head(net, net.op("Reshape", h, [-1, 6, 6, 6]))


@EXAMPLES.add(6)
def wide_numbers(net: Net) -> str:
    """A network in float64."""
    kernels = [net.noise(*shape).astype(np.float64) for shape in ((3, 6), (6, 4))]
    h = net.op("Tanh", net.op("MatMul", net.input("N", 3, dtype=TensorProto.DOUBLE), kernels[0]))
    return net.op("MatMul", h, kernels[1])
