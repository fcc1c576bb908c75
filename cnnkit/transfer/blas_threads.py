"""Work on parts of a matrix problem in threads, with one thread of BLAS each.

Threads of BLAS wait for each other after every product, which takes longer than the product where
matrices are small or other processes use the same cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Part = TypeVar("Part")
Result = TypeVar("Result")


def blas_threads() -> int:
    """Return the number of threads that BLAS uses, which `OMP_NUM_THREADS` can limit."""
    libraries = ThreadpoolController().select(user_api="blas").info()
    return max((library["num_threads"] for library in libraries), default=1)


def map_in_threads(
    function: Callable[[Part], Result], parts: Iterable[Part], workers: int
) -> list[Result]:
    """Return the results of a function for all parts, with one thread of BLAS for each call.

    Args:
        function: A function that works in BLAS and NumPy, which let other threads run meanwhile.
        parts: Its arguments.
        workers: Number of threads.
    """
    with ThreadpoolController().limit(limits=1, user_api="blas"):
        if workers == 1:
            return [function(part) for part in parts]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(function, parts))
