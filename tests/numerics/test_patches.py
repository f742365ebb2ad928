"""Dense patches against the sampled ones, which are tested against onnxruntime, and against their adjoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reap_onnx.numerics.patches import col2im, im2col
from reap_onnx.numerics.rows import Window, conv_rows


@st.composite
def problems(draw: st.DrawFn) -> tuple[Window, tuple[int, ...]]:
    axes = draw(st.integers(1, 3))
    numbers = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731
    kernel, dilations = numbers(1, 3), numbers(1, 2)
    window = Window(kernel, numbers(1, 3), (*numbers(0, 2), *numbers(0, 2)), dilations)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    return window, tuple(draw(st.integers(r, r + 3)) for r in reach)


@given(problems(), st.integers(1, 3), st.integers(1, 3))
def test_patches_are_the_rows_of_a_convolution(problem: tuple[Window, tuple[int, ...]], n: int, channels: int) -> None:
    window, spatial = problem
    x = np.random.default_rng(0).standard_normal((n, channels, *spatial)).astype(np.float32)
    places = int(np.prod(window.output_shape(spatial)))
    expected = conv_rows(x, window, np.tile(np.arange(places), (n, 1)))
    rows = im2col(np.moveaxis(x, 1, -1), window)
    by_channel = rows.reshape(-1, window.taps, channels).transpose(0, 2, 1).reshape(len(rows), -1)
    assert np.array_equal(by_channel, expected)


@given(problems(), st.integers(1, 3), st.integers(1, 3))
def test_the_way_back_is_the_adjoint(problem: tuple[Window, tuple[int, ...]], n: int, channels: int) -> None:
    window, spatial = problem
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, *spatial, channels)).astype(np.float32)
    rows = im2col(x, window)
    other = rng.standard_normal(rows.shape).astype(np.float32)
    back = col2im(other, window, x.shape)
    assert back.shape == x.shape
    assert np.vdot(rows, other) == pytest.approx(np.vdot(x, back), rel=1e-3, abs=1e-3)
