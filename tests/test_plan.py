from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nets import images, residual_net
from reap_onnx import pipeline
from reap_onnx.errors import PlanError
from reap_onnx.options import PruneOptions, Target
from reap_onnx.plan import FORMAT, Plan

OPTIONS = PruneOptions(Target("macs", fraction=0.5), freeze=("stem",))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return pipeline.prune(residual_net(), images(32), OPTIONS).plan


@pytest.fixture
def saved(plan: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(plan.dumps(), encoding="utf-8")
    return path


def test_a_plan_says_what_was_done(plan: Plan) -> None:
    assert plan.options["target"] == {"kind": "macs", "fraction": 0.5, "absolute": None}
    assert plan.data["samples"] == 32
    assert plan.inputs == {"image": [1, 3, 8, 8]}
    assert plan.kept
    assert all(kept == sorted(set(kept)) for kept in plan.kept.values())
    assert json.loads(plan.summary()).keys() == {"format", "options", "data", "kept"}


def test_what_is_saved_is_loaded(plan: Plan, saved: Path) -> None:
    loaded = Plan.load(saved)
    assert loaded.dumps() == plan.dumps()
    assert loaded.weights.keys() == plan.weights.keys()
    for key, value in plan.weights.items():
        assert loaded.weights[key].dtype == value.dtype
        assert np.array_equal(loaded.weights[key], value)


@settings(deadline=None, max_examples=30)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(["float32", "float64", "float16", "int64"]),
    seed=st.integers(0, 9),
)
def test_any_weight_survives(tmp_path_factory: pytest.TempPathFactory, shape: list[int], dtype: str, seed: int) -> None:
    value = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    path.write_text(Plan("0" * 64, {}, {}, {}, {"a": [0, 2]}, {("b", 1): value}).dumps())
    loaded = Plan.load(path).weights["b", 1]
    assert (loaded.shape, loaded.dtype) == (value.shape, value.dtype)
    assert loaded.tobytes() == value.tobytes()


def test_layout_of_the_file_does_not_matter(plan: Plan, saved: Path) -> None:
    saved.write_text(json.dumps(json.loads(saved.read_text()), sort_keys=True))
    assert Plan.load(saved).summary() == plan.summary()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("format", FORMAT + 1, f"a plan of format {FORMAT + 1}, this version reads {FORMAT}"),
        ("kept", {"stem_out": [0]}, "damaged or changed"),
        ("options", {}, "damaged or changed"),
        ("weights", [], "damaged or changed"),
        ("digest", "", "damaged or changed"),
        ("more", 1, "damaged or changed"),
    ],
)
def test_a_changed_plan_is_refused(saved: Path, name: str, value: object, reason: str) -> None:
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {name: value}))
    with pytest.raises(PlanError, match=reason) as caught:
        Plan.load(saved)
    assert str(caught.value).startswith(str(saved))
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}', b"PK\x03\x04"]
)
def test_what_is_no_plan_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json: (not a plan|damaged)"):
        Plan.load(path)


def test_a_plan_cut_short(saved: Path) -> None:
    saved.write_text(saved.read_text()[:-40])
    with pytest.raises(PlanError, match="cut short"):
        Plan.load(saved)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"missing\.json: cannot be read: No such file"):
        Plan.load(tmp_path / "missing.json")


def test_what_the_model_does_not_have(plan: Plan) -> None:
    weights = dict(plan.weights)
    (output, position), value = weights.popitem()
    wrong = [
        ({"kept": {"nowhere": [0]}}, "keeps channels of nowhere"),
        ({"kept": {name: [*kept, 999] for name, kept in plan.kept.items()}}, "keeps channels of"),
        ({"kept": {name: [-1, *kept] for name, kept in plan.kept.items()}}, "keeps channels of"),
        ({"weights": weights | {("nowhere", 1): value}}, "weights for nowhere"),
        ({"weights": weights | {(output, position): value[..., :1]}}, "the plan has weights"),
    ]
    for changes, reason in wrong:
        with pytest.raises(PlanError, match=reason):
            pipeline.apply(residual_net(), replace(plan, **changes))
