"""Normalisation that was not folded."""

from __future__ import annotations

import numpy as np
import onnx

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()


def _norm(net: Net, h: str, width: int = 6, outputs: int = 1, **attributes: object) -> str:
    values = [1 + net.noise(width), net.noise(width), net.noise(width), net.noise(width) ** 2 + 0.5]
    return net.op("BatchNormalization", h, *values, outputs=outputs, **attributes)


@EXAMPLES.add(6, 5, opset=[7, 9, 14, 15])
def batch(net: Net) -> str:
    h = net.op("Relu", _norm(net, stem(net), epsilon=1e-3))
    return head(net, _norm(net, net.conv(h, 6, 5, bias=False), 5), 5)


@EXAMPLES.add(7)
def batch_of_vectors(net: Net) -> str:
    return net.linear(_norm(net, net.linear(net.input("N", 4), 4, 7), 7), 7, 3)


@EXAMPLES.add(5)
def batch_of_sequences(net: Net) -> str:
    return net.conv(_norm(net, net.conv(net.input("N", 3, 9), 3, 5, 3), 5), 5, 2, 1)


@EXAMPLES.add(6)
def batch_with_shared_values(net: Net) -> str:
    """One constant is scale and variance, of a width that is cut, and of one that is not."""
    ones = net.constant(np.ones(6, np.float32), "ones")
    h = net.op("BatchNormalization", stem(net), ones, net.noise(6), net.noise(6), ones)
    return net.op("BatchNormalization", net.conv(h, 6, 6), ones, net.noise(6), net.noise(6), ones)


@EXAMPLES.add(frozen=["its parameters are computed"])
def batch_computed(net: Net) -> str:
    mean = net.op("Reshape", net.input(6, name="m"), [6])
    return head(net, net.op("BatchNormalization", stem(net), net.noise(6), net.noise(6), mean, net.noise(6) ** 2))


@EXAMPLES.add(6)
def instance(net: Net) -> str:
    return head(net, net.op("InstanceNormalization", stem(net), net.noise(6), net.noise(6)))


@EXAMPLES.add(frozen=["its channels are not on axis 1"])
def instance_elsewhere(net: Net) -> str:
    h = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    return net.op("InstanceNormalization", h, net.noise(8), net.noise(8))


@EXAMPLES.add(4, 2)
def groups(net: Net) -> str:
    """GroupNormalization as exporters write it: groups go whole."""

    def normalise(h: str, groups: int) -> str:
        flat = net.op("Reshape", h, [0, groups, -1])
        flat = net.op("InstanceNormalization", flat, net.noise(groups), net.noise(groups))
        return net.op("Mul", net.op("Reshape", flat, net.op("Shape", h)), net.noise(8, 1, 1))

    return head(net, normalise(net.conv(normalise(stem(net, 8), 4), 8, 8), 2), 8)


@EXAMPLES.add(4, 2, opset=21, ir=10)
def group_operator(net: Net) -> str:
    """Groups go whole, with their parameters."""

    def normalise(h: str, groups: int) -> str:
        made = net.op("GroupNormalization", h, 1 + net.noise(8), net.noise(8), num_groups=groups)
        declared = onnx.helper.make_tensor_value_info(made, onnx.TensorProto.FLOAT, ["N", 8, 8, 8])
        net.graph.value_info.append(declared)  # which onnx does not infer
        return made

    return head(net, normalise(net.conv(normalise(stem(net, 8), 4), 8, 8), 2), 8)


@EXAMPLES.add(7, 5, opset=[7, 13])
def neighbours(net: Net) -> str:
    """AlexNet: every channel is divided by its neighbours, so strongly that it shows who they are."""
    h = net.op("LRN", net.op("Relu", stem(net, 7)), size=5, alpha=4.0, bias=0.5)
    h = net.op("LRN", net.conv(h, 7, 5), size=3, alpha=3.0, beta=0.5)
    return head(net, net.op("MaxPool", h, kernel_shape=[2, 2]), 5)


