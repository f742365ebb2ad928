"""Rows of a consumer's least-squares problem: the patches it reads at sampled output positions (im2col)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """How a Conv, or a ConvTranspose, slides over ``len(kernel)`` spatial axes.

    Parameters
    ----------
    kernel, strides, dilations
        One number per spatial axis, each at least 1.
    pads
        All begins, then all ends, as in ONNX, with ``auto_pad`` resolved; negative pads crop.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def __post_init__(self) -> None:
        axes = len(self.kernel)
        if len(self.strides) != axes or len(self.dilations) != axes or len(self.pads) != 2 * axes:
            raise ValueError(f"strides, dilations or pads do not fit the kernel {self.kernel}")
        if min((*self.kernel, *self.strides, *self.dilations), default=1) < 1:
            raise ValueError("kernel, strides and dilations are at least 1")

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return math.prod(self.kernel)

    def output_shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial shape of a Conv's output, for an input of spatial shape ``spatial``.

        Raises
        ------
        ValueError
            The rank differs from the kernel's, or the window does not fit into the padded input.
        """
        axes = len(self.kernel)
        if len(spatial) != axes:
            raise ValueError(f"spatial shape {spatial} does not fit the kernel {self.kernel}")
        padded = [size + self.pads[a] + self.pads[a + axes] for a, size in enumerate(spatial)]
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        shape = tuple((p - r) // s + 1 for p, r, s in zip(padded, reach, self.strides, strict=True))
        if min(shape, default=1) < 1:
            raise ValueError(f"the window {self.kernel} does not fit into {spatial} with pads {self.pads}")
        return shape


def sample_positions(n: int, total: int, count: int, rng: np.random.Generator) -> Ints:
    """Choose output positions, a fresh set for every image.

    One position is drawn from each of ``count`` equal stretches of the flat positions, and the whole set is turned
    by a random shift: spread evenly, and every position is as likely as any other.

    Parameters
    ----------
    n, total, count
        Images, output positions of one image, positions wanted.
    rng
        Source of the randomness; not used when ``count >= total``.

    Returns
    -------
    (n, min(count, total)) int64
        Flat positions, distinct and ascending within an image; all of them when ``count >= total``.
    """
    if count >= total:
        return np.tile(np.arange(total, dtype=np.int64), (n, 1))
    edges = np.arange(count + 1, dtype=np.int64) * total // count
    drawn = rng.integers(edges[:-1], edges[1:], size=(n, count))
    return np.sort((drawn + rng.integers(total, size=(n, 1))) % total, axis=1)


def conv_rows(x: npt.NDArray[Any], window: Window, positions: Ints) -> Floats:
    """What a Conv reads at some of its output positions.

    Parameters
    ----------
    x : (N, C, *spatial)
        Input of the Conv (of one of its blocks of input channels, when it is grouped).
    window
        Its kernel, strides, pads and dilations; ``K`` is the number of kernel taps.
    positions : (N, P) int64
        Flat output positions (C order) of each image.

    Returns
    -------
    (N * P, C * K) float32
        Row ``n * P + p``, column ``c * K + k`` (taps in C order), zeros where the window lies on padding:
        ``rows @ W.reshape(M, C * K).T`` is the output before the bias.
    """
    at = np.unravel_index(positions, window.output_shape(x.shape[2:]))
    axes = zip(at, window.strides, window.pads, _taps(window.kernel), window.dilations, strict=False)
    return _gather(x, [o[..., None] * stride - begin + tap * dilation for o, stride, begin, tap, dilation in axes])


def conv_transpose_rows(
    x: npt.NDArray[Any], window: Window, output_spatial: tuple[int, ...], positions: Ints
) -> Floats:
    """What a ConvTranspose reads to make its output at some positions.

    An output place ``o`` takes tap ``k`` of the input place ``i`` with ``o = i * stride - begin + k * dilation``.

    Parameters
    ----------
    x : (N, C, *spatial)
        Input of the ConvTranspose.
    window
        Its kernel, strides, pads (resolved from ``output_padding``, ``auto_pad`` or ``output_shape``) and dilations.
    output_spatial
        Spatial shape of its output.
    positions : (N, P) int64
        Flat output positions (C order) of each image.

    Returns
    -------
    (N * P, C * K) float32
        Column ``c * K + k``: with the ONNX weight ``W`` of shape (C, M, *kernel) and one group,
        ``rows @ W[:, m].reshape(C * K)`` is output feature ``m`` before the bias.
    """
    at = np.unravel_index(positions, output_spatial)
    axes = zip(at, window.strides, window.pads, _taps(window.kernel), window.dilations, strict=False)
    steps = [np.divmod(o[..., None] + begin - tap * dilation, stride) for o, stride, begin, tap, dilation in axes]
    return _gather(x, [np.where(rest == 0, place, -1) for place, rest in steps])


def feature_rows(y: npt.NDArray[Any], positions: Ints) -> Floats:
    """Outputs at some positions.

    Parameters
    ----------
    y : (N, M, *spatial)
    positions : (N, P) int64
        Flat positions (C order) of each image.

    Returns
    -------
    (N * P, M) float32
    """
    n, features = y.shape[:2]
    flat = y.reshape(n, features, -1)
    picked: Floats = flat[np.arange(n)[:, None], :, positions].reshape(positions.size, features)
    return picked.astype(np.float32, copy=False)


def _taps(kernel: tuple[int, ...]) -> Ints:
    """Place of every tap of the kernel (C order) on each axis, (axes, K)."""
    return np.indices(kernel, dtype=np.int64).reshape(len(kernel), math.prod(kernel))


def _gather(x: npt.NDArray[Any], read: list[Ints]) -> Floats:
    """Fetch ``x`` at the places ``read``, one array (N, P, K) for each spatial axis; zero where out of range."""
    n, channels, *spatial = x.shape
    source: Ints = np.zeros(read[0].shape, np.int64)
    inside = np.ones(read[0].shape, bool)
    for size, place in zip(spatial, read, strict=True):
        inside &= (place >= 0) & (place < size)
        source = source * size + place
    source[~inside] = 0
    rows: Floats = x.reshape(n, channels, -1)[np.arange(n)[:, None, None], :, source].astype(np.float32, copy=False)
    rows[~inside] = 0
    return rows.transpose(0, 1, 3, 2).reshape(-1, channels * source.shape[-1])
