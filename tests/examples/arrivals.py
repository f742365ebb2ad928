"""How models arrive: operator sets, types of numbers, containers, bodies, names, leftovers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()


# -- operator sets ----------------------------------------------------------------------------------


def _ir(opset: int) -> int:
    return 3 if opset < 9 else 8 if opset < 18 else 10


for _opset in range(7, 27):

    @EXAMPLES.add(6, 5, 7, 8, opset=_opset, ir=_ir(_opset), name=f"every_opset@{_opset}")
    def every_opset(net: Net) -> str:
        """What changed most from one operator set to the next, each as that set writes it."""
        h = stem(net)
        h = net.op("BatchNormalization", h, 1 + net.noise(6), net.noise(6), net.noise(6), net.noise(6) ** 2 + 1)
        h = net.op("Clip", h, min=0.0, max=6.0) if net.opset < 11 else net.op("Clip", h, 0.0, 6.0)
        scales = np.array([1, 1, 2, 2], np.float32)
        if net.opset < 9:
            h = net.op("Upsample", h, scales=scales.tolist())
        elif net.opset == 9:
            h = net.op("Upsample", h, scales)
        else:
            h = net.op("Resize", h, *([scales] if net.opset < 11 else [np.zeros(0, np.float32), scales]))
        h = net.conv(h, 6, 5)
        h = net.op("Dropout", h, ratio=0.5) if net.opset < 12 else net.op("Dropout", h, 0.5)
        h = net.conv(net.op("PRelu", h, net.noise(5, 1, 1)), 5, 7, 3, 3, strides=[2, 2])
        h = net.op("GlobalAveragePool", h)
        h = net.op("Squeeze", h, axes=[2, 3]) if net.opset < 13 else net.op("Squeeze", h, [2, 3])
        h = net.op("Relu", net.linear(h, 7, 8))
        h = net.op("Unsqueeze", h, axes=[2, 3]) if net.opset < 13 else net.op("Unsqueeze", h, [2, 3])
        h = net.op("ReduceSum", h, axes=[3], keepdims=0) if net.opset < 13 else net.op("ReduceSum", h, [3], keepdims=0)
        return net.op("Softmax", net.linear(net.op("Flatten", h), 8, 3), axis=1)


# -- types of numbers -------------------------------------------------------------------------------


@EXAMPLES.add(6, 5)
def half(net: Net) -> str:
    """Weights, data and results are float16."""
    h = net.input("N", 3, 8, 8, dtype=TensorProto.FLOAT16)
    for before, after in ((3, 6), (6, 5), (5, 4)):
        h = net.op("Conv", h, net.noise(after, before, 1, 1).astype(np.float16), net.noise(after).astype(np.float16))
        h = net.op("Relu", h) if after > 4 else h
    return h


@EXAMPLES.add(6, 5)
def wrapped_in_casts(net: Net) -> str:
    """Half outside, float inside."""
    x = net.op("Cast", net.input("N", 3, 8, 8, dtype=TensorProto.FLOAT16), to=TensorProto.FLOAT)
    h = net.conv(net.op("Relu", net.conv(x, 3, 6)), 6, 5)
    h = net.op("Cast", net.op("Cast", h, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)
    return net.op("Cast", head(net, h, 5), to=TensorProto.FLOAT16)


@EXAMPLES.add(6, 5)
def bytes_in(net: Net) -> str:
    """An image as a camera gives it."""
    x = net.op("Cast", net.input("N", 3, 8, 8, dtype=TensorProto.UINT8), to=TensorProto.FLOAT)
    return head(net, net.conv(net.conv(net.op("Sub", x, 0.5), 3, 6), 6, 5), 5)


@EXAMPLES.add(6, 5)
def stored_as_bfloat16(net: Net) -> str:
    """Weights are kept as bfloat16 and widened before they are read."""
    h = net.input("N", 3, 8, 8)
    for before, after in ((3, 6), (6, 5), (5, 4)):
        weight = net.noise(after, before, 1, 1).astype(ml_dtypes.bfloat16)
        h = net.op("Conv", h, net.op("Cast", weight, to=TensorProto.FLOAT))
    return h


# -- containers -------------------------------------------------------------------------------------


@EXAMPLES.add(6, 5)
def weights_in_sequences(net: Net) -> str:
    """A weight taken out of a sequence of constants."""
    weights = net.op("SequenceConstruct", net.noise(5, 6, 1, 1), net.noise(5, 6, 1, 1))
    return head(net, net.op("Conv", stem(net), net.op("SequenceAt", weights, np.array(1))), 5)


@EXAMPLES.add(frozen=["SplitToSequence parts: no rule"])
def channels_in_sequences(net: Net) -> str:
    parts = net.op("SplitToSequence", stem(net), np.array(2), axis=1, name="parts")
    return head(net, net.op("ConcatFromSequence", parts, axis=1))


@EXAMPLES.add(6, frozen=["SequenceConstruct pair: no rule"])
def sequence_is_an_output(net: Net) -> list[str]:
    h = stem(net)
    return [head(net, h), net.op("SequenceConstruct", net.conv(h, 6, 5), name="pair")]


@EXAMPLES.add(frozen=["Optional perhaps: no rule"])
def optional_channels(net: Net) -> str:
    perhaps = net.op("Optional", stem(net), name="perhaps")
    return head(net, net.op("OptionalGetElement", perhaps))


@EXAMPLES.add(6)
def strings_beside(net: Net) -> list[str]:
    """A table of names is handed through."""
    names = net.op("Constant", value=numpy_helper.from_array(np.array(["cat", "dog"], object)))
    return [head(net, stem(net)), net.op("Identity", names)]


# -- bodies -----------------------------------------------------------------------------------------


def _body(name: str, nodes: list[onnx.NodeProto], inputs: dict[str, str], outputs: dict[str, str]) -> onnx.GraphProto:
    """A body whose inputs and outputs have symbolic axes, one per letter."""
    infos = [
        [helper.make_tensor_value_info(n, _type(n), list(s)) for n, s in names.items()] for names in (inputs, outputs)
    ]
    return helper.make_graph(nodes, name, *infos)


def _type(name: str) -> int:
    return {"step": TensorProto.INT64, "go": TensorProto.BOOL, "still": TensorProto.BOOL}.get(name, TensorProto.FLOAT)


@EXAMPLES.add(5, frozen=["Loop again: no rule for bodies"])
def loop_reads_channels(net: Net) -> str:
    """A running sum of what a layer outside has made; its state has as many channels."""
    nodes = [helper.make_node("Add", ["state", "stem_out"], ["sum"]), helper.make_node("Identity", ["go"], ["still"])]
    body = _body("more", nodes, {"step": "", "go": "", "state": "nchw"}, {"still": "", "sum": "nchw"})
    h = net.op("Loop", np.array(3), np.array(True), stem(net), body=body, name="again")
    return net.op("Reshape", head(net, net.conv(h, 6, 5), 5), [-1, 4, 8, 8])


@EXAMPLES.add(5, 4, frozen=["Scan rows: no rule for bodies"])
def scan_reads_channels(net: Net) -> str:
    nodes = [helper.make_node("Add", ["state", "row"], ["sum"]), helper.make_node("Identity", ["sum"], ["copy"])]
    body = _body("down", nodes, {"state": "ncw", "row": "ncw"}, {"sum": "ncw", "copy": "ncw"})
    h = stem(net)
    first = net.op("ReduceSum", h, [2], keepdims=0)
    scanned = net.ops("Scan", first, h, body=body, num_scan_inputs=1, scan_input_axes=[2], outputs=2, name="rows")[0]
    return net.op("Add", head(net, net.conv(stem(net, 5, "other"), 5, 4), 4), net.op("ReduceMean", scanned))


@EXAMPLES.add(6)
def layer_in_a_body(net: Net) -> str:
    """A layer inside a branch reads a weight and an image from outside; the layers outside are free."""
    net.input("N", 3, 8, 8)
    net.input(1, name="condition", dtype=TensorProto.BOOL)
    kernel = net.constant(net.noise(4, 3, 1, 1), "kernel")
    bodies = [
        _body(
            kind,
            [helper.make_node("Conv", ["x", kernel], ["y"]), helper.make_node(kind, ["y"], ["z"])],
            {},
            {"z": "nchw"},
        )
        for kind in ("Relu", "Neg")
    ]
    h = net.op("If", "condition", then_branch=bodies[0], else_branch=bodies[1], name="either")
    return net.op("Add", head(net, stem(net)), h)


@EXAMPLES.add(6, 5)
def branch_is_decided(net: Net) -> str:
    """The condition is a constant: layers of the branch are layers of the network. Names in both branches are alike."""
    h = stem(net)
    kernel = net.constant(net.noise(5, 6, 1, 1), "kernel")
    inner = [helper.make_node("Conv", ["y", kernel], ["z"])]
    other = _body("other", [helper.make_node("Neg", ["y"], ["z"])], {}, {"z": "nchw"})
    deep = helper.make_node(
        "If", ["yes"], ["w"], then_branch=_body("deep", inner, {}, {"z": "nchw"}), else_branch=other
    )
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    taken = _body("taken", [helper.make_node("Relu", [h], ["y"]), yes, deep], {}, {"w": "nchw"})
    passed = _body("passed", [helper.make_node("Identity", [h], ["w"])], {}, {"w": "nchw"})
    h = net.op("If", np.array(True), then_branch=taken, else_branch=passed, name="first")
    untaken = _body("untaken", [helper.make_node("Conv", ["x", kernel], ["y"])], {}, {"y": "nchw"})
    given = _body("given", [helper.make_node("Sigmoid", [h], ["y"])], {}, {"y": "nchw"})
    return head(net, net.op("If", np.array(False), then_branch=untaken, else_branch=given, name="second"), 5)


# -- what onnxruntime makes of models ---------------------------------------------------------------

_MS = "com.microsoft"


def _typed(net: Net, h: str, *shape: int) -> str:
    """Shape inference of the standard knows nothing of other operators."""
    return net.op("Reshape", net.op("Cast", h, to=TensorProto.FLOAT), shape)


@EXAMPLES.add(6, 5, 7, 8, opset=[10, 17])
def fused_convolutions(net: Net) -> str:
    """Convolutions that add and activate, as onnxruntime writes them."""
    x = net.input("N", 3, 8, 8)
    h = net.op("FusedConv", x, net.noise(6, 3, 1, 1), net.noise(6), domain=_MS, activation="Relu")
    h = net.op("FusedConv", h, net.noise(5, 6, 1, 1), domain=_MS, activation="LeakyRelu", activation_params=[0.2])
    h = net.op("FusedConv", h, net.noise(7, 5, 1, 1), domain=_MS, activation="Clip", activation_params=[-0.5, 2.0])
    h = net.op("FusedConv", h, net.noise(8, 7, 1, 1), None, net.conv(x, 3, 8), domain=_MS, activation="Tanh")
    return _typed(net, net.op("FusedConv", h, net.noise(4, 8, 1, 1), net.noise(4), domain=_MS), -1, 4, 8, 8)


@EXAMPLES.add(6, 5, 7, 4)
def fused_products(net: Net) -> str:
    h = net.op("FusedGemm", net.input("N", 3), net.noise(3, 6), net.noise(6), domain=_MS, activation="Relu")
    h = net.op("Gelu", net.op("MatMul", h, net.noise(6, 5)), domain=_MS)
    h = net.op("QuickGelu", net.op("MatMul", h, net.noise(5, 7)), domain=_MS, alpha=1.5)
    h = net.op("BiasGelu", net.op("MatMul", h, net.noise(7, 4)), net.noise(4), domain=_MS)
    h = net.op("FastGelu", h, net.noise(4), domain=_MS)
    last = {"transB": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.3}
    return _typed(net, net.op("FusedGemm", h, net.noise(3, 4), domain=_MS, **last), -1, 3)


@EXAMPLES.add(6, frozen=["which carries no channels"])
def single_numbers(net: Net) -> str:
    """A number for the whole run beside the images; what chooses by it, chooses among layers without a rule."""
    rate = net.input(name="rate", dtype=TensorProto.INT64)
    h = net.op("Mul", stem(net), net.op("Cast", rate, to=TensorProto.FLOAT))
    plain = net.op("Expand", net.op("Cast", rate, to=TensorProto.FLOAT), [1, 5, 1, 1])
    return head(net, net.op("Add", net.conv(h, 6, 5), plain), 5)


# -- names and leftovers ----------------------------------------------------------------------------


@EXAMPLES.add(6, 5)
def odd_names(net: Net) -> str:
    """Slashes, colons, blanks; a node without a name; constants that nothing reads."""
    net.constant(net.noise(4), "left over")
    kernel = net.constant(net.noise(5, 6, 1, 1), "/block.0/conv:0/weight")
    net.graph.node.append(helper.make_node("Conv", [stem(net, name="model/stem:0"), kernel], ["a b/c::d"]))
    return head(net, net.op("Clip", "a b/c::d", None, 6.0), 5, name="/head/")


@EXAMPLES.add(6, 5)
def many_in_many_out(net: Net) -> list[str]:
    """Two images of their own sizes, three results."""
    a = net.conv(net.input("N", 3, "H", "W", name="left"), 3, 6)
    b = net.conv(net.input("N", 2, "H", "W", name="right"), 2, 5)
    h = net.op("Concat", a, b, axis=1)
    return [head(net, h, 11, "first"), head(net, a, 6, "second"), head(net, net.op("Relu", b), 5, "third")]


@EXAMPLES.add(8, 7, 5, frozen=["sums or joins channels without a weight"])
def fused_attention(net: Net) -> str:
    """Products with a transposition and a factor; heads are not split, so that queries and keys stay."""
    h = net.op("MatMul", net.input("N", 4, 6), net.noise(6, 8))
    query, key, value = (
        net.op("MatMul", h, net.noise(8, width), name=name) for width, name in ((3, "q"), (3, "k"), (7, "v"))
    )
    scores = net.op("FusedMatMul", query, key, domain=_MS, transB=1, alpha=0.5)
    mixed = net.op("MatMul", net.op("Softmax", _typed(net, scores, -1, 4, 4)), value)
    h = net.op("FusedMatMul", mixed, net.noise(5, 7), domain=_MS, transB=1, alpha=2.0)
    return net.op("MatMul", _typed(net, h, 0, 0, 0), net.noise(5, 3))