@EXAMPLES.add(6, 4)
def neighbours_of_several_makers(net: Net) -> str:
    """Channels of two layers and of the input are neighbours; one layer's are read elsewhere too."""
    h = stem(net)
    both = net.op("Concat", h, "x", net.conv(h, 6, 4), axis=1)
    return head(net, net.op("LRN", both, size=3, alpha=5.0), 13)


@EXAMPLES.add(6, opset=[7, 13])
def over_space(net: Net) -> str:
    """Softmax and its kin along an axis of space."""
    axis = 2 if net.opset < 13 else 3
    h = net.op("LogSoftmax", net.op("Softmax", stem(net), axis=axis), axis=axis)
    h = net.op("Add", h, net.op("Hardmax", h, axis=axis))
    return head(net, net.op("LpNormalization", h, axis=2))


@EXAMPLES.add(6, opset=24, ir=10)
def layers_over_space(net: Net) -> str:
    h = net.op("LayerNormalization", stem(net), net.noise(8, 8), net.noise(8, 8), axis=2)
    return head(net, net.op("RMSNormalization", h, net.noise(8), axis=-1))


@EXAMPLES.add(6, 5, opset=24, ir=10)
def layers_with_parameters_of_channels(net: Net) -> str:
    """Over space, but the parameters are broadcast from in front of it."""
    h = net.op("LayerNormalization", stem(net), net.noise(6, 1, 8), net.noise(1, 6, 1, 8))
    return head(net, net.op("RMSNormalization", net.conv(h, 6, 5), net.noise(5, 8, 1), axis=-1), 5)


@EXAMPLES.add(frozen=["its parameters are computed"])
def layers_with_computed_parameters(net: Net) -> str:
    scale = net.op("Reshape", net.input(48, name="m"), [6, 1, 8])
    return head(net, net.op("LayerNormalization", stem(net), scale))


@EXAMPLES.add(6, frozen=["it normalises over channels"])
def mean_and_variance(net: Net) -> str:
    h = net.op("MeanVarianceNormalization", stem(net), axes=[0, 2, 3])
    return head(net, net.op("MeanVarianceNormalization", net.conv(h, 6, 5), axes=[1, -1]), 5)


@EXAMPLES.add(frozen=["no rule for its output 2"])
def layers_with_means(net: Net) -> list[str]:
    h, mean = net.ops("LayerNormalization", stem(net), net.noise(8), outputs=2)
    return [head(net, h), net.op("ReduceSum", mean, [1])]


@EXAMPLES.add(frozen=["it normalises over channels"])
def layers_over_channels(net: Net) -> str:
    h = net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6))
    return net.op("MatMul", net.op("LayerNormalization", h, net.noise(6)), net.noise(6, 3))


@EXAMPLES.add(frozen=["it normalises over channels"], opset=[7, 13])
def over_channels(net: Net) -> str:
    return head(net, net.op("Softmax", stem(net), axis=1))


@EXAMPLES.add(frozen=["it normalises over channels"], opset=12)
def flattened_channels(net: Net) -> str:
    """Before opset 13 all axes from 1 on were one."""
    return head(net, net.op("Softmax", stem(net)))


@EXAMPLES.add(frozen=["it normalises over channels"], opset=12)
def flattened_rows(net: Net) -> str:
    """Softmax over rows ran over the channels in them too."""
    h = net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6))
    return net.op("MatMul", net.op("Softmax", h, axis=1), net.noise(6, 3))


@EXAMPLES.add(frozen=["no rule for channels on input 2"])
def scaled_by_channels(net: Net) -> str:
    scale = net.op("Reshape", net.op("ReduceMean", net.linear(net.input("N", 4, name="y"), 4, 6), axes=[0]), [6])
    return net.op("LayerNormalization", net.input("N", 6), scale)
