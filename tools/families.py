"""Modern families of networks as small torch definitions with random weights, exported by both torch exporters.

The topologies are the real ones, blocks of every kind included; widths, depths and inputs are small, so that a
model exports and prunes in seconds. Torch is needed here alone; ``tools/check_models.py families`` prunes what this
writes.

    python tools/families.py FOLDER [NAME ...]
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def conv(
    before: int,
    after: int,
    size: int = 1,
    stride: int = 1,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
    dilation: int = 1,
) -> nn.Sequential:
    """Convolution, norm, activation."""
    padding = dilation * (size - 1) // 2
    parts = [nn.Conv2d(before, after, size, stride, padding, dilation, groups, bias=False), nn.BatchNorm2d(after)]
    return nn.Sequential(*parts, *([act()] if act else []))


def residual(branch: nn.Module, shortcut: nn.Module | None = None, act: bool = False) -> nn.Module:
    def add(x: Tensor, branch: nn.Module, shortcut: nn.Module) -> Tensor:
        total = branch(x) + shortcut(x)
        return functional.relu(total) if act else total

    return Lambda(add, branch, shortcut or nn.Identity())


def classifier(width: int, hidden: int = 0, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    last = [nn.Linear(width, hidden), act(), nn.Dropout(0.1)] if hidden else []
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last, nn.Linear(hidden or width, 10))


def squeeze_excite(width: int, inner: int, act: Callable[[], nn.Module], gate: Callable[[], nn.Module]) -> nn.Module:
    layers = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, inner, 1), act(), nn.Conv2d(inner, width, 1), gate()
    )
    return Lambda(lambda x, layers: x * layers(x), layers)


# Residual networks


def bottleneck(before: int, inner: int, after: int, stride: int = 1, groups: int = 1, se: int = 0) -> nn.Module:
    branch = [conv(before, inner), conv(inner, inner, 3, stride, groups)]
    branch += [squeeze_excite(inner, se, nn.ReLU, nn.Sigmoid)] if se else []
    shortcut = None if before == after and stride == 1 else conv(before, after, 1, stride, act=None)
    return residual(nn.Sequential(*branch, conv(inner, after, act=None)), shortcut, act=True)


def resnet50() -> nn.Module:
    blocks, before = [], 16
    for stage, depth in enumerate((3, 4, 6, 3)):
        inner = 8 * 2**stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            blocks.append(bottleneck(before, inner, 4 * inner, stride))
            before = 4 * inner
    return nn.Sequential(conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1), *blocks, classifier(before))


def regnet() -> nn.Module:
    """RegNetY: grouped convolutions with gates."""
    blocks, before = [], 16
    for after, depth in ((24, 1), (48, 2), (96, 3)):
        for block in range(depth):
            blocks.append(bottleneck(before, after, after, 1 if block else 2, after // 8, before // 4))
            before = after
    return nn.Sequential(conv(3, 16, 3, 2), *blocks, classifier(before))


# Mobile networks


def inverted(
    before: int,
    wide: int,
    after: int,
    size: int,
    stride: int,
    act: Callable[[], nn.Module],
    gate: Callable[[], nn.Module] | None = None,
    inner: int = 8,
) -> nn.Module:
    layers = [] if wide == before else [conv(before, wide, act=act)]
    layers.append(conv(wide, wide, size, stride, wide, act))
    layers += [squeeze_excite(wide, inner, nn.SiLU if act is nn.SiLU else nn.ReLU, gate)] if gate else []
    branch = nn.Sequential(*layers, conv(wide, after, act=None))
    return residual(branch) if before == after and stride == 1 else branch


def mobilenet_v2() -> nn.Module:
    blocks, before = [inverted(16, 16, 8, 3, 1, nn.ReLU6)], 8
    for after, depth, stride in ((12, 2, 2), (16, 3, 2), (24, 2, 1)):
        for block in range(depth):
            blocks.append(inverted(before, 6 * before, after, 3, 1 if block else stride, nn.ReLU6))
            before = after
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.ReLU6), *blocks, conv(24, 96, act=nn.ReLU6), classifier(96))


def mobilenet_v3() -> nn.Module:
    blocks = [
        inverted(16, 16, 16, 3, 2, nn.ReLU, nn.Hardsigmoid),
        inverted(16, 72, 24, 3, 2, nn.ReLU),
        inverted(24, 88, 24, 3, 1, nn.ReLU),
        inverted(24, 96, 40, 5, 2, nn.Hardswish, nn.Hardsigmoid, 24),
        inverted(40, 120, 40, 5, 1, nn.Hardswish, nn.Hardsigmoid, 32),
    ]
    ends = [conv(40, 120, act=nn.Hardswish), classifier(120, 64, nn.Hardswish)]
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.Hardswish), *blocks, *ends)


def efficientnet() -> nn.Module:
    blocks, before = [inverted(16, 16, 8, 3, 1, nn.SiLU, nn.Sigmoid, 4)], 8
    for after, depth, size, stride in ((12, 2, 3, 2), (20, 2, 5, 2), (32, 3, 3, 1)):
        for block in range(depth):
            blocks.append(
                inverted(before, 6 * before, after, size, 1 if block else stride, nn.SiLU, nn.Sigmoid, before // 4)
            )
            before = after
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.SiLU), *blocks, conv(32, 96, act=nn.SiLU), classifier(96))


class ShuffleUnit(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, after // 2
        inside = before if stride == 2 else half
        self.right = nn.Sequential(conv(inside, half), conv(half, half, 3, stride, half, None), conv(half, half))
        if stride == 2:
            self.left = nn.Sequential(conv(before, before, 3, 2, before, None), conv(before, half))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            out = torch.cat([self.left(x), self.right(x)], 1)
        else:
            left, right = x.chunk(2, dim=1)
            out = torch.cat([left, self.right(right)], 1)
        n, c, h, w = out.shape
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def shufflenet_v2() -> nn.Module:
    blocks, before = [], 16
    for after, depth in ((32, 3), (64, 4)):
        blocks += [ShuffleUnit(before if not b else after, after, 1 if b else 2) for b in range(depth)]
        before = after
    return nn.Sequential(conv(3, 16, 3, 2), *blocks, conv(64, 128), classifier(128))


class Ghost(nn.Module):
    def __init__(self, before: int, after: int, relu: bool = True) -> None:
        super().__init__()
        act, self.after = nn.ReLU if relu else None, after
        half = math.ceil(after / 2)
        self.primary, self.cheap = conv(before, half, act=act), conv(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], dim=1)[:, : self.after]


def ghost_bottleneck(before: int, wide: int, after: int, stride: int, se: bool) -> nn.Module:
    layers: list[nn.Module] = [Ghost(before, wide)]
    layers += [conv(wide, wide, 3, 2, wide, None)] if stride == 2 else []
    layers += [squeeze_excite(wide, wide // 4, nn.ReLU, nn.Hardsigmoid)] if se else []
    shortcut = None
    if stride == 2 or before != after:
        shortcut = nn.Sequential(conv(before, before, 3, stride, before, None), conv(before, after, act=None))
    return residual(nn.Sequential(*layers, Ghost(wide, after, relu=False)), shortcut)


def ghostnet() -> nn.Module:
    blocks = [
        ghost_bottleneck(16, 16, 16, 1, False),
        ghost_bottleneck(16, 48, 24, 2, False),
        ghost_bottleneck(24, 71, 24, 1, False),
        ghost_bottleneck(24, 72, 40, 2, True),
        ghost_bottleneck(40, 120, 40, 1, True),
    ]
    return nn.Sequential(conv(3, 16, 3, 2), *blocks, conv(40, 120), classifier(120, 64))


# ConvNeXt


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        rows = self.scale * self.narrow(functional.gelu(self.wide(rows)))
        return x + rows.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, 4), LayerNorm2d(32)]
    for stage, depth in enumerate((2, 2, 3)):
        width = 32 * 2**stage
        if stage:
            layers += [LayerNorm2d(width // 2), nn.Conv2d(width // 2, width, 2, 2)]
        layers += [ConvNextBlock(width) for _ in range(depth)]
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 10)]
    return nn.Sequential(*layers, *last)


# Detection


class C2f(nn.Module):
    def __init__(self, before: int, after: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        half = after // 2
        self.first, self.last = conv(before, after, act=nn.SiLU), conv((2 + depth) * half, after, act=nn.SiLU)
        pairs = [nn.Sequential(*(conv(half, half, 3, act=nn.SiLU) for _ in range(2))) for _ in range(depth)]
        self.inner = nn.ModuleList([residual(pair) if shortcut else pair for pair in pairs])

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for inner in self.inner:
            parts.append(inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class SPPF(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = conv(width, width // 2, act=nn.SiLU), conv(2 * width, width, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class Detect(nn.Module):
    """Boxes as distributions over distances, decoded on anchors; classes."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], bins: int, classes: int) -> None:
        super().__init__()
        self.strides, self.bins, self.classes = strides, bins, classes
        box, cls = 16, 24
        self.boxes = nn.ModuleList(self._branch(width, box, 4 * bins) for width in widths)
        self.labels = nn.ModuleList(self._branch(width, cls, classes) for width in widths)
        self.expectation = nn.Conv2d(bins, 1, 1, bias=False)
        self.expectation.weight.data[:] = torch.arange(bins, dtype=torch.float).view(1, bins, 1, 1)

    def _branch(self, width: int, inner: int, after: int) -> nn.Module:
        first = [conv(width, inner, 3, act=nn.SiLU), conv(inner, inner, 3, act=nn.SiLU)]
        return nn.Sequential(*first, nn.Conv2d(inner, after, 1))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        found, anchors, scales = [], [], []
        for x, stride, box, label in zip(levels, self.strides, self.boxes, self.labels, strict=True):
            n, _, h, w = x.shape
            found.append(torch.cat([box(x), label(x)], 1).view(n, 4 * self.bins + self.classes, h * w))
            rows, columns = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            anchors.append(torch.stack([columns, rows]).view(2, -1))
            scales.append(torch.full((1, h * w), float(stride)))
        boxes, labels = torch.cat(found, 2).split((4 * self.bins, self.classes), 1)
        n, _, places = boxes.shape
        boxes = boxes.view(n, 4, self.bins, places).transpose(2, 1).softmax(1)
        near, far = self.expectation(boxes).view(n, 4, places).chunk(2, 1)
        first, last = torch.cat(anchors, 1) - near, torch.cat(anchors, 1) + far
        decoded = torch.cat([(first + last) / 2, last - first], 1) * torch.cat(scales, 1)
        return torch.cat([decoded, labels.sigmoid()], 1)


