"""All the patches that a Conv reads, and the way back: linear maps between images and rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from reap_onnx.numerics.rows import Window

Floats = npt.NDArray[np.float32]


def im2col(x: Floats, window: Window) -> Floats:
    """Patches at every output position.

    Parameters
    ----------
    x : (N, *spatial, C)
        Channels last.
    window
        Kernel of ``K`` taps, strides, pads (none negative) and dilations.

    Returns
    -------
    (N * P, K * C) float32
        Taps in C order, the channels of a tap side by side; zeros where the window lies on padding.
    """
    padded, channels = np.pad(x, _pads(window)), x.shape[-1]
    run = window.kernel[-1] if window.dilations[-1] == 1 else 1  # taps that lie side by side in the image
    runs = sliding_window_view(padded.reshape(*padded.shape[:-2], -1), run * channels, axis=-1)[..., ::channels, :]
    rows = np.empty((len(x), *window.output_shape(x.shape[1:-1]), window.taps // run, run * channels), np.float32)
    for number, place in enumerate(islice(_places(window, rows.shape[1:-2]), 0, None, run)):
        rows[..., number, :] = runs[place]
    return rows.reshape(-1, window.taps * channels)


def col2im(rows: Floats, window: Window, shape: tuple[int, ...]) -> Floats:
    """The adjoint of :func:`im2col`: every entry of a row is added to the place that it was read from.

    Parameters
    ----------
    rows : (N * P, K, C)
        Quickest where the entries of one tap lie together in memory.
    shape
        Of the image, (N, *spatial, C).
    """
    pads = _pads(window)
    padded = np.zeros([size + sum(pad) for size, pad in zip(shape, pads, strict=True)], np.float32)
    spread = rows.reshape(shape[0], *window.output_shape(shape[1:-1]), window.taps, shape[-1])
    for tap, place in enumerate(_places(window, spread.shape[1:-2])):
        padded[place] += spread[..., tap, :]
    return padded[tuple(slice(before, before + size) for (before, _), size in zip(pads, shape, strict=True))]


def _pads(window: Window) -> list[tuple[int, int]]:
    axes = len(window.kernel)
    return [(0, 0), *zip(window.pads[:axes], window.pads[axes:], strict=True), (0, 0)]


def _places(window: Window, output: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Where each tap reads in the padded image, for all output positions."""
    for tap in np.ndindex(*window.kernel):
        axes = zip(tap, window.dilations, window.strides, output, strict=True)
        yield (slice(None), *(slice(t * d, t * d + s * (size - 1) + 1, s) for t, d, s, size in axes))
