"""Networks that nobody thought of: operators of all kinds put together at random, and the wiring holds.

The suite grows 200 of them, a long run as many as it is told:

    RANDOM_NETWORKS=2000 python -m pytest tests/graph/test_random_networks.py --hypothesis-show-statistics
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np
import onnx
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from examples.net import Net
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Node
from reap_onnx.ops import all_rules
from wiring import prove_cut, read

Shape = tuple[int, int, int]  # channels, height, width
Step = Callable[[str, int, int, int], None]
_PERMS = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])  # of queries, keys and values
_ANYWHERE = (
    "Abs Asinh Atan Celu Clip Cos Dropout Elu Erf Gelu HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Selu "
    "Sigmoid Sin Softplus Softsign Swish Tanh"
)
_BETWEEN_0_AND_1 = "Acos Asin Atanh Cosh Exp Log Reciprocal Sinh Sqrt Tan"
_ABOVE_1 = "Acosh"
_IN_STEPS = "Ceil Floor Round Shrink Sign ThresholdedRelu"
_NEWER = {"BitwiseAnd": 18, "Mish": 18, "Gelu": 20, "GroupNormalization": 21, "RMSNormalization": 23, "Swish": 24}
_OPSETS = {name: range(first, 99) for name, first in _NEWER.items()} | {"GlobalLpPool": range(22)}
_GONE = {"Upsample"}  # from the operator sets that networks are grown in
_ALONE = {  # in examples: these need boxes or places, the next divides rounding by rounding, others are onnxruntime's
    *("GridSample", "MaxRoiPool", "RoiAlign", "MeanVarianceNormalization"),
    *(f"com.microsoft.{name}" for name in ("QuantizeLinear", "DequantizeLinear", "FusedMatMul")),
}


@dataclass
class Growth:
    """A network that grows by random operators on tensors made before."""

    random: Random
    net: Net = field(init=False)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.net = Net(self.random.choice([17, 24]), ir=10)
        x = self.net.input("N", 3, 4, 4)
        for width in (4, 6):
            self.keep(self.net.conv(x, 3, width, 3, 3, pads=[1, 1, 1, 1]), (width, 4, 4))

    def model(self, steps: int) -> onnx.ModelProto:
        for _ in range(steps):
            self.step(self.random.choice(self.kinds()))
        ends = [name for name in list(self.shapes)[-3:] if self.shapes[name][0] > 0]
        return self.net.model(*(self.net.conv(name, self.shapes[name][0], 3) for name in ends))

    def kinds(self) -> list[Step]:
        return [getattr(self, name) for name in sorted(vars(type(self))) if name.startswith("grow_")]

    def step(self, kind: Step) -> None:
        name = self.random.choice(list(self.shapes)[-4:])
        kind(name, *self.shapes[name])

    def keep(self, name: str, shape: Shape) -> None:
        self.shapes[name] = shape

    def partner(self, name: str) -> str:
        """A tensor of the same shape, itself if there is no other."""
        same = [other for other, shape in self.shapes.items() if shape == self.shapes[name]]
        return self.random.choice(same)

    def divisor(self, number: int) -> int:
        return self.random.choice([d for d in range(1, number + 1) if number % d == 0])

    def known(self, names: str) -> list[str]:
        """Those of some operators that onnxruntime has in this operator set."""
        return [name for name in names.split() if self.net.opset in _OPSETS.get(name, range(99))]

    def any_of(self, names: str) -> str:
        return self.random.choice(self.known(names))

    def between(self, h: str) -> str:
        """Values between 0.1 and 0.9."""
        return self.net.op("Add", self.net.op("Mul", self.net.op("Sigmoid", h), 0.8), 0.1)

    def steps(self, h: str) -> str:
        """Whole numbers, so that what jumps does not do so by rounding."""
        return self.net.op("Floor", self.net.op("Add", self.net.op("Mul", h, 2.3), 0.37))

    def integers(self, h: str, dtype: int = TensorProto.INT32) -> str:
        return self.net.op("Cast", self.net.op("Mul", self.between(h), 9.3), to=dtype)

    def floats(self, h: str) -> str:
        return self.net.op("Cast", h, to=TensorProto.FLOAT)

    def reduced(self, kind: str, h: str, axis: int, keepdims: int) -> str:
        if self.net.opset >= (13 if kind == "ReduceSum" else 18):
            return self.net.op(kind, h, [axis], keepdims=keepdims)
        return self.net.op(kind, h, axes=[axis], keepdims=keepdims)

    def declare(self, name: str, *shape: int) -> None:
        """The shape of what onnx infers none for."""
        value = onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        self.net.graph.value_info.append(value)

    # -- layers

    def grow_conv(self, h: str, c: int, y: int, x: int) -> None:
        group, size = self.divisor(c), self.random.choice([1, 3])
        after = group * self.random.randint(1, 4)
        pads = [size // 2] * 4
        self.keep(self.net.conv(h, c, after, size, size, group=group, pads=pads), (after, y, x))

    def grow_conv_alike(self, h: str, c: int, y: int, x: int) -> None:
        self.keep(self.net.conv(h, c, c, kind=self.random.choice(["Conv", "ConvTranspose"])), (c, y, x))

    def grow_product(self, h: str, c: int, y: int, x: int) -> None:
        after = self.random.randint(2, 7)
        rows = self.net.op("MatMul", self.net.op("Transpose", h, perm=[0, 2, 3, 1]), self.net.noise(c, after))
        self.keep(self.net.op("Transpose", rows, perm=[0, 3, 1, 2]), (after, y, x))

    def grow_einsum(self, h: str, c: int, y: int, x: int) -> None:
        after = self.random.randint(2, 7)
        self.keep(self.net.op("Einsum", h, self.net.noise(c, after), equation="nchw,cd->ndhw"), (after, y, x))

    def grow_attention(self, h: str, c: int, y: int, x: int) -> None:
        """Heads of a size that is computed from the width."""
        net, heads = self.net, self.divisor(c)
        tokens = net.op("Transpose", net.op("Reshape", h, [0, 0, -1]), perm=[0, 2, 1])
        size = net.op("Div", net.op("Slice", net.op("Shape", tokens), [2], [3]), [heads])
        shape = net.op("Concat", net.op("Slice", net.op("Shape", tokens), [0], [2]), [heads], size, axis=0)
        parts = [net.op("Reshape", net.op("MatMul", tokens, net.noise(c, c)), shape) for _ in range(3)]
        q, k, v = (net.op("Transpose", part, perm=perm) for part, perm in zip(parts, _PERMS, strict=True))
        mixed = net.op("MatMul", net.op("Softmax", net.op("MatMul", q, k)), v)
        mixed = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), net.op("Shape", tokens))
        out = net.op("Transpose", net.op("MatMul", mixed, net.noise(c, c)), perm=[0, 2, 1])
        self.keep(net.op("Reshape", out, [0, c, y, x]), (c, y, x))

    def grow_chunk(self, h: str, c: int, y: int, x: int) -> None:
        """Halves whose bounds are computed from the width."""
        if c > 1:
            width = self.net.op("Slice", self.net.op("Shape", h), [1], [2])
            half = self.net.op("Div", self.net.op("Add", width, [1]), [2])
            self.keep(self.net.op("Slice", h, [0], half, [1]), ((c + 1) // 2, y, x))
            self.keep(self.net.op("Slice", h, half, width, [1]), (c // 2, y, x))

    def grow_shared(self, h: str, c: int, y: int, x: int) -> None:
        """One weight for two tensors."""
        weight = self.net.constant(self.net.noise(5, c, 1, 1))
        for name in {h: None, self.partner(h): None}:
            self.keep(self.net.op("Conv", name, weight), (5, y, x))

    def grow_gate(self, h: str, c: int, y: int, x: int) -> None:
        pooled = self.reduced("ReduceMean", self.reduced("ReduceMean", h, 3, 0), 2, 0)
        gate = self.net.op("Unsqueeze", self.net.linear(self.net.linear(pooled, c, 3), 3, c), [2, 3])
        self.keep(self.net.op("Mul", h, self.net.op("Sigmoid", gate)), (c, y, x))

    def grow_flat(self, h: str, c: int, y: int, x: int) -> None:
        flat = self.net.linear(self.net.op("Flatten", h), c * y * x, 8)
        self.keep(self.net.op("Reshape", flat, [-1, 2, 2, 2]), (2, 2, 2))

    # -- element by element

    def grow_activations(self, h: str, c: int, y: int, x: int) -> None:
        """Three of them, each where it is defined and smooth, or on numbers between its steps."""
        names = self.known(f"{_ANYWHERE} {_BETWEEN_0_AND_1} {_ABOVE_1} {_IN_STEPS}")
        for kind in self.random.sample(names, 3):
            if kind in _BETWEEN_0_AND_1.split():
                h = self.between(h)
            elif kind in _ABOVE_1.split():
                h = self.net.op("Reciprocal", self.between(h))
            elif kind in _IN_STEPS.split():
                h = self.steps(h)
            h = self.net.op(kind, h)
        self.keep(h, (c, y, x))

    def grow_fused(self, h: str, c: int, y: int, x: int) -> None:
        """Operators of onnxruntime, two of which add a vector on the last axis."""
        kind = self.any_of("Gelu QuickGelu BiasGelu FastGelu")
        bias = [self.net.noise(c)] if kind in ("BiasGelu", "FastGelu") else []
        rows = self.net.op("Transpose", h, perm=[0, 2, 3, 1])
        rows = self.net.op(kind, rows, *bias, domain="com.microsoft")
        self.declare(rows, y, x, c)
        self.keep(self.net.op("Transpose", rows, perm=[0, 3, 1, 2]), (c, y, x))

    def grow_norm(self, h: str, c: int, y: int, x: int) -> None:
        kind = self.any_of("BatchNormalization InstanceNormalization GroupNormalization")
        values = [1 + self.net.noise(c), self.net.noise(c), self.net.noise(c), self.net.noise(c) ** 2 + 0.5]
        groups = {"num_groups": self.divisor(c)} if kind == "GroupNormalization" else {}
        h = self.net.op(kind, h, *values[: 4 if kind == "BatchNormalization" else 2], epsilon=0.1, **groups)
        self.declare(h, c, y, x)
        self.keep(h, (c, y, x))

    def grow_norm_beside(self, h: str, c: int, y: int, x: int) -> None:
        """Over an axis of space."""
        kind = self.any_of("Softmax LogSoftmax Hardmax LpNormalization LayerNormalization RMSNormalization")
        if kind in ("LayerNormalization", "RMSNormalization"):
            h = self.net.op(kind, h, 1 + self.net.noise(x), axis=3, epsilon=0.1)
        else:
            h = self.steps(h) if kind == "Hardmax" else self.between(h)
            h = self.net.op(kind, h, axis=self.random.choice([2, 3]))
        self.keep(h, (c, y, x))

    def grow_neighbours(self, h: str, c: int, y: int, x: int) -> None:
        self.keep(self.net.op("LRN", h, size=self.random.choice([3, 5]), alpha=3.0), (c, y, x))

    def grow_quantised(self, h: str, c: int, y: int, x: int) -> None:
        """With a scale for all channels or for each."""
        many = self.random.choice([(), (c,)])
        scale = self.net.constant(np.full(many, 0.053, np.float32))
        zero = self.net.constant(np.full(many, 120, np.uint8))
        whole = self.net.op("QuantizeLinear", h, scale, zero, axis=1)
        self.keep(self.net.op("DequantizeLinear", whole, scale, zero, axis=1), (c, y, x))

    def grow_join(self, h: str, c: int, y: int, x: int) -> None:
        kind = self.any_of("Add Sub Mul Max Min Mean Sum PRelu Div Pow")
        other = self.partner(h)
        pair = (self.between(h), self.between(other)) if kind in ("Div", "Pow") else (h, other)
        self.keep(self.net.op(kind, *pair), (c, y, x))

    def grow_choice(self, h: str, c: int, y: int, x: int) -> None:
        """Values of one of two tensors, as a third and its questions say."""
        net, other = self.net, self.partner(h)
        steps = self.steps(h), self.steps(self.partner(h))
        compared = net.op(self.any_of("Equal Greater GreaterOrEqual Less LessOrEqual"), *steps)
        asked = net.op(self.any_of("IsInf IsNaN"), other)
        truth = net.op(self.any_of("And Or Xor"), compared, net.op("Not", asked))
        self.keep(net.op("Where", truth, h, other), (c, y, x))

    def grow_bits(self, h: str, c: int, y: int, x: int) -> None:
        net = self.net
        if self.known("BitwiseAnd"):
            pair = self.integers(h), net.op("BitwiseNot", self.integers(self.partner(h)))
            bits = net.op(self.any_of("BitwiseAnd BitwiseOr BitwiseXor"), *pair)
        else:
            shifts = np.full((c, 1, 1), 2, np.uint32)
            bits = net.op("BitShift", self.integers(h, TensorProto.UINT32), shifts, direction="LEFT")
            bits = net.op("Cast", bits, to=TensorProto.INT32)
        self.keep(self.floats(net.op("Mod", bits, np.int32(5))), (c, y, x))

    def grow_constant(self, h: str, c: int, y: int, x: int) -> None:
        shape = self.random.choice([(c, 1, 1), (1, c, y, x), (y, 1), (1,)])
        self.keep(self.net.op(self.random.choice(["Add", "Mul"]), self.net.noise(*shape), h), (c, y, x))

    def grow_like(self, h: str, c: int, y: int, x: int) -> None:
        """Of the type of another tensor, and that of a number."""
        self.keep(self.net.op("CastLike", h, self.random.choice([self.partner(h), np.float32(2)])), (c, y, x))

    # -- movement

    def grow_concat(self, h: str, c: int, y: int, x: int) -> None:
        others = [n for n, (_, *space) in self.shapes.items() if space == [y, x]]
        other = self.random.choice(others)
        self.keep(self.net.op("Concat", h, other, axis=1), (c + self.shapes[other][0], y, x))

    def grow_stack(self, h: str, c: int, y: int, x: int) -> None:
        if y <= 8:
            self.keep(self.net.op("Concat", h, self.partner(h), axis=2), (c, 2 * y, x))

    def grow_split(self, h: str, c: int, y: int, x: int) -> None:
        if c > 1:
            first = self.random.randint(1, c - 1)
            parts = self.net.ops("Split", h, [first, c - first], outputs=2, axis=1)
            for part, width in zip(parts, (first, c - first), strict=True):
                self.keep(part, (width, y, x))

    def grow_slice(self, h: str, c: int, y: int, x: int) -> None:
        start = self.random.randint(0, c - 1)
        end = self.random.randint(start + 1, c)
        self.keep(self.net.op("Slice", h, [start - c], [end if end < c else 2**31], [1]), (end - start, y, x))

    def grow_pad(self, h: str, c: int, y: int, x: int) -> None:
        before, after = self.random.randint(0, 2), self.random.randint(-(c // 3), 2)
        pads = [0, before, 0, 0, 0, after, 0, 0]
        self.keep(self.net.op("Pad", h, pads, 0.5), (c + before + after, y, x))

    def grow_gather(self, h: str, c: int, y: int, x: int) -> None:
        chosen = [self.random.randint(-c, c - 1) for _ in range(self.random.randint(1, c))]
        self.keep(self.net.op("Gather", h, chosen, axis=1), (len(chosen), y, x))

    def grow_gather_places(self, h: str, c: int, y: int, x: int) -> None:
        """Two places of the map, of H x W x N x C."""
        places = np.array([[self.random.randint(0, y - 1), self.random.randint(0, x - 1)] for _ in range(2)])
        chosen = self.net.op("GatherND", self.net.op("Transpose", h, perm=[2, 3, 0, 1]), places)
        self.keep(self.net.op("Unsqueeze", self.net.op("Transpose", chosen, perm=[1, 2, 0]), [3]), (c, 2, 1))

    def grow_shuffle(self, h: str, c: int, y: int, x: int) -> None:
        group = self.divisor(c)
        wide = self.net.op("Reshape", h, [0, group, c // group, y, x])
        turned = self.net.op("Transpose", wide, perm=[0, 2, 1, 3, 4])
        sizes = [[0, -1, y, x], [-1, c, y, x]][self.random.randint(0, 1)]
        self.keep(self.net.op("Reshape", turned, sizes), (c, y, x))

    def grow_reshape(self, h: str, c: int, y: int, x: int) -> None:
        """By the shape of a tensor of the same shape."""
        flat = self.net.op("Reshape", h, [0, -1])
        self.keep(self.net.op("Reshape", flat, self.net.op("Shape", self.partner(h))), (c, y, x))

    def grow_sizes(self, h: str, c: int, y: int, x: int) -> None:
        """By sizes gathered here and there."""
        batch = self.net.op("Slice", self.net.op("Shape", self.partner(h)), [0], [1])
        width = self.random.choice([[c], self.net.op("Slice", self.net.op("Shape", h), [1], [2])])
        sizes = self.net.op("Concat", batch, width, [y], [-1], axis=0)
        self.keep(self.net.op("Reshape", self.net.op("Flatten", h), sizes), (c, y, x))

    def grow_tile(self, h: str, c: int, y: int, x: int) -> None:
        if c <= 8:
            self.keep(self.net.op("Tile", h, [1, 2, 1, 1]), (2 * c, y, x))

    def grow_depth(self, h: str, c: int, y: int, x: int) -> None:
        if c % 4 == 0:
            mode = self.random.choice(["DCR", "CRD"])
            self.keep(self.net.op("DepthToSpace", h, blocksize=2, mode=mode), (c // 4, 2 * y, 2 * x))

    def grow_space(self, h: str, c: int, y: int, x: int) -> None:
        if y % 2 == 0 and x % 2 == 0 and c <= 4:
            self.keep(self.net.op("SpaceToDepth", h, blocksize=2), (4 * c, y // 2, x // 2))

    def grow_pool(self, h: str, c: int, y: int, x: int) -> None:
        if y > 1 and x > 1:
            kind = self.any_of("MaxPool AveragePool LpPool")
            self.keep(self.net.op(kind, h, kernel_shape=[2, 2]), (c, y - 1, x - 1))

    def grow_whole(self, h: str, c: int, y: int, x: int) -> None:
        """Whole maps as one number, and spread again."""
        h = self.net.op(self.any_of("GlobalAveragePool GlobalMaxPool GlobalLpPool"), h)
        self.keep(h, (c, 1, 1))
        self.keep(self.net.op("Expand", h, self.random.choice([[1, c, y, x], [c, y, x], [y, x]])), (c, y, x))

    def grow_reduction(self, h: str, c: int, y: int, x: int) -> None:
        """Over an axis of space, which goes and comes back."""
        kind, axis = self.any_of("L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"), self.random.choice([2, 3])
        h = self.reduced(f"Reduce{kind}", self.between(h), axis, 0)
        self.keep(self.net.op("Unsqueeze", h, [axis]), (c, 1, x) if axis == 2 else (c, y, 1))

    def grow_place(self, h: str, c: int, y: int, x: int) -> None:
        """Where the largest or smallest values stand, with their axis squeezed out and put back."""
        place = self.net.op(self.any_of("ArgMax ArgMin"), self.steps(h), axis=3)
        flat = self.net.op("Squeeze", self.floats(place), [3])
        self.keep(self.net.op("Unsqueeze", flat, [3]), (c, y, 1))

    def grow_resize(self, h: str, c: int, y: int, x: int) -> None:
        if y * x <= 64:
            batch = self.net.op("Slice", self.net.op("Shape", h), [0], [1])
            sizes = self.net.op("Concat", batch, [c, 2 * y, x], axis=0)
            self.keep(self.net.op("Resize", h, None, None, sizes), (c, 2 * y, x))


@given(st.randoms(use_true_random=False), st.integers(2, 14))
@settings(deadline=None, derandomize=True, max_examples=int(os.environ.get("RANDOM_NETWORKS", "200")))
def test_pruned_equals_masked(random: Random, steps: int) -> None:
    trace = Trace(read(Growth(random).model(steps)))
    prunable = [group for group in find_groups(trace) if not group.frozen]
    event("groups that can be pruned: " + (str(len(prunable)) if len(prunable) < 5 else "5 or more"))
    prove_cut(trace, prunable, [1] * len(prunable))
    prove_cut(trace, prunable, [random.randint(1, len(group.units)) for group in prunable], seed=1)


def test_most_random_networks_can_be_pruned() -> None:
    """The test above would hold if everything were frozen."""
    counts = []
    for seed in range(15):
        groups = find_groups(Trace(read(Growth(Random(seed)).model(8))))
        counts.append(sum(not group.frozen for group in groups))
    assert np.mean(counts) > 1.5


def test_all_operators_grow() -> None:
    grown = set()
    for seed in range(60):
        growth = Growth(Random(seed))
        for kind in growth.kinds():
            growth.step(kind)
        grown |= {Node(0, node).op for node in growth.net.graph.node}
    assert {rule.op for rule in all_rules()} - grown == _GONE | _ALONE
