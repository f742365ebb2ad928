"""Matrix products."""

from __future__ import annotations

from examples.net import Examples, Net, head, stem

EXAMPLES = Examples()


@EXAMPLES.add(7, 5)
def mlp(net: Net) -> str:
    h = net.op("Relu", net.linear(net.input("N", 4), 4, 7))
    return net.linear(net.op("Tanh", net.linear(h, 7, 5)), 5, 3)


@EXAMPLES.add(7, 5)
def mlp_transposed(net: Net) -> str:
    h = net.op("Gemm", net.input("N", 4), net.noise(7, 4), net.noise(7), transB=1)
    h = net.op("Gemm", net.op("Relu", h), net.noise(5, 7), transB=1, alpha=0.5)
    return net.op("Gemm", h, net.noise(3, 5), net.noise(3), transB=1, alpha=2.0, beta=-0.5)


@EXAMPLES.add(7, 6, 5, 4, 3)
def bias_shapes(net: Net) -> str:
    h = net.op("Gemm", net.input("N", 4), net.noise(4, 7), net.noise(1, 7))
    h = net.op("Gemm", h, net.noise(7, 6), net.noise(1))
    h = net.op("Gemm", h, net.noise(6, 5), 0.5)
    h = net.op("Gemm", h, net.noise(5, 4), net.noise(1, 1))
    h = net.op("Gemm", h, net.noise(4, 3), None)
    return net.linear(h, 3, 2)


@EXAMPLES.add(7, frozen=["its bias differs from row to row"])
def bias_of_rows(net: Net) -> str:
    h = net.linear(net.input(2, 4), 4, 7)
    h = net.linear(h, 7, 6)
    h = net.op("Gemm", h, net.noise(6, 5), net.noise(2, 5))
    return net.linear(h, 5, 2)


@EXAMPLES.add(frozen=["its bias is computed"])
def bias_computed(net: Net) -> str:
    x = net.input("N", 4)
    return net.op("Gemm", net.linear(x, 4, 7), net.noise(7, 6), net.linear(x, 4, 6))


@EXAMPLES.add(frozen=["one of its factors is zero"])
def zero_factor(net: Net) -> str:
    return net.op("Gemm", net.linear(net.input("N", 4), 4, 7), net.noise(7, 6), net.noise(6), beta=0.0)


@EXAMPLES.add(frozen=["it transposes its data"])
def data_transposed(net: Net) -> str:
    return net.op("Gemm", net.linear(net.input(2, 4), 4, 7), net.noise(2, 5), transA=1)


@EXAMPLES.add(6, 7)
def flatten(net: Net) -> str:
    h = net.op("Flatten", net.op("AveragePool", stem(net), kernel_shape=[3, 4], strides=[3, 4]))
    return net.linear(net.linear(h, 6 * 2 * 2, 7), 7, 3)


@EXAMPLES.add(6)
def flatten_transposed(net: Net) -> str:
    h = net.op("Reshape", net.op("MaxPool", stem(net), kernel_shape=[4, 4], strides=[4, 4]), [0, -1])
    return net.op("Gemm", h, net.noise(5, 24), net.noise(5), transB=1)


@EXAMPLES.add(8, 6)
def tokens(net: Net) -> str:
    """An MLP on N x T x C."""
    h = net.op("Add", net.op("MatMul", net.input("N", 5, 4), net.noise(4, 8)), net.noise(8))
    h = net.op("Add", net.noise(6), net.op("MatMul", net.op("Gelu" if net.opset >= 20 else "Erf", h), net.noise(8, 6)))
    return net.op("MatMul", h, net.noise(6, 3))


@EXAMPLES.add(8)
def tokens_residual(net: Net) -> str:
    x = net.input("N", 5, 4)
    return net.op("Add", x, net.op("MatMul", net.op("Relu", net.op("MatMul", x, net.noise(4, 8))), net.noise(8, 4)))


@EXAMPLES.add(6, frozen=["both factors are computed"])
def attention(net: Net) -> str:
    x = net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6))
    q, k, v = (net.op("MatMul", x, net.noise(6, 6)) for _ in range(3))
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])))
    return net.op("MatMul", net.op("MatMul", scores, v), net.noise(6, 3))


@EXAMPLES.add(frozen=["its left factor is a constant"])
def constant_on_the_left(net: Net) -> str:
    return net.op("MatMul", net.noise(3, 5), net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6)))


@EXAMPLES.add(frozen=["channels do not lie on its last axis"])
def channels_elsewhere(net: Net) -> str:
    h = net.op("Transpose", net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6)), perm=[0, 2, 1])
    return net.op("MatMul", h, net.noise(5, 3))


@EXAMPLES.add(frozen=["a product of shapes"])
def stacked_matrices(net: Net) -> str:
    return net.op("MatMul", net.op("MatMul", net.input(2, 5, 4), net.noise(4, 6)), net.noise(2, 6, 3))


@EXAMPLES.add(6)
def channels_last(net: Net) -> str:
    """To N x H x W x C, a product over channels, and back."""
    h = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    h = net.op("Add", net.op("MatMul", h, net.noise(6, 6)), h)
    return head(net, net.op("Transpose", h, perm=[0, 3, 1, 2]))
