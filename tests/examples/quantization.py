"""Quantised networks: integers behind DequantizeLinear, activations through integers and back, integer operators."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()

DATA_SCALE = 0.05


def through_integers(net: Net, h: str, dtype: type = np.uint8) -> str:
    """An activation as integers and back."""
    grid = [net.constant(DATA_SCALE), net.constant(np.array(128 if dtype is np.uint8 else 3, dtype))]
    return net.op("DequantizeLinear", net.op("QuantizeLinear", h, *grid), *grid)


def quantised(net: Net, value: np.ndarray, axis: int | None = None, dtype: type = np.int8, zero: int = 0) -> str:
    """A constant as integers, with a scale for each position of an axis or one for all."""
    others = tuple(a for a in range(value.ndim) if a != axis)
    top = np.abs(value).max(others if axis is not None else None).astype(np.float32)
    scale = (top / (np.iinfo(dtype).max - zero)).astype(np.float32)
    steps = value / (scale if axis is None else np.expand_dims(scale, others)) + zero
    stored = np.rint(np.clip(steps, np.iinfo(dtype).min, np.iinfo(dtype).max)).astype(dtype)
    where = {} if axis is None else {"axis": axis}
    return net.op("DequantizeLinear", stored, scale, np.full(scale.shape, zero, dtype), **where)


def bias(net: Net, weight: str, count: int) -> str:
    """A bias of 32 bits: its scale is that of the data times that of the weight."""
    scales = {t.name: t for t in net.graph.initializer}
    name = next(node.input[1] for node in net.graph.node if node.output[0] == weight)
    scale = np.frombuffer(scales[name].raw_data, np.float32).reshape(scales[name].dims) * np.float32(DATA_SCALE)
    stored = np.rint(net.noise(count) / scale).astype(np.int32)
    return net.op(
        "DequantizeLinear", stored, scale, np.zeros(scale.shape, np.int32), **({"axis": 0} if scale.shape else {})
    )


def conv(net: Net, h: str, before: int, after: int, axis: int | None = 0, **attributes: object) -> str:
    """A quantised 3 x 3 convolution."""
    weight = quantised(net, net.noise(after, before // int(str(attributes.get("group", 1))), 3, 3), axis)
    return net.op("Conv", h, weight, bias(net, weight, after), pads=[1, 1, 1, 1], **attributes)


@EXAMPLES.add(6, 5)
def per_channel(net: Net) -> str:
    h = through_integers(net, net.input("N", 3, 8, 8))
    h = through_integers(net, net.op("Relu", conv(net, h, 3, 6)))
    h = through_integers(net, net.op("Relu", conv(net, h, 6, 5)))
    return through_integers(net, conv(net, h, 5, 4))


@EXAMPLES.add(6, 5)
def per_tensor(net: Net) -> str:
    h = through_integers(net, net.input("N", 3, 8, 8), np.int8)
    h = through_integers(net, net.op("Relu", conv(net, h, 3, 6, None)), np.int8)
    weight = quantised(net, net.noise(5, 6, 1, 1), None, np.uint8, 120)
    h = through_integers(net, net.op("Relu", net.op("Conv", h, weight)), np.int8)
    return conv(net, h, 5, 4, None)


@EXAMPLES.add(6, 6)
def residual(net: Net) -> str:
    """A residual block with a depthwise convolution."""
    x = through_integers(net, conv(net, through_integers(net, net.input("N", 3, 8, 8)), 3, 6))
    h = through_integers(net, net.op("Relu", conv(net, x, 6, 6)))
    h = through_integers(net, conv(net, conv(net, h, 6, 6, group=6), 6, 6))
    return conv(net, through_integers(net, net.op("Add", h, x)), 6, 4)


@EXAMPLES.add(6, 7, 5)
def linear(net: Net) -> str:
    h = through_integers(net, net.input("N", 4))
    weight = quantised(net, net.noise(6, 4), 0)
    h = through_integers(net, net.op("Relu", net.op("Gemm", h, weight, bias(net, weight, 6), transB=1)))
    h = through_integers(net, net.op("Relu", net.op("MatMul", h, quantised(net, net.noise(6, 7), 1))))
    h = through_integers(
        net, net.op("Add", net.op("MatMul", h, quantised(net, net.noise(7, 5))), quantised(net, net.noise(5)))
    )
    return net.op("MatMul", h, quantised(net, net.noise(5, 3), 1), name="last")


@EXAMPLES.add(6, 5)
def transposed(net: Net) -> str:
    """Scales lie along the second axis of the weight."""
    h = through_integers(net, net.op("Relu", stem(net)))
    return head(net, net.op("ConvTranspose", h, quantised(net, net.noise(6, 5, 2, 2), 1)), 5)


@EXAMPLES.add(6, 8, frozen=["are shared by the groups of the convolution"])
def transposed_in_groups(net: Net) -> str:
    """Scales lie along what every group makes."""
    h = net.conv(through_integers(net, net.op("Relu", stem(net))), 6, 16)
    weight = quantised(net, net.noise(16, 8, 2, 2), 1)
    h = net.op("ConvTranspose", through_integers(net, h), weight, group=2, strides=[2, 2])
    return head(net, through_integers(net, h), 16)


@EXAMPLES.add(6, 7, 5)
def stored_transposed(net: Net) -> str:
    """Products as PyTorch writes them: the weight is dequantised, then transposed; another one is half and cast."""
    h = net.op("Tanh", net.op("MatMul", net.input("N", 4), net.noise(4, 6)))
    h = net.op("MatMul", h, net.op("Transpose", quantised(net, net.noise(7, 6), 0)))
    half = net.op("Cast", net.op("Identity", net.noise(5, 7).astype(np.float16)), to=TensorProto.FLOAT)
    h = net.op("MatMul", net.op("Tanh", h), net.op("Transpose", half, perm=[1, 0]))
    return net.linear(h, 5, 3)


@EXAMPLES.add(6, 4, frozen=["is transposed before it is cut in blocks"])
def stored_transposed_in_groups(net: Net) -> str:
    weight = net.op("Transpose", net.noise(4, 8, 3, 3), perm=[1, 0, 2, 3])
    h = net.op("Conv", net.conv(net.op("Relu", stem(net)), 6, 8), weight, group=2, pads=[1, 1, 1, 1])
    return head(net, h, 8)


@EXAMPLES.add(6, 5)
def of_another_domain(net: Net) -> str:
    """16 bits in onnxruntime's own operators, which were there before ONNX had these types."""
    grid = [net.constant(np.float32(0.001)), net.constant(np.array(7, np.int16))]

    def through(h: str, width: int) -> str:
        integers = net.op("QuantizeLinear", h, *grid, domain="com.microsoft")
        back = net.op("DequantizeLinear", integers, *grid, domain="com.microsoft")
        declared = onnx.helper.make_tensor_value_info(back, TensorProto.FLOAT, ["N", width, 8, 8])
        net.graph.value_info.append(declared)  # which onnx does not infer
        return back

    return head(net, through(net.conv(through(stem(net), 6), 6, 5), 5), 5)


