"""Plans done at the same time without threads: their calls are in flight together."""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable
from typing import Any

import grpc

from cnnkit.client.flow import Flow, Gather, RpcFailure, Sleep, Step, UnaryCall

# Starts a call; the future's result is the answer's bytes.
Start = Callable[[UnaryCall], "grpc.Future[bytes]"]
# Reads a future that is done, or raises CallFailed.
Finish = Callable[["grpc.Future[bytes]"], bytes]


def run_parallel(step: Gather, start: Start, finish: Finish) -> list[Any]:
    """Does the plans of a step; returns their results in order.

    Whatever way this ends, no call of theirs is left in flight.
    """
    return _Run(start, finish).run(step)


class _Run:
    def __init__(self, start: Start, finish: Finish) -> None:
        self._start = start
        self._finish = finish
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._plans: dict[int, Flow[Any]] = {}
        self._calls: dict[int, grpc.Future[bytes]] = {}
        self._waiting: list[tuple[float, int]] = []
        self._results: dict[int, Any] = {}

    def run(self, step: Gather) -> list[Any]:
        plans = enumerate(step.plans)
        try:
            while True:
                while len(self._plans) < step.at_once and (following := next(plans, None)):
                    place, self._plans[place] = following
                    self._advance(place, self._plans[place].send, None)
                if not self._plans:
                    return [self._results[place] for place in range(len(self._results))]
                self._one_event()
        finally:
            for call in self._calls.values():
                call.cancel()
            for plan in self._plans.values():
                plan.close()

    def _one_event(self) -> None:
        """Waits until a call is done or a pause is over, and goes on with its plan."""
        seconds = self._waiting[0][0] - time.monotonic() if self._waiting else None
        try:
            place = self._done.get(timeout=None if seconds is None else max(seconds, 0.0))
        except queue.Empty:
            _, place = heapq.heappop(self._waiting)
            self._advance(place, self._plans[place].send, None)
            return
        plan = self._plans[place]
        try:
            answer = self._finish(self._calls.pop(place))
        except RpcFailure as failure:
            self._advance(place, plan.throw, failure)
        else:
            self._advance(place, plan.send, answer)

    def _advance(self, place: int, resume: Callable[[Any], Step], value: object) -> None:
        try:
            step = resume(value)
        except StopIteration as end:
            self._results[place] = end.value
            del self._plans[place]
            return
        if isinstance(step, Sleep):
            heapq.heappush(self._waiting, (time.monotonic() + step.seconds, place))
        elif isinstance(step, UnaryCall):
            call = self._calls[place] = self._start(step)
            call.add_done_callback(lambda _: self._done.put(place))
        else:
            raise TypeError("A plan among others cannot do others together")
