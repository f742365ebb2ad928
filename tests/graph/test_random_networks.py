"""Networks that nobody thought of: operators of all kinds put together at random, and the wiring holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.net import Net
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from wiring import prove_cut, read

Shape = tuple[int, int, int]  # channels, height, width
_PERMS = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])  # of queries, keys and values


@dataclass
class Growth:
    """A network that grows by random operators on tensors made before."""

    random: Random
    net: Net = field(default_factory=Net)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def model(self, steps: int) -> onnx.ModelProto:
        x = self.net.input("N", 3, 4, 4)
        for width in (4, 6):
            self.keep(self.net.conv(x, 3, width, 3, 3, pads=[1, 1, 1, 1]), (width, 4, 4))
        kinds = [getattr(self, name) for name in sorted(vars(type(self))) if name.startswith("grow_")]
        for _ in range(steps):
            name = self.random.choice(list(self.shapes)[-4:])
            self.random.choice(kinds)(name, *self.shapes[name])
        ends = [name for name in list(self.shapes)[-3:] if self.shapes[name][0] > 0]
        return self.net.model(*(self.net.conv(name, self.shapes[name][0], 3) for name in ends))

    def keep(self, name: str, shape: Shape) -> None:
        self.shapes[name] = shape

    def partner(self, name: str) -> str:
        """A tensor of the same shape, itself if there is no other."""
        same = [other for other, shape in self.shapes.items() if shape == self.shapes[name]]
        return self.random.choice(same)

    def divisor(self, number: int) -> int:
        return self.random.choice([d for d in range(1, number + 1) if number % d == 0])

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
        pooled = self.net.op("ReduceMean", h, axes=[2, 3], keepdims=0)
        gate = self.net.op("Unsqueeze", self.net.linear(self.net.linear(pooled, c, 3), 3, c), [2, 3])
        self.keep(self.net.op("Mul", h, self.net.op("Sigmoid", gate)), (c, y, x))

    def grow_flat(self, h: str, c: int, y: int, x: int) -> None:
        flat = self.net.linear(self.net.op("Flatten", h), c * y * x, 8)
        self.keep(self.net.op("Reshape", flat, [-1, 2, 2, 2]), (2, 2, 2))

    # -- element by element

    def grow_activation(self, h: str, c: int, y: int, x: int) -> None:
        self.keep(self.net.op(self.random.choice(["Relu", "Tanh", "Softplus"]), h), (c, y, x))

    def grow_norm(self, h: str, c: int, y: int, x: int) -> None:
        values = [1 + self.net.noise(c), self.net.noise(c), self.net.noise(c), self.net.noise(c) ** 2 + 0.5]
        self.keep(self.net.op("BatchNormalization", h, *values), (c, y, x))

    def grow_neighbours(self, h: str, c: int, y: int, x: int) -> None:
        self.keep(self.net.op("LRN", h, size=self.random.choice([3, 5]), alpha=3.0), (c, y, x))

    def grow_join(self, h: str, c: int, y: int, x: int) -> None:
        self.keep(self.net.op(self.random.choice(["Add", "Mul", "Max", "Sub"]), h, self.partner(h)), (c, y, x))

    def grow_constant(self, h: str, c: int, y: int, x: int) -> None:
        shape = self.random.choice([(c, 1, 1), (1, c, y, x), (y, 1), (1,)])
        self.keep(self.net.op(self.random.choice(["Add", "Mul"]), self.net.noise(*shape), h), (c, y, x))

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
            self.keep(self.net.op("MaxPool", h, kernel_shape=[2, 2]), (c, y - 1, x - 1))

    def grow_resize(self, h: str, c: int, y: int, x: int) -> None:
        if y * x <= 64:
            batch = self.net.op("Slice", self.net.op("Shape", h), [0], [1])
            sizes = self.net.op("Concat", batch, [c, 2 * y, x], axis=0)
            self.keep(self.net.op("Resize", h, None, None, sizes), (c, 2 * y, x))


@given(st.randoms(use_true_random=False), st.integers(2, 14))
@settings(deadline=None, max_examples=40)
def test_pruned_equals_masked(random: Random, steps: int) -> None:
    trace = Trace(read(Growth(random).model(steps)))
    prunable = [group for group in find_groups(trace) if not group.frozen]
    prove_cut(trace, prunable, [1] * len(prunable))
    prove_cut(trace, prunable, [random.randint(1, len(group.units)) for group in prunable], seed=1)


def test_most_random_networks_can_be_pruned() -> None:
    """The test above would hold if everything were frozen."""
    counts = []
    for seed in range(15):
        groups = find_groups(Trace(read(Growth(Random(seed)).model(8))))
        counts.append(sum(not group.frozen for group in groups))
    assert np.mean(counts) > 1.5