@EXAMPLES.add(6, 5)
def imitated(net: Net) -> str:
    """Training with imitated quantisation: the floating-point weight goes through integers."""
    h = through_integers(net, stem(net))
    for before, after in ((6, 5), (5, 4)):
        weight = net.noise(after, before, 1, 1)
        grid = [np.abs(weight).max((1, 2, 3)) / np.float32(127), np.zeros(after, np.int8)]
        grid = [net.constant(value) for value in grid]
        weight = net.op("DequantizeLinear", net.op("QuantizeLinear", weight, *grid, axis=0), *grid, axis=0)
        h = net.op("Conv", h, weight)
    return h


@EXAMPLES.add(6, 5)
def scales_along_channels(net: Net) -> str:
    """Activations with a scale for each channel, without zero points."""
    h = net.input("N", 3, 8, 8)
    for before, after in ((3, 6), (6, 5)):
        h = conv(net, h, before, after)
        scales = net.constant(0.03 + np.arange(after, dtype=np.float32) / 100)
        h = net.op("DequantizeLinear", net.op("QuantizeLinear", h, scales, axis=1), scales, axis=1)
    return head(net, h, 5)


@EXAMPLES.add(6, 2)
def scales_along_one_of_several_axes(net: Net) -> str:
    """What a product makes lies on three axes, the scales along the first of them."""
    flat = net.linear(net.op("Flatten", net.op("GlobalAveragePool", stem(net))), 6, 8)
    h = net.op("Reshape", flat, [-1, 2, 2, 2])
    scales = net.constant(np.array([0.03, 0.05], np.float32))
    return head(net, net.op("DequantizeLinear", net.op("QuantizeLinear", h, scales, axis=1), scales, axis=1), 2)


