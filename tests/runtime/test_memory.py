from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from reap_onnx.errors import DataError
from reap_onnx.runtime.memory import (
    REUSED,
    TENSORS,
    Spill,
    available_memory,
    batch_within,
    memory_for_samples,
    memory_for_stream,
    memory_limit,
)


def test_the_limit_is_what_was_asked_for_or_a_share_of_what_the_machine_has() -> None:
    assert memory_limit(5_000) == 5_000
    assert memory_for_samples(5_000) == memory_for_stream(5_000) == 1_250
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory_limit(None) <= total // 2
    assert 0 < available_memory() <= total


@pytest.mark.parametrize(
    ("groups", "limits", "left"),
    [
        ("0::/", {}, 900),
        ("0::/", {"": ("max", 100, 0)}, 900),
        ("0::/", {"": (700, 100, 30)}, 630),
        ("0::/job/step", {"job": (500, 200, 0), "job/step": ("max", 200, 0)}, 300),
        ("0::/job/step", {"job": (500, 200, 0), "job/step": (220, 200, 5)}, 25),
        ("0::/seen/from/inside", {"": (400, 100, 0)}, 300),
        ("0::/job", {"job": (100, 150, 0)}, 0),
        ("5:cpu,memory:/job\n0::/", {"memory/job": (300, 100, 0)}, 200),
        ("5:cpu:/job\n0::/", {"memory/job": (300, 100, 0)}, 900),
    ],
)
def test_memory_is_what_every_control_group_leaves(
    tmp_path: Path, groups: str, limits: dict[str, tuple[int | str, int, int]], left: int
) -> None:
    """In kilobytes; the last line of a version 1 system has a group without a limit."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    for name, (most, used, cached) in limits.items():
        folder = tmp_path / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        old = name.startswith("memory")
        size = most if isinstance(most, str) else 1024 * most
        (folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(f"{size}\n")
        (folder / ("memory.usage_in_bytes" if old else "memory.current")).write_text(f"{1024 * used}\n")
        (folder / "memory.stat").write_text(f"{'total_' * old}inactive_file {1024 * cached}\nother 3\n")
    assert available_memory(tmp_path) == 1024 * left


@pytest.mark.parametrize("most", [1, 50])
@pytest.mark.parametrize("tensors", [[], [0], [1000, 10], [REUSED // 7], [REUSED // 100] * 90, [9, REUSED]])
@pytest.mark.parametrize("memory", [10**8, 10**10])
def test_as_many_samples_a_run_as_keep_tensors_small(most: int, tensors: list[int], memory: int) -> None:
    def fits(samples: int) -> bool:
        within = samples * max([0, *tensors]) <= REUSED and samples * sum(tensors) <= memory // TENSORS
        return samples <= most and within

    found = batch_within(most, tensors, memory)
    assert fits(found) or found == 1
    assert not fits(found + 1)


def test_arrays_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    arrays = [np.arange(12, dtype=np.int64).reshape(3, 4).T, np.ones((2, 0), np.float32), np.array(3, np.float16)]
    spill = Spill()
    places = [spill.put(array) for array in arrays]
    for array, place in reversed(list(zip(arrays, places, strict=True))):
        found = spill.get(place)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    assert spill.size == sum(array.nbytes for array in arrays)
    assert not list(tmp_path.iterdir())
    spill.close()


def test_a_full_disk_is_said() -> None:
    spill = Spill()
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), spill._file.fileno())
        with pytest.raises(DataError, match=os.strerror(errno.ENOSPC)) as caught:
            spill.put(np.ones(100_000))
    assert "--memory" in caught.value.hint
    spill._file.close()
