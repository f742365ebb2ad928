from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from reap_onnx.numerics.parallel import all_cores, check_wanted, cores, even_slices, in_parallel, one_blas_thread


@pytest.mark.parametrize("threads", [1, 2])
def test_results_come_in_the_order_of_the_items(threads):
    with threadpool_limits(threads):
        assert in_parallel(lambda x: x * x, range(50)) == [x * x for x in range(50)]


def test_the_work_is_spread_over_as_many_threads_as_the_blas_has():
    meet = threading.Barrier(2, timeout=60)
    with threadpool_limits(2):
        in_parallel(lambda _: meet.wait(), range(2))  # hangs unless two run at once


def test_products_are_the_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((3000, 300), np.float32) for _ in range(6)]
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            found.append(in_parallel(lambda x: x.T @ x, parts))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_the_blas_has_one_thread_but_for_large_matrices() -> None:
    with threadpool_limits(3, user_api="blas"):
        with one_blas_thread():
            assert (blas_threads(), cores()) == ({1}, 3)
            with all_cores(1e6):
                assert blas_threads() == {1}
            with all_cores(1e12):
                assert blas_threads() == {3}
            with one_blas_thread(2):  # as a worker of a cluster has them, in this process
                assert (blas_threads(), cores()) == ({1}, 2)
            assert (blas_threads(), cores()) == ({1}, 3)
        assert (blas_threads(), cores()) == ({3}, 3)


def test_runs_that_overlap_leave_the_blas_as_it_was() -> None:
    inside, leave, found = threading.Event(), threading.Event(), list[int]()

    def other() -> None:
        with one_blas_thread():
            inside.set()
            assert leave.wait(60)
            found.append(cores())

    with threadpool_limits(3, user_api="blas"):
        thread = threading.Thread(target=other)
        with one_blas_thread():
            thread.start()
            assert inside.wait(60)
        leave.set()
        thread.join()
        assert found == [3]
        assert (blas_threads(), cores()) == ({3}, 3)
        with one_blas_thread():
            assert (blas_threads(), cores()) == ({1}, 3)


def test_no_more_at_a_time_than_said() -> None:
    working, seen = set[int](), list[int]()

    def work(item: int) -> None:
        working.add(item)
        time.sleep(0.01)
        seen.append(len(working))
        working.discard(item)

    with threadpool_limits(4):
        for most in (1, 2):
            in_parallel(work, range(12), most)
            assert max(seen) <= most
        in_parallel(work, range(12))
        assert max(seen) > 2


def test_a_piece_among_others_has_one_thread_whatever_its_size() -> None:
    def look(_: int) -> tuple[set[int], int]:
        with all_cores(1e12):
            return blas_threads(), cores()

    with threadpool_limits(3, user_api="blas"), one_blas_thread():
        assert in_parallel(look, range(4)) == [({1}, 1)] * 4


def test_a_single_piece_has_pieces_of_its_own() -> None:
    meet = threading.Barrier(2, timeout=60)
    with threadpool_limits(2):
        in_parallel(lambda _: in_parallel(lambda _: meet.wait(), range(2)), range(1))  # hangs unless two run at once


def test_work_that_nobody_waits_for_any_more_ends():
    under_way, ended = threading.Event(), threading.Event()

    def work(item):
        if item == 0:
            assert under_way.wait(60)
            raise ZeroDivisionError
        under_way.set()
        try:
            while True:
                check_wanted()
                time.sleep(0.001)
        finally:
            ended.set()

    with threadpool_limits(2), pytest.raises(ZeroDivisionError):
        in_parallel(work, range(2))
    assert ended.wait(60)
    check_wanted()  # in a thread of nobody's it goes on


def test_an_error_comes_through():
    def work(x):
        return 1 // x

    with threadpool_limits(2), pytest.raises(ZeroDivisionError):
        in_parallel(work, [1, 0])


@pytest.mark.parametrize("most", [0, 1, 7, 49, 50, 51, 1000])
def test_even_slices_hold_everything_once_and_are_about_as_long_as_each_other(most):
    parts = [range(50)[some] for some in even_slices(50, most)]
    assert [number for part in parts for number in part] == list(range(50))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(most, 1)
    assert len(sizes) == -(-50 // max(most, 1))
    assert list(even_slices(0, most)) == []
