from __future__ import annotations

import pytest

from reap_onnx.report import format as fmt


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (1_500, "1.50 k"),
        (40_813_184, "40.8 M"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (4_089_000_000, "4.09 G"),
        (5_000_000_000_000_000, "5000 T"),
    ],
)
def test_counts_have_three_figures(number: int, text: str) -> None:
    assert fmt.count(number) == text


def test_sizes_are_decimal() -> None:
    assert fmt.size(1_127_532) == "1.13 MB"
    assert fmt.size(12) == "12 B"


def test_shares() -> None:
    assert fmt.percent(0.918) == "91.8 %"
    assert fmt.percent(None) == "-"
    assert fmt.points(0.9173, 0.8612) == "-5.6 points"
    assert fmt.points(0.5, 0.5) == "+0.0 points"
    assert fmt.points(None, 0.5) == "-"
    assert fmt.ratio(200, 50) == "25.0 %"
    assert fmt.ratio(0, 0) == "-"


@pytest.mark.parametrize(
    ("number", "text"), [(0.02134, "0.0213 ms"), (2.0, "2.00 ms"), (213.4, "213 ms"), (0.0, "0 ms")]
)
def test_milliseconds(number: float, text: str) -> None:
    assert fmt.milliseconds(number) == text


@pytest.mark.parametrize(("number", "text"), [(3.21, "3.2 s"), (76.2, "1 min 16 s"), (7384.0, "2 h 03 min")])
def test_seconds(number: float, text: str) -> None:
    assert fmt.seconds(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (1.2e-6, "1.2e-06"), (0.12345, "0.1235"), (123456.0, "1.23e+05"), (float("inf"), "inf")],
)
def test_errors(number: float, text: str) -> None:
    assert fmt.error(number) == text
