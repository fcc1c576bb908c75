"""Run several flows concurrently in one thread, with gRPC futures."""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable
from typing import Any

import grpc

from cnnkit.client.flow import Flow, Gather, RpcFailure, Sleep, Step, UnaryCall

# Starts a call and returns the future of its response.
Start = Callable[[UnaryCall], "grpc.Future[bytes]"]
# Returns the response of a future that is done, or raises RpcFailure.
Finish = Callable[["grpc.Future[bytes]"], bytes]


def run_parallel(step: Gather, start: Start, finish: Finish) -> list[Any]:
    """Run the flows of a step; return their results in order.

    On success and on failure, no call is left in flight.

    Args:
        step: The flows and how many may run at the same time.
        start: Starts a call and returns its future.
        finish: Returns the response of a finished future, or raises `RpcFailure`.

    Raises:
        TypeError: A flow yields a `Gather`.
    """
    return _Run(start, finish).run(step)


class _Run:
    """The state of one `run_parallel`; flows are keyed by their index."""

    def __init__(self, start: Start, finish: Finish) -> None:
        self._start = start
        self._finish = finish
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._flows: dict[int, Flow[Any]] = {}
        self._calls: dict[int, grpc.Future[bytes]] = {}
        # A heap of (time to wake up, index).
        self._sleeping: list[tuple[float, int]] = []
        self._results: dict[int, Any] = {}

    def run(self, step: Gather) -> list[Any]:
        flows = enumerate(step.flows)
        try:
            while True:
                while len(self._flows) < step.limit and (following := next(flows, None)):
                    index, self._flows[index] = following
                    self._advance(index, self._flows[index].send, None)
                if not self._flows:
                    return [self._results[index] for index in range(len(self._results))]
                self._process_event()
        finally:
            for call in self._calls.values():
                call.cancel()
            for flow in self._flows.values():
                flow.close()

    def _process_event(self) -> None:
        """Wait until a call is done or a sleep is over, then advance its flow."""
        seconds = self._sleeping[0][0] - time.monotonic() if self._sleeping else None
        try:
            index = self._done.get(timeout=None if seconds is None else max(seconds, 0.0))
        except queue.Empty:
            _, index = heapq.heappop(self._sleeping)
            self._advance(index, self._flows[index].send, None)
            return
        flow = self._flows[index]
        try:
            response = self._finish(self._calls.pop(index))
        except RpcFailure as failure:
            self._advance(index, flow.throw, failure)
        else:
            self._advance(index, flow.send, response)

    def _advance(self, index: int, resume: Callable[[Any], Step], value: object) -> None:
        """Resume a flow with a value and start its next step."""
        try:
            step = resume(value)
        except StopIteration as end:
            self._results[index] = end.value
            del self._flows[index]
            return
        if isinstance(step, Sleep):
            heapq.heappush(self._sleeping, (time.monotonic() + step.seconds, index))
        elif isinstance(step, UnaryCall):
            call = self._calls[index] = self._start(step)
            call.add_done_callback(lambda _: self._done.put(index))
        else:
            raise TypeError("`step.flows` must not yield `Gather`: nested flows are not supported")
