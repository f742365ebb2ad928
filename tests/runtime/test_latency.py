from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from reap_onnx.errors import CheckError, UsageError
from reap_onnx.method import costs
from reap_onnx.options import Target
from reap_onnx.report.summary import Latency
from reap_onnx.runtime.latency import latency_of, measure_latency, middle_pair
from reap_onnx.runtime.session import Session


def chain(layers: int, width: int = 192):
    weights = np.eye(width, dtype=np.float32)
    nodes = [helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(layers)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(f"t{layers}", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(weights, f"w{i}") for i in range(layers)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Recorded(Session):
    """A session that writes down whose turn it is."""

    def __init__(self, name: str, layers: int, log: list[str]) -> None:
        super().__init__(chain(layers), threads=1)
        self._name = name
        self._log = log

    def run(self, feeds: dict[str, np.ndarray], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        self._log.append(self._name)
        return super().run(feeds, names)


FEEDS = {"t0": np.ones((64, 192), np.float32)}


def test_a_tenth_of_the_work_is_much_faster() -> None:
    heavy, light = Session(chain(30), threads=1), Session(chain(3), threads=1)
    latency = measure_latency(heavy, light, FEEDS, batch=64, rounds=7)
    assert latency.ratio < 0.5
    assert latency.ratio == latency.pruned_ms / latency.original_ms
    assert (latency.batch, latency.rounds) == (64, 7)


def test_turns_alternate_after_a_warm_up_of_each() -> None:
    log: list[str] = []
    measure_latency(Recorded("a", 4, log), Recorded("b", 2, log), FEEDS, batch=64, rounds=5)
    turns = [name for name, _ in groupby(log)]
    assert turns == ["a", "b"] * 6  # the first two are the warm-up


def test_the_time_limit_leaves_three_rounds() -> None:
    session = Session(chain(2), threads=1)
    assert measure_latency(session, session, FEEDS, batch=64, rounds=1000, seconds=0).rounds == 3


def test_no_rounds_no_measurement() -> None:
    session = Session(chain(1), threads=1)
    with pytest.raises(UsageError, match="0 rounds"):
        measure_latency(session, session, FEEDS, batch=64, rounds=0)


def test_ratios_of_rounds_spread() -> None:
    steady = latency_of(1, [0.002, 0.004, 0.003, 0.002], [0.001, 0.002, 0.0015, 0.001])
    assert (steady.original_ms, steady.pruned_ms, steady.ratio, steady.spread) == (2.5, 1.25, 0.5, 0)
    busy = latency_of(1, [1.0] * 5, [0.4, 0.45, 0.5, 0.55, 0.7])
    assert busy.spread == pytest.approx(0.1)  # half of the ratios lie from 0.45 to 0.55, around 0.5


def test_the_pair_in_the_middle_counts() -> None:
    found = [Latency(1, 10.0, pruned, 3) for pruned in (9.0, 5.0, 6.0)]
    assert replace(middle_pair(found), spread=0) == Latency(1, 10.0, 6.0, 9)
    assert replace(middle_pair(found[:2]), spread=0) == Latency(1, 10.0, 9.0, 6)
    uneven = [Latency(1, 8.0, 3.9, 3), Latency(1, 12.0, 6.0, 3), Latency(1, 7.8, 3.95, 3)]
    assert replace(middle_pair(uneven), spread=0) == Latency(1, 12.0, 6.0, 9)
    assert replace(middle_pair(uneven, absolute=True), spread=0) == Latency(1, 7.8, 3.95, 9)


def test_pairs_spread_by_themselves_and_from_one_another() -> None:
    steady = [Latency(1, 10.0, pruned, 4) for pruned in (4.0, 5.0, 6.0, 7.0, 8.0)]
    assert middle_pair(steady).spread == pytest.approx(0.1 / 0.6)
    alike = [Latency(1, 10.0, 5.0, 4, spread) for spread in (0.0, 0.3, 0.2)]
    assert middle_pair(alike).spread == 0.2


@pytest.mark.parametrize(("fast", "loads"), [([True], 1), ([False, True, True], 3), ([False, False, True], None)])
def test_a_latency_is_that_of_all_pairs_so_far(
    monkeypatch: pytest.MonkeyPatch, fast: list[bool], loads: int | None
) -> None:
    monkeypatch.setattr(costs, "TURNS", 3)
    left = iter(fast)
    sessions = [Session(chain(30), threads=1)], [Session(chain(3), threads=1)]

    def load() -> tuple[list[Session], list[Session]]:
        return sessions if next(left) else sessions[::-1]

    if loads is None:
        with pytest.raises(CheckError, match=r"more than 80\.0% of the original"):
            costs.confirm_latency(Target("latency", 0.8), load, FEEDS, 64)
    else:
        assert costs.confirm_latency(Target("latency", 0.8), load, FEEDS, 64).ratio < 0.5
        assert len(fast) - len(list(left)) == loads
