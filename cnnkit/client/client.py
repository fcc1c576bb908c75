"""The client: arrays or images in, arrays or labels out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy.typing as npt

from cnnkit.client import images as encoded_images
from cnnkit.client import inputs as arrays
from cnnkit.client.connection import Connection, check_timeout
from cnnkit.client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
)
from cnnkit.client.images import Image, Prediction
from cnnkit.client.metadata import Signature, VersionStatus, signatures, version_statuses
from cnnkit.errors import UsageError, unknown_name
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode, encode

# Between two looks at a server that is starting, in seconds.
_POLL = 0.1


class Client:
    """A connection to one model server, for any number of calls and threads.

    Args:
        address: "HOST:PORT" of the server's gRPC interface.
        timeout: Seconds that a call may take unless it says otherwise.

    Raises:
        UsageError: The address has no port, or the timeout is not positive.

    Example:
        >>> with Client("localhost:8500") as client:  # doctest: +SKIP
        ...     client.predict(pixels, model="digits")["probabilities"]
    """

    def __init__(self, address: str, *, timeout: float = 10.0) -> None:
        self._connection = Connection(address, timeout=timeout)
        self._known: dict[tuple[str, int | None, str | None], dict[str, Signature]] = {}

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
        """Ends the connection; calls in flight are cancelled."""
        self._connection.close()

    def predict(
        self,
        inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        signature: str = methods.DEFAULT_SIGNATURE,
        outputs: Iterable[str] | None = None,
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
            timeout: Seconds for the call instead of the client's own.

        Returns:
            The outputs by name, each with its batch axis.

        Raises:
            UsageError: The inputs do not fit the signature, or there is no such signature.
            ServerError: The server did not answer with a result; the subclass says how.

        Example:
            >>> client.predict(pixels, model="digits", outputs=["fc7"])  # doctest: +SKIP
            {'fc7': array([[0.1, ...]], dtype=float32)}
        """
        spec = _model_spec(model, version, label)
        known = (model, version, label) in self._known
        outputs = [outputs] if isinstance(outputs, str) else list(outputs or ())
        try:
            request = self._request(spec, inputs, signature, outputs, timeout)
        except UsageError:
            if not known:
                raise
            # What was kept may be of a version that the server has replaced since.
            self._forget(spec)
            request = self._request(spec, inputs, signature, outputs, timeout)
        try:
            response = self._connection.call(
                methods.PREDICT, request, pb.PredictResponse, model=model, timeout=timeout
            )
        except (InvalidRequest, ModelNotFound):
            self._forget(spec)
            raise
        return {name: decode(tensor) for name, tensor in response.outputs.items()}

    def classify(
        self,
        images: Image | Iterable[Image],
        *,
        model: str,
        version: int | None = None,
        label: str | None = None,
        top: int | None = None,
        timeout: float | None = None,
    ) -> list[list[Prediction]]:
        """Says what images show.

        The encoded bytes are sent, and the server decodes and scales them as the model wants.

        Args:
            images: Paths of image files, or their bytes (JPEG, PNG, GIF, BMP, WebP).
            model: The model's name on the server.
            version: Its version; the newest one by default.
            label: A version's label instead of its number.
            top: The number of classes for each image; by default 5, or all where the model answers
                with fewer.
            timeout: Seconds for the call instead of the client's own.

        Returns:
            For each image its classes, the most probable first.

        Raises:
            UsageError: A file does not exist, the model takes no encoded images, or it answers with
                fewer classes than `top`.
            DataError: A file cannot be read or is empty.
            ServerError: The server did not answer with a result. One image that it cannot decode
                fails the whole batch.

        Example:
            >>> client.classify(["7.png"], model="digits", top=1)  # doctest: +SKIP
            [[Prediction(label='7', probability=0.99)]]
        """
        batch = encoded_images.read_images(images)
        spec = _model_spec(model, version, label)
        name = encoded_images.choose(self._signatures(spec, timeout), top, model)
        labelled = name == encoded_images.LABELLED
        outputs = self.predict(
            {encoded_images.IMAGE_INPUT: batch},
            model=model,
            version=version,
            label=label,
            signature=name,
            outputs=["labels", "scores"] if labelled else ["probabilities"],
            timeout=timeout,
        )
        answered = outputs["labels" if labelled else "probabilities"].shape[-1]
        encoded_images.check_top(top, answered, model)
        read = encoded_images.labelled if labelled else encoded_images.unlabelled
        return read(outputs, top or encoded_images.USUAL_TOP)

    def metadata(self, model: str, version: int | None = None) -> dict[str, Signature]:
        """Asks which signatures a model has.

        Args:
            model: The model's name on the server.
            version: Its version; the newest one by default.

        Returns:
            The signatures by name.

        Raises:
            ServerError: The server did not answer; ModelNotFound where it has no such model.

        Example:
            >>> client.metadata("digits")["serving_default"].inputs["images"]  # doctest: +SKIP
            TensorSpec(dtype='float32', shape=(None, 28, 28, 1))
        """
        spec = _model_spec(model, version, None)
        self._forget(spec)
        return dict(self._signatures(spec, None))

    def status(self, model: str, version: int | None = None) -> list[VersionStatus]:
        """Asks which versions of a model there are, and whether they can be used.

        Args:
            model: The model's name on the server.
            version: One version only; all by default.

        Returns:
            The versions, the newest first.

        Raises:
            ServerError: The server did not answer; ModelNotFound where it has no such model.

        Example:
            >>> client.status("digits")  # doctest: +SKIP
            [VersionStatus(version=1, state='AVAILABLE', code='OK', message='')]
        """
        return self._status(_model_spec(model, version, None), None)

    def wait_until_ready(self, model: str, timeout: float = 30) -> None:
        """Waits until some version of a model can be used.

        Args:
            model: The model's name on the server.
            timeout: Seconds to wait at most.

        Raises:
            ServerError: Loading has failed for good, or the time is over: then it is the kind that
                says what stood in the way last.

        Example:
            >>> client.wait_until_ready("digits", timeout=60)  # doctest: +SKIP
        """
        end = time.monotonic() + check_timeout(timeout)
        spec = _model_spec(model, None, None)
        while True:
            left = max(end - time.monotonic(), _POLL)
            try:
                statuses = self._status(spec, min(left, 2.0))
            except (ServerUnavailable, ModelNotFound, DeadlineExceeded):
                if time.monotonic() + _POLL > end:
                    raise
                statuses = []
            if any(status.state == "AVAILABLE" for status in statuses):
                return
            for status in statuses:
                if status.state == "END" and status.code != "OK":
                    raise ServerError(
                        f"Version {status.version} of {model!r} cannot be loaded",
                        code=status.code,
                        details=status.message,
                    )
            if time.monotonic() + _POLL > end:
                states = ", ".join(f"{status.version} {status.state}" for status in statuses)
                raise DeadlineExceeded(
                    f"No version of {model!r} became available within {timeout:g} s",
                    code="DEADLINE_EXCEEDED",
                    details=states,
                    hint="Wait longer, or look at the server's log",
                )
            time.sleep(_POLL)

    def _status(self, spec: pb.ModelSpec, timeout: float | None) -> list[VersionStatus]:
        request = pb.GetModelStatusRequest(model_spec=spec)
        response = self._connection.call(
            methods.GET_MODEL_STATUS,
            request,
            pb.GetModelStatusResponse,
            model=spec.name,
            timeout=timeout,
        )
        return version_statuses(response)

    def _signatures(self, spec: pb.ModelSpec, timeout: float | None) -> dict[str, Signature]:
        key = _key(spec)
        if key not in self._known:
            request = pb.GetModelMetadataRequest(
                model_spec=spec, metadata_field=[methods.SIGNATURE_DEF]
            )
            response = self._connection.call(
                methods.GET_MODEL_METADATA,
                request,
                pb.GetModelMetadataResponse,
                model=spec.name,
                timeout=timeout,
            )
            packed = response.metadata[methods.SIGNATURE_DEF]
            self._known[key] = signatures(pb.SignatureDefMap.FromString(packed.value))
        return self._known[key]

    def _forget(self, spec: pb.ModelSpec) -> None:
        self._known.pop(_key(spec), None)

    def _request(
        self,
        spec: pb.ModelSpec,
        inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        signature: str,
        outputs: list[str],
        timeout: float | None,
    ) -> pb.PredictRequest:
        offered = self._signatures(spec, timeout)
        if signature not in offered:
            raise unknown_name("signature", signature, offered)
        matched = arrays.match(inputs, offered[signature])
        for name in outputs:
            if name not in offered[signature].outputs:
                raise unknown_name("output", name, offered[signature].outputs)
        named = pb.ModelSpec()
        named.CopyFrom(spec)
        named.signature_name = signature
        return pb.PredictRequest(
            model_spec=named,
            inputs={name: encode(array) for name, array in matched.items()},
            output_filter=outputs,
        )


def _model_spec(model: str, version: int | None, label: str | None) -> pb.ModelSpec:
    if not model:
        raise UsageError("A call needs the name of a model")
    if version is not None and label is not None:
        raise UsageError(
            "A version is asked for twice",
            expected="a version or a label",
            received=f"version {version} and label {label!r}",
        )
    spec = pb.ModelSpec(name=model)
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label
    return spec


def _key(spec: pb.ModelSpec) -> tuple[str, int | None, str | None]:
    chosen = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if chosen == "version" else None,
        spec.version_label if chosen == "version_label" else None,
    )
