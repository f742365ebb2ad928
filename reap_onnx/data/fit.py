"""Arrays as they came, made to fit a model: names, shapes, types, images, choice of samples, finite values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.data.dataset import Array, Dataset, InputSpec, count_samples, show_shape
from reap_onnx.data.images import ImageOptions, Recipe, preprocess, resolve
from reap_onnx.data.place import placed, read, taken
from reap_onnx.errors import DataError, UsageError

LABELS = "labels"
UNNAMED = ""


@dataclass(frozen=True)
class Request:
    """What is wanted of a source: arrays for these inputs, images by these options, so many samples, this seed.

    An array of more than ``memory`` bytes lies in a file.
    """

    specs: tuple[InputSpec, ...]
    images: ImageOptions
    samples: int | None
    seed: int
    memory: int | None = None

    def __post_init__(self) -> None:
        if not self.specs:
            raise DataError("the model has no inputs to feed", "use a model that reads its data from an input")
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"--samples {self.samples} is not a positive number")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is negative")

    @property
    def batch(self) -> int:
        """The number of samples that the model takes at once; 1 where its batch axis is symbolic."""
        return math.lcm(*(spec.batch or 1 for spec in self.specs))


def choose(available: int, request: Request, where: str) -> npt.NDArray[np.intp]:
    """Indices of the samples to use, ascending: drawn without replacement, cut to whole batches of the model.

    Raises
    ------
    DataError
        Nothing is there, or less than one batch.
    """
    if available == 0:
        raise DataError(f"{where}: no samples", "give at least one sample")
    indices = np.arange(available)
    if request.samples is not None and request.samples < available:
        indices = np.sort(np.random.default_rng(request.seed).choice(available, request.samples, replace=False))
    whole = len(indices) - len(indices) % request.batch
    if whole == 0:
        raise DataError(
            f"{where}: {len(indices)} samples, the model takes {request.batch} at once",
            f"give at least {request.batch} samples, or a model with a symbolic batch axis",
        )
    return indices[:whole]


def tell_choice(where: str, available: int, indices: npt.NDArray[np.intp], request: Request) -> str:
    """One phrase on how many samples are used, and why not all."""
    if len(indices) == available:
        return f"{where}: {available} samples"
    wanted = min(available, request.samples or available)
    drawn = f", drawn with seed {request.seed}" if wanted < available else ""
    trimmed = f", cut to batches of {request.batch}" if len(indices) < wanted else ""
    return f"{where}: {len(indices)} of {available} samples{drawn}{trimmed}"


def fit_arrays(where: str, arrays: Mapping[str, Array], request: Request, labels: Array | None = None) -> Dataset:
    """Make a dataset of named arrays.

    Parameters
    ----------
    where
        Where the arrays come from: the start of messages and of the description.
    arrays
        Name to array (N, ...). Where the model has one input and there is one array, that is the input, whatever it
        is called.
    request
        What is wanted.
    labels
        Class indices (N,), if known. Where None, the array ``labels`` is taken, unless an input is called so.

    Raises
    ------
    DataError
        The arrays do not fit the model's inputs.
    """
    others = dict(arrays)
    if labels is None and all(spec.name != LABELS for spec in request.specs):
        labels = others.pop(LABELS, None)
    classes = None if labels is None else check_labels(where, labels)
    named, unused = _assign(where, others, request.specs)
    images = {spec.name: found for spec in request.specs if (found := _as_images(spec, named[spec.name])) is not None}
    for spec in request.specs:
        if spec.name not in images:
            _check_shape(where, spec, named[spec.name])
    named |= images
    available = count_samples(where, named, classes)
    indices = choose(available, request, where)

    inputs, recipes = {}, []
    for spec in request.specs:
        array = named[spec.name]
        if spec.name in images:
            own = find_recipe(where, spec, request.images, array.shape[1:3])
            inputs[spec.name] = _converted(array, indices, own, request.memory)
            recipes.append(own)
        else:
            inputs[spec.name] = _cast(where, spec, array, indices, request.memory)
        _check_finite(where, spec.name, inputs[spec.name], indices)
        if not spec.shape and (inputs[spec.name] != inputs[spec.name][0]).any():
            raise DataError(
                f"{where}: input {spec.name!r} is a single number for a whole run, its samples differ",
                "give samples that have it in common",
            )

    recipe = _one_recipe(where, recipes)
    notes = [tell_choice(where, available, indices, request), *_notes(recipe, request.images, unused)]
    kept = None if classes is None else classes[indices]
    return Dataset(inputs, kept, "; ".join(notes), {} if recipe is None else recipe.numbers(), request.memory)


def _notes(recipe: Recipe | None, options: ImageOptions, unused: list[str]) -> list[str]:
    """What a description adds to the number of samples."""
    notes = []
    if recipe is not None:
        notes.append(str(recipe))
    elif options != ImageOptions():
        notes.append("image options not used: no array holds 8-bit images to convert")
    if unused:
        notes.append(f"arrays not used: {', '.join(unused)}")
    return notes


def _assign(where: str, arrays: dict[str, Array], specs: tuple[InputSpec, ...]) -> tuple[dict[str, Array], list[str]]:
    """Arrays by input name, and the names of arrays that no input has."""
    names = [spec.name for spec in specs]
    if len(names) == len(arrays) == 1:
        return {names[0]: next(iter(arrays.values()))}, []
    if missing := [name for name in names if name not in arrays]:
        found = ", ".join(repr(name) if name != UNNAMED else "one array without a name" for name in arrays) or "none"
        raise DataError(
            f"{where}: no array for input {', '.join(map(repr, missing))}; arrays found: {found}",
            f"the model's inputs are {'; '.join(map(str, specs))}",
        )
    return {name: arrays[name] for name in names}, sorted(arrays.keys() - set(names))


def check_labels(where: str, labels: Array) -> npt.NDArray[np.int64]:
    """Class indices (N,) as int64.

    Raises
    ------
    DataError
        Not one-dimensional, not integers, or negative.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {labels.dtype} of shape {show_shape(labels.shape)}, not one integer per sample",
            "give class indices (N,) of an integer type, or leave labels out",
        )
    classes = labels.astype(np.int64)
    if (negative := np.flatnonzero(classes < 0)).size:
        first = negative[0]
        raise DataError(f"{where}: label {classes[first]} of sample {first} is negative", "class indices count from 0")
    return classes


