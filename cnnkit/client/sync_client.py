"""The client that waits: arrays or images in, arrays or labels out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import grpc
import numpy.typing as npt

from cnnkit.client import image_calls
from cnnkit.client.base_client import BaseClient
from cnnkit.client.encode import RequestTarget
from cnnkit.client.flow import Flow, RpcFailure, Sleep, Step, UnaryCall
from cnnkit.client.image_calls import Explanation, Images, Prediction
from cnnkit.client.metadata import Signature, VersionStatus
from cnnkit.client.parallel import run_parallel
from cnnkit.wire import methods

ResultT = TypeVar("ResultT")


class Client(BaseClient):
    """A connection to one model server, for any number of calls and threads.

    `AsyncClient` has the same methods, to be awaited. Both take what `cnnkit.client.base_client.BaseClient`
    describes.

    Example:
        >>> with Client("localhost:8500") as client:  # doctest: +SKIP
        ...     client.predict(pixels, model="digits")["probabilities"]
    """

    def _open(self) -> None:
        arguments = self._endpoint.channel_arguments()
        self._channel = (
            grpc.insecure_channel(**arguments)
            if self._credentials is None
            else grpc.secure_channel(credentials=self._credentials, **arguments)
        )
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls in flight are canceled."""
        self._closed = True
        self._channel.close()

    def predict(
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
        """Runs a model on a batch.

        What the model takes is asked for once and kept: names, types, shapes and an empty batch are
        checked before anything is sent.

        Args:
            inputs: The array of a signature with one input, such as images (n, height, width, 3)
                in 0..255, or arrays by name. A single image without its batch axis gets one.
            model: The model's name on the server.
            version: Its version; the newest one by default.
            label: A version's label instead of its number.
            signature: Which of the model's signatures.
            outputs: Names of the outputs wanted; all by default.
            batch_size: Rows of a request at most, by default 64. A larger batch is sent in parts,
                several at once, and one version answers all of them.
            timeout: Seconds for everything instead of the client's own.

        Returns:
            The outputs by name, each with its batch axis.

        Raises:
            UsageError: The inputs do not fit the signature, or there is no such signature.
            ServerError: The server did not answer with a result; the subclass says how.

        Example:
            >>> client.predict(pixels, model="digits", outputs="probabilities")  # doctest: +SKIP
            {'probabilities': array([[0.1, ...]], dtype=float32)}
        """
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        wanted = [outputs] if isinstance(outputs, str) else outputs or ()
        return self._run(
            self._plans.predict(inputs, target, signature, wanted, batch_size, deadline)
        )

    def classify(
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
        """Says what images show.

        Encoded bytes are sent as they are: the server decodes and scales them as the model wants.

        Args:
            images: Paths of image files, or their bytes (JPEG, PNG, GIF, BMP, WebP), one or
                several; or pixels, of the size that the model takes.
            model: The model's name on the server.
            version: Its version; the newest one by default.
            label: A version's label instead of its number.
            top: The number of classes for each image; by default 5, or all where the model answers
                with fewer.
            batch_size: Images of a request at most, by default 64.
            timeout: Seconds for everything instead of the client's own.

        Returns:
            For each image its classes, the most probable first. Pixels get "class 3" for a name:
            only the signature for encoded images knows the labels.

        Raises:
            UsageError: A file does not exist, the model takes no such images, or it answers with
                fewer classes than `top`.
            DataError: A file cannot be read or is empty.
            ServerError: The server did not answer with a result. One image that it cannot decode
                fails all of them.

        Example:
            >>> client.classify(["7.png"], model="digits", top=1)  # doctest: +SKIP
            [[Prediction(label='7', probability=0.99)]]
        """
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        return self._run(
            image_calls.classify_flow(self._plans, images, target, top, batch_size, deadline)
        )

    def features(
        self,
        images: Images,
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> npt.NDArray[Any]:
        """Describes images by what the last layer but one makes of them, for comparing them.

        Args:
            images: As for `classify`, of the kind that the signature `features` takes.
            model: The model's name on the server.
            version: Its version; the newest one by default.
            label: A version's label instead of its number.
            batch_size: Images of a request at most, by default 64.
            timeout: Seconds for everything instead of the client's own.

        Returns:
            (n, features) float32; a model exported by cnnkit answers with vectors of length 1.

        Raises:
            UsageError: The model has no such signature, or takes other images for it.
            ServerError: The server did not answer with a result.

        Example:
            >>> a, b = client.features(["a.png", "b.png"], model="digits")  # doctest: +SKIP
            >>> a @ b  # the cosine of the angle between them  # doctest: +SKIP
            0.93
        """
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        return self._run(
            image_calls.features_flow(self._plans, images, target, batch_size, deadline)
        )

    def explain(
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
        """Shows what in images made the winning class fire: the deconvnet, computed by the server.

        Args:
            images: As for `classify`.
            model: The model's name on the server.
            layer: The strongest unit of this layer instead of the winning class; one of those that
                the model was exported with.
            version: Its version; the newest one by default.
            label: A version's label instead of its number.
            batch_size: Images of a request at most, by default 64.
            timeout: Seconds for everything instead of the client's own.

        Returns:
            An explanation of each image.

        Raises:
            UsageError: The model was not exported with such a signature.
            ServerError: The server did not answer with a result.

        Example:
            >>> [seen] = client.explain("7.png", model="digits")  # doctest: +SKIP
            >>> seen.label, seen.projection.shape  # doctest: +SKIP
            ('7', (64, 64, 3))
        """
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        return self._run(
            image_calls.explain_flow(self._plans, images, target, layer, batch_size, deadline)
        )

    def metadata(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Asks which signatures a model has.

        Args:
            model: The model's name on the server.
            version: Its version; the newest one by default.
            label: A version's label instead of its number.
            timeout: Seconds for the call instead of the client's own.

        Returns:
            The signatures by name.

        Raises:
            ServerError: The server did not answer; ModelNotFound where it has no such model.

        Example:
            >>> client.metadata("digits")["serving_default"].inputs["images"]  # doctest: +SKIP
            TensorSpec(dtype='float32', shape=(None, 28, 28, 1))
        """
        target = RequestTarget(model, version, label)
        self._plans.known.pop(target, None)
        return dict(self._run(self._plans.signatures(target, self._plans.deadline(timeout))))

    def status(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[VersionStatus]:
        """Asks which versions of a model there are, and whether they can be used.

        Args:
            model: The model's name on the server.
            version: One version only; all by default.
            label: The version of this label only.
            timeout: Seconds for the call instead of the client's own.

        Returns:
            The versions, the newest first.

        Raises:
            ServerError: The server did not answer; ModelNotFound where it has no such model.

        Example:
            >>> client.status("digits")  # doctest: +SKIP
            [VersionStatus(version=1, state='AVAILABLE', code='OK', message='')]
        """
        target = RequestTarget(model, version, label)
        return self._run(self._plans.status(target, self._plans.deadline(timeout)))

    def models(
        self, names: Iterable[str], timeout: float | None = None
    ) -> dict[str, list[VersionStatus]]:
        """Asks for several models at once: a model server has no call that lists what it serves.

        Args:
            names: The models' names.
            timeout: Seconds for everything instead of the client's own.

        Returns:
            For each name its versions, the newest first; none where there is no such model.

        Raises:
            ServerError: The server did not answer.

        Example:
            >>> client.models(["digits", "pets"])  # doctest: +SKIP
            {'digits': [VersionStatus(version=1, state='AVAILABLE', ...)], 'pets': []}
        """
        return self._run(self._plans.models(names, self._plans.deadline(timeout)))

    def wait_until_ready(
        self,
        model: str,
        timeout: float = 30,
        *,
        version: int | None = None,
        label: str | None = None,
        on_change: Callable[[str], object] | None = None,
    ) -> None:
        """Waits until some version of a model can be used.

        Args:
            model: The model's name on the server.
            timeout: Seconds to wait at most.
            version: This version instead of any.
            label: The version of this label instead of any.
            on_change: Called with a line of text each time that there is something new to tell.

        Raises:
            ServerError: Loading has failed for good, or the time is over: then it is the kind that
                says what stood in the way last.

        Example:
            >>> client.wait_until_ready("digits", timeout=60)  # doctest: +SKIP
        """
        target, deadline = RequestTarget(model, version, label), self._plans.deadline(timeout)
        self._run(self._plans.wait_until_ready(target, deadline, on_change))

    def _run(self, plan: Flow[ResultT]) -> ResultT:
        """Does the steps of a plan, one after the other."""
        try:
            step = next(plan)
            while True:
                try:
                    came = self._do(step)
                except RpcFailure as failure:
                    step = plan.throw(failure)
                else:
                    step = plan.send(came)
        except StopIteration as end:
            result: ResultT = end.value
            return result

    def _do(self, step: Step) -> object:
        if isinstance(step, UnaryCall):
            ask = self._method(step.method)
            try:
                return ask(step.request, timeout=step.timeout, metadata=self._endpoint.headers())
            except (grpc.RpcError, ValueError) as error:
                raise self._failed(error) from error
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        return run_parallel(step, self._start, self._finish)

    def _start(self, call: UnaryCall) -> grpc.Future[bytes]:
        ask = self._method(call.method)
        try:
            return ask.future(call.request, timeout=call.timeout, metadata=self._endpoint.headers())
        except ValueError as error:
            raise self._failed(error) from error

    def _finish(self, future: grpc.Future[bytes]) -> bytes:
        try:
            answer = future.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            raise self._failed(error) from error
        return answer

    def _method(self, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        self._check_open()
        if path not in self._methods:
            # Two threads may both make one: either does.
            self._methods[path] = self._channel.unary_unary(path)
        return self._methods[path]
