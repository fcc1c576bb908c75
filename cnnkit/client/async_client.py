"""The client that is awaited: the same calls under asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import grpc
import numpy.typing as npt

from cnnkit.client import image_calls
from cnnkit.client.base_client import BaseClient
from cnnkit.client.encode import RequestTarget
from cnnkit.client.flow import Flow, Gather, RpcFailure, Sleep, Step, UnaryCall
from cnnkit.client.image_calls import Explanation, Images, Prediction
from cnnkit.client.metadata import Signature, VersionStatus
from cnnkit.wire import methods

ResultT = TypeVar("ResultT")


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same methods with the same arguments, to be awaited.

    It belongs to the event loop of its first call. Cancelling a task cancels its calls.

    Example:
        >>> async def ask():
        ...     async with AsyncClient("localhost:8500") as client:
        ...         return await asyncio.gather(
        ...             client.classify("7.png", model="digits"),
        ...             client.features("7.png", model="digits"),
        ...         )
        >>> labels, features = asyncio.run(ask())  # doctest: +SKIP
    """

    _channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls in flight are canceled."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def predict(
        self,
        inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: str | Iterable[str] | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """As `Client.predict`."""
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        wanted = [outputs] if isinstance(outputs, str) else outputs or ()
        return await self._run(
            self._plans.predict(inputs, target, signature, wanted, batch_size, deadline)
        )

    async def classify(
        self,
        images: Images,
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        top: int | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> list[list[Prediction]]:
        """As `Client.classify`."""
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        return await self._run(
            image_calls.classify_flow(self._plans, images, target, top, batch_size, deadline)
        )

    async def features(
        self,
        images: Images,
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> npt.NDArray[Any]:
        """As `Client.features`."""
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        return await self._run(
            image_calls.features_flow(self._plans, images, target, batch_size, deadline)
        )

    async def explain(
        self,
        images: Images,
        *,
        model: str,
        layer: str | None = None,
        version: int | None = None,
        label: str | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> list[Explanation]:
        """As `Client.explain`."""
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        return await self._run(
            image_calls.explain_flow(self._plans, images, target, layer, batch_size, deadline)
        )

    async def metadata(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """As `Client.metadata`."""
        target = RequestTarget(model, version, label)
        self._plans.known.pop(target, None)
        return dict(await self._run(self._plans.signatures(target, self._plans.deadline(timeout))))

    async def status(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[VersionStatus]:
        """As `Client.status`."""
        target = RequestTarget(model, version, label)
        return await self._run(self._plans.status(target, self._plans.deadline(timeout)))

    async def models(
        self, names: Iterable[str], timeout: float | None = None
    ) -> dict[str, list[VersionStatus]]:
        """As `Client.models`."""
        return await self._run(self._plans.models(names, self._plans.deadline(timeout)))

    async def wait_until_ready(
        self,
        model: str,
        timeout: float = 30,
        *,
        version: int | None = None,
        label: str | None = None,
        on_change: Callable[[str], object] | None = None,
    ) -> None:
        """As `Client.wait_until_ready`."""
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        await self._run(self._plans.wait_until_ready(target, deadline, on_change))

    async def _run(self, plan: Flow[ResultT]) -> ResultT:
        """Does the steps of a plan, one after the other."""
        try:
            step = next(plan)
            while True:
                try:
                    came = await self._do(step)
                except RpcFailure as failure:
                    step = plan.throw(failure)
                else:
                    step = plan.send(came)
        except StopIteration as end:
            result: ResultT = end.value
            return result

    async def _do(self, step: Step) -> object:
        if isinstance(step, UnaryCall):
            return await self._call(step)
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        return await self._together(step)

    async def _call(self, call: UnaryCall) -> bytes:
        self._check_open()
        if self._channel is None:
            # Not before there is a loop that runs.
            self._channel = self._connect()
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.method)
        try:
            answer = await ask(
                call.request, timeout=call.timeout, metadata=self._endpoint.headers()
            )
        except (grpc.RpcError, ValueError, TypeError, grpc.aio.UsageError) as error:
            raise self._failed(error) from error
        except asyncio.CancelledError:
            # The task was canceled, unless it is the connection that ended.
            if self._closed:
                raise self._failed(RuntimeError()) from None
            raise
        return answer

    async def _together(self, step: Gather) -> list[Any]:
        results: list[Any] = []
        plans = iter(step.plans)

        async def work() -> None:
            # The workers share the plans, so one is taken only when somebody is free for it.
            for plan in plans:
                place = len(results)
                results.append(None)
                results[place] = await self._run(plan)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(step.at_once):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            # Of several that failed, callers want to hear of the first, as from one call.
            raise failures.exceptions[0] from failures.exceptions[0].__cause__
        return results

    def _connect(self) -> grpc.aio.Channel:
        arguments = self._endpoint.channel_arguments()
        if self._credentials is None:
            return grpc.aio.insecure_channel(**arguments)
        return grpc.aio.secure_channel(credentials=self._credentials, **arguments)
