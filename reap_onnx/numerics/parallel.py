"""Independent pieces of work on all cores at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``work`` of every item, in the order of the items.

    As many threads as the BLAS has, each product on one of them: many products of some thousand rows spread better
    over cores than each by itself does, and what is found does not depend on the number of cores.
    """
    blas = _blas()
    threads = max((library["num_threads"] for library in blas.info()), default=1)
    if threads == 1:
        return [work(item) for item in items]
    with blas.limit(limits=1):
        return list(_pool(threads).map(work, items))


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
