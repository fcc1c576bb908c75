"""Dynamic batching: requests of one model that arrive close together run as one batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import grpc
import numpy as np

from cnnkit.server.metrics import NO_METRICS, NoMetrics
from cnnkit.server.predict import Outputs, PreparedCall
from cnnkit.server.status_error import STOPPED, StatusError
from cnnkit.server.watchdog import Watchdog

_T = TypeVar("_T")


class BatchScheduler:
    """Runs calls in threads; with a timeout above 0, merges them into batches.

    A scheduler belongs to one event loop. Calls are merged if their servable, signature, outputs
    and the shapes and types of their rows are the same, and every input and output has rows. An
    empty call and a call of `max_rows` rows run alone.

    Args:
        executor: Threads that run graphs.
        threads: Largest number of graphs at the same time, at most the threads of the executor.
        timeout: Seconds that the first call of a batch waits for others; 0 merges no calls.
        max_rows: Largest number of rows of a batch.
        max_batches: Largest number of waiting batches; calls of further ones are refused.
        metrics: Counts the runs and the waiting batches.
        watchdog: Measures how long graphs run; None for nothing.

    Example:
        >>> scheduler = BatchScheduler(futures.ThreadPoolExecutor(2), 2)  # doctest: +SKIP
        >>> await scheduler.run(call)  # doctest: +SKIP
        {'probabilities': array(...)}
    """

    def __init__(
        self,
        executor: Executor,
        threads: int,
        *,
        timeout: float = 0.0,
        max_rows: int = 32,
        max_batches: int = 16,
        metrics: NoMetrics = NO_METRICS,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._metrics = metrics
        self._watchdog = watchdog or Watchdog(0)
        self._executor = executor
        self._slots = asyncio.Semaphore(threads)
        self._timeout = timeout
        self._max_rows = max_rows
        self._max_batches = max_batches
        self._waiting = 0
        self._open: dict[Hashable, _Batch] = {}
        # The event loop holds only weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, call: PreparedCall) -> Outputs:
        """Returns the outputs of a call.

        Args:
            call: A checked Predict request.

        Raises:
            StatusError: If the graph fails, or too many batches are waiting.
        """
        if not (self._timeout and call.rows and call.servable.is_batchable(call.signature)):
            async with self._slots:
                self._metrics.run_batch(call.servable.name, call.rows or 1)
                return await self._in_thread(call.run)
        key = _batch_key(call)
        batch = self._open.get(key)
        if batch is None or batch.rows + call.rows > self._max_rows:
            if self._waiting >= self._max_batches:
                raise StatusError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"currently {self._waiting} batches enqueued and max_enqueued_batches is "
                    f"{self._max_batches}",
                )
            if batch is not None:
                batch.closed.set()
            batch = self._open[key] = _Batch()
            task = asyncio.create_task(self._execute(key, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._wait_for(1)
        outputs = batch.add(call)
        if batch.rows >= self._max_rows:
            batch.closed.set()
            del self._open[key]
        return await outputs

    async def _execute(self, key: Hashable, batch: _Batch) -> None:
        waiting = True
        try:
            # After the timeout the batch stays open until a slot is free.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(batch.closed.wait(), self._timeout)
            async with self._slots:
                if self._open.get(key) is batch:
                    del self._open[key]
                waiting = False
                self._wait_for(-1)
                # Some calls may have been canceled in the meantime.
                pending = [(call, future) for call, future in batch.calls if not future.done()]
                if not pending:
                    return
                calls = [call for call, _ in pending]
                self._metrics.run_batch(
                    calls[0].servable.name, sum(call.rows or 0 for call in calls)
                )
                results = await self._in_thread(run_batch, calls)
            for (_, future), result in zip(pending, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        finally:
            if self._open.get(key) is batch:
                del self._open[key]
            if waiting:
                self._wait_for(-1)
            for _, future in batch.calls:
                # After a cancellation too, no call waits forever.
                if not future.done():
                    future.set_exception(StatusError(grpc.StatusCode.UNAVAILABLE, STOPPED))

    def _wait_for(self, more: int) -> None:
        """Count batches that begin to wait, or cease to."""
        self._waiting += more
        self._metrics.set_waiting(self._waiting)

    async def _in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        def run() -> _T:
            # Of the thread, which goes on when the client has canceled its call.
            with self._watchdog.running():
                return function(*args)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)


class _Batch:
    def __init__(self) -> None:
        self.calls: list[tuple[PreparedCall, asyncio.Future[Outputs]]] = []
        self.rows = 0
        # Set when the batch is full, or when the next call has too many rows for it.
        self.closed = asyncio.Event()

    def add(self, call: PreparedCall) -> asyncio.Future[Outputs]:
        future: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.calls.append((call, future))
        self.rows += call.rows or 0
        return future


def _batch_key(call: PreparedCall) -> Hashable:
    return (
        id(call.servable),
        call.signature,
        call.outputs,
        tuple((name, array.shape[1:], array.dtype.str) for name, array in call.inputs.items()),
    )


def run_batch(calls: Sequence[PreparedCall]) -> list[Outputs | Exception]:
    """Runs calls as one batch; if it fails, runs each call alone.

    A broken image of one client therefore does not fail the other calls of the batch.

    Args:
        calls: One or more calls whose rows have the same shapes and types.

    Returns:
        For each call, its outputs or its error.

    Example:
        >>> run_batch([call, call])  # doctest: +SKIP
        [{'probabilities': array(...)}, {'probabilities': array(...)}]
    """
    if len(calls) > 1:
        first = calls[0]
        ends = np.cumsum([call.rows for call in calls])
        try:
            inputs = {
                name: np.concatenate([call.inputs[name] for call in calls]) for name in first.inputs
            }
            outputs = first.servable.run(first.signature, inputs, first.outputs)
            if all(len(array) == ends[-1] for array in outputs.values()):
                parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
                return [
                    {name: part[position] for name, part in parts.items()}
                    for position in range(len(calls))
                ]
        except Exception:
            # The single runs below find the call that fails.
            pass
    return [_run_alone(call) for call in calls]


def _run_alone(call: PreparedCall) -> Outputs | Exception:
    try:
        return call.run()
    except Exception as error:
        return error
