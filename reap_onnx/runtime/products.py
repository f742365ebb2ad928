"""Products of the statistics on an execution provider: where the network runs, there its rows are multiplied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from reap_onnx.errors import ModelError
from reap_onnx.numerics.gram import Products, products
from reap_onnx.runtime.session import FULL_PRECISION, Session, find_providers


def products_on(providers: Sequence[str]) -> Products:
    """What makes the products of the statistics where these providers are preferred.

    A graph of two Gemms, run by the preferred provider, if that can be trusted with all digits of float32; else the
    BLAS of the processor, which leaves out half of the symmetric product. Sums are float64, on the processor.

    Raises
    ------
    UsageError
        A provider is not in this build of onnxruntime, or does not load.
    """
    return _GraphOfProducts(providers) if find_providers(providers)[0] in FULL_PRECISION else products


class _GraphOfProducts:
    """``x'x`` and ``x'y`` by onnxruntime."""

    def __init__(self, providers: Sequence[str]) -> None:
        self._session = Session(_model(), providers, full_precision=True)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            found = self._session.run({"x": x, "y": y})
        except ModelError as error:
            provider = self._session.providers[0]
            raise ModelError(f"{provider} does not multiply {len(x):,} rows: {error}", _HINT) from error
        return found["gram"].T, found["cross"].T  # in Fortran order, as the sums are


def _model() -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in _WIDTHS.items()]
    made = {"gram": "x", "cross": "y"}
    outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, [_WIDTHS[i], "D"]) for o, i in made.items()]
    nodes = [helper.make_node("Gemm", [i, "x"], [o], transA=1) for o, i in made.items()]
    graph = helper.make_graph(nodes, "products", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


_WIDTHS = {"x": "D", "y": "M"}
_HINT = "is its memory full? give --provider cpu, or less to do at a time: --batch, --memory"
