"""Matrix products."""

from __future__ import annotations

import numpy as np

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


@EXAMPLES.add(6, 6, frozen=["sums or joins channels without a weight"])
def attention(net: Net) -> str:
    """One head: channels of the values are free, those of queries and keys are summed over."""
    x = net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6))
    q, k, v = (net.op("MatMul", x, net.noise(6, 6)) for _ in range(3))
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])))
    return net.op("MatMul", net.op("MatMul", scores, v), net.noise(6, 3))


def _heads(net: Net, x: str, before: int, heads: int, size: int, parts: int = 1) -> str:
    """parts x N x heads x tokens x size."""
    h = net.op("Add", net.op("MatMul", x, net.noise(before, parts * heads * size)), net.noise(parts * heads * size))
    return net.op("Transpose", net.op("Reshape", h, [0, -1, parts, heads, size]), perm=[2, 0, 3, 1, 4])


def _one(net: Net, h: str, part: int) -> str:
    return net.op("Gather", h, np.array(part), axis=0)


@EXAMPLES.add(3)
def attention_of_heads(net: Net) -> str:
    """Heads go whole, out of queries, keys and values that come of one product."""
    h = _heads(net, net.input("N", 5, 4), 4, 3, 2, parts=3)
    q, k, v = (_one(net, h, part) for part in range(3))
    scores = net.op("MatMul", net.op("Mul", q, 0.7), net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Softmax", net.op("Add", scores, net.noise(3, 5, 5)))
    mixed = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    return net.op("MatMul", net.op("Reshape", mixed, [0, 5, 6]), net.noise(6, 3))


@EXAMPLES.add(3, opset=[12, 17])
def attention_of_folded_heads(net: Net) -> str:
    """Heads lie on the axis of the batch, as torch.nn.MultiheadAttention has them."""
    x = net.op("Transpose", net.input("N", 5, 4), perm=[1, 0, 2])
    parts = []
    for _ in range(3):
        h = net.op("Reshape", net.op("MatMul", x, net.noise(4, 6)), [5, -1, 2])
        parts.append(net.op("Transpose", h, perm=[1, 0, 2]))
    q, k, v = parts
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=2)
    mixed = net.op("Reshape", net.op("Transpose", net.op("MatMul", scores, v), perm=[1, 0, 2]), [5, -1, 6])
    return net.op("MatMul", mixed, net.noise(6, 3))


@EXAMPLES.add(4)
def attention_with_plain_scores(net: Net) -> str:
    """Scores that carry no channels: the values' are free, alike in all heads, since cuts are boxes."""
    x = net.input("N", 5, 4)
    v = _one(net, _heads(net, x, 4, 2, 4), 0)
    scores = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    scores = net.op("Expand", net.op("Unsqueeze", net.op("Softmax", scores), [1]), [1, 2, 1, 1])
    mixed = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    return net.op("MatMul", net.op("Reshape", mixed, [0, 5, 8]), net.noise(8, 3))


@EXAMPLES.add(frozen=["several of its factors carry channels"])
def channels_by_channels(net: Net) -> str:
    h = net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6))
    return net.op("MatMul", net.op("Transpose", h, perm=[0, 2, 1]), h)


@EXAMPLES.add(6)
def constant_on_the_left(net: Net) -> str:
    """Tokens are mixed, channels pass."""
    h = net.op("MatMul", net.noise(3, 5), net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6)))
    return net.op("MatMul", h, net.noise(6, 2))


@EXAMPLES.add(6)
def channels_elsewhere(net: Net) -> str:
    """MLP-Mixer: tokens are mixed by a weight, channels pass beside."""
    h = net.op("Transpose", net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6)), perm=[0, 2, 1])
    h = net.op("Transpose", net.op("Relu", net.op("MatMul", h, net.noise(5, 3))), perm=[0, 2, 1])
    return net.op("MatMul", h, net.noise(6, 2))


@EXAMPLES.add(frozen=["sums or joins channels without a weight"])
def stacked_matrices(net: Net) -> str:
    return net.op("MatMul", net.op("MatMul", net.input(2, 5, 4), net.noise(4, 6)), net.noise(2, 6, 3))


@EXAMPLES.add(6)
def channels_last(net: Net) -> str:
    """To N x H x W x C, a product over channels, and back."""
    h = net.op("Transpose", stem(net), perm=[0, 2, 3, 1])
    h = net.op("Add", net.op("MatMul", h, net.noise(6, 6)), h)
    return head(net, net.op("Transpose", h, perm=[0, 3, 1, 2]))


@EXAMPLES.add(6, 5, 7)
def einsum(net: Net) -> str:
    """Channels mixed on axis 1, then on the last one, by a weight in front of its data."""
    h = net.op("Einsum", stem(net), net.noise(6, 5), equation="nchw,cd->ndhw")
    h = net.op("Einsum", net.noise(7, 5), net.op("Relu", h), equation="dc, nchw -> nhwd")
    return net.op("MatMul", h, net.noise(7, 3))


@EXAMPLES.add(3)
def einsum_of_heads(net: Net) -> str:
    x = net.input("N", 5, 4)
    q, k, v = (net.op("Reshape", net.op("MatMul", x, net.noise(4, 6)), [0, 0, 3, 2]) for _ in range(3))
    scores = net.op("Softmax", net.op("Einsum", q, k, equation="bihd,bjhd->bhij"))
    mixed = net.op("Einsum", scores, v, equation="bhij,bjhd->bihd")
    return net.op("MatMul", net.op("Reshape", mixed, [0, 0, 6]), net.noise(6, 3))


@EXAMPLES.add(6)
def einsum_of_one(net: Net) -> str:
    """A transposition and a sum over space, without an arrow for the first."""
    h = net.op("Einsum", stem(net), equation="achw->chwa")
    h = net.op("Einsum", h, equation="chwa -> ac")
    return net.linear(net.op("Tanh", h), 6, 3)


@EXAMPLES.add(frozen=["no rule for n...,n...->n...", "no rule for nii->ni"])
def einsum_beyond(net: Net) -> list[str]:
    h = net.op("Einsum", stem(net), "stem_out", equation="n...,n...->n...")
    square = net.op("MatMul", net.input("N", 6, 4, name="tokens"), net.noise(4, 6))
    return [h, net.op("Einsum", square, equation="nii->ni")]


@EXAMPLES.add(6, 6, frozen=["sums or joins channels without a weight"])
def einsum_elsewhere(net: Net) -> list[str]:
    """A weight that mixes samples, one for each position, and one that mixes positions."""
    a, b, c = (net.op("MatMul", net.input(2, 5, 4, name=name), net.noise(4, 6)) for name in "abc")
    a = net.op("Einsum", a, net.noise(2, 2), equation="ntc,nm->mtc")
    b = net.op("Einsum", b, net.noise(5, 6, 3), equation="ntc,tcd->ntd")
    c = net.op("Einsum", c, net.noise(5, 3), equation="ntc,tq->nqc")
    return [net.op("MatMul", a, net.noise(6, 2)), b, net.op("MatMul", c, net.noise(6, 2))]


@EXAMPLES.add(6)
def product_with_a_vector(net: Net) -> str:
    h = net.op("MatMul", net.input("N", 5, 4), net.noise(4, 6))
    return net.op("MatMul", net.op("MatMul", net.noise(5), h), net.noise(6, 3))
