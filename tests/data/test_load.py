from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from reap_onnx.data import Dataset, ImageOptions, InputSpec, load_dataset
from reap_onnx.errors import DataError, UsageError

FLOAT, LONG, BYTE = np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.uint8)
ONE = (InputSpec("x", FLOAT, (None, 2)),)
TWO = (InputSpec("x", FLOAT, (None, 2)), InputSpec("ids", LONG, (None,)))
IMAGE = (InputSpec("image", FLOAT, (None, 3, 4, 5)),)


def rows(count: int) -> np.ndarray:
    return np.arange(count * 2, dtype=np.float32).reshape(count, 2)


def fails(said: str, source: object, specs: tuple[InputSpec, ...], **options: object) -> DataError:
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(source, specs, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


# Sources in memory


class Reader:
    """As the calibration readers of onnxruntime are: None at the end."""

    def __init__(self, batches: list[dict[str, np.ndarray]]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def batches_of(data: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, 7, 3):
        yield {name: array[start : start + 3] for name, array in data.items()}


@pytest.mark.parametrize(
    "kind", [dict, lambda data: Reader(list(batches_of(data))), batches_of, lambda data: list(batches_of(data))]
)
def test_named_arrays_and_batches_give_the_same(kind: type) -> None:
    data = {"x": rows(7), "ids": np.arange(7), "labels": np.arange(7) % 3}
    result = load_dataset(kind(data), TWO)
    assert list(result.inputs) == ["x", "ids"]
    for name in result.inputs:
        np.testing.assert_array_equal(result.inputs[name], data[name])
    np.testing.assert_array_equal(result.labels, data["labels"])
    assert result.labels.dtype == np.int64
    assert result.description == "samples in memory: 7 samples"
    assert result.preprocessing == {}


def test_one_array_for_one_input() -> None:
    result = load_dataset(rows(3), ONE)
    np.testing.assert_array_equal(result.inputs["x"], rows(3))
    assert result.labels is None
    fails(r"no array for input 'x', 'ids'; arrays found: one array without a name", rows(3), TWO)


def test_a_dataset_goes_in_again() -> None:
    first = Dataset({"x": rows(5)}, np.arange(5), "five rows", {"preset": "raw"})
    again = load_dataset(first, ONE)
    assert (again.description, again.preprocessing) == ("five rows", {"preset": "raw"})
    np.testing.assert_array_equal(again.inputs["x"], first.inputs["x"])
    part = load_dataset(first, ONE, samples=2)
    assert part.description == "five rows: 2 of 5 samples, drawn with seed 0"
    assert (len(part), part.preprocessing) == (2, {"preset": "raw"})
    fails(
        "five rows: no array for input 'y'",
        Dataset({"a": rows(1), "b": rows(1)}, None, "five rows"),
        (InputSpec("y", FLOAT, (None, 2)),),
    )


def test_an_input_may_be_called_labels() -> None:
    specs = (InputSpec("x", FLOAT, (None, 2)), InputSpec("labels", LONG, (None,)))
    result = load_dataset({"x": rows(2), "labels": np.array([-1, 4])}, specs)
    assert result.inputs["labels"].tolist() == [-1, 4]
    assert result.labels is None
    again = load_dataset(Dataset(result.inputs, np.array([5, 6])), specs)
    assert again.inputs["labels"].tolist() == [-1, 4]
    assert again.labels.tolist() == [5, 6]


@pytest.mark.parametrize("source", [3, None, object()])
def test_what_holds_no_samples(source: object) -> None:
    assert type(source).__name__ in str(fails("holds no samples", source, ONE))


# Files and folders


def test_npz_by_input_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.arange(4), x=rows(4), labels=np.arange(4, dtype=np.uint8), extra=np.zeros(9))
    for path in (tmp_path / "d.npz", str(tmp_path / "d.npz")):
        result = load_dataset(path, TWO)
        np.testing.assert_array_equal(result.inputs["x"], rows(4))
        assert result.labels.dtype == np.int64
        assert result.description == f"{path}: 4 samples; arrays not used: extra"


def test_npz_of_one_array_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", anything=rows(4), labels=np.arange(4))
    result = load_dataset(tmp_path / "d.npz", ONE)
    np.testing.assert_array_equal(result.inputs["x"], rows(4))
    assert result.labels.tolist() == [0, 1, 2, 3]


def test_npy_is_read_into_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", rows(6))
    result = load_dataset(tmp_path / "d.npy", ONE, samples=6)
    np.save(tmp_path / "d.npy", np.zeros((6, 2), np.float32))
    np.testing.assert_array_equal(result.inputs["x"], rows(6))


def test_test_data_sets(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        for index, array in enumerate((rows(3)[number : number + 1], np.array([number]))):
            (folder / f"input_{index}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
    result = load_dataset(tmp_path, TWO)
    np.testing.assert_array_equal(result.inputs["x"], rows(3))
    assert result.inputs["ids"].tolist() == [0, 1, 2]
    assert len(load_dataset(tmp_path / "test_data_set_1", TWO)) == 1


def test_paths_that_hold_nothing_known(tmp_path: Path) -> None:
    assert "none.npz" in str(fails("does not exist", tmp_path / "none.npz", ONE))
    assert "none.py" in str(fails("does not exist", f"{tmp_path}/none.py:load", ONE))
    fails("too long|does not exist", "x" * 5000, ONE)
    (tmp_path / "photo.gif").write_bytes(b"GIF89a")
    assert "photo.gif" in str(fails("no kind of data", tmp_path / "photo.gif", ONE))
    fails("holds no images", tmp_path, IMAGE)


# Random


def test_random_says_so_and_is_seeded() -> None:
    specs = (InputSpec("x", FLOAT, (None, 2)), InputSpec("h", np.dtype(np.float16), (1, 3)))
    first, second, other = (load_dataset("random", specs, samples=50, seed=seed) for seed in (1, 1, 2))
    assert "RANDOM" in first.description
    assert "seed 1" in first.description
    assert first.inputs["x"].shape == (50, 2)
    assert first.inputs["h"].dtype == np.float16
    np.testing.assert_array_equal(first.inputs["x"], second.inputs["x"])
    assert not np.array_equal(first.inputs["x"], other.inputs["x"])
    assert abs(first.inputs["x"].mean()) < 0.5
    assert len(load_dataset("random", specs)) == 64


def test_random_needs_sizes_and_floats() -> None:
    fails(r"input 'image' is N x 3 x \? x 8", "random", (InputSpec("image", FLOAT, (None, 3, None, 8)),))
    fails("input 'ids' takes int64", "random", TWO)


# Arrays against the model's inputs


def test_wrong_names_list_both_sides() -> None:
    error = fails("no array for input 'ids'; arrays found: 'x', 'mask'", {"x": rows(2), "mask": rows(2)}, TWO)
    assert "'x' float32 N x 2" in error.hint
    assert "'ids' int64 N" in error.hint
    fails("no array for input 'x'; arrays found: none", {"labels": np.arange(3)}, ONE)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((5, 2, 8, 6), "N x 3 x 8 x 6"),
        ((3, 8, 6), "batch axis is missing"),
        ((5, 8, 6, 3), "channels first"),
        ((8,), "N x 3 x 8 x 6"),
        ((5, 3, 8, 6, 1), "N x 3 x 8 x 6"),
    ],
)
def test_wrong_shapes_show_both(shape: tuple[int, ...], hint: str) -> None:
    error = fails(
        "does not fit input 'image' float32 N x 3 x 8 x 6",
        np.zeros(shape, np.float32),
        (InputSpec("image", FLOAT, (1, 3, 8, 6)),),
    )
    assert " x ".join(map(str, shape)) in str(error)
    assert hint in error.hint


def test_channels_last_models_get_their_hint() -> None:
    error = fails("does not fit", np.zeros((1, 3, 8, 6), np.float32), (InputSpec("image", FLOAT, (None, 8, 6, 3)),))
    assert "channels last" in error.hint


def test_symbolic_sizes_take_any() -> None:
    specs = (InputSpec("image", FLOAT, (None, 3, None, None)),)
    assert load_dataset(np.zeros((2, 3, 9, 7), np.float32), specs).inputs["image"].shape == (2, 3, 9, 7)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("float64", "float32"),
        ("float32", "float16"),
        ("float32", "float64"),
        ("int64", "float32"),
        ("bool", "float32"),
        ("int32", "int64"),
        ("int64", "int32"),
        ("int64", "uint8"),
        (">f4", "float32"),
    ],
)
def test_casts_that_keep_the_meaning(source: str, target: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(source)
    result = load_dataset(array, (InputSpec("x", np.dtype(target), (None, 2)),)).inputs["x"]
    assert result.dtype == np.dtype(target)
    assert result.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("array", "target"),
    [
        (np.zeros((1, 2)), "int64"),
        (np.array([[300, 0]]), "uint8"),
        (np.array([[-1, 0]]), "uint8"),
        (np.array([[2**40, 0]]), "int32"),
        (np.zeros((1, 2), np.int64), "bool"),
        (np.zeros((1, 2), complex), "float32"),
        (np.array([["a", "b"]]), "float32"),
        (np.array([[None, 1.0]]), "float32"),
        (np.zeros((1, 2)), "object"),
    ],
)
def test_casts_that_do_not(array: np.ndarray, target: str) -> None:
    error = fails("does not fit input 'x'", array, (InputSpec("x", np.dtype(target), (None, 2)),))
    assert f"array of {array.dtype}" in str(error)


