"""The calls of a client, as flows: validate, send, retry, parse the response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from cnnkit.client.channel import ChannelOptions
from cnnkit.client.decode import LayoutCache
from cnnkit.client.encode import RequestTarget, TemplateCache
from cnnkit.client.errors import (
    DeadlineExceeded,
    InvalidResponse,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
    server_error,
)
from cnnkit.client.expected import ExpectedOutputs, OutputMismatch
from cnnkit.client.flow import Deadline, Flow, Gather, RpcFailure, Sleep, UnaryCall
from cnnkit.client.inputs import Arrays
from cnnkit.client.metadata import (
    Signature,
    VersionStatus,
    describe_states,
    signatures,
    version_statuses,
)
from cnnkit.client.retry import RetryPolicy
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.dtypes import TensorError

ResponseT = TypeVar("ResponseT")

# Seconds between two status calls while waiting for a model.
_POLL_INTERVAL = 0.1
# Timeout of such a status call, so that a restarted server is noticed soon after a hanging one.
_POLL_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The arguments that all calls share.

    Attributes:
        target: The model.
        deadline: End of the caller's time.
        batch_size: Maximum number of rows of a request; None for the default.
        row_names: Names of the rows of the batch in errors, such as paths; empty for none.
    """

    target: RequestTarget
    deadline: Deadline
    batch_size: int | None = None
    row_names: Sequence[str] = ()


