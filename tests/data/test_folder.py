from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reap_onnx.data import ImageOptions, InputSpec, load_dataset
from reap_onnx.errors import DataError

SPECS = (InputSpec("image", np.dtype(np.float32), (None, 3, 4, 4)),)
RAW = ImageOptions("raw")


def write_images(folder: Path, *names: str) -> None:
    """One image each, all pixels the number of its place."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), (number, number, number)).save(folder / name)


def fails(said: str, folder: Path, specs: tuple[InputSpec, ...] = SPECS, images: ImageOptions = RAW) -> DataError:
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(folder, specs, images=images)
    assert str(folder) in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_images_in_the_order_of_their_names_with_labels(tmp_path: Path) -> None:
    write_images(tmp_path, "b.png", "a.bmp", "c.PNG")
    (tmp_path / "._a.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "labels.csv").write_text(
        "\ufefffilename,label\nc.PNG,7\na.bmp, 5\nb.png,6\nelsewhere.png,9\n", encoding="utf-8"
    )
    result = load_dataset(tmp_path, SPECS, images=RAW)
    assert result.inputs["image"][:, 0, 0, 0].tolist() == [1, 0, 2]
    assert result.labels.tolist() == [5, 6, 7]
    assert result.inputs["image"].dtype == np.float32
    assert result.description.startswith(f"{tmp_path}: 3 samples; images by preset raw: 4 x 4")
    assert result.preprocessing["size"] == [4, 4]


def test_folders_below_are_read_where_the_top_has_none(tmp_path: Path) -> None:
    write_images(tmp_path / "cats", "a.png")
    write_images(tmp_path / "dogs", "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("file,label\ncats/a.png,0\ndogs/a.png,1\ndogs/b.png,1\n")
    assert load_dataset(tmp_path, SPECS, images=RAW).labels.tolist() == [0, 1, 1]
    write_images(tmp_path, "top.png")
    (tmp_path / "labels.csv").unlink()
    assert len(load_dataset(tmp_path, SPECS, images=RAW)) == 1


def test_only_chosen_images_are_opened(tmp_path: Path) -> None:
    write_images(tmp_path, *(f"{number:02}.png" for number in range(30)))
    (tmp_path / "labels.csv").write_text(
        "file,label\n" + "".join(f"{number:02}.png,{number}\n" for number in range(30))
    )
    first = load_dataset(tmp_path, SPECS, images=RAW, samples=5, seed=3)
    for number in set(range(30)) - set(first.labels.tolist()):
        (tmp_path / f"{number:02}.png").write_bytes(b"broken")
    again = load_dataset(tmp_path, SPECS, images=RAW, samples=5, seed=3)
    assert np.all(np.diff(first.labels) > 0)
    np.testing.assert_array_equal(again.labels, first.labels)
    np.testing.assert_array_equal(again.inputs["image"][:, 0, 0, 0], first.labels)
    assert "5 of 30 samples, drawn with seed 3" in again.description


def test_a_fixed_batch_cuts_the_folder(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png", "c.png")
    result = load_dataset(tmp_path, (InputSpec("image", np.dtype(np.float32), (2, 3, 4, 4)),), images=RAW)
    assert len(result) == 2
    assert "cut to batches of 2" in result.description


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    (tmp_path / "bad.jpg").write_bytes(b"broken")
    assert "bad.jpg" in str(fails("cannot be read as an image", tmp_path))


def test_models_that_a_folder_does_not_fit(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    assert "--preset" in fails("nothing says how", tmp_path, images=ImageOptions()).hint
    fails("does not take images", tmp_path, (InputSpec("x", np.dtype(np.float32), (None, 10)),))
    fails("feeds one input, the model has 2", tmp_path, (*SPECS, *SPECS))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.png,0\n", r"no label for b\.png \(1 such images\)"),
        ("name,class\na.png,0\n", "columns name, class"),
        ("", "columns of an empty file"),
        ("file,label\na.png,cat\n", "line 2: 'cat'"),
        ("file,label\na.png,-1\n", "line 2: '-1'"),
        ("file,label\na.png\n", "line 2: None"),
        ("file,label\na.png,0\nb.png,1\na.png,1\n", r"line 4: a\.png has two labels"),
    ],
)
def test_label_files_that_are_wrong(tmp_path: Path, text: str, said: str) -> None:
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text(text)
    assert "labels.csv" in str(fails(said, tmp_path))


def test_label_files_that_are_no_text(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,0\n")
    fails("cannot be read", tmp_path)