def test_texts_for_a_model_of_strings() -> None:
    result = load_dataset(np.array([["a", "bc"]]), (InputSpec("x", np.dtype(object), (None, 2)),))
    assert result.inputs["x"].tolist() == [["a", "bc"]]
    assert result.inputs["x"].dtype == object


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (1e300, "infinite")]
)
def test_values_that_are_not_finite(value: float, said: str) -> None:
    array = rows(9).astype(np.float64)
    array[4, 1] = array[7, 0] = value
    fails(rf"input 'x' holds {said}.* in sample 4 \(2 such samples\)", array, ONE)


def test_the_sample_named_is_that_of_the_file() -> None:
    array = rows(50)
    array[33] = np.nan
    seeds = [seed for seed in range(20) if 33 in np.random.default_rng(seed).choice(50, 20, replace=False)]
    assert seeds
    fails("in sample 33 ", array, ONE, samples=20, seed=seeds[0])


def test_arrays_that_differ_in_number() -> None:
    fails("'x' 3, 'ids' 4", {"x": rows(3), "ids": np.arange(4)}, TWO)


def test_no_samples() -> None:
    fails("no samples", rows(0), ONE)
    fails("no samples", [], ONE)
    fails("no inputs", rows(1), ())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(2), "labels have shape 2, samples number 3"),
        (np.zeros(3), "labels are float64 of shape 3"),
        (np.zeros((3, 10), int), "labels are int64 of shape 3 x 10"),
        (np.array([0, 1, -5]), "label -5 of sample 2 is negative"),
        (np.array(["cat", "dog", "cow"]), "labels are <U3"),
    ],
)
def test_labels_that_are_none(labels: np.ndarray, said: str) -> None:
    fails(said, {"x": rows(3), "labels": labels}, ONE)


