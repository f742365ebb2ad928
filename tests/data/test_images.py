from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reap_onnx.data import ImageOptions, InputSpec
from reap_onnx.data.images import decode, preprocess, resolve
from reap_onnx.errors import DataError, UsageError

FLOAT, BYTE = np.dtype(np.float32), np.dtype(np.uint8)
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def spec(*shape: int | None, dtype: np.dtype = FLOAT) -> InputSpec:
    return InputSpec("input", dtype, (None, *shape))


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# What every preset does to values


def test_imagenet_is_exactly_the_formula_in_float32() -> None:
    images = pixels(3, 8, 6, 3)
    result = preprocess(images, resolve(ImageOptions("imagenet"), spec(3, 8, 6)))
    expected = ((images.astype(np.float32) / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("imagenet", [(0 - 0.485) / 0.229, (51 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("imagenet-tf", [-1.0, 51 / 127.5 - 1, 1.0]),
        ("yolo", [0.0, 0.2, 1.0]),
        ("raw", [0.0, 51.0, 255.0]),
    ],
)
def test_presets_by_hand(preset: str, expected: list[float]) -> None:
    image = np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 1, 3)
    result = preprocess(image, resolve(ImageOptions(preset, layout="nchw"), spec(3, 1, 1)))
    np.testing.assert_allclose(result.ravel(), expected, rtol=1e-6, atol=1e-7)


def test_options_override_the_preset() -> None:
    image = np.full((1, 2, 2, 3), 51, dtype=np.uint8)
    options = ImageOptions("imagenet", mean=(0.1, 0.2, 0.3), std=(0.5,))
    result = preprocess(image, resolve(options, spec(3, 2, 2)))
    np.testing.assert_allclose(result[0, :, 0, 0], [0.2, 0.0, -0.2], atol=1e-7)


@pytest.mark.parametrize(
    ("options", "expected"),
    [(ImageOptions(mean=(0.1,)), 0.1), (ImageOptions(std=(0.5,)), 0.4), (ImageOptions("raw", std=(2.0,)), 0.1)],
)
def test_mean_and_std_need_no_preset_nor_each_other(options: ImageOptions, expected: float) -> None:
    recipe = resolve(options, spec(3, 2, 2))
    assert recipe.fit == "stretch"
    np.testing.assert_allclose(preprocess(np.full((1, 2, 2, 3), 51, np.uint8), recipe), expected, rtol=1e-6)


def test_raw_stays_bytes_for_a_model_of_bytes() -> None:
    images = pixels(2, 4, 4, 3)
    result = preprocess(images, resolve(ImageOptions(), spec(3, 4, 4, dtype=BYTE)))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, images.transpose(0, 3, 1, 2))


def test_half_precision_models() -> None:
    recipe = resolve(ImageOptions("yolo"), spec(3, 2, 2, dtype=np.dtype(np.float16)))
    result = preprocess(np.full((1, 2, 2, 3), 51, np.uint8), recipe)
    assert result.dtype == np.float16
    assert np.all(result == np.float16(0.2))


# Colours and layout


def test_bgr_swaps_the_channels_after_the_numbers_for_red_green_blue() -> None:
    images = pixels(2, 4, 4, 3)
    rgb = preprocess(images, resolve(ImageOptions("imagenet"), spec(3, 4, 4)))
    bgr = preprocess(images, resolve(ImageOptions("imagenet", color="bgr"), spec(3, 4, 4)))
    np.testing.assert_array_equal(bgr, rgb[:, ::-1])


def test_layout_follows_the_model() -> None:
    images = pixels(2, 4, 5, 3)
    first = preprocess(images, resolve(ImageOptions("yolo"), spec(3, 4, 5)))
    last = preprocess(images, resolve(ImageOptions("yolo"), spec(4, 5, 3)))
    assert last.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first)


def test_grey_agrees_with_pillow() -> None:
    images = pixels(1, 16, 16, 3)
    result = preprocess(images, resolve(ImageOptions("raw"), spec(1, 16, 16)))
    np.testing.assert_array_equal(result[0, 0], np.asarray(Image.fromarray(images[0]).convert("L")).astype(np.float32))


