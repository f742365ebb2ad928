"""A real cluster of two processes: the same bytes as in one, whatever happens to a worker."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from threadpoolctl import threadpool_info

from nets import images, residual_net
from reap_onnx import pipeline
from reap_onnx.cli import main
from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import ClusterError, DataError, UsageError
from reap_onnx.options import EFFORTS, Method, PruneOptions, Target
from reap_onnx.report.progress import Silent
from reap_onnx.runtime import cluster
from reap_onnx.runtime.cluster import Held, deal, workers_at
from reap_onnx.runtime.shards import Shard
from reap_onnx.runtime.waves import TwoStreams

distributed = pytest.importorskip("distributed")

SAMPLES = images(1000)  # five shards
HALF = PruneOptions(Target("macs", 0.5), method=EFFORTS["fast"])
IN_FULL = PruneOptions(Target("macs", 0.5), method=Method(refit_rows=8000))  # couples want 1,000 samples in whole


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    with two_workers() as local:
        yield local


def two_workers() -> Any:
    threads = max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
    return distributed.LocalCluster(
        n_workers=2, processes=True, threads_per_worker=threads, dashboard_address="127.0.0.1:0"
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    onnx.save(residual_net(), folder / "net.onnx")
    pipeline.calibrate(folder / "net.onnx", SAMPLES, output=folder / "alone.npz")
    pipeline.calibrate(folder / "net.onnx", SAMPLES, output=folder / "in_full.npz", options=IN_FULL)
    pipeline.prune(folder / "net.onnx", SAMPLES, IN_FULL, stats=folder / "in_full.npz", output=folder / "in_full.onnx")
    return folder


def pids(scheduler: Any) -> list[int]:
    with distributed.Client(scheduler.scheduler_address, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


def test_two_workers_measure_what_one_process_does(scheduler: Any, place: Path) -> None:
    pipeline.calibrate(place / "net.onnx", SAMPLES, output=place / "two.npz", dask=scheduler.scheduler_address)
    assert (place / "two.npz").read_bytes() == (place / "alone.npz").read_bytes()


def test_a_model_is_the_same_too(scheduler: Any, place: Path) -> None:
    files = [place / "alone.onnx", place / "two.onnx"]
    for file, address in zip(files, (None, scheduler.scheduler_address), strict=True):
        pipeline.prune(place / "net.onnx", SAMPLES[:450], HALF, output=file, dask=address)
    assert files[0].read_bytes() == files[1].read_bytes()


class Interrupting(Silent):
    """Does something to the cluster, once, as soon as a stage has come forward by some steps."""

    def __init__(self, name: str, act: Callable[[], object], after: int = 1, delay: float = 0) -> None:
        self._name, self._act, self._left, self._delay = name, act, after, delay
        self.acted = False

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        def advance(n: int = 1) -> None:
            self._left -= bool(n) and name == self._name
            if self._left <= 0 and not self.acted:
                self.acted = True
                timer = threading.Timer(self._delay, self._act)
                timer.start()
                if not self._delay:
                    timer.join()

        yield advance


def killing(name: str, victim: int, after: int = 1, delay: float = 0) -> Interrupting:
    return Interrupting(name, lambda: os.kill(victim, signal.SIGKILL), after, delay)


@pytest.mark.parametrize(("stage", "which"), [("collecting statistics", 0), ("sensitivity", 1)])
def test_a_killed_worker_loses_no_sample_and_counts_none_twice(
    scheduler: Any, place: Path, stage: str, which: int
) -> None:
    scheduler.wait_for_workers(2)
    before = pids(scheduler)
    progress = killing(stage, before[which])
    out = place / f"killed-{which}-{stage}.npz"
    pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, dask=scheduler.scheduler_address, progress=progress)
    assert progress.acted
    assert out.read_bytes() == (place / "alone.npz").read_bytes()
    scheduler.wait_for_workers(2)
    assert before[which] not in pids(scheduler)


def refit_on(scheduler: Any, place: Path, output: Path, progress: Silent | None = None, data: Any = SAMPLES) -> None:
    """The refit alone, on a cluster or here: the rest is read."""
    pipeline.prune(
        place / "net.onnx",
        data,
        IN_FULL,
        stats=place / "in_full.npz",
        evaluate=SAMPLES,
        output=output,
        dask=None if scheduler is None else scheduler.scheduler_address,
        progress=progress,
    )


def test_a_refit_on_two_workers_is_that_of_one_process_and_leaves_nothing_there(
    scheduler: Any, place: Path, tmp_path: Path
) -> None:
    scheduler.wait_for_workers(2)
    refit_on(scheduler, place, tmp_path / "two.onnx")
    assert (tmp_path / "two.onnx").read_bytes() == (place / "in_full.onnx").read_bytes()
    with distributed.Client(scheduler.scheduler_address, set_as_default=False) as client:
        assert set(client.run(_ways_kept).values()) == {0}


def _ways_kept() -> int:
    gc.collect()
    return sum(isinstance(thing, TwoStreams) for thing in gc.get_objects())


@pytest.mark.parametrize(("after", "delay", "which"), [(1, 0, 0), (3, 0.05, 1)])
def test_a_worker_killed_in_the_refit_changes_no_byte(
    place: Path, tmp_path: Path, after: int, delay: float, which: int
) -> None:
    with two_workers() as own:  # dask does not always start a worker again that dies soon after it was started
        own.wait_for_workers(2)
        before = pids(own)
        progress = killing("refit", before[which], after, delay)
        refit_on(own, place, tmp_path / "killed.onnx", progress)
        assert progress.acted
        assert before[which] not in pids(own)
    assert (tmp_path / "killed.onnx").read_bytes() == (place / "in_full.onnx").read_bytes()


def test_a_scheduler_killed_in_the_refit_ends_it_with_an_error(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file], **quiet
    )
    worker = subprocess.Popen(
        [*dask, "worker", "--nthreads", "1", "--no-dashboard", "--no-nanny", "--scheduler-file", file], **quiet
    )
    try:
        with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=120) as client:
            client.wait_for_workers(1, timeout=120)
            address = client.scheduler.address
        monkeypatch.setattr(cluster, "PATIENCE", 5)
        own = SimpleNamespace(scheduler_address=address)
        with pytest.raises(ClusterError, match="scheduler is gone"):
            refit_on(own, place, tmp_path / "never.onnx", Interrupting("refit", scheduler.kill))
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert not (tmp_path / "never.onnx").exists()


def test_the_layer_that_reads_what_is_not_finite_is_named(scheduler: Any, place: Path, tmp_path: Path) -> None:
    said = []
    for where in (None, scheduler):
        with pytest.raises(DataError, match=r"block\d/conv\d: what it reads or makes is not finite") as caught:
            refit_on(where, place, tmp_path / "never.onnx", data=1e30 * SAMPLES)
        said.append((str(caught.value), caught.value.hint))
    assert said[0] == said[1]
    assert not list(tmp_path.iterdir())


def test_shards_stay_where_they_are_unless_that_is_gone_or_has_too_many() -> None:
    assert deal([""] * 5, ["a", "b"]) == ["a", "b", "a", "b", "a"]
    assert deal(["a", "b", "a", "b", "a"], ["b", "a"]) == ["a", "b", "a", "b", "a"]
    assert deal(["a", "b", "a", "b", "a"], ["a"]) == ["a"] * 5
    assert deal(["a", "b", "a", "b", "a"], ["a", "c"]) == ["a", "c", "a", "c", "a"]
    assert deal(["a", "a", "a", "a", "a"], ["a", "b"]) == ["a", "a", "a", "b", "b"]
    assert deal(["", "a"], [""]) == ["", ""]


class Counting:
    """A walk that says which steps it has taken."""

    begun = closed = 0

    def __init__(self, shared: str, shard: Shard, share: int) -> None:
        self._way = f"{shared}{shard.start}/{share}:"
        Counting.begun += 1

    def step(self, step: str) -> Iterator[str]:
        if step == "!":
            raise ValueError(step)
        self.skip(step)
        yield self._way

    def skip(self, step: str) -> None:
        self._way += step

    def close(self) -> None:
        Counting.closed += 1


def test_a_shard_goes_on_where_it_stands_and_starts_afresh_anywhere_else() -> None:
    Counting.begun = Counting.closed = 0
    shard = Shard(400, Dataset({"x": np.zeros((3, 2), np.float32)}))
    held: Any = Held(Counting, "way", shard, 2)
    assert held.step("a", 0) == "way400/2:a"
    assert held.step("b", 1) == "way400/2:ab"
    assert Counting.begun == 1
    moved = pickle.loads(pickle.dumps(held))
    assert moved.step("c", 2) is None  # it has not taken those before
    assert moved.step("abc", 2) == held.step("c", 2) == "way400/2:abc"
    assert held.step("b", 1) is None  # once more: it is past that
    assert Counting.closed == 1
    assert held.step("ab", 1) == "way400/2:ab"
    with pytest.raises(ValueError, match="!"):
        held.step("!", 2)
    assert held.step("abd", 2) == "way400/2:abd"
    assert Counting.begun == 4
    assert sys.getsizeof(held) >= 24


def test_what_is_wrong_with_the_samples_is_said_as_ever(scheduler: Any, place: Path) -> None:
    with pytest.raises(DataError, match="not finite or far too large") as caught:
        pipeline.calibrate(place / "net.onnx", 1e30 * SAMPLES, dask=scheduler.scheduler_address)
    assert caught.value.hint == "are the samples prepared as the model expects them?"


def test_workers_of_another_version_are_refused(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "VERSION", "9.9")
    with (
        pytest.raises(ClusterError, match=r"have reap-onnx 0\..*, here is 9\.9"),
        workers_at(scheduler.scheduler_address),
    ):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nowhere://x"])
def test_nobody_answers(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    argv = ["prune", str(place / "net.onnx"), "--data", "random", "--macs", "0.5", "--dry-run", "-q"]
    assert main([*argv, "--dask", address]) == 1
    assert f"error: no dask scheduler answers at {address}\nhint: " in capsys.readouterr().err


@pytest.mark.parametrize("address", ["", "nonsense", "head", "foo://bar:1", "tcp://head"])
def test_what_is_no_address_is_said_at_once(address: str) -> None:
    with pytest.raises(ClusterError, match="no dask scheduler"), workers_at(address):
        pass


def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 5)
    with (
        distributed.SpecCluster(scheduler={"cls": distributed.Scheduler, "options": {"dashboard": False}}) as empty,
        pytest.raises(ClusterError, match="has no workers"),
        workers_at(empty.scheduler_address),
    ):
        pass


def test_without_dask_it_is_said_what_is_missing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"needs dask\.distributed") as caught:
        pipeline.calibrate(place / "net.onnx", SAMPLES, dask="tcp://127.0.0.1:9")
    assert "reap-onnx[dask]" in caught.value.hint


def test_nothing_is_left_for_workers_to_do(place: Path) -> None:
    with pytest.raises(UsageError, match="--dask has nothing to do"):
        pipeline.prune(place / "net.onnx", None, HALF, stats=place / "alone.npz", dask="tcp://127.0.0.1:9")
    targets = [Target("macs", 0.5), Target("macs", 0.7)]
    with pytest.raises(UsageError, match="--dask has nothing to do"):
        pipeline.sweep(place / "net.onnx", SAMPLES, targets, stats=place / "alone.npz", dask="tcp://127.0.0.1:9")