# 8-bit images in arrays


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def test_image_arrays_go_through_the_recipe(tmp_path: Path) -> None:
    images = pixels(3, 4, 5, 3)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(3))
    result = load_dataset(tmp_path / "d.npz", IMAGE, images=ImageOptions("imagenet"))
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    expected = ((images.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(result.inputs["image"], expected)
    assert result.preprocessing["mean"] == [0.485, 0.456, 0.406]
    assert "0.485 0.456 0.406" in result.description
    first = load_dataset(images.transpose(0, 3, 1, 2), IMAGE, images=ImageOptions("imagenet"))
    np.testing.assert_array_equal(first.inputs["image"], expected)


def test_image_arrays_without_a_recipe(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=pixels(3, 4, 5, 3))
    error = fails("nothing says how", tmp_path / "d.npz", IMAGE)
    assert "d.npz" in str(error)
    assert "--preset" in error.hint


def test_a_single_image_without_batch_axis() -> None:
    assert "batch axis" in fails("does not fit", pixels(4, 5, 3), IMAGE, images=ImageOptions("raw")).hint


def test_grey_arrays_need_no_channel_axis() -> None:
    images = pixels(3, 4, 5)
    result = load_dataset(images, (InputSpec("image", FLOAT, (None, 1, 4, 5)),), images=ImageOptions("raw"))
    np.testing.assert_array_equal(result.inputs["image"][:, 0], images.astype(np.float32))


def test_models_of_bytes_take_images_as_they_are() -> None:
    images = pixels(3, 4, 5, 3)
    kept = load_dataset(images, (InputSpec("image", BYTE, (None, 4, 5, 3)),))
    np.testing.assert_array_equal(kept.inputs["image"], images)
    assert kept.preprocessing == {}
    turned = load_dataset(images, (InputSpec("image", BYTE, (None, 3, 4, 5)),))
    np.testing.assert_array_equal(turned.inputs["image"], images.transpose(0, 3, 1, 2))


def test_image_options_that_nothing_needs_are_mentioned() -> None:
    result = load_dataset(np.zeros((2, 3, 4, 5), np.float32), IMAGE, images=ImageOptions("imagenet"))
    assert "image options not used" in result.description
    assert result.preprocessing == {}


def test_two_image_inputs_share_one_recipe() -> None:
    same = tuple(InputSpec(name, FLOAT, (None, 3, 4, 5)) for name in "ab")
    result = load_dataset({"a": pixels(2, 4, 5, 3), "b": pixels(2, 4, 5, 3)}, same, images=ImageOptions("yolo"))
    assert result.preprocessing["size"] == [4, 5]
    other = (same[0], InputSpec("b", FLOAT, (None, 3, 5, 4)))
    source = {"a": pixels(2, 4, 5, 3), "b": pixels(2, 5, 4, 3)}
    fails("different image recipes", source, other, images=ImageOptions("yolo"))


# How many samples


@settings(deadline=None, max_examples=50)
@given(
    available=st.integers(1, 60),
    samples=st.integers(1, 70),
    seed=st.integers(0, 5),
    batch=st.sampled_from([None, 1, 2, 3]),
)
def test_samples_are_drawn_in_order_without_repeats(available: int, samples: int, seed: int, batch: int | None) -> None:
    specs = (InputSpec("x", FLOAT, (batch, 2)),)
    kept = min(available, samples)
    kept -= kept % (batch or 1)
    source = {"x": rows(available), "labels": np.arange(available)}
    if kept == 0:
        fails("at once", source, specs, samples=samples, seed=seed)
        return
    first, second = (load_dataset(source, specs, samples=samples, seed=seed) for _ in range(2))
    assert len(first) == kept
    assert np.all(np.diff(first.labels) > 0)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.inputs["x"], rows(available)[first.labels])
    assert first.inputs["x"].flags.c_contiguous


def test_seeds_draw_differently() -> None:
    source = {"x": rows(100), "labels": np.arange(100)}
    first, second = (load_dataset(source, ONE, samples=10, seed=seed).labels for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_fixed_batch_cuts_and_says_so() -> None:
    result = load_dataset(rows(11), (InputSpec("x", FLOAT, (4, 2)),), samples=10)
    assert len(result) == 8
    assert result.description == "samples in memory: 8 of 11 samples, drawn with seed 0, cut to batches of 4"
    fails("3 samples, the model takes 4 at once", rows(3), (InputSpec("x", FLOAT, (4, 2)),))
    assert len(load_dataset(rows(5), (InputSpec("x", FLOAT, (1, 2)),))) == 5


def test_numbers_that_are_no_numbers_of_samples() -> None:
    with pytest.raises(UsageError, match="--samples 0"):
        load_dataset(rows(3), ONE, samples=0)
    with pytest.raises(UsageError, match="--seed -1"):
        load_dataset(rows(3), ONE, seed=-1)


def test_result_is_contiguous_whatever_came() -> None:
    result = load_dataset(np.asfortranarray(rows(6)), ONE)
    assert result.inputs["x"].flags.c_contiguous
    np.testing.assert_array_equal(result.inputs["x"], rows(6))
