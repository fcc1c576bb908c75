"""Work in threads with one thread of BLAS each."""

import threading

import pytest
from threadpoolctl import threadpool_limits

from cnnkit.transfer.blas_threads import blas_threads, map_in_threads


@pytest.mark.parametrize("workers", [1, 3])
def test_each_call_has_one_thread_of_blas_and_results_keep_their_order(workers):
    before = blas_threads()
    barrier = threading.Barrier(workers, timeout=30)

    def call(number):
        # Passed only when as many calls as there are workers run at once.
        barrier.wait()
        return number, blas_threads()

    found = map_in_threads(call, range(6), workers)
    assert found == [(number, 1) for number in range(6)]
    assert blas_threads() == before


def test_the_number_of_threads_is_that_of_blas():
    for limit in (1, 2):
        with threadpool_limits(limit, user_api="blas"):
            assert blas_threads() == limit


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_call_is_raised(workers):
    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda number: 1 // number, [1, 0], workers)
    assert blas_threads() == before
