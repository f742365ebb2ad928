from __future__ import annotations

import pytest

from reap_onnx.report.summary import Comparison, Cost, GroupRow, Inspection, Latency, OutputError, Summary


@pytest.fixture
def groups() -> tuple[GroupRow, ...]:
    return (
        GroupRow(
            "layer1.conv1", ("layer1.conv1",), ("layer1.conv2", "layer1.gate", "head"), 64, 32, 40_100_000, 36_864
        ),
        GroupRow("<b>&[red]", ("a[0]",), ("b",), 16, 16, 1_500, 144),
        GroupRow("stem", ("stem",), ("odd",), 24, 24, 9_000_000, 648, frozen="node 'odd' (<LSTM>) has no rule"),
    )


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        samples=500,
        data="test.npz, 500 of 10000 samples",
        outputs=(OutputError("logits", 0.12345, 3.5), OutputError("mask", float("inf"), float("nan"))),
        agreement=0.952,
        accuracy_original=0.9173,
        accuracy_pruned=0.8612,
        latency=(Latency(1, 2.0, 1.0, 20, 0.0123), Latency(32, 0.04567, 0.0321, 18, 0.031)),
        providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
    )


@pytest.fixture
def summary(groups: tuple[GroupRow, ...], comparison: Comparison) -> Summary:
    return Summary(
        source="my models/net.onnx",
        output="net-pruned.onnx",
        target="half of the MACs",
        before=Cost(40_813_184, 272_474, 1_127_532),
        after=Cost(20_400_000, 136_000, 563_766),
        groups=groups,
        comparison=comparison,
        wiring_error=1.2e-6,
        seconds={"load": 0.25, "statistics": 75.5},
        notes=("'<script>' was taken as a name",),
    )


@pytest.fixture
def inspection(groups: tuple[GroupRow, ...]) -> Inspection:
    return Inspection("net.onnx", Cost(40_813_184, 272_474, 1_127_532), groups, 0.875, ("one note",))
