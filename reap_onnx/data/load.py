"""One way in: anything that holds samples, made into a dataset for a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from reap_onnx.data.arrays import as_array, is_test_data, read_npy, read_npz, read_polygraphy, read_test_data, stack
from reap_onnx.data.dataset import Array, Dataset, InputSpec, show_shape
from reap_onnx.data.fit import UNNAMED, Request, choose, fit_arrays
from reap_onnx.data.folder import read_image_folder
from reap_onnx.data.images import ImageOptions
from reap_onnx.data.script import call_script, script_errors, split_script
from reap_onnx.errors import DataError

RANDOM = "random"
RANDOM_SAMPLES = 64
IN_MEMORY = "samples in memory"
_NO_IMAGE_OPTIONS = ImageOptions()
_KINDS = "give an .npz, .npy, .json (polygraphy) or .py file, a folder of images or of test_data_set_*, or random"


@runtime_checkable
class BatchReader(Protocol):
    """Anything like the ``CalibrationDataReader`` of ``onnxruntime.quantization``."""

    def get_next(self) -> Mapping[str, Array] | None:
        """The next batch by input name, None at the end."""


def load_dataset(
    source: object,
    specs: tuple[InputSpec, ...],
    *,
    images: ImageOptions = _NO_IMAGE_OPTIONS,
    samples: int | None = None,
    seed: int = 0,
    memory: int | None = None,
) -> Dataset:
    """Samples for a model, checked against its inputs.

    Parameters
    ----------
    source
        A ``Dataset``; an array (model of one input); a mapping of input name to array; an iterable of such mappings,
        one per batch; an object with ``get_next()``; a path (str or Path) of a file or folder listed in the room's
        README; or the word ``"random"``. A key ``labels`` that is no input holds class indices (N,).
    specs
        The model's inputs, from ``input_specs``.
    images
        How 8-bit images become inputs.
    samples
        Use this many, drawn by ``seed`` without replacement and kept in their order; all where there are fewer.
        Random data: how many are made, 64 if None.
    seed
        Seeds the choice of samples, and random data.
    memory
        Bytes that samples may take; an array larger than its share lies in a file. None: any.

    Returns
    -------
    Dataset
        N samples, cut to a multiple of the model's batch where that is fixed.

    Raises
    ------
    DataError
        The source cannot be read or does not fit the model.
    UsageError
        ``samples`` is not positive or ``seed`` is negative.
    """
    share = None if memory is None else memory // max(1, len(specs))
    return _load(source, Request(specs, images, samples, seed, share), IN_MEMORY)


def _load(source: object, request: Request, where: str) -> Dataset:
    if isinstance(source, Dataset):
        return _refit(source, request)
    if isinstance(source, str) and source == RANDOM:
        return _random(request)
    if isinstance(source, str | Path):
        return _load_path(str(source), request)
    return fit_arrays(where, _collect(source, where), request)


def _refit(dataset: Dataset, request: Request) -> Dataset:
    """The same samples, checked and chosen for this request."""
    fitted = fit_arrays(dataset.description, dataset.inputs, request, dataset.labels)
    if fitted.preprocessing:
        return fitted
    told = dataset.description if len(fitted) == len(dataset) else fitted.description
    return replace(fitted, description=told, preprocessing=dataset.preprocessing)


def _collect(source: object, where: str) -> dict[str, Array]:
    """Arrays by name from what is in memory; one array alone has no name."""
    if isinstance(source, Mapping):
        return {str(name): as_array(where, str(name), value) for name, value in source.items()}
    if hasattr(source, "__array__"):
        return {UNNAMED: as_array(where, UNNAMED, source)}
    if isinstance(source, BatchReader):
        return stack(where, _drain(source))
    if isinstance(source, Iterable):
        return stack(where, source)
    raise DataError(
        f"{where}: a {type(source).__name__} holds no samples", "give a path, an array, or dicts of input name to array"
    )


def _drain(reader: BatchReader) -> Iterator[Mapping[str, Array]]:
    while (batch := reader.get_next()) is not None:
        yield batch


def _random(request: Request) -> Dataset:
    """Normal noise, said to be so."""
    count = request.samples or RANDOM_SAMPLES
    generator = np.random.default_rng(request.seed)
    inputs = {}
    for spec in request.specs:
        if None in spec.shape[1:]:
            shape = show_shape(("N", *spec.shape[1:]))
            raise DataError(
                f"random samples need sizes, input {spec.name!r} is {shape}",
                "give real samples, or fix the model's shape",
            )
        if spec.dtype.kind != "f":
            raise DataError(f"random samples are floats, input {spec.name!r} takes {spec.dtype}", "give real samples")
        shape_known = [size for size in spec.shape[1:] if size is not None]
        inputs[spec.name] = generator.standard_normal((count, *shape_known), dtype=np.float32).astype(spec.dtype)
    used = len(choose(count, request, "random samples"))
    return Dataset(
        {name: array[:used] for name, array in inputs.items()},
        description=f"RANDOM normal samples, not real data: {used} samples, seed {request.seed}",
        memory=request.memory,
    )


def _load_path(text: str, request: Request) -> Dataset:
    script = split_script(text)
    path = script[0] if script is not None else Path(text)
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist", "check the path; the word random makes random samples")
        if script is None:
            return _load_plain(path, request)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check the path and its rights") from error
    with script_errors(path):
        return _load(call_script(*script), request, text)


def _load_plain(path: Path, request: Request) -> Dataset:
    if path.is_dir() and not is_test_data(path):
        return read_image_folder(path, request)
    return fit_arrays(str(path), _read_arrays(path, request), request)


def _read_arrays(path: Path, request: Request) -> dict[str, Array]:
    if path.is_dir():
        return read_test_data(path, request.specs)
    match path.suffix.lower():
        case ".npz":
            return read_npz(path, request.memory)
        case ".npy":
            return {UNNAMED: read_npy(path)}
        case ".json":
            return read_polygraphy(path)
    raise DataError(f"{path} is no kind of data that is known here", _KINDS)