class Yolo(nn.Module):
    """YOLOv8: C2f backbone, SPPF, paths up and down, three levels of a decoupled head."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.SiLU
        self.stem = nn.Sequential(
            conv(3, 8, 3, 2, act=act), conv(8, 16, 3, 2, act=act), C2f(16, 16, 1, True), conv(16, 32, 3, 2, act=act)
        )
        self.c3 = C2f(32, 32, 2, True)
        self.c4 = nn.Sequential(conv(32, 48, 3, 2, act=act), C2f(48, 48, 2, True))
        self.c5 = nn.Sequential(conv(48, 64, 3, 2, act=act), C2f(64, 64, 1, True), SPPF(64))
        self.up4, self.up3 = C2f(48 + 64, 48, 1, False), C2f(32 + 48, 32, 1, False)
        self.down4, self.out4 = conv(32, 32, 3, 2, act=act), C2f(32 + 48, 48, 1, False)
        self.down5, self.out5 = conv(48, 48, 3, 2, act=act), C2f(48 + 64, 64, 1, False)
        self.head = Detect((32, 48, 64), (8, 16, 32), 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        c3 = self.c3(self.stem(x))
        c4 = self.c4(c3)
        c5 = self.c5(c4)
        p4 = self.up4(torch.cat([functional.interpolate(c5, scale_factor=2.0), c4], 1))
        p3 = self.up3(torch.cat([functional.interpolate(p4, scale_factor=2.0), c3], 1))
        p4 = self.out4(torch.cat([self.down4(p3), p4], 1))
        p5 = self.out5(torch.cat([self.down5(p4), c5], 1))
        return self.head((p3, p4, p5))


class Retina(nn.Module):
    """A pyramid with group norm in a head that all levels share."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([conv(3, 16, 3, 4), conv(16, 32, 3, 2), conv(32, 48, 3, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(width, 32, 1) for width in (32, 48))
        self.smooth = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.head = nn.Sequential(
            *(nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU()),
            *(nn.Conv2d(32, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 12, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        fine = self.body[1](self.body[0](x))
        coarse = self.body[2](fine)
        top = self.lateral[1](coarse)
        low = self.lateral[0](fine)
        low = low + functional.interpolate(top, size=low.shape[-2:], mode="nearest")
        levels = [self.smooth[0](low), self.smooth[1](top)]
        return torch.cat([self.head(level).flatten(2).transpose(1, 2) for level in levels], 1)


# Dense prediction


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (12, 24, 48)
        pairs = zip((3, *widths[:-1]), widths, strict=True)
        self.down = nn.ModuleList(nn.Sequential(conv(b, a, 3), conv(a, a, 3)) for b, a in pairs)
        ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for b, a in ups)
        self.join = nn.ModuleList(nn.Sequential(conv(2 * a, a, 3), conv(a, a, 3)) for _, a in ups)
        self.last = nn.Conv2d(widths[0], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.last(x)


def super_resolution() -> nn.Module:
    """EDSR: residual blocks without norms, a long skip, two steps of PixelShuffle."""
    blocks = [
        residual(nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)))
        for _ in range(3)
    ]
    up = [nn.Sequential(nn.Conv2d(24, 96, 3, padding=1), nn.PixelShuffle(2)) for _ in range(2)]
    body = nn.Sequential(*blocks, nn.Conv2d(24, 24, 3, padding=1))
    first, last = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 3, 3, padding=1)
    return nn.Sequential(first, residual(body), *up, last)


