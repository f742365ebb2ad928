from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.errors import UsageError
from reap_onnx.options import MaxDrop, Method, PruneOptions, Target, parse_memory

HALF = Target("macs", fraction=0.5)


@pytest.mark.parametrize(
    ("text", "fraction", "absolute"),
    [
        ("0.5", 0.5, None),
        (".25", 0.25, None),
        ("1", 1.0, None),
        ("1.0", 1.0, None),
        ("50%", 0.5, None),
        ("100 %", 1.0, None),
        (" 12.5% ", 0.125, None),
        ("300000", None, 300_000),
        ("40M", None, 40_000_000),
        ("1.2g", None, 1_200_000_000),
        ("1k", None, 1000),
        ("2", None, 2),
        ("1T", None, 10**12),
    ],
)
def test_targets_as_they_are_typed(text: str, fraction: float | None, absolute: int | None) -> None:
    for kind in ("macs", "params"):
        assert Target.parse(kind, text) == Target(kind, fraction, absolute)


@pytest.mark.parametrize(
    "text", ["", "half", "-0.5", "0", "0%", "101%", "1e6", "0.5.5", "5X", "nan", "inf", "1,5", "0.4M%"]
)
def test_texts_that_are_no_target(text: str) -> None:
    with pytest.raises(UsageError, match="--macs"):
        Target.parse("macs", text)


@settings(deadline=None, max_examples=100)
@given(fraction=st.floats(1e-6, 1.0), total=st.integers(1, 10**13))
def test_a_fraction_is_never_exceeded(fraction: float, total: int) -> None:
    budget = Target("macs", fraction=fraction).budget(total)
    assert 0 <= budget <= total
    assert budget <= Fraction(fraction) * total * (1 + Fraction(1, 10**15))


@settings(deadline=None, max_examples=50)
@given(absolute=st.integers(1, 10**13), total=st.integers(1, 10**13))
def test_an_absolute_budget_is_what_it_says(absolute: int, total: int) -> None:
    assert Target("params", absolute=absolute).budget(total) == absolute


@pytest.mark.parametrize(
    ("kind", "fraction", "absolute"),
    [
        ("flops", 0.5, None),
        ("size", None, 0),
        ("latency", None, 0.0),
        ("latency", None, float("inf")),
        ("latency", 1.1, None),
        ("macs", None, None),
        ("macs", 0.5, 100),
        ("macs", 0.0, None),
        ("macs", 1.5, None),
        ("macs", float("nan"), None),
        ("params", None, 0),
    ],
)
def test_targets_that_are_none(kind: str, fraction: float | None, absolute: int | None) -> None:
    with pytest.raises(UsageError):
        Target(kind, fraction, absolute)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("round_to", 0),
        ("max_cut", 0.0),
        ("max_cut", 1.01),
        ("max_cut", float("nan")),
        ("min_channels", 0),
        ("batch", 0),
        ("seed", -1),
        ("memory", 0),
    ],
)
def test_options_that_are_none_are_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} "):
        PruneOptions(HALF, **{name: value})


def test_values_of_other_types_are_named() -> None:
    assert PruneOptions([HALF]).targets == (HALF,)
    for target in ("macs", 0.5, (HALF, 0.5)):
        with pytest.raises(UsageError, match="is no target"):
            PruneOptions(target)
    with pytest.raises(UsageError, match="freeze is a tuple"):
        PruneOptions(HALF, freeze="/0/Conv")
    with pytest.raises(UsageError, match="not a number"):
        MaxDrop("1%")
    table = PruneOptions(Target("latency", 0.5), latency_table=Path("times.csv")).latency_table
    assert table == "times.csv"


@pytest.mark.parametrize(
    "part",
    [
        {"criterion": "l3"},
        {"refit_rows": 0},
        {"selection_rows": 0},
        {"pair_rows": -1},
        {"pair_steps": -1},
        {"pair_gain": -0.1},
        {"sensitivity_samples": -1},
        {"sensitivity_scores": -1},
    ],
)
def test_methods_that_are_none(part: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Method(**part)  # type: ignore[arg-type]


@pytest.mark.parametrize("none", [{"pair_rows": 0}, {"pair_rounds": 0}, {"pair_steps": 0}])
def test_methods_without_pairs(none: dict[str, int]) -> None:
    assert Method().pairs
    assert not Method(**none).pairs


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8e9), ("500m", 5e8), ("1.5 GB", 1.5e9), ("2GiB", 2e9), ("4096", 4096)]
)
def test_memory_is_read(text: str, size: float) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "8X", "G"])
def test_memory_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        parse_memory(text)


def test_options_are_values() -> None:
    assert PruneOptions(HALF) == PruneOptions(Target("macs", fraction=0.5))
    assert hash(PruneOptions(HALF)) == hash(PruneOptions(HALF))
    with pytest.raises(AttributeError):
        PruneOptions(HALF).seed = 3
