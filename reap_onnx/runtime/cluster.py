"""Pieces of work on the workers of a dask cluster; the only file that imports dask, and only where an address is given.

What is sent, the shared part included, is part of a task: dask keeps it in the scheduler, and runs a task again where
a worker dies. Each result is taken once, in the order of the items. So no item is lost or counted twice, and who did
which makes no difference.

What shards keep between the steps of a walk is not part of any task: it is lost with its worker, and made again from
the samples and the steps, which are.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, TypeVar

from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import ClusterError, ReapError
from reap_onnx.numerics.parallel import one_blas_thread
from reap_onnx.runtime.shards import HERE, Shard, Walk, Workers, cut_shards
from reap_onnx.version import VERSION

PATIENCE = 60  # seconds that a scheduler, and its first worker, may take to answer
AHEAD = 2  # items under way for each worker: one that is worked on and one that waits

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Step = TypeVar("Step")
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
            try:
                yield Cluster(client)
            except ReapError:
                raise
            except Exception as error:  # of many types, by what is asked of a client that has lost its scheduler
                if client.status == "running":
                    raise
                raise ClusterError(_GONE, _HINT_GONE) from error


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
        at_once: int = 1,
    ) -> Iterator[Result]:
        """As :class:`~reap_onnx.runtime.shards.Workers`: a few items ahead for each worker, results in order.

        A worker does one at a time, whatever ``at_once`` says.

        Raises
        ------
        ClusterError
            The scheduler is gone, or one item after another ends its worker.
        """
        common = self._client.submit(_itself, shared, pure=False)
        tasks = (self._client.submit(_task, work, common, item, pure=False) for item in items)
        under_way = deque(islice(tasks, self._ahead()))
        while under_way:
            result, done = _result(under_way.popleft())
            under_way.extend(islice(tasks, max(0, self._ahead() - len(under_way))))
            advance(done)
            yield result

    @contextmanager
    def walk(
        self,
        begin: Callable[[Shared, Shard, int], Walk[Step, Result]],
        shared: Shared,
        dataset: Dataset,
        batch: int,
    ) -> Iterator[Callable[[Step], Iterator[Result]]]:
        """As :class:`~reap_onnx.runtime.shards.Workers`: each shard goes on where its tensors are.

        Raises
        ------
        ClusterError
            As for :meth:`run`.
        """
        yield _Shards(self._client, begin, shared, cut_shards(dataset, batch)).step

    def _ahead(self) -> int:
        return AHEAD * max(1, len(_addresses(self._client)))


class _Shards(Generic[Shared, Step, Result]):
    """Shards on their way, dealt out to the workers."""

    def __init__(
        self,
        client: Any,
        begin: Callable[[Shared, Shard, int], Walk[Step, Result]],
        shared: Shared,
        shards: Sequence[Shard],
    ) -> None:
        self._client, self._begin, self._shards, self._share = client, begin, shards, 1
        self._common = self._submit(_itself, shared)
        self._steps: list[Any] = []
        self._places = [""] * len(shards)
        self._taken = [0] * len(shards)  # steps that each has taken at its place, as far as is known
        self._held: list[Any] = [None] * len(shards)

    def step(self, step: Step) -> Iterator[Result]:
        """Take a step with every shard, one after the other for each worker: what waits, dask hands to idle ones."""
        from distributed import as_completed

        self._send()
        self._steps.append(self._submit(_itself, step))
        queues = {place: deque[int]() for place in self._places}
        for shard, place in enumerate(self._places):
            queues[place].append(shard)
        under_way, completed = dict[Any, tuple[int, deque[int]]](), as_completed(loop=self._client.loop)

        def go(shard: int, queue: deque[int]) -> None:
            steps, last = self._steps[self._taken[shard] :], len(self._steps) - 1
            future = self._submit(_step, self._held[shard], steps, last, place=self._places[shard])
            under_way[future] = shard, queue
            completed.add(future)

        for queue in queues.values():
            go(queue.popleft(), queue)
        done, due = dict[int, Result](), 0
        while due < len(self._shards):
            future = next(completed)
            shard, queue = under_way.pop(future)
            if queue:
                go(queue.popleft(), queue)
            result, place = _result(future)
            if result is None:
                self._put(shard, place)
                go(shard, deque())
                continue
            done[shard], self._places[shard], self._taken[shard] = result, place, len(self._steps)
            while due in done:
                yield done.pop(due)
                due += 1

    def _send(self) -> None:
        """Send every shard to its worker that is not there yet."""
        workers = _addresses(self._client) or [""]
        self._share = math.ceil(len(self._shards) / len(workers))
        for shard, place in enumerate(deal(self._places, workers)):
            if place != self._places[shard] or not place:
                self._put(shard, place)

    def _put(self, shard: int, place: str) -> None:
        """Send a shard to a worker; copies of it elsewhere go."""
        what = self._begin, self._common, self._shards[shard], self._share
        self._places[shard], self._taken[shard] = place, 0
        self._held[shard] = self._submit(Held, *what, place=place)

    def _submit(self, work: Callable[..., Any], *what: Any, place: str = "") -> Any:
        """A task, at a place if that is there."""
        return self._client.submit(work, *what, pure=False, workers=place or None, allow_other_workers=bool(place))


def deal(places: Sequence[str], workers: Sequence[str]) -> list[str]:
    """A worker for each shard, none with more than its share: the one that it has, as long as that is there."""
    share, laden = math.ceil(len(places) / len(workers)), Counter[str]()
    dealt = []
    for place in places:
        stays = place in workers and laden[place] < share
        dealt.append(place if stays else "")
        laden[place] += stays
    for shard, place in enumerate(dealt):
        if not place:
            dealt[shard] = min(workers, key=lambda worker: laden[worker])
            laden[dealt[shard]] += 1
    return dealt


class Held(Generic[Shared, Step, Result]):
    """A shard on a worker, and how far it has come there; wherever else dask takes it, it starts afresh.

    It is what a task has left there: dask drops it when the walk is over, or its client is gone.
    """

    def __init__(
        self, begin: Callable[[Shared, Shard, int], Walk[Step, Result]], shared: Shared, shard: Shard, share: int
    ) -> None:
        self._walk: Walk[Step, Result] | None = None
        self._taken = 0
        self._begin, self._given, self._size = begin, (shared, shard, share), _bytes(shard)

    def __reduce__(self) -> tuple[Any, ...]:
        return Held, (self._begin, *self._given)

    def __sizeof__(self) -> int:
        return self._size

    def __del__(self) -> None:
        self._start_afresh()

    def step(self, steps: Sequence[Step], number: int) -> Result | None:
        """What step ``number`` gives, the last one of those at hand; None where they are too few to get there."""
        if self._walk is None or self._taken > number:
            self._start_afresh()
        missing = number + 1 - self._taken
        if missing > len(steps):
            return None
        walk = self._walk or self._begin(*self._given)
        self._walk, self._taken = None, 0  # until it is done
        for step in steps[-missing:-1]:
            walk.skip(step)
        (result,) = walk.step(steps[-1])
        self._walk, self._taken = walk, number + 1
        return result

    def _start_afresh(self) -> None:
        if self._walk is not None:
            self._walk.close()
        self._walk, self._taken = None, 0


def _bytes(shard: Shard) -> int:
    return sum(array.nbytes for array in shard.dataset.inputs.values())


def _step(held: Held[Any, Step, Result], steps: Sequence[Step], number: int) -> tuple[Result | None, str]:
    """A step on all threads of a worker, and which worker that is."""
    from distributed import get_worker

    worker = get_worker()
    with _ALONE, one_blas_thread(worker.state.nthreads):
        return held.step(steps, number), worker.address


def _addresses(client: Any) -> list[str]:
    with _said_plainly():
        return list(client.scheduler_info(n_workers=-1)["workers"])


def _result(future: Any) -> Any:
    with _said_plainly():
        try:
            return future.result()
        except OSError as error:
            if future.status != "error":  # the cluster's own
                raise
            raise ClusterError(f"a worker failed: {' '.join(str(error).split())[:200]}", _HINT_WORKER) from error


@contextmanager
def _said_plainly() -> Iterator[None]:
    """What ends a cluster, as an error of our own; what ends the work itself is one."""
    from distributed import CancelledError, KilledWorker

    try:
        yield
    except ReapError:
        raise
    except KilledWorker as error:
        raise ClusterError("workers died one after the other on the same samples", _HINT_MEMORY) from error
    except (CancelledError, OSError) as error:
        raise ClusterError(_GONE, _HINT_GONE) from error


def _itself(shared: Shared) -> Shared:
    return shared


def _task(
    work: Callable[[Shared, Item, Callable[[int], None]], Result], shared: Shared, item: Item
) -> tuple[Result, int]:
    """A piece of work on all threads of a worker, and how far it has come."""
    from distributed import get_worker

    done: list[int] = []
    with _ALONE, one_blas_thread(get_worker().state.nthreads):
        result = work(shared, item, done.append)
    return result, sum(done)


def _version() -> str:
    return VERSION


_GONE = "the dask scheduler is gone"
_HINT = "start one with: dask scheduler, and workers with: dask worker ADDRESS; see docs/distributed.md"
_HINT_VERSION = "install the same version of reap-onnx on every worker"
_HINT_MEMORY = "have they too little memory? dask worker has --memory-limit, this command --memory"
_HINT_WORKER = "has it room in its memory and its TMPDIR?"
_HINT_GONE = "start it again and repeat the command; calibrate goes on where it was"