class Exchange(nn.Module):
    """A stage of HRNet: every resolution gets the sum of all of them."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            residual(nn.Sequential(conv(w, w, 3), conv(w, w, 3, act=None)), act=True) for w in widths
        )
        self.fuse = nn.ModuleList(
            nn.ModuleList(self._path(widths, i, j) for j in range(len(widths))) for i in range(len(widths))
        )

    def _path(self, widths: Sequence[int], to: int, source: int) -> nn.Module:
        if to == source:
            return nn.Identity()
        if to < source:
            up = nn.Upsample(scale_factor=2 ** (source - to), mode="nearest")
            return nn.Sequential(conv(widths[source], widths[to], act=None), up)
        steps = [conv(widths[source], widths[source], 3, 2) for _ in range(to - source - 1)]
        return nn.Sequential(*steps, conv(widths[source], widths[to], 3, 2, act=None))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        levels = [branch(x) for branch, x in zip(self.branches, levels, strict=True)]
        return [functional.relu(sum(path(x) for path, x in zip(row, levels, strict=True))) for row in self.fuse]


class HRNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), bottleneck(16, 8, 32))
        widths = (12, 24, 48)
        self.start = nn.ModuleList([conv(32, 12, 3), conv(32, 24, 3, 2)])
        self.second, self.grow, self.third = Exchange(widths[:2]), conv(24, 48, 3, 2), Exchange(widths)
        self.last = nn.Sequential(conv(sum(widths), 48), nn.Conv2d(48, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        levels = self.second([start(x) for start in self.start])
        levels = self.third([*levels, self.grow(levels[-1])])
        size = levels[0].shape[-2:]
        up = [functional.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels[1:]]
        return self.last(torch.cat([levels[0], *up], 1))


# Transformers


class Attention(nn.Module):
    """Heads of queries over keys and values, these perhaps of a coarser grid."""

    def __init__(self, width: int, heads: int, reduce: int = 1, fused: bool = True) -> None:
        super().__init__()
        self.heads, self.reduce, self.fused = heads, reduce, fused
        self.query, self.pair = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        if reduce > 1:
            self.shrink, self.norm = nn.Conv2d(width, width, reduce, reduce), nn.LayerNorm(width)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        n, tokens, c = x.shape
        query = self.query(x).reshape(n, tokens, self.heads, c // self.heads).permute(0, 2, 1, 3)
        if self.reduce > 1:
            x = self.shrink(x.permute(0, 2, 1).reshape(n, c, h, w)).reshape(n, c, -1).permute(0, 2, 1)
            x = self.norm(x)
        pair = self.pair(x).reshape(n, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        key, value = pair[0], pair[1]
        if self.fused:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        else:
            mixed = (query @ key.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, c))


class MixBlock(nn.Module):
    """SegFormer: reduced attention, and an MLP with a depthwise convolution."""

    def __init__(self, width: int, heads: int, reduce: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, reduce, fused=False)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.depthwise = nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        x = x + self.attention(self.norm1(x), h, w)
        rows = self.wide(self.norm2(x))
        n, _, c = rows.shape
        image = self.depthwise(rows.transpose(1, 2).view(n, c, h, w))
        return x + self.narrow(functional.gelu(image.flatten(2).transpose(1, 2)))


class SegFormer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths, self.strides = (16, 32, 64), (4, 2, 2)
        before = (3, *widths[:-1])
        self.patch = nn.ModuleList(
            nn.Conv2d(b, a, 7 if s == 4 else 3, s, 3 if s == 4 else 1)
            for b, a, s in zip(before, widths, self.strides, strict=True)
        )
        self.start, self.end = (nn.ModuleList(nn.LayerNorm(w) for w in widths) for _ in range(2))
        self.blocks = nn.ModuleList(
            nn.ModuleList(MixBlock(w, heads, reduce) for _ in range(2))
            for w, heads, reduce in zip(widths, (1, 2, 4), (4, 2, 1), strict=True)
        )
        self.project = nn.ModuleList(nn.Linear(w, 64) for w in widths)
        self.fuse = nn.Sequential(conv(192, 64), nn.Conv2d(64, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for patch, start, blocks, end in zip(self.patch, self.start, self.blocks, self.end, strict=True):
            x = patch(x)
            n, c, h, w = x.shape
            tokens = start(x.flatten(2).transpose(1, 2))
            for block in blocks:
                tokens = block(tokens, h, w)
            x = end(tokens).reshape(n, h, w, c).permute(0, 3, 1, 2).contiguous()
            levels.append(x)
        size, maps = levels[0].shape[-2:], []
        for level, project in zip(levels, self.project, strict=True):
            n, c, h, w = level.shape
            rows = project(level.flatten(2).transpose(1, 2)).permute(0, 2, 1).reshape(n, -1, h, w)
            maps.append(functional.interpolate(rows, size=size, mode="bilinear", align_corners=False))
        return self.fuse(torch.cat(maps[::-1], 1))


class ViT(nn.Module):
    """Torch's own encoder layers: packed projections, a token for the class, learnt positions."""

    def __init__(self, width: int = 96, heads: int = 6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 65, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(9))
        self.mix = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(4))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(4)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        for layer, (mix, mlp) in enumerate(zip(self.mix, self.mlp, strict=True)):
            rows = self.norms[2 * layer](x)
            x = x + mix(rows, rows, rows, need_weights=False)[0]
            x = x + mlp(self.norms[2 * layer + 1](x))
        return self.head(self.norms[-1](x)[:, 0])