def test_grey_images_feed_a_model_of_colours() -> None:
    images = pixels(2, 4, 4, 1)
    result = preprocess(images, resolve(ImageOptions("raw"), spec(3, 4, 4)))
    np.testing.assert_array_equal(result, np.repeat(images.transpose(0, 3, 1, 2), 3, axis=1).astype(np.float32))


# Geometry


@pytest.mark.parametrize("preset", ["imagenet", "imagenet-tf", "yolo", "raw"])
def test_images_of_the_right_size_are_not_resampled(tmp_path: Path, preset: str) -> None:
    image = pixels(9, 7, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    recipe = resolve(ImageOptions(preset), spec(3, 9, 7))
    np.testing.assert_array_equal(decode(tmp_path / "a.png", recipe), image)


@pytest.mark.parametrize(("height", "width"), [(40, 50), (50, 40), (17, 90)])
def test_crop_is_shorter_side_then_centre(tmp_path: Path, height: int, width: int) -> None:
    image = Image.fromarray(pixels(height, width, 3))
    image.save(tmp_path / "a.png")
    shorter = int(28 / 0.875)  # 32
    new = (shorter, int(shorter * width / height)) if height <= width else (int(shorter * height / width), shorter)
    top, left = round((new[0] - 28) / 2), round((new[1] - 28) / 2)
    expected = np.asarray(image.resize(new[::-1], Image.Resampling.BILINEAR))[top : top + 28, left : left + 28]
    np.testing.assert_array_equal(
        decode(tmp_path / "a.png", resolve(ImageOptions("imagenet"), spec(3, 28, 28))), expected
    )


def test_letterbox_pads_with_grey(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (200, 10, 30)).save(tmp_path / "wide.png")
    result = decode(tmp_path / "wide.png", resolve(ImageOptions("yolo"), spec(3, 16, 16)))
    assert np.all(result[:4] == 114)
    assert np.all(result[12:] == 114)
    assert np.all(result[4:12] == (200, 10, 30))


@pytest.mark.parametrize("options", [ImageOptions("raw"), ImageOptions("imagenet", crop=False)])
def test_stretch_is_a_plain_resize(tmp_path: Path, options: ImageOptions) -> None:
    image = Image.fromarray(pixels(20, 40, 3))
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.resize((8, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(tmp_path / "a.png", resolve(options, spec(3, 10, 8))), expected)


def test_crop_option_sets_the_share() -> None:
    assert resolve(ImageOptions("raw", crop=0.5), spec(3, 8, 8)).crop == 0.5
    assert resolve(ImageOptions("raw", crop=True), spec(3, 8, 8)).crop == 0.875
    assert resolve(ImageOptions("imagenet", crop=1.0), spec(3, 8, 8)).crop == 1.0


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3])),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    preset=st.sampled_from(["imagenet", "yolo", "raw"]),
    crop=st.sampled_from([None, 0.3, 0.7, 1.0]),
)
def test_every_size_comes_out_as_the_model_wants_it(
    shape: tuple[int, int, int], size: tuple[int, int], preset: str, crop: float | None
) -> None:
    images = np.full((2, *shape), 114, dtype=np.uint8)
    recipe = resolve(ImageOptions(preset, mean=(0.0,), std=(1.0,), layout="nchw", crop=crop), spec(shape[2], *size))
    result = preprocess(images, recipe)
    assert result.shape == (2, shape[2], *size)
    np.testing.assert_array_equal(result, np.float32(114) / np.float32(255))


