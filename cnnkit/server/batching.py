"""Requests of the same model that come within a moment run together, as one batch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Sequence
from concurrent.futures import Executor

import grpc
import numpy as np

from cnnkit.server.predict import Outputs, PreparedCall
from cnnkit.server.status_error import StatusError


class BatchScheduler:
    """Runs calls, so many at once; with a window, joined to batches.

    Lives in one event loop. Calls are joined only where their servable, signature, outputs and
    the shapes and types of their rows are the same, and every input and output has rows. An empty
    call and one of a full batch's size run by themselves.

    Args:
        executor: Where graphs run.
        threads: How many at once; no more than the executor has.
        window: Seconds that the first call of a batch waits for others; 0 joins none.
        size: The most rows of a batch.
        queue: The most batches that wait; the calls of further ones are refused.

    Example:
        >>> runner = BatchScheduler(futures.ThreadPoolExecutor(2), 2)  # doctest: +SKIP
        >>> await runner.run(call)  # doctest: +SKIP
        {'probabilities': array(...)}
    """

    def __init__(
        self,
        executor: Executor,
        threads: int,
        *,
        window: float = 0.0,
        size: int = 32,
        queue: int = 16,
    ) -> None:
        self._executor = executor
        self._slots = asyncio.Semaphore(threads)
        self._window = window
        self._size = size
        self._queue = queue
        self._waiting = 0
        self._open: dict[Hashable, _Batch] = {}
        # The loop itself remembers tasks only weakly.
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, call: PreparedCall) -> Outputs:
        """Runs a call.

        Raises:
            Refusal: The graph could not digest its values, or too many batches wait.
        """
        if not (self._window and call.rows and call.servable.joins(call.signature)):
            async with self._slots:
                return await self._in_thread(call.run)
        key = _kind(call)
        batch = self._open.get(key)
        if batch is None or batch.rows + call.rows > self._size:
            if self._waiting >= self._queue:
                raise StatusError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"currently {self._waiting} batches enqueued and max_enqueued_batches is "
                    f"{self._queue}",
                )
            if batch is not None:
                batch.closed.set()
            batch = self._open[key] = _Batch()
            task = asyncio.create_task(self._execute(key, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._waiting += 1
        answer = batch.add(call)
        if batch.rows >= self._size:
            batch.closed.set()
            del self._open[key]
        return await answer

    async def _execute(self, key: Hashable, batch: _Batch) -> None:
        waiting = True
        try:
            # After the window it is still open: others may join until a slot is free.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(batch.closed.wait(), self._window)
            async with self._slots:
                if self._open.get(key) is batch:
                    del self._open[key]
                waiting = False
                self._waiting -= 1
                # Some may have gone meanwhile.
                wanted = [(call, answer) for call, answer in batch.calls if not answer.done()]
                if not wanted:
                    return
                outcomes = await self._in_thread(run_batch, [call for call, _ in wanted])
            for (_, answer), outcome in zip(wanted, outcomes, strict=True):
                if answer.done():
                    continue
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)
        finally:
            if self._open.get(key) is batch:
                del self._open[key]
            if waiting:
                self._waiting -= 1
            for _, answer in batch.calls:
                # Whatever has happened: nobody waits for ever.
                if not answer.done():
                    answer.set_exception(
                        StatusError(grpc.StatusCode.UNAVAILABLE, "The server is stopping")
                    )

    async def _in_thread(self, function, *args):
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


class _Batch:
    def __init__(self) -> None:
        self.calls: list[tuple[PreparedCall, asyncio.Future[Outputs]]] = []
        self.rows = 0
        # Full, or too full for the next call.
        self.closed = asyncio.Event()

    def add(self, call: PreparedCall) -> asyncio.Future[Outputs]:
        answer: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        self.calls.append((call, answer))
        self.rows += call.rows or 0
        return answer


def _kind(call: PreparedCall) -> Hashable:
    return (
        id(call.servable),
        call.signature,
        call.outputs,
        tuple((name, array.shape[1:], array.dtype.str) for name, array in call.inputs.items()),
    )


def run_batch(calls: Sequence[PreparedCall]) -> list[Outputs | Exception]:
    """Runs calls of one kind as one batch; where that fails, each by itself.

    So one client's broken image is refused without failing the others that came with it.

    Args:
        calls: One at least, with rows of the same shapes.

    Returns:
        For each, its outputs or why there are none.

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
            # Which one is at fault, each shows by itself.
            pass
    return [_outcome(call) for call in calls]


def _outcome(call: PreparedCall) -> Outputs | Exception:
    try:
        return call.run()
    except Exception as error:
        return error
