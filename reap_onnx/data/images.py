"""Images to model inputs: presets, the recipe that follows from them and the model, decoding, preprocessing.

Pillow is imported only where a file is decoded or an image resized; it is the extra ``reap-onnx[images]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reap_onnx.data.dataset import Array, InputSpec, show_shape
from reap_onnx.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_CROP = 0.875
LETTERBOX_GREY = 114
# Luma of ITU-R BT.601 for R, G, B in 1/65536, as Pillow rounds it.
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)


@dataclass(frozen=True)
class Preset:
    """A common recipe; ``mean`` and ``std`` in units of pixel / 255, None for values left at 0 ... 255."""

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    fit: str
    crop: float | None = None


PRESETS = {
    "imagenet": Preset((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "crop", DEFAULT_CROP),
    "imagenet-tf": Preset((0.5,), (0.5,), "crop", DEFAULT_CROP),
    "yolo": Preset((0.0,), (1.0,), "letterbox"),
    "raw": Preset(None, None, "stretch"),
}
_PRESET_HINT = f"say --preset {', '.join(PRESETS)}; or give --mean and --std"


@dataclass(frozen=True)
class ImageOptions:
    """What the user says about images; fields left None are filled from the preset and the model.

    Parameters
    ----------
    preset
        ``imagenet``: shorter side to size / 0.875, centre crop, mean and std of ImageNet.
        ``imagenet-tf``: the same geometry, ``x / 127.5 - 1``. ``yolo``: letterboxed with grey 114, ``x / 255``.
        ``raw``: resized, values left at 0 ... 255. None: resized, normalised by ``mean`` and ``std``.
    mean, std
        One number, or one each for red, green and blue (in this order whatever ``color`` is), in units of
        pixel / 255: ``(x / 255 - mean) / std``.
    size
        Height and width of the model's input, in pixels.
    crop
        Share of the resized image that a centre crop keeps, in (0, 1]; True is 0.875; False or 0 resizes to the
        size without keeping proportions.
    layout
        ``nchw`` or ``nhwc``.
    color
        ``rgb``, ``bgr`` or ``gray``: what the model reads. Arrays are taken to hold RGB or grey.

    Raises
    ------
    UsageError
        A value that no recipe can have.
    """

    preset: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    crop: float | bool | None = None
    layout: str | None = None
    color: str | None = None

    def __post_init__(self) -> None:
        for option, value, known in (
            ("preset", self.preset, tuple(PRESETS)),
            ("layout", self.layout, ("nchw", "nhwc")),
            ("color", self.color, ("rgb", "bgr", "gray")),
        ):
            if value is not None and value not in known:
                raise UsageError(f"unknown --{option} {value!r}", f"use {', '.join(known)}")
        for option, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and (len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers))):
                raise UsageError(
                    f"--{option} {numbers} is not one or three numbers", "in units of pixel / 255: 0.485,0.456,0.406"
                )
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std {self.std} is not positive", "in units of pixel / 255: 0.229,0.224,0.225")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"--image-size {self.size} is not a height and a width", "in pixels: 224,224")
        if self.crop is not None and not 0 <= self.crop <= 1:
            raise UsageError(f"--crop {self.crop:g} is not a share in (0, 1]", "0.875 is usual; 0 is no crop")

    @property
    def says_values(self) -> bool:
        """Whether the options decide what becomes of the pixel values."""
        return self.preset is not None or self.mean is not None or self.std is not None


@dataclass(frozen=True)
class Recipe:
    """Every number of the way from an image to the model's input.

    ``mean`` and ``std`` have one entry per channel (red, green, blue, or grey), or both are None for values left at
    0 ... 255; ``size`` is height and width; ``fit`` is ``crop``, ``letterbox`` or ``stretch``; ``crop`` is the share
    kept by the first, else None.
    """

    preset: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    size: tuple[int, int]
    fit: str
    crop: float | None
    layout: str
    color: str
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one sample."""
        channels = 1 if self.color == "gray" else 3
        return (channels, *self.size) if self.layout == "nchw" else (*self.size, channels)

    def numbers(self) -> dict[str, object]:
        """The recipe as JSON values."""
        return {
            "preset": self.preset,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "size": list(self.size),
            "fit": self.fit,
            "crop": self.crop,
            "layout": self.layout,
            "color": self.color,
        }

    def __str__(self) -> str:
        values = "values 0 to 255"
        if self.mean is not None and self.std is not None:
            values = f"x / 255, mean {_spell(self.mean)}, std {_spell(self.std)}"
        fit = f"{self.fit} {self.crop:g}" if self.crop is not None else self.fit
        name = f"preset {self.preset}" if self.preset is not None else "own recipe"
        return f"images by {name}: {show_shape(self.size)} (other sizes: {fit}), {values}, {self.layout} {self.color}"


