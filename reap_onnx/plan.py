"""A plan: everything that turns one model into a pruned one, as a JSON file that can be read and replayed."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reap_onnx.errors import PlanError, UsageError
from reap_onnx.graph.channels import Labels, varying
from reap_onnx.graph.groups import Group
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.options import MaxDrop, PruneOptions, Target
from reap_onnx.version import VERSION

FORMAT = 1
_HINT = "give a file written by: reap-onnx prune ... --plan FILE"


@dataclass(frozen=True)
class Plan:
    """What is kept, and the refitted constants.

    Parameters
    ----------
    source_sha256
        Of the model that the plan is for.
    options
        What was asked for, as JSON values.
    data
        What it was calibrated on.
    inputs
        Shape of one run's inputs, by name.
    kept
        Tensor -> indices of the channels that stay, for every group that lost some.
    weights
        (first output of a node, position of its input) -> new constant in its original shape.
    """

    source_sha256: str
    options: dict[str, Any]
    data: dict[str, Any]
    inputs: dict[str, list[int]]
    kept: dict[str, list[int]]
    weights: dict[tuple[str, int], np.ndarray]

    @property
    def targets(self) -> tuple[Target | MaxDrop, ...]:
        """What the pruned model was to cost, and to lose at most.

        Raises
        ------
        PlanError
            The plan's options hold no targets.
        """
        try:
            found = self.options["target"]
            entries = [found] if isinstance(found, dict) else found
            return tuple(MaxDrop(**entry) if "drop" in entry else Target(**entry) for entry in entries)
        except (KeyError, TypeError, UsageError) as error:
            raise PlanError("the plan says nothing of a target that this version knows", _HINT) from error

    def summary(self) -> str:
        """The plan without weights as compact JSON, for the metadata of the pruned model."""
        document = {"format": FORMAT, "options": self.options, "data": self.data, "kept": self.kept}
        return json.dumps(document, sort_keys=True)

    def dumps(self) -> str:
        """The whole plan as JSON; its last entry is a digest of the others."""
        document = {
            "format": FORMAT,
            "reap_onnx": VERSION,
            "source_sha256": self.source_sha256,
            "options": self.options,
            "data": self.data,
            "inputs": self.inputs,
            "kept": self.kept,
            "weights": [_encode(*key, value) for key, value in self.weights.items()],
        }
        return json.dumps(document | {"digest": _digest(document)}, indent=1) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan.

        Raises
        ------
        PlanError
            The file is missing, is no plan, is of another format, or is not as it was written.
        """
        document = _read(Path(path))
        try:
            return cls(
                source_sha256=document["source_sha256"],
                options=document["options"],
                data=document["data"],
                inputs=document["inputs"],
                kept=document["kept"],
                weights=dict(_decode(entry) for entry in document["weights"]),
            )
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise PlanError(f"{path}: not a plan", _HINT) from error


def make_plan(
    trace: Trace,
    groups: Iterable[Group],
    removed: Labels,
    weights: dict[Slot, np.ndarray],
    *,
    source_sha256: str,
    options: PruneOptions,
    data: dict[str, Any],
) -> Plan:
    """The plan of a run."""
    kept: dict[str, list[int]] = {}
    for group in groups:
        if np.isin(group.units, removed).any():
            tensor = next(name for name, labels in trace.labels.items() if _carries(trace, labels, group))
            vector = trace.channels.compact(trace.labels[tensor]).reshape(-1)
            kept[tensor] = np.flatnonzero(~np.isin(vector, removed)).tolist()
    nodes = trace.network.nodes
    named = {(nodes[slot.node].outputs[0], slot.input): value for slot, value in weights.items()}
    inputs = {name: list(trace.network.shapes[name]) for name in trace.network.inputs}
    return Plan(source_sha256, _values(options), data, inputs, kept, named)


def _values(options: PruneOptions) -> dict[str, Any]:
    """Options as JSON values; a metric that is a function goes by its name."""
    named = tuple(
        replace(target, metric=getattr(target.metric, "__name__", "metric.py"))
        if isinstance(target, MaxDrop) and callable(target.metric)
        else target
        for target in options.given
    )
    target = named if isinstance(options.target, tuple) else named[0]
    return asdict(replace(options, target=target, round_to=options.rounding))


def read_plan(plan: Plan, trace: Trace) -> tuple[Labels, dict[Slot, np.ndarray]]:
    """Removed labels and new constants of a plan on a network.

    Raises
    ------
    PlanError
        The plan names tensors or channels that the network does not have.
    """
    removed = [np.zeros(0, np.int64)]
    for tensor, kept in plan.kept.items():
        labels = trace.labelled(tensor)
        if labels is None or not varying(labels) or not all(0 <= index < labels.size for index in kept):
            raise PlanError(f"the plan keeps channels of {tensor}, which the model does not have")
        removed.append(np.delete(labels.reshape(-1), kept))
    return np.unique(np.concatenate(removed)), dict(_slot(trace, *entry) for entry in plan.weights.items())


def _slot(trace: Trace, key: tuple[str, int], value: np.ndarray) -> tuple[Slot, np.ndarray]:
    output, position = key
    node = trace.network.producer.get(output)
    if node is None:
        raise PlanError(f"the plan has weights for {output}, which the model does not have")
    name = node.input(position)
    if name and trace.network.shapes.get(name) != value.shape:
        raise PlanError(f"the plan has weights {value.shape} for {name}, which is {trace.network.shapes.get(name)}")
    return Slot(node.index, position), value


def _carries(trace: Trace, labels: Labels, group: Group) -> bool:
    return bool(np.isin(group.units, trace.channels.roots(labels)).all())


def _read(path: Path) -> dict[str, Any]:
    """A plan file as JSON, its digest checked."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}", _HINT) from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: not a plan, or cut short", _HINT) from error
    if not isinstance(document, dict) or "format" not in document:
        raise PlanError(f"{path}: not a plan", _HINT)
    if document["format"] != FORMAT:
        raise PlanError(f"{path}: a plan of format {document['format']}, this version reads {FORMAT}", _HINT)
    if document.pop("digest", None) != _digest(document):
        raise PlanError(f"{path}: damaged or changed since it was written", "make the plan again with other options")
    return document


def _digest(document: dict[str, Any]) -> str:
    """SHA-256 of a JSON document, whatever its layout."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _encode(output: str, position: int, value: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes(), 6)).decode("ascii")
    return {"output": output, "input": position, "dtype": str(value.dtype), "shape": list(value.shape), "data": data}


def _decode(entry: dict[str, Any]) -> tuple[tuple[str, int], np.ndarray]:
    raw = zlib.decompress(base64.b64decode(entry["data"], validate=True))
    value = np.frombuffer(raw, np.dtype(entry["dtype"])).reshape(entry["shape"])
    return (entry["output"], entry["input"]), value
