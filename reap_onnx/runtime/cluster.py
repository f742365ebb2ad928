"""Pieces of work on the workers of a dask cluster; the only file that imports dask, and only where an address is given.

What is sent, the shared part included, is part of a task: dask keeps it in the scheduler, and runs a task again where
a worker dies. Each result is taken once, in the order of the items. So no item is lost or counted twice, and who did
which makes no difference.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from reap_onnx.errors import ClusterError, ReapError
from reap_onnx.runtime.shards import HERE, Workers
from reap_onnx.version import VERSION

PATIENCE = 60  # seconds that a scheduler, and its first worker, may take to answer
AHEAD = 2  # items under way for each worker: one that is worked on and one that waits

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

_ALONE = threading.Lock()  # one piece of work at a time has all threads of its worker


@contextmanager
def workers_at(address: str | None) -> Iterator[Workers]:
    """The workers of the dask scheduler at an address; this process where there is none.

    Raises
    ------
    ClusterError
        dask is not installed, nobody answers, there are no workers, or they have another version of this package.
    """
    if address is None:
        yield HERE
        return
    if not re.fullmatch(r"((tcp|tls|ws|wss|ucx)://)?[^\s/:]+:\d+|inproc://\S+", address):
        raise ClusterError(f"no dask scheduler answers at {address}", "an address is tcp://head:8786")
    try:
        from dask import config
        from distributed import Client
    except ImportError as error:
        raise ClusterError("--dask needs dask.distributed", 'pip install "reap-onnx[dask]"') from error
    settings = {"distributed.admin.large-graph-warning-threshold": "100GB"}  # samples are meant to be in the tasks
    with _loggers_silent("distributed", "distributed.client", "tornado.application"), config.set(settings):
        try:
            client: Any = Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(f"no dask scheduler answers at {address}", _HINT) from error
        with client:
            _check_workers(client, address)
            yield Cluster(client)


@contextmanager
def _loggers_silent(*names: str) -> Iterator[None]:
    """What dask has to say of lost connections is said in an error of our own, without its tracebacks."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise ClusterError(f"the dask scheduler at {address} has no workers", _HINT) from error
    try:
        found = set(client.run(_version).values())
    except Exception as error:  # whatever keeps a worker from loading the package
        reason = " ".join(str(error).split())[:200]
        raise ClusterError(f"the workers at {address} do not load reap-onnx: {reason}", _HINT_VERSION) from error
    if found != {VERSION}:
        others = ", ".join(sorted(found - {VERSION}))
        raise ClusterError(f"workers at {address} have reap-onnx {others}, here is {VERSION}", _HINT_VERSION)


class Cluster:
    """Workers that a client of dask reaches; see :func:`workers_at`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(
        self,
        work: Callable[[Shared, Item, Callable[[int], None]], Result],
        shared: Shared,
        items: Iterable[Item],
        advance: Callable[[int], None],
    ) -> Iterator[Result]:
        """As :class:`~reap_onnx.runtime.shards.Workers`: a few items ahead for each worker, results in order.

        Raises
        ------
        ClusterError
            The scheduler is gone, or one item after another ends its worker.
        """
        common = self._client.submit(_itself, shared, pure=False)
        tasks = (self._client.submit(_task, work, common, item, pure=False) for item in items)
        under_way = deque(islice(tasks, self._ahead()))
        while under_way:
            result, done = self._result(under_way.popleft())
            under_way.extend(islice(tasks, max(0, self._ahead() - len(under_way))))
            advance(done)
            yield result

    def _ahead(self) -> int:
        return AHEAD * max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def _result(self, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker

        try:
            return future.result()
        except ReapError:
            raise
        except KilledWorker as error:
            raise ClusterError("workers died one after the other on the same samples", _HINT_MEMORY) from error
        except (CancelledError, OSError) as error:
            raise ClusterError("the dask scheduler is gone", _HINT_GONE) from error


def _itself(shared: Shared) -> Shared:
    return shared


def _task(
    work: Callable[[Shared, Item, Callable[[int], None]], Result], shared: Shared, item: Item
) -> tuple[Result, int]:
    """A piece of work on all threads of a worker, and how far it has come."""
    from distributed import get_worker

    done: list[int] = []
    with _ALONE, threadpool_limits(get_worker().state.nthreads, user_api="blas"):
        result = work(shared, item, done.append)
    return result, sum(done)


def _version() -> str:
    return VERSION


_HINT = "start one with: dask scheduler, and workers with: dask worker ADDRESS; see docs/distributed.md"
_HINT_VERSION = "install the same version of reap-onnx on every worker"
_HINT_MEMORY = "have they too little memory? dask worker has --memory-limit; calibrate has --memory"
_HINT_GONE = "start it again and repeat the command; calibrate goes on where it was"