def _spell(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def resolve(options: ImageOptions, spec: InputSpec, *, size: tuple[int, int] | None = None) -> Recipe:
    """Decide every number: from the options, else from the model's input, else from the preset.

    Parameters
    ----------
    options
        What the user said.
    spec
        The input, of rank 4. The layout follows from the axis of size 1 or 3 where it is not said.
    size
        Height and width used where neither the options nor the model say: those of the images at hand.

    Raises
    ------
    DataError
        The input is not an image, or does not agree with the options, or something stays undecided.
    """
    if len(spec.shape) != 4:
        raise DataError(f"input {spec} does not take images (rank 4)", "give .npz or .npy arrays instead of images")
    layout = options.layout or _guess_layout(spec)
    channels = spec.shape[1 if layout == "nchw" else 3]
    color = options.color or ("gray" if channels == 1 else "rgb")
    if channels not in (None, 1 if color == "gray" else 3):
        raise DataError(
            f"input {spec} has {channels} channels as {layout}, {color} images do not", "check --layout and --color"
        )
    mean, std, fit, crop = _values_and_fit(options, spec, 1 if color == "gray" else 3)
    resolved = _decide_size(options.size, spec, layout, size)
    return Recipe(options.preset, mean, std, resolved, fit, crop, layout, color, spec.dtype)


def _guess_layout(spec: InputSpec) -> str:
    first, last = spec.shape[1] in (1, 3), spec.shape[3] in (1, 3)
    if first == last:
        raise DataError(f"input {spec} does not show which axis holds the colours", "say --layout nchw or nhwc")
    return "nchw" if first else "nhwc"


def _decide_size(
    said: tuple[int, int] | None, spec: InputSpec, layout: str, fallback: tuple[int, int] | None
) -> tuple[int, int]:
    wanted = spec.shape[2:] if layout == "nchw" else spec.shape[1:3]
    if said is not None and any(model not in (None, pixels) for model, pixels in zip(wanted, said, strict=True)):
        raise DataError(f"--image-size {show_shape(said)} is not the size of input {spec}", "leave --image-size out")
    known = said or fallback or (None, None)
    height, width = (model or given for model, given in zip(wanted, known, strict=True))
    if height is None or width is None:
        raise DataError(f"input {spec} does not fix the size of images", "say --image-size HEIGHT,WIDTH")
    return height, width


def _values_and_fit(
    options: ImageOptions, spec: InputSpec, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, str, float | None]:
    integers = spec.dtype.kind in "iu"
    if not options.says_values and not integers:
        raise DataError(f"nothing says how images become input {spec}", _PRESET_HINT)
    preset = PRESETS[options.preset or "raw"]
    mean, std = options.mean or preset.mean, options.std or preset.std
    if mean is not None or std is not None:
        if integers:
            raise DataError(
                f"input {spec} takes integers, normalised images are not", "use --preset raw, without --mean and --std"
            )
        mean, std = _per_channel("mean", mean or (0.0,), channels), _per_channel("std", std or (1.0,), channels)
    if options.crop is None:
        return mean, std, preset.fit, preset.crop
    if not options.crop:
        return mean, std, "stretch", None
    return mean, std, "crop", DEFAULT_CROP if options.crop is True else float(options.crop)


def _per_channel(option: str, numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(numbers) > 1 and channels == 1:
        raise DataError(f"grey images need one {option}, there are {len(numbers)}", f"give one number, --{option} 0.5")
    return tuple(map(float, numbers)) * (channels // len(numbers))


def decode(path: Path, recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Read an image file and bring it to the size of the recipe.

    The image is turned upright as its EXIF data says; transparency is dropped. One that has the size already is
    not resampled, whatever the preset. Resampling is Pillow's bilinear filter, which averages when it shrinks.

    Returns
    -------
    Array (H, W, 3) of RGB.

    Raises
    ------
    DataError
        Pillow is not installed, or the file is not an image of 8 bits a channel.
    """
    image_module, operations = _pillow()
    try:
        with image_module.open(path) as opened:
            image = operations.exif_transpose(opened)
            if image.mode[0] in "IF":
                raise DataError(f"{path} has pixels of mode {image.mode}, not 8 bits a channel", "convert it to 8 bits")
            # A palette may hold transparency, which Pillow drops without complaint only by way of RGBA.
            rgb = image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, image_module.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image: {error}", "replace the file or remove it from the folder"
        ) from error
    return np.asarray(_fitted(rgb, recipe))


def preprocess(images: npt.NDArray[np.uint8], recipe: Recipe) -> Array:
    """Turn RGB or grey images into the model's input.

    Images that have the size of the recipe are not resampled: then the result is exactly
    ``(images / 255 - mean) / std`` in float32, in the layout and colour order of the recipe.

    Parameters
    ----------
    images
        Array (N, H, W, 3) of RGB or (N, H, W, 1) of grey.

    Returns
    -------
    Array (N, 3 or 1, h, w) or (N, h, w, 3 or 1), C-contiguous, of the recipe's dtype.
    """
    pixels = _recolor(_resize(images, recipe), recipe.color)
    if recipe.mean is not None and recipe.std is not None:
        values = pixels.astype(np.float32)
        values /= np.float32(255)
        values -= np.array(recipe.mean, dtype=np.float32)
        values /= np.array(recipe.std, dtype=np.float32)
    else:
        values = pixels.astype(recipe.dtype)
    if recipe.color == "bgr":
        values = values[..., ::-1]
    if recipe.layout == "nchw":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values, dtype=recipe.dtype)


def _recolor(pixels: npt.NDArray[np.uint8], color: str) -> npt.NDArray[np.uint8]:
    """RGB to grey or grey to RGB where the two differ; (N, H, W, 3 or 1) in and out."""
    grey = pixels.shape[-1] == 1
    if color == "gray" and not grey:
        return ((pixels @ _LUMA + 0x8000) >> 16).astype(np.uint8)[..., None]
    return np.repeat(pixels, 3, axis=-1) if color != "gray" and grey else pixels


def _resize(images: npt.NDArray[np.uint8], recipe: Recipe) -> npt.NDArray[np.uint8]:
    """(N, H, W, C) to (N, h, w, C)."""
    if images.shape[1:3] == recipe.size:
        return images
    image_module, _ = _pillow()
    flat = images[..., 0] if images.shape[-1] == 1 else images
    resized = np.stack([np.asarray(_fitted(image_module.fromarray(image), recipe)) for image in flat])
    return resized.reshape(len(images), *recipe.size, images.shape[-1])


def _fitted(image: Image.Image, recipe: Recipe) -> Image.Image:
    if (image.height, image.width) == recipe.size:
        return image
    if recipe.fit == "letterbox":
        return _letterbox(image, recipe.size)
    if recipe.crop is not None:
        return _centre_crop(image, recipe.size, recipe.crop)
    return _bilinear(image, *recipe.size)


def _bilinear(image: Image.Image, height: int, width: int) -> Image.Image:
    image_module, _ = _pillow()
    return image.resize((width, height), image_module.Resampling.BILINEAR)


def _centre_crop(image: Image.Image, size: tuple[int, int], share: float) -> Image.Image:
    """Resize so that the image just covers ``size / share``, then cut ``size`` out of its middle.

    For a square this is the evaluation transform of torchvision: ``Resize(int(size / share))``, ``CenterCrop(size)``.
    """
    cover_height, cover_width = (max(pixels, int(pixels / share + 1e-6)) for pixels in size)
    if image.height * cover_width <= image.width * cover_height:
        height, width = cover_height, image.width * cover_height // image.height
    else:
        height, width = image.height * cover_width // image.width, cover_width
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return _bilinear(image, height, width).crop((left, top, left + size[1], top + size[0]))


def _letterbox(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize so that the image just fits into ``size``, centred on grey."""
    scale = min(size[0] / image.height, size[1] / image.width)
    height, width = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    image_module, _ = _pillow()
    grey = LETTERBOX_GREY if image.mode == "L" else (LETTERBOX_GREY,) * 3
    canvas: Image.Image = image_module.new(image.mode, (size[1], size[0]), grey)
    canvas.paste(_bilinear(image, height, width), ((size[1] - width) // 2, (size[0] - height) // 2))
    return canvas


def _pillow() -> tuple[Any, Any]:
    """Pillow's modules ``Image`` and ``ImageOps``."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError(
            "images cannot be decoded or resized: Pillow is not installed", 'pip install "reap-onnx[images]"'
        ) from error
    return Image, ImageOps
