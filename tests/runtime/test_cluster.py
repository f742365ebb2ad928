"""Calibration on a real cluster of two processes: the same bytes as in one, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest
from threadpoolctl import threadpool_info

from nets import images, residual_net
from reap_onnx import pipeline
from reap_onnx.cli import main
from reap_onnx.errors import ClusterError, DataError, UsageError
from reap_onnx.options import EFFORTS, PruneOptions, Target
from reap_onnx.report.progress import Silent
from reap_onnx.runtime import cluster
from reap_onnx.runtime.cluster import workers_at

distributed = pytest.importorskip("distributed")

SAMPLES = images(1000)  # five shards
HALF = PruneOptions(Target("macs", 0.5), method=EFFORTS["fast"])


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    threads = max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
    with distributed.LocalCluster(
        2, processes=True, threads_per_worker=threads, dashboard_address="127.0.0.1:0"
    ) as local:
        yield local


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    onnx.save(residual_net(), folder / "net.onnx")
    pipeline.calibrate(folder / "net.onnx", SAMPLES, output=folder / "alone.npz")
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


class Killing(Silent):
    """Kills a worker as soon as a stage has come forward, while both are at work."""

    def __init__(self, name: str, victim: int) -> None:
        self._name, self._victim = name, victim
        self.killed = False

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        def advance(n: int = 1) -> None:
            if n and name == self._name and not self.killed:
                self.killed = True
                os.kill(self._victim, signal.SIGKILL)

        yield advance


@pytest.mark.parametrize(("stage", "which"), [("collecting statistics", 0), ("sensitivity", 1)])
def test_a_killed_worker_loses_no_sample_and_counts_none_twice(
    scheduler: Any, place: Path, stage: str, which: int
) -> None:
    scheduler.wait_for_workers(2)
    before = pids(scheduler)
    progress = Killing(stage, before[which])
    out = place / f"killed-{which}-{stage}.npz"
    pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, dask=scheduler.scheduler_address, progress=progress)
    assert progress.killed
    assert out.read_bytes() == (place / "alone.npz").read_bytes()
    scheduler.wait_for_workers(2)
    assert before[which] not in pids(scheduler)


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
    monkeypatch.setattr(cluster, "PATIENCE", 1)
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
