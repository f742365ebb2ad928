"""Operators between two layers, each at a point: its value there and its derivative, forwards and backwards.

Images are (N, *spatial, C), channels last, float32; vectors (N, C). ``forward`` maps a change of the operator's input
to the change of its output, ``backward`` is its transpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.patches import col2im, im2col
from reap_onnx.numerics.rows import Window

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Linearized:
    """An operator at a point."""

    value: Floats
    forward: Callable[[Floats], Floats]
    backward: Callable[[Floats], Floats]


Operator = Callable[[Floats], Linearized]


def chain(operators: Sequence[Operator]) -> Operator:
    """One operator after the other."""

    def at(x: Floats) -> Linearized:
        steps = []
        for operator in operators:
            steps.append(operator(x))
            x = steps[-1].value

        def forward(change: Floats) -> Floats:
            for step in steps:
                change = step.forward(change)
            return change

        def backward(gradient: Floats) -> Floats:
            for step in reversed(steps):
                gradient = step.backward(gradient)
            return gradient

        return Linearized(x, forward, backward)

    return at


def pointwise(
    function: Callable[[Floats], Floats], derivative: Callable[[Floats], npt.NDArray[np.generic]]
) -> Operator:
    """A function of each number by itself."""

    def at(x: Floats) -> Linearized:
        slope = derivative(x).astype(np.float32)
        return Linearized(
            function(x).astype(np.float32), lambda change: change * slope, lambda gradient: gradient * slope
        )

    return at


def affine(scale: npt.ArrayLike, shift: npt.ArrayLike) -> Operator:
    """``scale * x + shift``, each a number per channel, (C,), or one for all."""
    factor, offset = np.asarray(scale, np.float32), np.asarray(shift, np.float32)
    return pointwise(lambda x: x * factor + offset, lambda x: np.broadcast_to(factor, x.shape))


def reshape(shape: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Operator:
    """The same numbers in another shape."""

    def at(x: Floats) -> Linearized:
        there, here = shape(x.shape), x.shape
        return Linearized(
            x.reshape(there), lambda change: change.reshape(there), lambda gradient: gradient.reshape(here)
        )

    return at


def depthwise(weight: Floats, bias: Floats, window: Window) -> Operator:
    """A convolution of every channel by itself: weight (K, C), bias (C,)."""

    def at(x: Floats) -> Linearized:
        def forward(change: Floats) -> Floats:
            rows = im2col(change, window).reshape(-1, *weight.shape)
            there = (len(x), *window.output_shape(x.shape[1:-1]), -1)
            return np.asarray(np.einsum("ntc,tc->nc", rows, weight).reshape(there), np.float32)

        def backward(gradient: Floats) -> Floats:
            taps = gradient.reshape(-1, weight.shape[1]) * weight[:, None]
            return col2im(taps.transpose(1, 0, 2), window, x.shape)

        return Linearized(forward(x) + bias, forward, backward)

    return at


def max_pool(window: Window) -> Operator:
    """The largest number in each window."""

    def at(x: Floats) -> Linearized:
        low = np.float32(np.finfo(np.float32).min)
        inside = im2col(np.ones((1, *x.shape[1:-1], 1), np.float32), window).reshape(1, -1, window.taps, 1)
        shape = (len(x), inside.shape[1], window.taps, x.shape[-1])
        there = (len(x), *window.output_shape(x.shape[1:-1]), x.shape[-1])
        rows = np.where(inside > 0, im2col(x, window).reshape(shape), low)
        best = rows.argmax(2)[:, :, None]

        def pick(change: Floats) -> Floats:
            return np.take_along_axis(change.reshape(shape), best, 2).reshape(there)

        def backward(gradient: Floats) -> Floats:
            spread = np.zeros(shape, np.float32)
            np.put_along_axis(spread, best, gradient.reshape(shape[0], shape[1], 1, shape[3]), 2)
            return col2im(spread, window, x.shape)

        return Linearized(pick(rows), lambda change: pick(im2col(change, window)), backward)

    return at


def average_pool(window: Window, *, count_pads: bool) -> Operator:
    """The mean over each window."""

    def at(x: Floats) -> Linearized:
        inside = im2col(np.ones((1, *x.shape[1:-1], 1), np.float32), window).sum(1)
        there = window.output_shape(x.shape[1:-1])
        share = (1 / (np.full_like(inside, window.taps) if count_pads else inside)).reshape(1, *there, 1)

        def forward(change: Floats) -> Floats:
            total = im2col(change, window).reshape(-1, window.taps, x.shape[-1]).sum(1)
            return np.asarray(total.reshape(len(x), *there, -1) * share, np.float32)

        def backward(gradient: Floats) -> Floats:
            one = (gradient * share).reshape(-1, 1, x.shape[-1])
            return col2im(np.broadcast_to(one, (len(one), window.taps, x.shape[-1])), window, x.shape)

        return Linearized(forward(x), forward, backward)

    return at
