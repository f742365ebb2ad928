from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nets import images, residual_net
from reap_onnx.model.operator import Operator
from reap_onnx.runtime.profile import OperatorTimer, Timing, cache_folder, profile_model

GEMM = Operator("Gemm", (), 17, 8, "float32", (1, 32), (32, 16), bias=True)
OTHER = GEMM.resized((24, 16))


def known(timer: OperatorTimer) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(timer.file.read_text())["milliseconds"]
    return found


def test_a_time_is_measured_once_and_kept(tmp_path: Path) -> None:
    timer = OperatorTimer(folder=tmp_path)
    first = timer(GEMM)
    assert 0 < first.alone < 1000
    assert timer(GEMM) == first
    assert not timer.file.exists()
    timer.save()
    assert known(timer) == {GEMM.key: list(first)}
    assert OperatorTimer(folder=tmp_path)(GEMM) == first


def test_what_is_kept_is_what_is_used(tmp_path: Path) -> None:
    timer = OperatorTimer(folder=tmp_path)
    timer(GEMM)
    timer.save()
    document = json.loads(timer.file.read_text())
    timer.file.write_text(json.dumps(document | {"milliseconds": {GEMM.key: [12.5, 1, 0]}}))
    assert OperatorTimer(folder=tmp_path)(GEMM) == Timing(12.5, 1.0, 0.0)


def test_runs_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    one, two = OperatorTimer(folder=tmp_path), OperatorTimer(folder=tmp_path)
    one(GEMM)
    two(OTHER)
    one.save()
    two.save()
    assert known(one).keys() == {GEMM.key, OTHER.key}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"environment": {}},
        {"reference_seconds": 0},
        {"reference_seconds": "nan"},
        {"milliseconds": []},
        {"milliseconds": {GEMM.key: "fast"}},
        {"milliseconds": {GEMM.key: [-1.0, 0, 0]}},
        {"milliseconds": {GEMM.key: [0, 0, 0]}},
        {"milliseconds": {GEMM.key: [float("nan"), 0, 0]}},
        {"milliseconds": {GEMM.key: [1, 2, 3, 4]}},
    ],
)
def test_a_file_that_is_not_sound_is_forgotten(tmp_path: Path, change: dict[str, object]) -> None:
    timer = OperatorTimer(folder=tmp_path)
    timer(GEMM)
    timer.save()
    timer.file.write_text(json.dumps(json.loads(timer.file.read_text()) | change))
    again = OperatorTimer(folder=tmp_path)
    assert again(GEMM).alone > 0
    again.save()
    assert known(again) == {GEMM.key: list(again(GEMM))}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_file_is_forgotten(tmp_path: Path, content: bytes) -> None:
    timer = OperatorTimer(folder=tmp_path)
    timer.file.write_bytes(content)
    assert OperatorTimer(folder=tmp_path)(GEMM).alone > 0


def test_no_room_to_keep_times_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    timer = OperatorTimer(folder=tmp_path / "file" / "inside")
    timer(GEMM)
    timer.save()


def test_the_folder_is_the_user_s_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REAP_ONNX_CACHE", str(tmp_path))
    assert OperatorTimer().file.parent == cache_folder() == tmp_path
    monkeypatch.delenv("REAP_ONNX_CACHE")
    assert cache_folder().name == "reap-onnx"


def test_a_layout_that_others_need_costs() -> None:
    blocked, plain = Timing(5.0, 1.0, 2.0), Timing(3.0)
    assert (blocked.among(blocked), plain.among(blocked), plain.among(plain)) == (5.0, 6.0, 3.0)


def test_the_parts_of_a_run_are_no_more_than_the_run() -> None:
    profile = profile_model(residual_net(), {"image": images(1)})
    assert profile.layers > 0
    assert profile.others > 0
    assert profile.layers + profile.others <= profile.run * (1 + 1e-9)
    assert np.isfinite(profile.run)