# Decoding


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "webp"])
def test_decodes_each_format(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
    result = decode(tmp_path / f"a.{suffix}", resolve(ImageOptions("raw"), spec(3, 8, 8)))
    assert result.shape == (8, 8, 3)
    np.testing.assert_allclose(result[4, 4].astype(int), (200, 100, 50), atol=6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    result = decode(tmp_path / f"a.{suffix}", resolve(ImageOptions("raw"), spec(3, 8, 8)))
    np.testing.assert_array_equal(result, np.full((8, 8, 3), 255))


def test_palette_with_transparency(tmp_path: Path) -> None:
    Image.new("P", (8, 8), 1).save(tmp_path / "a.png", transparency=b"\x00\x7f")
    assert decode(tmp_path / "a.png", resolve(ImageOptions("raw"), spec(3, 8, 8))).shape == (8, 8, 3)


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    image = pixels(4, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: turn clockwise
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    result = decode(tmp_path / "a.png", resolve(ImageOptions("raw"), spec(3, 8, 4)))
    np.testing.assert_array_equal(result, np.rot90(image, -1))


def test_unreadable_image_is_named(tmp_path: Path) -> None:
    Image.fromarray(pixels(64, 64, 3)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(pixels(8, 8).astype(np.uint16)).save(tmp_path / "deep.png")
    recipe = resolve(ImageOptions("raw"), spec(3, 8, 8))
    for name, said in (("cut.jpg", "cannot be read"), ("text.png", "cannot be read"), ("deep.png", "8 bits")):
        with pytest.raises(DataError, match=said) as caught:
            decode(tmp_path / name, recipe)
        assert name in str(caught.value)
        assert caught.value.hint


def test_without_pillow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    recipe = resolve(ImageOptions("raw"), spec(3, 8, 8))
    with pytest.raises(DataError, match="Pillow is not installed") as caught:
        decode(tmp_path / "a.png", recipe)
    assert caught.value.hint == 'pip install "reap-onnx[images]"'
    with pytest.raises(DataError, match="Pillow"):
        preprocess(pixels(1, 9, 9, 3), recipe)
    assert preprocess(pixels(1, 8, 8, 3), recipe).shape == (1, 3, 8, 8)


# What stays undecided


@pytest.mark.parametrize(
    ("options", "wanted", "said"),
    [
        (ImageOptions(), spec(3, 8, 8), "nothing says how"),
        (ImageOptions(size=(8, 8)), spec(3, 8, 8), "nothing says how"),
        (ImageOptions("raw"), spec(10), "does not take images"),
        (ImageOptions("raw"), spec(3, None, None), "does not fix the size"),
        (ImageOptions("raw"), spec(None, None, None), "which axis"),
        (ImageOptions("raw"), spec(3, 8, 3), "which axis"),
        (ImageOptions("raw"), spec(4, 8, 8), "which axis"),
        (ImageOptions("raw", layout="nchw"), spec(4, 8, 8), "4 channels"),
        (ImageOptions("raw", color="gray"), spec(3, 8, 8), "3 channels"),
        (ImageOptions("raw", size=(9, 8)), spec(3, 8, 8), "9 x 8"),
        (ImageOptions("imagenet"), spec(1, 8, 8), "one mean"),
        (ImageOptions("imagenet"), spec(3, 8, 8, dtype=BYTE), "takes integers"),
    ],
)
def test_what_cannot_be_decided(options: ImageOptions, wanted: InputSpec, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        resolve(options, wanted)
    assert "'input'" in str(caught.value) or said == "one mean"
    assert caught.value.hint


def test_sizes_come_from_options_then_from_the_images() -> None:
    assert resolve(ImageOptions("raw", size=(5, 6)), spec(3, None, None), size=(7, 8)).size == (5, 6)
    assert resolve(ImageOptions("raw"), spec(3, None, 9), size=(7, 8)).size == (7, 9)
    assert resolve(ImageOptions("raw", size=(5, 6)), spec(3, 5, None)).size == (5, 6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"preset": "vgg"}, "vgg"),
        ({"layout": "hwc"}, "hwc"),
        ({"color": "lab"}, "lab"),
        ({"mean": (1.0, 2.0)}, "mean"),
        ({"mean": (float("nan"),)}, "mean"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"size": (0, 5)}, "size"),
        ({"crop": 1.5}, "crop"),
    ],
)
def test_options_that_no_recipe_can_have(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        ImageOptions(**fields)
    assert caught.value.hint


def test_numbers_are_json_and_spelled() -> None:
    recipe = resolve(ImageOptions("imagenet", color="bgr"), spec(3, 8, 6))
    numbers = json.loads(json.dumps(recipe.numbers()))
    assert numbers == {
        "preset": "imagenet",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "size": [8, 6],
        "fit": "crop",
        "crop": 0.875,
        "layout": "nchw",
        "color": "bgr",
    }
    for part in ("imagenet", "0.485 0.456 0.406", "0.229 0.224 0.225", "8 x 6", "0.875", "nchw bgr"):
        assert part in str(recipe)