# Gates and recurrent cells


class Cbam(nn.Module):
    """Gates over channels (of two pools through one shared MLP; of a 1-D convolution) and over space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(width, width // 4, 1), nn.ReLU(), nn.Conv2d(width // 4, width, 1))
        self.space = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.mlp(functional.adaptive_avg_pool2d(x, 1)) + self.mlp(functional.adaptive_max_pool2d(x, 1))
        x = x * pooled.sigmoid()
        flat = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * self.space(flat).sigmoid()


class Eca(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.near(functional.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)).transpose(-1, -2)
        return x * gate.unsqueeze(-1).sigmoid()


def gated(gate: Callable[[int], nn.Module]) -> nn.Module:
    def branch(width: int) -> nn.Module:
        return residual(nn.Sequential(conv(width, width, 3), conv(width, width, 3, act=None), gate(width)), act=True)

    return nn.Sequential(conv(3, 16, 3, 2), branch(16), conv(16, 32, 3, 2), branch(32), classifier(32))


class Crnn(nn.Module):
    """Text recognition: columns of an image through a recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 48, 3), nn.MaxPool2d((8, 1)))
        self.lstm = nn.LSTM(48, 24, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(48, 24, batch_first=True)
        self.last = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.body(x).squeeze(2).permute(0, 2, 1)
        return self.last(self.gru(self.lstm(columns)[0])[0]).log_softmax(2)


IMAGE = (3, 32, 32)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet50": (resnet50, IMAGE),
    "regnet": (regnet, IMAGE),
    "mobilenet_v2": (mobilenet_v2, IMAGE),
    "mobilenet_v3": (mobilenet_v3, IMAGE),
    "efficientnet": (efficientnet, IMAGE),
    "convnext": (convnext, IMAGE),
    "shufflenet_v2": (shufflenet_v2, IMAGE),
    "ghostnet": (ghostnet, IMAGE),
    "yolov8": (Yolo, (3, 64, 64)),
    "retina": (Retina, IMAGE),
    "unet": (UNet, IMAGE),
    "super_resolution": (super_resolution, (3, 16, 16)),
    "hrnet": (HRNet, IMAGE),
    "segformer": (SegFormer, (3, 64, 64)),
    "vit": (ViT, IMAGE),
    "cbam": (lambda: gated(Cbam), IMAGE),
    "eca": (lambda: gated(lambda _: Eca()), IMAGE),
    "crnn": (Crnn, (3, 32, 64)),
}


def export(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Write ``NAME.EXPORTER.onnx`` for each of the families, with a batch of any size.

    Weights are seeded, and norms have seen data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, shape) in FAMILIES.items():
        if names and name not in names:
            continue
        torch.manual_seed(0)
        net, x = make(), torch.randn(2, *shape)
        with torch.no_grad():
            for _ in range(8):
                net.train()(torch.randn(16, *shape))
        net.eval()
        open_batch: dict[str, dict[str, Any]] = {
            "torchscript": {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}}},
            "dynamo": {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False},
        }
        for exporter, options in open_batch.items():
            path = folder / f"{name}.{exporter}.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(net, (x,), path, input_names=["x"], external_data=False, **options)
            yield path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    for written in export(given.folder, given.names):
        print(written)
