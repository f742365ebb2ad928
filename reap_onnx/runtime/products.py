"""Products of the statistics on an execution provider: where the network runs, there its rows are multiplied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx.parser

from reap_onnx.errors import ModelError
from reap_onnx.numerics.gram import Products, add_products
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
    return _GraphOfProducts(providers) if find_providers(providers)[0] in FULL_PRECISION else add_products


class _GraphOfProducts:
    """``x'x`` and ``x'y`` by onnxruntime."""

    def __init__(self, providers: Sequence[str]) -> None:
        self._session = Session(onnx.parser.parse_model(_GRAPH), providers, full_precision=True)

    def __call__(self, x: np.ndarray, y: np.ndarray, gram: np.ndarray, cross: np.ndarray) -> None:
        try:
            found = self._session.run({"x": x, "y": y})
        except ModelError as error:
            provider = self._session.providers[0]
            raise ModelError(f"{provider} does not multiply {len(x):,} rows: {error}", _HINT) from error
        gram += found["gram"].T  # in Fortran order, as the sums are
        cross += found["cross"].T


_GRAPH = """
<ir_version: 8, opset_import: ["": 13]>
products (float[n, D] x, float[n, M] y) => (float[D, D] gram, float[M, D] cross) {
    gram = Gemm <transA = 1> (x, x)
    cross = Gemm <transA = 1> (y, x)
}
"""
_HINT = "is its memory full? give --provider cpu, or less to do at a time: --batch, --memory"