def _as_images(spec: InputSpec, array: Array) -> Array | None:
    """``array`` as images (N, H, W, 3 or 1) if it is 8-bit images that still have to be converted, else None."""
    if (
        array.dtype != np.uint8
        or len(spec.shape) != 4
        or spec.dtype.kind not in "fu"
        or (spec.dtype == np.uint8 and _fits(spec, array))
    ):
        return None
    if array.ndim == 3 and 1 in (spec.shape[1], spec.shape[3]) and array.shape[-1] != 1:
        return array[..., None]
    if array.ndim == 4:
        if array.shape[3] in (1, 3):
            return array
        if array.shape[1] in (1, 3):
            return array.transpose(0, 2, 3, 1)
    return None


def find_recipe(where: str, spec: InputSpec, options: ImageOptions, size: tuple[int, int] | None = None) -> Recipe:
    """``images.resolve``, its errors saying where the images come from."""
    try:
        return resolve(options, spec, size=size)
    except DataError as error:
        raise DataError(f"{where}: {error}", error.hint) from error


def _one_recipe(where: str, recipes: list[Recipe]) -> Recipe | None:
    if any(recipe.numbers() != recipes[0].numbers() for recipe in recipes):
        raise DataError(f"{where}: the inputs need different image recipes", "convert the images and give float arrays")
    return recipes[0] if recipes else None


def _fits(spec: InputSpec, array: Array) -> bool:
    """Whether all axes but the batch agree."""
    return array.ndim == max(len(spec.shape), 1) and all(
        wanted in (None, size) for wanted, size in zip(spec.shape[1:], array.shape[1:], strict=True)
    )


def _check_shape(where: str, spec: InputSpec, array: Array) -> None:
    if _fits(spec, array):
        return
    hint = f"give arrays of shape {show_shape(('N', *spec.shape[1:]))}"
    if array.ndim == len(spec.shape) - 1:
        hint += "; a batch axis is missing: array[None] adds one to a single sample"
    elif array.ndim == 4 and len(spec.shape) == 4 and _fits(spec, array.transpose(0, 3, 1, 2)):
        hint += "; array.transpose(0, 3, 1, 2) puts the channels first"
    elif array.ndim == 4 and len(spec.shape) == 4 and _fits(spec, array.transpose(0, 2, 3, 1)):
        hint += "; array.transpose(0, 2, 3, 1) puts the channels last"
    raise DataError(f"{where}: array of shape {show_shape(array.shape)} does not fit input {spec}", hint)


def _converted(array: Array, indices: npt.NDArray[np.intp], recipe: Recipe, memory: int | None) -> Array:
    """The images at ascending ``indices`` as the model's input."""
    values = (preprocess(some, recipe) for some in taken(array, indices))
    return placed(values, (len(indices), *recipe.shape), recipe.dtype, memory)


def _cast(where: str, spec: InputSpec, array: Array, indices: npt.NDArray[np.intp], memory: int | None) -> Array:
    """The samples at ascending ``indices``, C-contiguous, in the dtype of the input; only casts that keep the meaning.

    The array itself where it is that already.
    """
    source, target = array.dtype, spec.dtype
    if source != target and not _keeps_meaning(array, indices, target):
        hint = f"convert it: array.astype({str(target)!r})" if target.kind != "O" else "give an array of strings"
        raise DataError(f"{where}: array of {source} does not fit input {spec}", hint)
    whole = len(indices) == len(array) and not isinstance(array, np.memmap)
    if whole and source == target and array.flags.c_contiguous:
        return array
    with np.errstate(over="ignore"):  # values too large become infinite, which is reported as such
        return placed(taken(array, indices), (len(indices), *array.shape[1:]), target, memory)


def _keeps_meaning(array: Array, indices: npt.NDArray[np.intp], target: np.dtype[np.generic]) -> bool:
    """Float to float, integers to float, integers to integers that hold every value, text to strings."""
    source = array.dtype.kind
    if target.kind == "f":
        return source in "fiub"
    if target.kind in "iu" and source in "iub":
        limits = np.iinfo(target.name)
        found = ((int(part.min(initial=0)), int(part.max(initial=0))) for part in taken(array, indices))
        return all(low >= limits.min and high <= limits.max for low, high in found)
    return target.kind == "O" and source == "U"


def _check_finite(where: str, name: str, array: Array, indices: npt.NDArray[np.intp]) -> None:
    if array.dtype.kind != "f":
        return
    bad: list[int] = []
    for start, some in read(array):
        bad += (start + np.flatnonzero(~np.isfinite(some).reshape(len(some), -1).all(axis=1))).tolist()
    if bad:
        kind = "NaN" if np.isnan(array[bad[0]]).any() else "infinite values"
        raise DataError(
            f"{where}: input {name!r} holds {kind} in sample {indices[bad[0]]} ({len(bad)} such samples)",
            f"repair or leave out these samples; the values are read as {array.dtype}",
        )
