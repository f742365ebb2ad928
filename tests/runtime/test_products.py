"""Products of the statistics on an execution provider that is not the processor's own.

onnxruntime's own builds list a provider for remote models next to the processor. It takes no node of ours, so that what
is asked of it runs on the processor: the way through onnxruntime without a GPU. Here it is trusted with all digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from nets import images, residual_net
from reap_onnx import PruneOptions, Target, prune
from reap_onnx.errors import ModelError, UsageError
from reap_onnx.method import select
from reap_onnx.numerics.gram import Accumulator, Products, add_products
from reap_onnx.runtime import products as by_provider
from reap_onnx.runtime import stream, verify
from reap_onnx.runtime.products import products_on
from reap_onnx.runtime.session import FULL_PRECISION, Session

REMOTE = "AzureExecutionProvider"
pytestmark = pytest.mark.skipif(REMOTE not in ort.get_available_providers(), reason=f"onnxruntime without {REMOTE}")


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Products:
    monkeypatch.setitem(FULL_PRECISION, REMOTE, {})
    return products_on((REMOTE,))


@pytest.mark.parametrize(("rows", "columns", "features"), [(700, 30, 4), (3, 30, 4), (0, 30, 4), (9, 30, 0)])
def test_onnxruntime_makes_the_products(remote: Products, rows: int, columns: int, features: int) -> None:
    rng = np.random.default_rng(rows)
    x, y = (rng.standard_normal((rows, width)).astype(np.float32) for width in (columns, features))
    assert remote is not add_products
    for multiply in (add_products, remote):
        gram, cross = np.zeros((columns, columns), order="F"), np.zeros((columns, features), order="F")
        multiply(x, y, gram, cross)
        np.testing.assert_allclose(np.tril(gram), np.tril(x.T.astype(float) @ x), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(cross, x.T.astype(float) @ y, rtol=1e-5, atol=1e-4)


def test_sums_are_those_of_the_processor(remote: Products) -> None:
    rng = np.random.default_rng(5)
    x, y = 100 + rng.standard_normal((40, 300, 12)).astype(np.float32), rng.standard_normal((40, 300, 3))
    sums = []
    for multiply in (add_products, remote):
        accumulator = Accumulator(12, 3, intercept=True, multiply=multiply)
        for some, others in zip(x, y.astype(np.float32), strict=True):
            accumulator.add(some, others)
        sums.append(accumulator.result())
    np.testing.assert_allclose(sums[1].gram, sums[0].gram, rtol=1e-7)
    np.testing.assert_allclose(sums[1].cross, sums[0].cross, rtol=1e-5, atol=1e-2)


@pytest.mark.usefixtures("remote")
def test_a_network_is_pruned_by_products_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all that the method measures, and the wiring check, have all digits."""
    made, run, sessions = list[int](), by_provider._GraphOfProducts.__call__, list[bool]()

    def counted(graph: by_provider._GraphOfProducts, x: np.ndarray, *others: np.ndarray) -> None:
        made.append(len(x))
        run(graph, x, *others)

    class Noted(Session):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            if not isinstance(arguments[0], Path):  # the written file is run as it is
                sessions.append(named.get("full_precision", False))
            super().__init__(*arguments, **named)

    monkeypatch.setattr(by_provider._GraphOfProducts, "__call__", counted)
    half = Target("macs", fraction=0.5)
    here = prune(residual_net(), images(96), PruneOptions(half))
    assert not made
    for module in (by_provider, stream, verify, select):
        monkeypatch.setattr(module, "Session", Noted)
    there = prune(residual_net(), images(96), PruneOptions(half, providers=("azure",)))
    assert sum(made) > 96
    assert there.plan.kept == here.plan.kept
    assert len(sessions) > 8
    assert all(sessions)


def test_a_provider_that_fails_is_named(remote: Products) -> None:
    with pytest.raises(ModelError, match=f"{REMOTE} does not multiply 5 rows"):
        remote(np.ones((5, 3), np.float32), np.ones((4, 2), np.float32), np.zeros((3, 3)), np.zeros((3, 2)))


def test_the_processor_has_its_blas_and_multiplies_for_others_that_round() -> None:
    assert products_on(("cpu",)) is add_products
    assert products_on((REMOTE,)) is add_products


def test_a_provider_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no provider 'nonesuch'"):
        products_on(("nonesuch",))