class Calls:
    """The flows of one client, and the signatures and templates that it has cached.

    Args:
        channel_options: The server.
        max_attempts: Maximum number of attempts of a call: see `RetryPolicy`.
        concurrency: Maximum number of requests in flight, if a batch is split.

    Attributes:
        known_signatures: Signatures by name, for each model that metadata were requested of.
        templates: Templates of earlier Predict requests.
        layouts: Layouts of earlier Predict responses.
        batch_limits: Numbers of rows that the server takes at once, by model and signature, where
            it has refused more.
        address: Address of the server.
        concurrency: Maximum number of requests in flight, if a batch is split.

    Raises:
        UsageError: `max_attempts` or `concurrency` is below 1.
    """

    def __init__(
        self, channel_options: ChannelOptions, max_attempts: int, concurrency: int
    ) -> None:
        if concurrency < 1:
            raise UsageError(
                "`concurrency` must be positive", expected=">= 1", received=concurrency
            )
        self.known_signatures: dict[RequestTarget, dict[str, Signature]] = {}
        self.templates = TemplateCache()
        self.layouts = LayoutCache()
        self.batch_limits: dict[tuple[RequestTarget, str], int] = {}
        self._channel_options = channel_options
        self._retry_policy = RetryPolicy(max_attempts)
        self.address = channel_options.address
        self.concurrency = concurrency

    def options(
        self,
        model: str,
        version: int | None = None,
        version_label: str | None = None,
        timeout: float | None = None,
        batch_size: int | None = None,
    ) -> CallOptions:
        """Return the options of a call; its time starts now.

        Raises:
            UsageError: `model`, `version`, `version_label` or `timeout` is invalid.
        """
        target = RequestTarget(model, version, version_label)
        return CallOptions(target, self.deadline(timeout), batch_size)

    def deadline(self, timeout: float | None) -> Deadline:
        """Return a deadline `timeout` seconds from now; None stands for the client's default."""
        return Deadline(self._channel_options.timeout if timeout is None else timeout)

    def metadata(self, options: CallOptions) -> Flow[dict[str, Signature]]:
        """Request the signatures of a model again, ignoring the cached ones."""
        self.known_signatures.pop(options.target, None)
        return dict((yield from self.signatures(options)))

    def signatures(self, options: CallOptions) -> Flow[dict[str, Signature]]:
        """Return the signatures of a model, and request them only once."""
        target = options.target
        if target not in self.known_signatures:
            response = yield from self._request_metadata(options)
            packed = response.metadata[methods.SIGNATURE_DEF].value
            self.known_signatures[target] = self._parse(packed, signatures, target)
        return self.known_signatures[target]

    def status(self, options: CallOptions, *, retry: bool = True) -> Flow[list[VersionStatus]]:
        """Request the states of a model's versions."""
        target = options.target
        if target.version_label is not None:
            # TensorFlow Serving ignores the label of a status request, but not of other requests.
            labeled = yield from self._request_metadata(options, retry=retry)
            if not labeled.model_spec.HasField("version"):
                raise InvalidResponse(
                    f"{self.address} does not say which version of "
                    f"{target.model!r} has the label {target.version_label!r}",
                    code="INTERNAL",
                    details="GetModelMetadata returned no version",
                    hint="Give the version by its number",
                )
            target = RequestTarget(target.model, version=labeled.model_spec.version.value)
        request = pb.GetModelStatusRequest(model_spec=target.model_spec())
        return (
            yield from self.call(
                methods.GET_MODEL_STATUS, request, version_statuses, options, retry=retry
            )
        )

    def models(
        self, names: Iterable[str], deadline: Deadline
    ) -> Flow[dict[str, list[VersionStatus]]]:
        """Request the states of several models; an unknown model has none."""

        def states(name: str) -> Flow[list[VersionStatus]]:
            try:
                return (yield from self.status(CallOptions(RequestTarget(name), deadline)))
            except ModelNotFound:
                return []

        names = [names] if isinstance(names, str) else list(names)
        found = yield Gather(map(states, names), self.concurrency)
        return dict(zip(names, found, strict=True))

    def wait_until_ready(
        self, options: CallOptions, on_change: Callable[[str], object] | None
    ) -> Flow[None]:
        """Poll until a version is available, loading has failed, or the time is over."""
        target, deadline = options.target, options.deadline
        reported = None
        while True:
            failure: ServerError | None = None
            statuses: list[VersionStatus] = []
            try:
                statuses = yield from self._poll(target, deadline)
            except (ServerUnavailable, ModelNotFound, DeadlineExceeded) as error:
                failure = error
            states = describe_states(statuses)
            current = states if failure is None else failure.problem
            if on_change is not None and current != reported:
                on_change(current)
            reported = current
            if any(status.state == "AVAILABLE" for status in statuses):
                return
            for status in statuses:
                if status.state == "END" and status.code != "OK":
                    raise ServerError(
                        f"Version {status.version} of {target.model!r} cannot be loaded",
                        code=status.code,
                        details=status.message,
                    )
            if deadline.left() < _POLL_INTERVAL:
                raise failure or DeadlineExceeded(
                    f"No version of {target.model!r} became available within "
                    f"{deadline.seconds:g} s",
                    code="DEADLINE_EXCEEDED",
                    details=states,
                    hint="Wait longer, or read the server's log",
                )
            yield Sleep(_POLL_INTERVAL)

    def call(
        self,
        method: str,
        request: Message | bytes,
        parse: Callable[[bytes], ResponseT],
        options: CallOptions,
        *,
        idempotent: bool = True,
        retry: bool = True,
    ) -> Flow[ResponseT]:
        """Make one call, and repeat it with backoff if the server has not started to process it.

        Args:
            method: Full path of the method.
            request: The request, or its bytes.
            parse: Parses the response's bytes.
            options: The model and the deadline.
            idempotent: Whether the call may be repeated if the connection breaks. False for
                Predict: an input that crashed one server would crash the next one too.
            retry: Whether to repeat the call at all, and to list the available versions if the
                model is not found.

        Returns:
            The parsed response.

        Raises:
            ServerError: The call failed; see the subclasses.
        """
        target, deadline = options.target, options.deadline
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        attempt = 1
        while True:
            try:
                received = yield UnaryCall(method, raw, deadline.left())
                return self._parse(received, parse, target)
            except RpcFailure as failure:
                error = server_error(
                    failure.code,
                    failure.details,
                    address=self.address,
                    model=target.model,
                    timeout=deadline.seconds,
                    idempotent=idempotent,
                    request_id=failure.request_id,
                )
                delay = self._retry_policy.delay(error, attempt, deadline, idempotent=idempotent)
                if not retry or delay is None:
                    if isinstance(error, ModelNotFound) and retry:
                        error = yield from self._add_versions(error, target, deadline)
                    raise error from failure
            attempt += 1
            yield Sleep(delay)

    def _request_metadata(
        self, options: CallOptions, *, retry: bool = True
    ) -> Flow[pb.GetModelMetadataResponse]:
        """Request the signatures of a version, and its number."""
        request = pb.GetModelMetadataRequest(
            model_spec=options.target.model_spec(), metadata_field=[methods.SIGNATURE_DEF]
        )
        parse = pb.GetModelMetadataResponse.FromString
        return (
            yield from self.call(methods.GET_MODEL_METADATA, request, parse, options, retry=retry)
        )

    def _parse(
        self, raw: bytes, parse: Callable[[bytes], ResponseT], target: RequestTarget
    ) -> ResponseT:
        """Parse a response, or raise an `InvalidResponse`."""
        try:
            return parse(raw)
        except OutputMismatch:
            raise
        except (DecodeError, TensorError) as error:
            details = str(error)
        raise self.invalid_response(target, details)

    def check_response(self, read: Callable[[], ResponseT], target: RequestTarget) -> ResponseT:
        """Interpret a response, or raise an `InvalidResponse` if that raises a `TensorError`."""
        return self._parse(b"", lambda _: read(), target)

    def decode(
        self, raw: bytes, expected: ExpectedOutputs, target: RequestTarget
    ) -> tuple[int, Arrays]:
        """Parse a Predict response; return the version that computed the outputs, and the outputs.

        Raises:
            OutputMismatch: An output is not the expected one.
            InvalidResponse: The response is invalid.
        """
        most = self._channel_options.max_response_bytes
        return self._parse(
            raw, lambda raw: self.layouts.decode(raw, expected, max_bytes=most), target
        )

    def invalid_response(self, target: RequestTarget, details: str) -> InvalidResponse:
        """Return the error for a response that cannot be used."""
        return InvalidResponse(
            f"The response of {self.address} for {target.model!r} is invalid",
            # The code that gRPC itself uses for a response it cannot parse.
            code="INTERNAL",
            details=details,
            hint="Check that this is the gRPC port of a model server",
        )

    def _poll(self, target: RequestTarget, deadline: Deadline) -> Flow[list[VersionStatus]]:
        """Request the states of a model's versions once, within a short timeout."""
        timeout = min(max(deadline.left(), _POLL_INTERVAL), _POLL_TIMEOUT)
        return (yield from self.status(CallOptions(target, Deadline(timeout)), retry=False))

    def _add_versions(
        self, error: ServerError, target: RequestTarget, deadline: Deadline
    ) -> Flow[ModelNotFound]:
        """Add the available versions of the model to an error."""
        try:
            statuses = yield from self._poll(RequestTarget(target.model), deadline)
        except ServerError:
            hint = f"Use the name of a served model; the server has no {target.model!r}"
        else:
            available = sorted(one.version for one in statuses if one.state == "AVAILABLE")[-20:]
            hint = (
                f"Versions of {target.model!r} that are available: {', '.join(map(str, available))}"
                if available
                else f"No version of {target.model!r} is available yet: wait, or read the server's "
                "log"
            )
        return ModelNotFound(
            error.problem,
            code=error.code,
            details=error.details,
            hint=hint,
            request_id=error.request_id,
        )
