"""The asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy.typing as npt

from cnnkit._deprecation import renamed_argument
from cnnkit.client import image_calls
from cnnkit.client.base_client import BaseClient
from cnnkit.client.channel import ChannelOptions
from cnnkit.client.errors import InvalidRequest
from cnnkit.client.flow import Flow, Gather, RpcFailure, Sleep, Step, UnaryCall
from cnnkit.client.image_calls import Explanation, Images, Prediction
from cnnkit.client.metadata import Signature, VersionStatus
from cnnkit.client.predict_calls import predict_flow
from cnnkit.client.transport import AsyncTransport
from cnnkit.wire import methods

ResultT = TypeVar("ResultT")


class AsyncClient(BaseClient):
    """The asyncio client of one model server: the methods of `Client`, as coroutines.

    A client belongs to the event loop of its first call. Canceling a task cancels its calls.

    Example:
        >>> async def ask():
        ...     async with AsyncClient("localhost:8500") as client:
        ...         return await asyncio.gather(
        ...             client.classify("7.png", model="digits"),
        ...             client.features("7.png", model="digits"),
        ...         )
        >>> labels, features = asyncio.run(ask())  # doctest: +SKIP
    """

    def _open(self, options: ChannelOptions) -> None:
        self._transport = AsyncTransport(options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection and cancel calls in flight."""
        await self._transport.close()

    @renamed_argument("label", "version_label")
    async def predict(
        self,
        inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        *,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: str | Iterable[str] | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """See `Client.predict`."""
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return await self._run(predict_flow(self._calls, inputs, signature, outputs, options))

    @renamed_argument("label", "version_label")
    async def classify(
        self,
        images: Images,
        *,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        top: int | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> list[list[Prediction]]:
        """See `Client.classify`."""
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return await self._run(image_calls.classify_flow(self._calls, images, top, options))

    @renamed_argument("label", "version_label")
    async def features(
        self,
        images: Images,
        *,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> npt.NDArray[Any]:
        """See `Client.features`."""
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return await self._run(image_calls.features_flow(self._calls, images, options))

    @renamed_argument("label", "version_label")
    async def explain(
        self,
        images: Images,
        *,
        model: str,
        layer: str | None = None,
        version: int | None = None,
        version_label: str | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> list[Explanation]:
        """See `Client.explain`."""
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return await self._run(image_calls.explain_flow(self._calls, images, layer, options))

    @renamed_argument("label", "version_label")
    async def metadata(
        self,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """See `Client.metadata`."""
        options = self._calls.options(model, version, version_label, timeout)
        return await self._run(self._calls.metadata(options))

    @renamed_argument("label", "version_label")
    async def status(
        self,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        timeout: float | None = None,
    ) -> list[VersionStatus]:
        """See `Client.status`."""
        options = self._calls.options(model, version, version_label, timeout)
        return await self._run(self._calls.status(options))

    async def models(
        self, names: Iterable[str], timeout: float | None = None
    ) -> dict[str, list[VersionStatus]]:
        """See `Client.models`."""
        return await self._run(self._calls.models(names, self._calls.deadline(timeout)))

    @renamed_argument("label", "version_label")
    async def wait_until_ready(
        self,
        model: str,
        timeout: float = 30,
        *,
        version: int | None = None,
        version_label: str | None = None,
        on_change: Callable[[str], object] | None = None,
    ) -> None:
        """See `Client.wait_until_ready`."""
        options = self._calls.options(model, version, version_label, timeout)
        await self._run(self._calls.wait_until_ready(options, on_change))

    async def _run(self, flow: Flow[ResultT]) -> ResultT:
        """Run the steps of a flow one after the other."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = await self._do(step)
                except RpcFailure as failure:
                    step = flow.throw(failure)
                except InvalidRequest as error:
                    # Of a flow of a `Gather`: a single call fails with an `RpcFailure`.
                    step = flow.throw(error)
                else:
                    step = flow.send(outcome)
        except StopIteration as end:
            result: ResultT = end.value
            return result

    async def _do(self, step: Step) -> object:
        """Run one step and return its result."""
        if isinstance(step, UnaryCall):
            return await self._transport.call(step)
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        return await self._gather(step)

    async def _gather(self, step: Gather) -> list[Any]:
        """Run the flows of a step in a few tasks."""
        results: list[Any] = []
        flows = iter(step.flows)

        async def work() -> None:
            # The tasks share the iterator, so a flow is taken only when a task is free to run it.
            for flow in flows:
                index = len(results)
                results.append(None)
                results[index] = await self._run(flow)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(step.limit):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            # Of several failures, raise the first, as `Client` does.
            raise failures.exceptions[0] from failures.exceptions[0].__cause__
        return results
