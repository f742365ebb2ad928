"""Independent pieces of work on all cores at once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


_here = threading.local()
"""Whether the work that this thread does is still waited for, as the event that ``given_up`` is."""


def cores() -> int:
    """Threads that the BLAS has."""
    return max((library["num_threads"] for library in _blas().info()), default=1)


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``work`` of every item, in the order of the items.

    As many threads as the BLAS has, each product on one of them: many products of some thousand rows spread better
    over cores than each by itself does, and what is found does not depend on the number of cores.
    """
    threads = cores()
    if threads == 1:
        return [work(item) for item in items]
    given_up = threading.Event()

    def one(item: Item) -> Result:
        _here.given_up = given_up
        return work(item)

    with _blas().limit(limits=1):
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
    given_up: threading.Event | None = getattr(_here, "given_up", None)
    if given_up is not None and given_up.is_set():
        raise CancelledError


def even_slices(count: int, most: int) -> Iterator[slice]:
    """``count`` things in as few runs of at most ``most`` (1 at least) as there can be, about as long as each other."""
    runs = math.ceil(count / max(most, 1))
    return (slice(count * run // runs, count * (run + 1) // runs) for run in range(runs))


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
