"""A plan: everything that turns one model into a pruned one, as a JSON file that can be read and replayed."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reap_onnx.errors import PlanError
from reap_onnx.graph.channels import Labels, varying
from reap_onnx.graph.groups import Group
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.options import PruneOptions

FORMAT = 1


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

    def summary(self) -> str:
        """The plan without weights as compact JSON, for the metadata of the pruned model."""
        return json.dumps({"format": FORMAT, "options": self.options, "data": self.data, "kept": self.kept}, sort_keys=True)

    def dumps(self) -> str:
        """The whole plan as JSON."""
        from reap_onnx.version import VERSION

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
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan.

        Raises
        ------
        PlanError
            The file is missing, is no plan, or is of another format.
        """
        hint = "give a file written by: reap-onnx prune ... --plan FILE"
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise PlanError(f"{path}: a plan of format {document['format']}, this version reads {FORMAT}", hint)
            weights = dict(_decode(entry) for entry in document["weights"])
            fields = (document[name] for name in ("source_sha256", "options", "data", "inputs", "kept"))
            return cls(*fields, weights)
        except OSError as error:
            raise PlanError(f"{path}: cannot be read: {error.strerror}", hint) from error
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise PlanError(f"{path}: not a plan, or damaged", hint) from error


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
    return Plan(source_sha256, asdict(options), data, inputs, kept, named)


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
        if labels is None or not varying(labels) or max(kept, default=0) >= labels.size:
            raise PlanError(f"the plan keeps channels of {tensor}, which the model does not have")
        removed.append(np.delete(labels.reshape(-1), kept))
    producers = {node.outputs[0]: node.index for node in trace.network.nodes}
    unknown = [name for name, _ in plan.weights if name not in producers]
    if unknown:
        raise PlanError(f"the plan has weights for {unknown[0]}, which the model does not have")
    return np.unique(np.concatenate(removed)), {Slot(producers[n], i): value for (n, i), value in plan.weights.items()}


def _carries(trace: Trace, labels: Labels, group: Group) -> bool:
    return bool(np.isin(group.units, trace.channels.roots(labels)).all())


def _encode(output: str, position: int, value: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes(), 6)).decode("ascii")
    return {"output": output, "input": position, "dtype": str(value.dtype), "shape": list(value.shape), "data": data}


def _decode(entry: dict[str, Any]) -> tuple[tuple[str, int], np.ndarray]:
    raw = zlib.decompress(base64.b64decode(entry["data"], validate=True))
    value = np.frombuffer(raw, np.dtype(entry["dtype"])).reshape(entry["shape"])
    return (entry["output"], entry["input"]), value
