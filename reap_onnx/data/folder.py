"""A folder of images, with the labels beside them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reap_onnx.data.dataset import Dataset
from reap_onnx.data.fit import Request, check_labels, choose, find_recipe, tell_choice
from reap_onnx.data.images import decode, preprocess
from reap_onnx.data.place import placed
from reap_onnx.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LABELS_FILE = "labels.csv"


def read_image_folder(folder: Path, request: Request) -> Dataset:
    """Decode the images of a folder; those that are not chosen are not opened.

    Images lie in the folder itself or, where it has none, anywhere below it; their order is that of their names.
    ``labels.csv``, if there, has a header with ``file`` (or ``filename``) and ``label``.

    Raises
    ------
    DataError
        No images, an unreadable one, one without a label, or a model that takes no images.
    """
    files = _find_images(folder)
    if len(request.specs) != 1:
        raise DataError(
            f"{folder}: a folder of images feeds one input, the model has {len(request.specs)}",
            f"give an .npz with its inputs: {'; '.join(map(str, request.specs))}",
        )
    spec = request.specs[0]
    recipe = find_recipe(str(folder), spec, request.images)
    indices = choose(len(files), request, str(folder))
    chosen = [files[index] for index in indices]
    labels = _read_labels(folder, chosen)
    decoded = (preprocess(decode(path, recipe)[None], recipe) for path in chosen)
    values = placed(decoded, (len(chosen), *recipe.shape), spec.dtype, request.memory)
    description = f"{tell_choice(str(folder), len(files), indices, request)}; {recipe}"
    return Dataset({spec.name: values}, labels, description, recipe.numbers(), request.memory)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _find_images(folder: Path) -> list[Path]:
    for entries in (folder.iterdir(), folder.rglob("*")):
        found = sorted(path for path in entries if _is_image(path))
        if found:
            return found
    raise DataError(
        f"{folder} holds no images and no test_data_set_* folders",
        f"images are files that end in {', '.join(SUFFIXES)}",
    )


def _read_labels(folder: Path, files: list[Path]) -> npt.NDArray[np.int64] | None:
    table = folder / LABELS_FILE
    if not table.is_file():
        return None
    known = _read_table(table)
    names = [path.relative_to(folder).as_posix() for path in files]
    if missing := [name for name in names if name not in known]:
        raise DataError(
            f"{table} has no label for {missing[0]} ({len(missing)} such images)",
            "add their rows, or move the table away",
        )
    return check_labels(str(table), np.array([known[name] for name in names], dtype=np.int64))


def _read_table(table: Path) -> dict[str, int]:
    """File name to label."""
    hint = "the header is file,label and every row a file name and a class index"
    labels: dict[str, int] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            columns = rows.fieldnames or []
            name_column = next((column for column in ("file", "filename") if column in columns), None)
            if name_column is None or "label" not in columns:
                raise DataError(f"{table} has the columns {', '.join(columns) or 'of an empty file'}", hint)
            for row in rows:
                name, label = row[name_column], row["label"]
                if not name or not re.fullmatch(r"\s*\d{1,18}\s*", label or ""):
                    raise DataError(f"{table}, line {rows.line_num}: {label!r} is not a class index of a file", hint)
                if labels.setdefault(name, int(label)) != int(label):
                    raise DataError(
                        f"{table}, line {rows.line_num}: {name} has two labels", "leave one row for each file"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}", hint) from error
    return labels
