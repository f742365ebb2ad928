"""Products of the statistics on an execution provider: where the network runs, there its rows are multiplied."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper

from reap_onnx.numerics.gram import Products, products
from reap_onnx.runtime.session import Session, find_providers


@cache
def products_on(providers: tuple[str, ...]) -> Products:
    """What makes the products of the statistics where these providers are preferred.

    On the processor its BLAS, which leaves out half of the symmetric product; elsewhere a graph of two Gemms, run by
    the preferred provider, in float32 whatever the provider would do by itself. Sums are float64, on the processor.

    Raises
    ------
    UsageError
        A provider is not in this build of onnxruntime, or does not load.
    """
    if find_providers(providers)[0] == "CPUExecutionProvider":
        return products
    return _GraphOfProducts(providers)


class _GraphOfProducts:
    """``x'x`` and ``x'y`` by onnxruntime."""

    def __init__(self, providers: tuple[str, ...]) -> None:
        self._session = Session(_model(), providers, full_precision=True)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self._session.run({"x": x, "y": y})
        return found["gram"], found["cross"]


def _model() -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in _INPUTS]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["D", width]) for name, _, width in _OUTPUTS]
    nodes = [helper.make_node("Gemm", ["x", other], [name], transA=1) for name, other, _ in _OUTPUTS]
    graph = helper.make_graph(nodes, "products", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


_INPUTS = ("x", "D"), ("y", "M")
_OUTPUTS = ("gram", "x", "D"), ("cross", "y", "M")
