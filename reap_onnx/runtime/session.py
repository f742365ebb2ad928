"""One way to run a model in onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from reap_onnx.data.dataset import InputSpec, input_specs
from reap_onnx.errors import ModelError, UsageError
from reap_onnx.model.size import arrays, skeleton, weights_as_inputs

FULL_PRECISION: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""Providers beside the processor that keep all digits of float32, and the options that make them."""


class Session:
    """A model loaded into onnxruntime.

    Parameters
    ----------
    model
        A model, or the path of one.
    providers
        Execution providers by their names or parts of them, ``"cpu"`` or ``"cuda"``, in order of preference.
    threads
        Threads within an operator; the machine's cores by default.
    expose
        Tensors that are outputs instead of the model's own; the graph is not rewritten then: each is computed
        as written.
    weights
        Of a model that is a skeleton, those that it has no data of.
    profile
        Beginning of the name of a file that onnxruntime writes its times to (see :meth:`events`); none where empty.
    full_precision
        Whether products of float32 have all its digits on the providers of ``FULL_PRECISION``, CUDA among them, which
        rounds their factors to ten bits (TF32) where nobody objects.

    Notes
    -----
    Threads wait for work spinning, as onnxruntime has it by default, but only within a run: between runs they leave
    the cores to the linear algebra, and to the other model where two are timed in turns.

    Raises
    ------
    ModelError
        onnxruntime refuses the model.
    UsageError
        A provider is not in this build of onnxruntime.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | Path,
        providers: Sequence[str] = ("cpu",),
        threads: int | None = None,
        *,
        expose: Sequence[str] = (),
        weights: Mapping[str, np.ndarray] = MappingProxyType({}),
        profile: str = "",
        as_written: bool = False,
        full_precision: bool = False,
    ) -> None:
        self.weights: dict[str, np.ndarray] = {}  # of a large model
        self._beside: dict[str, np.ndarray] = {}  # those that every run is given
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        if as_written:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        if expose:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")
        found = find_providers(providers)
        try:
            self._session = ort.InferenceSession(
                self._source(model, options, expose, weights),
                options,
                providers=found,
                provider_options=[FULL_PRECISION.get(name, {}) if full_precision else {} for name in found],
            )
        except Exception as error:  # onnxruntime raises many types, none of them public
            hint = _HINT_UNKNOWN if "NOT_IMPLEMENTED" in str(error) else _HINT
            raise ModelError(f"onnxruntime does not load the model: {_one_line(error)}", hint) from error
        proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
        self.inputs: tuple[InputSpec, ...] = input_specs(proto)
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        if missing := [name for name in found if name not in self.providers]:
            raise UsageError(
                f"provider {missing[0]} does not load: onnxruntime goes on without it",
                "are its driver and its libraries there, in the versions that this onnxruntime needs?",
            )

    def _source(
        self,
        model: onnx.ModelProto | str | Path,
        options: ort.SessionOptions,
        expose: Sequence[str],
        weights: Mapping[str, np.ndarray],
    ) -> str | bytes:
        """What onnxruntime is given; the weights of a large model go beside it, as arrays.

        Where nothing is optimised they are inputs: onnxruntime copies what it is given as weights.
        """
        if not isinstance(model, onnx.ModelProto):
            return str(model)
        self.weights = arrays(model, weights)
        light = weights_as_inputs(model) if expose else skeleton(model)
        if expose:
            self._beside = self.weights
            del light.graph.output[:]
            light.graph.output.extend(onnx.ValueInfoProto(name=name) for name in expose)
        elif self.weights:
            self._values = [ort.OrtValue.ortvalue_from_numpy(weight) for weight in self.weights.values()]
            options.add_external_initializers(list(self.weights), self._values)
        serialised: bytes = light.SerializeToString()
        return serialised

    @property
    def batch(self) -> int | None:
        """Fixed batch size of the model, None where it takes any."""
        return next((spec.batch for spec in self.inputs if spec.batch is not None), None)

    def run(self, feeds: dict[str, np.ndarray], names: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name; feeds that the model has no input for are left out, single numbers taken once."""
        wanted = list(self.outputs if names is None else names)
        known = {spec.name: feeds[spec.name] for spec in self.inputs if spec.name in feeds}
        for name in (spec.name for spec in self.inputs if spec.name in known and not spec.shape):
            known[name] = np.asarray(known[name]).reshape(-1)[0:1].reshape(())
        try:
            return dict(zip(wanted, self._session.run(wanted, known | self._beside), strict=True))
        except Exception as error:
            raise ModelError(f"onnxruntime does not run the model: {_one_line(error)}", _HINT) from error

    def events(self) -> list[dict[str, Any]]:
        """What a session with a ``profile`` has timed so far, as onnxruntime wrote it; it times no more."""
        found: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        return found


_HINT = "does the model run in onnxruntime by itself on these samples?"
_HINT_UNKNOWN = "give the model as it was before it was optimised, or quantised, for another processor"


def find_providers(wanted: Sequence[str]) -> list[str]:
    """Full names of execution providers from parts of them; the CPU is always the last resort."""
    available = ort.get_available_providers()
    found = []
    for part in wanted:
        matches = [name for name in available if part.lower() in name.lower()]
        if not matches:
            names = ", ".join(name.removesuffix("ExecutionProvider").lower() for name in available)
            raise UsageError(f"no provider {part!r} in this onnxruntime", f"it has {names}")
        found.append(matches[0])
    return list(dict.fromkeys([*found, "CPUExecutionProvider"]))


def probe(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Every tensor of the graph in one run: inputs, initializers, and what each node computes."""
    names = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    session = Session(model, expose=names)
    large = session.weights
    values: dict[str, Any] = dict(feeds)
    values.update(
        {t.name: large[t.name] if t.name in large else onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    )
    values.update({t.values.name: _dense(t) for t in model.graph.sparse_initializer})
    values.update(session.run(feeds))
    return values


def probe_sizes(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Outputs of all Shape nodes when every open size of the inputs is twice as large as in ``feeds``.

    Where the model does not run so, its batch alone is doubled; empty where it does not run so either.
    """
    names = [name for node in model.graph.node if node.op_type == "Shape" for name in node.output]
    if not names:
        return {}
    session = Session(model, expose=names)
    for most in (None, 1):
        try:
            return session.run({spec.name: _doubled(feeds[spec.name], spec, most) for spec in session.inputs})
        except ModelError:
            continue
    return {}


def _doubled(array: np.ndarray, spec: InputSpec, most: int | None) -> np.ndarray:
    """Twice as large along the open ones among the first ``most`` axes."""
    for axis in [axis for axis, size in enumerate(spec.shape[:most]) if size is None]:
        array = np.concatenate([array, array], axis)
    return array


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    dense[tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, dense.shape)] = values
    return dense


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
