"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy.typing as npt

from cnnkit._deprecation import renamed_argument
from cnnkit.client import image_calls
from cnnkit.client.base_client import BaseClient
from cnnkit.client.channel import ChannelOptions
from cnnkit.client.errors import InvalidRequest
from cnnkit.client.flow import Flow, RpcFailure, Sleep, Step, UnaryCall
from cnnkit.client.image_calls import Explanation, Images, Prediction
from cnnkit.client.metadata import Signature, VersionStatus
from cnnkit.client.parallel import run_parallel
from cnnkit.client.predict_calls import predict_flow
from cnnkit.client.transport import SyncTransport
from cnnkit.wire import methods

ResultT = TypeVar("ResultT")


class Client(BaseClient):
    """A blocking client of one model server. It may be shared by threads.

    The arguments are those of `BaseClient`. `AsyncClient` has the same methods as coroutines.

    Example:
        >>> with Client("localhost:8500") as client:  # doctest: +SKIP
        ...     client.predict(pixels, model="digits")["probabilities"]
    """

    def _open(self, options: ChannelOptions) -> None:
        self._transport = SyncTransport(options)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and cancel calls in flight."""
        self._transport.close()

    @renamed_argument("label", "version_label")
    def predict(
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
        """Run a model on a batch.

        The model's signatures are requested once and cached. Names, dtypes and shapes are validated
        before anything is sent.

        Args:
            inputs: The array of a signature with one input, such as images (n, height, width, 3)
                in 0..255, or arrays by input name. A missing batch axis is added.
            model: Name of the model on the server.
            version: Version number; the newest version by default.
            version_label: Label of a version, instead of its number.
            signature: Name of the signature.
            outputs: Names of the outputs to return; all by default.
            batch_size: Maximum number of rows of a request, 32 by default. A larger batch is split
                into several requests, which are sent concurrently. One version of the model
                computes all of them.
            timeout: Seconds for the whole call, instead of the client's default.

        Returns:
            The outputs by name, each with a batch axis.

        Raises:
            UsageError: The inputs do not match the signature, there is no such signature, or an
                image (an input with four axes) holds NaN or infinity.
            ServerError: The call failed; see the subclasses. The `row` of an `InvalidRequest` is
                the index of the row that the server refuses, if it is a single one.

        Example:
            >>> client.predict(pixels, model="digits", outputs="probabilities")  # doctest: +SKIP
            {'probabilities': array([[0.1, ...]], dtype=float32)}
        """
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return self._run(predict_flow(self._calls, inputs, signature, outputs, options))

    @renamed_argument("label", "version_label")
    def classify(
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
        """Classify images.

        Encoded images are sent unchanged: the server decodes and resizes them for the model.

        Args:
            images: One or several paths of image files, or encoded images (JPEG, PNG, GIF, BMP,
                WebP) as bytes; or pixels (n, height, width, 3) in 0..255 of the model's input size.
            model: Name of the model on the server.
            version: Version number; the newest version by default.
            version_label: Label of a version, instead of its number.
            top: Number of classes per image. By default 5, or all if the model returns fewer.
            batch_size: Maximum number of images of a request, 32 by default.
            timeout: Seconds for the whole call, instead of the client's default.

        Returns:
            The most probable classes of each image, in descending order. For pixels, labels are
            "class 3" and so on: only the signature for encoded images returns class names.

        Raises:
            UsageError: A file does not exist, pixels are not in 0..255, the model does not accept
                such images, or it returns fewer classes than `top`.
            DataError: A file cannot be read or is empty.
            InvalidRequest: One image cannot be decoded, so that all of them fail; `row` is its
                index.
            ServerError: The call failed; see the subclasses.

        Warns:
            UserWarning: Pixels look as if they were normalized, for example to 0..1.

        Example:
            >>> client.classify(["7.png"], model="digits", top=1)  # doctest: +SKIP
            [[Prediction(label='7', probability=0.99)]]
        """
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return self._run(image_calls.classify_flow(self._calls, images, top, options))

    @renamed_argument("label", "version_label")
    def features(
        self,
        images: Images,
        *,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> npt.NDArray[Any]:
        """Compute feature vectors of images: the output of the last hidden layer.

        Args:
            images: Images as for `classify`, of the kind that the signature `features` or
                `features_bytes` accepts.
            model: Name of the model on the server.
            version: Version number; the newest version by default.
            version_label: Label of a version, instead of its number.
            batch_size: Maximum number of images of a request, 32 by default.
            timeout: Seconds for the whole call, instead of the client's default.

        Returns:
            (n, features) float32. Models exported by cnnkit return vectors of length 1.

        Raises:
            UsageError: The model has no such signature, or does not accept such images.
            ServerError: The call failed; see the subclasses.

        Example:
            >>> a, b = client.features(["a.png", "b.png"], model="digits")  # doctest: +SKIP
            >>> a @ b  # cosine similarity  # doctest: +SKIP
            0.93
        """
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return self._run(image_calls.features_flow(self._calls, images, options))

    @renamed_argument("label", "version_label")
    def explain(
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
        """Explain predictions by deconvnet projections that the server computes.

        Args:
            images: Images as for `classify`.
            model: Name of the model on the server.
            layer: Explain the strongest unit of this layer, instead of the predicted class. The
                model must have been exported with this layer.
            version: Version number; the newest version by default.
            version_label: Label of a version, instead of its number.
            batch_size: Maximum number of images of a request, 32 by default.
            timeout: Seconds for the whole call, instead of the client's default.

        Returns:
            One explanation per image.

        Raises:
            UsageError: The model was not exported with such a signature.
            ServerError: The call failed; see the subclasses.

        Example:
            >>> [seen] = client.explain("7.png", model="digits")  # doctest: +SKIP
            >>> seen.label, seen.projection.shape  # doctest: +SKIP
            ('7', (64, 64, 3))
        """
        options = self._calls.options(model, version, version_label, timeout, batch_size)
        return self._run(image_calls.explain_flow(self._calls, images, layer, options))

    @renamed_argument("label", "version_label")
    def metadata(
        self,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Signature]:
        """Request the signatures of a model.

        Args:
            model: Name of the model on the server.
            version: Version number; the newest version by default.
            version_label: Label of a version, instead of its number.
            timeout: Seconds for the call, instead of the client's default.

        Returns:
            The signatures by name.

        Raises:
            ServerError: The call failed; `ModelNotFound` if the server has no such model.

        Example:
            >>> client.metadata("digits")["serving_default"].inputs["images"]  # doctest: +SKIP
            TensorSpec(dtype='float32', shape=(None, 28, 28, 1))
        """
        options = self._calls.options(model, version, version_label, timeout)
        return self._run(self._calls.metadata(options))

    @renamed_argument("label", "version_label")
    def status(
        self,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        timeout: float | None = None,
    ) -> list[VersionStatus]:
        """Request the states of a model's versions.

        For a label, the version is requested first: servers ignore the label of a status call.

        Args:
            model: Name of the model on the server.
            version: Version number; all versions by default.
            version_label: Label of a version, instead of its number.
            timeout: Seconds for the call, instead of the client's default.

        Returns:
            The versions, the newest first.

        Raises:
            ServerError: The call failed; `ModelNotFound` if the server has no such model.

        Example:
            >>> client.status("digits")  # doctest: +SKIP
            [VersionStatus(version=1, state='AVAILABLE', code='OK', message='')]
        """
        options = self._calls.options(model, version, version_label, timeout)
        return self._run(self._calls.status(options))

    def models(
        self, names: Iterable[str], timeout: float | None = None
    ) -> dict[str, list[VersionStatus]]:
        """Request the states of several models. The gRPC API has no call that lists all models.

        Args:
            names: Names of the models.
            timeout: Seconds for the whole call, instead of the client's default.

        Returns:
            The versions of each model, the newest first; an empty list for an unknown model.

        Raises:
            ServerError: A call failed; see the subclasses.

        Example:
            >>> client.models(["digits", "pets"])  # doctest: +SKIP
            {'digits': [VersionStatus(version=1, state='AVAILABLE', ...)], 'pets': []}
        """
        return self._run(self._calls.models(names, self._calls.deadline(timeout)))

    @renamed_argument("label", "version_label")
    def wait_until_ready(
        self,
        model: str,
        timeout: float = 30,
        *,
        version: int | None = None,
        version_label: str | None = None,
        on_change: Callable[[str], object] | None = None,
    ) -> None:
        """Wait until a version of a model is available.

        Args:
            model: Name of the model on the server.
            timeout: Maximum number of seconds to wait.
            version: Version number; any version by default.
            version_label: Label of a version, instead of its number.
            on_change: Called with a line of text each time the state changes.

        Raises:
            ServerError: Loading failed, or the time is over. After a timeout, the subclass and the
                text are those of the last failure.

        Example:
            >>> client.wait_until_ready("digits", timeout=60)  # doctest: +SKIP
        """
        options = self._calls.options(model, version, version_label, timeout)
        self._run(self._calls.wait_until_ready(options, on_change))

    def _run(self, flow: Flow[ResultT]) -> ResultT:
        """Run the steps of a flow one after the other."""
        try:
            step = next(flow)
            while True:
                try:
                    outcome = self._do(step)
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

    def _do(self, step: Step) -> object:
        """Run one step and return its result."""
        if isinstance(step, UnaryCall):
            return self._transport.call(step)
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        return run_parallel(step, self._transport.start, self._transport.finish)
