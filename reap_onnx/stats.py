"""Statistics: all that a calibration has measured, as a file that any number of budgets can be read off later.

The file is an ``.npz`` without pickles: plain arrays, and a JSON document of what they are and what they were made
from. Its zip container has a CRC-32 of every member, each of which is read whole before it is believed. The same
calibration gives the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import OutputError, StatsError, UsageError
from reap_onnx.graph.groups import Group
from reap_onnx.graph.trace import Trace
from reap_onnx.method.select import GroupPath, Statistics
from reap_onnx.numerics.gram import Equations, Normal, Rows
from reap_onnx.numerics.path import Path as RemovalPath
from reap_onnx.options import PruneOptions
from reap_onnx.runtime.memory import memory_for_rows
from reap_onnx.version import VERSION

FORMAT = 5  # grows when what is measured changes
KEPT = 256  # samples that are kept for checks and comparisons,
KEPT_BYTES = 32_000_000  # and no more bytes than these, but for a few
IN_MEMORY = "statistics in memory"
_HINT = "give a file written by: reap-onnx calibrate MODEL --data ... -o FILE"
_DOCUMENT = "document"
_FLAGS = {
    "freeze": "--freeze",
    "seed": "--seed",
    "batch": "--batch",
    "memory": "--memory",
    "criterion": "--effort",
    "selection_rows": "--effort",
    "sensitivity_samples": "--effort",
    "sensitivity_scores": "--effort",
}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Origin:
    """What statistics were made from.

    Parameters
    ----------
    source_sha256
        Of the model.
    options
        The options that they depend on, as JSON values.
    data
        What the samples are: ``description``, ``preprocessing``, ``samples``, ``sha256``.
    """

    source_sha256: str
    options: dict[str, Any]
    data: dict[str, Any]


def origin_of(source_sha256: str, options: PruneOptions, dataset: Dataset) -> Origin:
    """Where the statistics of a model come from that is calibrated on a data set."""
    data = {
        "description": dataset.description,
        "preprocessing": dataset.preprocessing,
        "samples": len(dataset),
        "sha256": dataset.digest(),
    }
    return Origin(source_sha256, _options(options), data)


def _options(options: PruneOptions) -> dict[str, Any]:
    """The options that statistics depend on."""
    method = options.method
    return {
        "freeze": sorted(set(options.freeze)),
        "seed": options.seed,
        "batch": options.batch,
        "memory": memory_for_rows(options.memory),
        "criterion": method.criterion,
        "selection_rows": method.selection_rows,
        "sensitivity_samples": method.sensitivity_samples,
        "sensitivity_scores": method.sensitivity_scores,
    }


@dataclass(frozen=True)
class Stats:
    """A calibration without its model.

    Parameters
    ----------
    origin
        What it was made from.
    layers
        Normal equations of each layer's blocks, by the first output of its node.
    paths
        Removal path and weight of each group, by its name.
    kept
        A few of the samples; see :attr:`samples`.
    name
        Where it comes from, for messages.
    """

    origin: Origin
    layers: Mapping[str, list[Equations]]
    paths: Mapping[str, tuple[RemovalPath, float]]
    kept: Dataset
    name: str = field(default=IN_MEMORY, compare=False)

    @property
    def samples(self) -> Dataset:
        """The samples that are kept, for checks and comparisons where no others are given."""
        told = f"{self.origin.data['description']}; the {len(self.kept)} of them that the statistics keep"
        return replace(self.kept, description=told, preprocessing=self.origin.data["preprocessing"])

    def save(self, path: Path | str) -> None:
        """Write a file, whole or not at all.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        layers, arrays = _pack_layers(self.layers)
        kept, inputs = _pack_samples(self.kept)
        paths = []
        for number, (name, (found, weight)) in enumerate(self.paths.items()):
            paths.append({"group": name, "weight": weight})
            arrays |= {f"path.{number}.order": found.order, f"path.{number}.errors": found.errors}
        document = _document("statistics", self.origin, layers) | {"paths": paths, "kept": kept}
        _write(Path(path), document, arrays | inputs)

    @classmethod
    def load(cls, path: Path | str) -> Stats:
        """Read a file.

        Raises
        ------
        StatsError
            It is missing, holds no statistics or those of an unfinished calibration, is of another format, or is not
            as it was written.
        """
        document, arrays = _read(Path(path), "statistics")
        try:
            origin, layers = _unpack(document, arrays)
            paths = {
                str(entry["group"]): (
                    RemovalPath(arrays[f"path.{number}.order"], arrays[f"path.{number}.errors"]),
                    float(entry["weight"]),
                )
                for number, entry in enumerate(document["paths"])
            }
            return cls(origin, layers, paths, _unpack_samples(document["kept"], arrays), str(path))
        except (KeyError, TypeError, ValueError) as error:
            raise StatsError(f"{path}: holds no statistics that this version knows", _HINT) from error


