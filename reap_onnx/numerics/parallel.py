"""Work on all cores: independent pieces, each on one thread, and a BLAS that has all threads for large matrices only.

OpenBLAS lets its threads spin for 2^26 cycles when a product is done, some 25 ms in which they hold up whoever else
wants the cores: the pieces here, and onnxruntime. A product of two small matrices costs as much as that, however
short it is. So the BLAS has one thread, but where it is given more (:func:`all_cores`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORTH = 4_000_000_000  # multiplications from which on a BLAS on all cores wins more than its threads cost afterwards


class _Here(threading.local):
    """What a thread knows.

    Parameters
    ----------
    threads
        What :func:`cores` says in it, within :func:`one_blas_thread`.
    given_up
        In a thread of :func:`in_parallel`: set once nobody waits for its work any longer.
    """

    threads: int | None = None
    given_up: threading.Event | None = None


class _Blas:
    """What all threads share: whether one of them has the BLAS at one thread, and how many it had before."""

    lock = threading.Lock()
    limited = False
    threads = 1


_here = _Here()


@contextmanager
def one_blas_thread(threads: int | None = None) -> Iterator[None]:
    """The BLAS has one thread in here; :func:`cores` says ``threads``, by default as many as the BLAS had.

    A process has one BLAS. Of several runs in it the first to come limits it, and when it leaves the BLAS is as it was.
    """
    before, there = _here.threads, threads or cores()
    with ExitStack() as stack:
        with _Blas.lock:
            if not _Blas.limited:
                stack.enter_context(_limited())
        _here.threads = there
        try:
            yield
        finally:
            _here.threads = before


@contextmanager
def all_cores(multiplications: float) -> Iterator[None]:
    """The BLAS has all threads in here if so much work is worth it, and where no other pieces are worked on."""
    if multiplications < _WORTH or cores() == 1:
        yield
    else:
        with _blas().limit(limits=cores()):
            yield


def cores() -> int:
    """Threads that there are for the work of the calling one: a single one for a piece among others."""
    if _here.given_up is not None:
        return 1
    return _here.threads or (_Blas.threads if _Blas.limited else _blas_threads())


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], most: int | None = None) -> list[Result]:
    """``work`` of every item, in the order of the items, ``most`` of them at a time.

    As many threads as there are :func:`cores`, each product on one of them: many products of some thousand rows spread
    better over cores than each by itself does, and what is found does not depend on the number of cores. A single item
    is worked on here, and may have pieces of its own (or :func:`all_cores`, on which its bits then depend).
    """
    items, threads = list(items), min(cores(), most or cores())
    if threads == 1 or len(items) <= 1:
        with one_blas_thread():
            return [work(item) for item in items]
    given_up = threading.Event()

    def one(item: Item) -> Result:
        _here.given_up = given_up
        return work(item)

    with one_blas_thread():
        try:
            return list(_pool(threads).map(one, items))
        except BaseException:
            given_up.set()
            raise


def check_wanted() -> None:
    """For long work to call now and then: leave it where what :func:`in_parallel` was to do has been given up.

    Raises
    ------
    CancelledError
        An interrupt came, or an earlier item failed.
    """
    if _here.given_up is not None and _here.given_up.is_set():
        raise CancelledError


def even_slices(count: int, most: int) -> Iterator[slice]:
    """``count`` things in as few runs of at most ``most`` (1 at least) as there can be, about as long as each other."""
    runs = math.ceil(count / max(most, 1))
    return (slice(count * run // runs, count * (run + 1) // runs) for run in range(runs))


@contextmanager
def _limited() -> Iterator[None]:
    _Blas.threads, _Blas.limited = _blas_threads(), True
    try:
        with _blas().limit(limits=1):
            yield
    finally:
        _Blas.limited = False


def _blas_threads() -> int:
    return max((library["num_threads"] for library in _blas().info()), default=1)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
