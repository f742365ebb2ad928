"""Samples for a model, and what the model asks of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from reap_onnx.data.place import SCATTERED, let_go, placed, read, taken
from reap_onnx.errors import DataError, ModelError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Parameters
    ----------
    name
        Name of the graph input.
    dtype
        Type of its elements.
    shape
        One entry per axis, None where the size is symbolic; the first axis is the batch. Empty for an input that is
        a single number for a whole run.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    @property
    def batch(self) -> int | None:
        """Fixed number of samples in a run, None for any."""
        return self.shape[0] if self.shape else None

    def __str__(self) -> str:
        return f"{self.name!r} {self.dtype} {show_shape(('N', *self.shape[1:]))}"


def show_shape(shape: Sequence[int | str | None]) -> str:
    """A shape as messages show it: ``N x 3 x 32 x 32``, with ``?`` for a symbolic size."""
    return " x ".join("?" if size is None else str(size) for size in shape) if shape else "scalar"


def input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs that a run of ``model`` must be given: graph inputs that are not initializers, in order.

    Raises
    ------
    ModelError
        An input is not a tensor, or its element type or rank is not declared.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in constants)


def _spec(value: onnx.ValueInfoProto) -> InputSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.UNDEFINED:
        raise ModelError(f"input {value.name!r} is not a tensor of a known type", "only tensor inputs can be fed")
    if not tensor.HasField("shape"):
        raise ModelError(f"input {value.name!r} declares no shape", "declare it; sizes may be symbolic")
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return InputSpec(value.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)


def count_samples(where: str, inputs: Mapping[str, Array], labels: Array | None) -> int:
    """The number of samples N that all arrays share.

    Parameters
    ----------
    where
        Where the arrays come from, for messages.
    inputs
        Arrays (N, ...), at least one.
    labels
        Array (N,) or None.

    Raises
    ------
    DataError
        The arrays differ in N, or the labels are not N.
    """
    counts = {name: len(array) for name, array in inputs.items()}
    number = next(iter(counts.values()))
    if any(count != number for count in counts.values()):
        listing = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise DataError(
            f"{where}: the inputs differ in their number of samples: {listing}", "give every input the same"
        )
    if labels is not None and labels.shape != (number,):
        shape = show_shape(labels.shape)
        raise DataError(
            f"{where}: labels have shape {shape}, samples number {number}", "give one class index per sample"
        )
    return number


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples that fit a model.

    Parameters
    ----------
    inputs
        Input name to array (N, ...), the same N in all, C-contiguous, of the dtype of the model's input. An input that
        is a single number has N times that number.
        An array that needed no change shares its memory with what it came from.
    labels
        Class indices (N,) int64, or None.
    description
        Where the samples come from and how they were prepared, in one line.
    preprocessing
        The numbers of the image recipe, as JSON values; empty where none was applied.
    memory
        Bytes that an array made of these samples may take before it lies in a file; None: any.

    Raises
    ------
    DataError
        No inputs, or arrays that differ in N.
    """

    inputs: dict[str, Array]
    labels: npt.NDArray[np.int64] | None = None
    description: str = "samples in memory"
    preprocessing: dict[str, object] = field(default_factory=dict)
    memory: int | None = None

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError(f"{self.description}: no inputs", "give at least one array")
        count_samples(self.description, self.inputs, self.labels)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def subset(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> Dataset:
        """The samples at ``indices`` (any order, repeats allowed), with their labels."""
        chosen = np.asarray(indices, dtype=np.intp)
        chosen = np.arange(len(self))[chosen]  # none beyond the last, negative ones from the end
        inputs = {
            name: placed(taken(array, chosen), (len(chosen), *array.shape[1:]), array.dtype, self.memory)
            for name, array in self.inputs.items()
        }
        return replace(self, inputs=inputs, labels=None if self.labels is None else self.labels[chosen])

    def shuffled(self, seed: int) -> Dataset:
        """The same samples in an order drawn by ``seed``."""
        return self.subset(np.random.default_rng(seed).permutation(len(self)))

    def first(self, count: int) -> Dataset:
        """The first ``count`` samples, as views."""
        return self.slice(0, count)

    def slice(self, start: int, stop: int) -> Dataset:
        """The samples from ``start`` to before ``stop``, as views."""
        inputs = {name: array[start:stop] for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, labels=None if self.labels is None else self.labels[start:stop])

    def without(self, others: Dataset) -> Dataset:
        """The samples that are not among ``others``, in their order; names and types of inputs are taken to agree."""
        known = set(others._hashes())
        kept = [number for number, sample in enumerate(self._hashes()) if sample not in known]
        return self if len(kept) == len(self) else self.subset(kept)

    def _hashes(self) -> Iterator[bytes]:
        """SHA-256 of each sample."""
        arrays = [self.inputs[name] for name in sorted(self.inputs)]
        for number, sample in enumerate(zip(*arrays, strict=True), 1):
            yield hashlib.sha256(b"".join(map(_content, sample))).digest()
            if number % SCATTERED == 0:
                let_go(arrays)

    def digest(self) -> str:
        """SHA-256 of the inputs, hexadecimal."""
        found = hashlib.sha256()
        for name, array in self.inputs.items():
            found.update(f"{name} {array.dtype} {array.shape}".encode())
            for _, some in read(array):
                found.update(_content(some))
        return found.hexdigest()

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Views of ``size`` samples at a time, in order; the last batch holds what remains."""
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}
            let_go(self.inputs.values())

    def halves(self, seed: int, multiple: int = 1) -> tuple[Dataset, Dataset]:
        """Two halves of equal size, a multiple of ``multiple``, drawn by ``seed``; samples keep their order."""
        order, size = np.random.default_rng([seed, len(self)]).permutation(len(self)), len(self) // 2
        size -= size % multiple
        return self.subset(np.sort(order[:size])), self.subset(np.sort(order[size : 2 * size]))


def _content(array: Array) -> bytes | memoryview:
    """What an array holds, in memory's order; of strings the texts, each ended by a zero."""
    if array.dtype.hasobject:
        return b"".join(str(text).encode() + b"\0" for text in array.reshape(-1))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