def make_stats(
    origin: Origin, trace: Trace, paths: tuple[GroupPath, ...], statistics: Statistics, dataset: Dataset
) -> Stats:
    """The statistics of a calibration; the first samples of ``dataset`` are kept."""
    size = sum(array.nbytes for array in dataset.inputs.values()) / len(dataset)
    batch = trace.network.batch
    count = max(4, min(KEPT, int(KEPT_BYTES / size)) // batch) * batch
    layers = {trace.network.nodes[index].outputs[0]: blocks for index, blocks in statistics.items()}
    return Stats(origin, layers, {path.group.name: (path.path, path.weight) for path in paths}, dataset.first(count))


def check_origin(stats: Stats, wanted: Origin, model: str) -> None:
    """Refuse statistics of another model or of other options than those that are wanted.

    Raises
    ------
    StatsError
        They are of another model.
    UsageError
        An option that they depend on is another one now.
    """
    origin = stats.origin
    if origin.source_sha256 != wanted.source_sha256:
        raise StatsError(
            f"{stats.name}: made from another model (SHA-256 {origin.source_sha256[:12]}..., {model} has "
            f"{wanted.source_sha256[:12]}...)",
            "calibrate this model, or give the one that was calibrated",
        )
    for key, value in wanted.options.items():
        if origin.options.get(key) != value:
            told = key.replace("_", " ")
            raise UsageError(
                f"{stats.name}: made with {told} {_show(origin.options.get(key))}, this run has {_show(value)}",
                f"give {_FLAGS[key]} as for calibrate, or calibrate again",
            )


def _show(value: object) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def read_stats(
    stats: Stats, trace: Trace, groups: list[Group]
) -> tuple[tuple[GroupPath, ...], dict[int, list[Equations]]]:
    """Paths and normal equations, as groups and layers of a network.

    Raises
    ------
    StatsError
        The network has other groups or layers, or their sizes are others.
    """
    free = [group for group in groups if not group.frozen]
    try:
        paths = tuple(GroupPath(group, *stats.paths[group.name]) for group in free)
        statistics = {trace.network.producer[name].index: blocks for name, blocks in stats.layers.items()}
    except KeyError as error:
        raise StatsError(f"{stats.name}: does not fit the model: {error.args[0]} is not in both", _HINT) from error
    for path in paths:
        if len(path.path.order) + 1 != len(path.group.units):
            raise StatsError(f"{stats.name}: does not fit the model: {path.group.name} has other channels", _HINT)
    return paths, statistics


# -- an unfinished calibration -----------------------------------------------------------------------------------------


class Checkpoint:
    """The sums of the first shards in a file beside the one to come, so that a run that was killed can go on.

    Parameters
    ----------
    output
        The file to come.
    origin
        What it is made from.
    force
        Begin anew where the file is no use, instead of refusing it.
    """

    def __init__(self, output: Path, origin: Origin, force: bool = False) -> None:
        self.path = output.with_name(f"{output.name}.partial")
        self._origin, self._force = origin, force

    def load(self, trace: Trace) -> tuple[int, dict[int, list[Equations]]]:
        """Number of shards that are done, and their sums by the index of the node; none where there is no file.

        Raises
        ------
        OutputError
            The file is damaged, or of another model, other samples, other options or another version.
        """
        if not self.path.exists():
            return 0, {}
        try:
            return self._load(trace)
        except OutputError:
            if self._force:
                return 0, {}
            raise

    def _load(self, trace: Trace) -> tuple[int, dict[int, list[Equations]]]:
        hint = "repeat the command that began it, or begin anew with --force"
        try:
            document, arrays = _read(self.path, "checkpoint")
            origin, layers = _unpack(document, arrays)
            if origin != self._origin or document["reap_onnx"] != VERSION:
                told = "begun with another model, other samples, other options or another version of reap-onnx"
                raise OutputError(f"{self.path}: {told}", hint)
            return int(document["done"]), {trace.network.producer[name].index: b for name, b in layers.items()}
        except (StatsError, KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"{self.path}: cannot be gone on from: it is damaged", "begin anew with --force"
            ) from error

    def save(self, done: int, trace: Trace, statistics: Statistics) -> None:
        """Replace the file."""
        named = {trace.network.nodes[index].outputs[0]: blocks for index, blocks in statistics.items()}
        layers, arrays = _pack_layers(named)
        _write(self.path, _document("checkpoint", self._origin, layers) | {"done": done}, arrays)

    def remove(self) -> None:
        """Delete the file."""
        try:
            self.path.unlink(missing_ok=True)
            _draft(self.path).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be removed: {error.strerror}", "remove it by hand") from error


# -- arrays and documents ----------------------------------------------------------------------------------------------


def _document(kind: str, origin: Origin, layers: list[dict[str, Any]]) -> dict[str, Any]:
    made_from = {"source_sha256": origin.source_sha256, "options": origin.options, "data": origin.data}
    return {"kind": kind, "format": FORMAT, "reap_onnx": VERSION, "origin": made_from, "layers": layers}


def _pack_layers(layers: Mapping[str, list[Equations]]) -> tuple[list[dict[str, Any]], Arrays]:
    """Entries of the document and arrays by name."""
    entries, arrays = list[dict[str, Any]](), Arrays()
    for number, (name, blocks) in enumerate(layers.items()):
        entries.append({"output": name, "rows": [block.rows for block in blocks]})
        for place, block in enumerate(blocks):
            names = ("gram", "cross", "square", "total") if isinstance(block, Normal) else ("x", "y")
            arrays |= {f"layer.{number}.{place}.{part}": getattr(block, part) for part in names}
    return entries, arrays


def _unpack(document: dict[str, Any], arrays: Arrays) -> tuple[Origin, dict[str, list[Equations]]]:
    layers = {}
    for number, entry in enumerate(document["layers"]):
        begins = (f"layer.{number}.{place}" for place in range(len(entry["rows"])))
        blocks = [_block(arrays, begin, rows) for begin, rows in zip(begins, entry["rows"], strict=True)]
        layers[str(entry["output"])] = blocks
    return Origin(**document["origin"]), layers


def _block(arrays: Arrays, begin: str, rows: int) -> Equations:
    if f"{begin}.x" in arrays:
        return Rows(arrays[f"{begin}.x"], arrays[f"{begin}.y"])
    gram, cross, square, total = (arrays[f"{begin}.{part}"] for part in ("gram", "cross", "square", "total"))
    return Normal(gram, cross, square, total, rows)


def _pack_samples(dataset: Dataset) -> tuple[dict[str, Any], Arrays]:
    """Entry of the document and arrays by name; strings, which would be pickled, as characters."""
    values = (array.astype(str) if array.dtype.hasobject else array for array in dataset.inputs.values())
    arrays = {f"input.{number}": array for number, array in enumerate(values)}
    if dataset.labels is not None:
        arrays["labels"] = dataset.labels
    return {"inputs": list(dataset.inputs)}, arrays


def _unpack_samples(entry: dict[str, Any], arrays: Arrays) -> Dataset:
    inputs = {name: arrays[f"input.{number}"] for number, name in enumerate(entry["inputs"])}
    texts = {name: array.astype(object) for name, array in inputs.items() if array.dtype.kind == "U"}
    return Dataset(inputs | texts, arrays.get("labels"))


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.draft")


def _write(path: Path, document: dict[str, Any], arrays: Arrays) -> None:
    """Write beside the place, then rename; what a killed run leaves is written over by the next one."""
    text = np.frombuffer(json.dumps(document, sort_keys=True).encode(), np.uint8)
    members: dict[str, Any] = {_DOCUMENT: text, **arrays}  # numbers alone, so that nothing is pickled
    draft = _draft(path)
    try:
        with draft.open("wb") as file:
            np.savez(file, **members)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}", "is the disk full or read-only?") from error
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path, kind: str) -> tuple[dict[str, Any], Arrays]:
    """The document and the arrays of a file, its checksums verified."""
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(_array(archive, f"{_DOCUMENT}.npy").tobytes())
            _check_kind(path, document, kind)
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            return document, {name: _array(archive, f"{name}.npy") for name in names if name != _DOCUMENT}
    except StatsError:
        raise
    except OSError as error:
        raise StatsError(f"{path}: cannot be read: {error.strerror or error}", _HINT) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError) as error:
        raise StatsError(f"{path}: no statistics, damaged, or cut short", _HINT) from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    array: np.ndarray = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
    return array


def _check_kind(path: Path, document: object, kind: str) -> None:
    if not isinstance(document, dict) or document.get("kind") not in ("statistics", "checkpoint"):
        raise StatsError(f"{path}: holds no statistics", _HINT)
    if document.get("format") != FORMAT:
        raise StatsError(
            f"{path}: statistics of format {document.get('format')}, this version reads {FORMAT}", "calibrate again"
        )
    if document["kind"] != kind:
        raise StatsError(f"{path}: an unfinished calibration", "finish it by repeating its command")