@EXAMPLES.add(6, 8, 5, opset=21, ir=10)
def in_blocks(net: Net) -> str:
    """Scales for blocks of a weight: it is no longer quantised once it has lost channels."""
    stored = net.rng.integers(-127, 128, (6, 8)).astype(np.int8)
    scale = (0.01 + net.rng.random((6, 2)) / 50).astype(np.float32)
    weight = net.op("DequantizeLinear", stored, scale, block_size=4, axis=1)
    h = net.op("MatMul", net.op("MatMul", net.input("N", 3), net.noise(3, 6)), weight)
    return net.op("MatMul", net.op("Gemm", h, net.noise(8, 5)), net.noise(5, 3))


@EXAMPLES.add(6, frozen=["DynamicQuantizeLinear grid: no rule"])
def scale_from_data(net: Net) -> str:
    """Scales are computed from all channels together."""
    h = net.conv(stem(net), 6, 5)
    integers, scale, zero = net.ops("DynamicQuantizeLinear", h, outputs=3, name="grid")
    return head(net, net.op("DequantizeLinear", integers, scale, zero), 5)


@EXAMPLES.add(6, frozen=["its scale is computed"])
def scale_computed(net: Net) -> str:
    h = net.conv(stem(net), 6, 5)
    scale = net.op("Abs", net.input(1, name="scale"))
    scale = net.op("Squeeze", scale, [0])
    zero = net.constant(np.array(128, np.uint8))
    return head(net, net.op("DequantizeLinear", net.op("QuantizeLinear", h, scale, zero), scale, zero), 5)


@EXAMPLES.add(frozen=["QLinearConv middle: no rule"])
def integer_operators(net: Net) -> str:
    """Operators that compute with integers have no rule: what they read stays."""
    grid = [net.constant(DATA_SCALE), net.constant(np.array(128, np.uint8))]
    h = net.op("QuantizeLinear", stem(net), *grid)
    weight = [net.rng.integers(-127, 128, (5, 6, 1, 1)).astype(np.int8), np.float32(0.02) * np.ones(5, np.float32)]
    h = net.op("QLinearConv", h, *grid, *weight, np.zeros(5, np.int8), *grid, name="middle")
    return head(net, net.op("DequantizeLinear", h, *grid), 5)


@EXAMPLES.add(frozen=["ConvInteger middle: no rule"])
def integer_results(net: Net) -> str:
    grid = [net.constant(DATA_SCALE), net.constant(np.array(128, np.uint8))]
    h = net.op("QuantizeLinear", stem(net), *grid)
    weight = net.rng.integers(0, 255, (5, 6, 1, 1)).astype(np.uint8)
    h = net.op("ConvInteger", h, weight, grid[1], name="middle")
    return head(net, net.op("Cast", h, to=TensorProto.FLOAT), 5)


@EXAMPLES.add(6, 5, opset=[13, 19, 21, 23], ir=10)
def wide_integers(net: Net) -> str:
    """Weights of 16 bits, where the operator set has them, the next of 4 bits, which are floats once they are cut."""
    wide = quantised(net, net.noise(5, 6), 0, np.int16 if net.opset > 20 else np.int8)
    h = net.op("MatMul", through_integers(net, net.input("N", 3)), net.noise(3, 6))
    h = net.op("Gemm", through_integers(net, h), wide, transB=1)
    stored = net.rng.integers(-7, 8, (5, 4)).astype(ml_dtypes.int4 if net.opset > 20 else np.int8)
    return net.op("MatMul", through_integers(net, h), net.op("DequantizeLinear", stored, 0.1))
