"""What each call of a client does, as plans: ask, ask again where that is safe, read the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from cnnkit.client.channel import ChannelOptions
from cnnkit.client.decode import decode_predict_response
from cnnkit.client.encode import RequestTarget, TemplateCache, encode_predict_request, template_key
from cnnkit.client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
    server_error,
)
from cnnkit.client.flow import Deadline, Flow, Gather, RpcFailure, Sleep, UnaryCall, backoff_delay
from cnnkit.client.inputs import Arrays, bind_inputs, concat_batches, split_batch
from cnnkit.client.metadata import Signature, VersionStatus, signatures, version_statuses
from cnnkit.errors import UsageError, unknown_name
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.dtypes import TensorError

AnswerT = TypeVar("AnswerT")

# Between two looks at a server that is starting, in seconds.
_POLL = 0.1
# A look takes no longer than this, so that a new server is seen soon after an old one hung.
_LOOK = 2.0


class Calls:
    """The plans of one client, and what it has learned of the server's models.

    Args:
        endpoint: The server.
        attempts: How often a call is made at most, where the server has not begun to work on it.
        concurrency: Requests in flight at most, where a batch is sent in parts.

    Raises:
        UsageError: One of them is below 1.
    """

    def __init__(self, endpoint: ChannelOptions, attempts: int, concurrency: int) -> None:
        for name, value in (("attempts", attempts), ("concurrency", concurrency)):
            if value < 1:
                raise UsageError(f"{name} is too small", expected="1 or more", received=value)
        self.known: dict[RequestTarget, dict[str, Signature]] = {}
        self._requests = TemplateCache()
        self._endpoint = endpoint
        self._attempts = attempts
        self._concurrency = concurrency

    def deadline(self, timeout: float | None) -> Deadline:
        """Returns the end of a call's time, the endpoint's own where none is given."""
        return Deadline(self._endpoint.timeout if timeout is None else timeout)

    def predict(
        self,
        given: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        target: RequestTarget,
        signature: str,
        outputs: Iterable[str],
        batch_size: int | None,
        deadline: Deadline,
    ) -> Flow[Arrays]:
        """Checks the inputs, sends them in as many requests as it takes, joins the answers."""
        outputs = tuple(outputs)
        known = self.known.get(target)
        form = template_key(given, target, signature, outputs, batch_size)
        if known is not None and form is not None:
            request = self._requests.again(form, known.get(signature), given)
            if request is not None:
                _, answer = yield from self._predict(request, target, deadline)
                return answer
        try:
            parts = yield from self._checked(
                given, target, signature, outputs, batch_size, deadline
            )
        except UsageError:
            if known is None:
                raise
            # What was kept may be of a version that the server has replaced since.
            self.known.pop(target, None)
            parts = yield from self._checked(
                given, target, signature, outputs, batch_size, deadline
            )
        if len(parts) == 1:
            _, answer = yield from self._send(parts[0], target, signature, outputs, deadline)
            return answer
        answers = yield Gather(
            (self._send(part, target, signature, outputs, deadline) for part in parts),
            self._concurrency,
        )
        newest = max(version for version, _ in answers)
        # A new version came in between: one answer is not made of two networks.
        late = [place for place, (version, _) in enumerate(answers) if version != newest]
        if late:
            pinned = RequestTarget(target.model, version=newest)
            again = (
                self._send(parts[place], pinned, signature, outputs, deadline) for place in late
            )
            for place, answer in zip(late, (yield Gather(again, self._concurrency)), strict=True):
                answers[place] = answer
        return concat_batches([answer for _, answer in answers])

    def signatures(self, target: RequestTarget, deadline: Deadline) -> Flow[dict[str, Signature]]:
        """Asks once which signatures a model has."""
        if target not in self.known:
            request = pb.GetModelMetadataRequest(
                model_spec=target.spec(), metadata_field=[methods.SIGNATURE_DEF]
            )
            response = yield from self.ask(
                methods.GET_MODEL_METADATA,
                request,
                pb.GetModelMetadataResponse.FromString,
                target,
                deadline,
            )
            packed = response.metadata[methods.SIGNATURE_DEF].value
            self.known[target] = signatures(
                self._read(packed, pb.SignatureDefMap.FromString, target)
            )
        return self.known[target]

    def status(
        self, target: RequestTarget, deadline: Deadline, *, once: bool = False
    ) -> Flow[list[VersionStatus]]:
        """Asks for the states of a model's versions."""
        response = yield from self.ask(
            methods.GET_MODEL_STATUS,
            pb.GetModelStatusRequest(model_spec=target.spec()),
            pb.GetModelStatusResponse.FromString,
            target,
            deadline,
            once=once,
        )
        return version_statuses(response)

    def models(
        self, names: Iterable[str], deadline: Deadline
    ) -> Flow[dict[str, list[VersionStatus]]]:
        """Asks for the states of several models; of one that is not there, there are none."""

        def states(name: str) -> Flow[list[VersionStatus]]:
            try:
                return (yield from self.status(RequestTarget(name), deadline))
            except ModelNotFound:
                return []

        names = [names] if isinstance(names, str) else list(names)
        found = yield Gather(map(states, names), self._concurrency)
        return dict(zip(names, found, strict=True))

    def wait_until_ready(
        self,
        target: RequestTarget,
        deadline: Deadline,
        on_change: Callable[[str], object] | None,
    ) -> Flow[None]:
        """Looks until a version can be used, loading has failed, or the time is over."""
        told = None
        while True:
            failure: ServerError | None = None
            statuses: list[VersionStatus] = []
            try:
                look = Deadline(min(max(deadline.left(), _POLL), _LOOK))
                statuses = yield from self.status(target, look, once=True)
            except (ServerUnavailable, ModelNotFound, DeadlineExceeded) as error:
                failure = error
            states = ", ".join(f"version {one.version} {one.state}" for one in statuses)
            now = states if failure is None else failure.problem
            if on_change is not None and now != told:
                on_change(now)
            told = now
            if any(status.state == "AVAILABLE" for status in statuses):
                return
            for status in statuses:
                if status.state == "END" and status.code != "OK":
                    raise ServerError(
                        f"Version {status.version} of {target.model!r} cannot be loaded",
                        code=status.code,
                        details=status.message,
                    )
            if deadline.left() < _POLL:
                raise failure or DeadlineExceeded(
                    f"No version of {target.model!r} became available within "
                    f"{deadline.seconds:g} s",
                    code="DEADLINE_EXCEEDED",
                    details=states,
                    hint="Wait longer, or look at the server's log",
                )
            yield Sleep(_POLL)

    def ask(
        self,
        method: str,
        request: Message | bytes,
        read: Callable[[bytes], AnswerT],
        target: RequestTarget,
        deadline: Deadline,
        *,
        harmless: bool = True,
        once: bool = False,
    ) -> Flow[AnswerT]:
        """Makes one call, and again after a while where the server has not begun to work on it.

        Args:
            method: The full path of the method.
            request: What to ask.
            read: Makes the response out of its bytes.
            target: The model that is asked.
            deadline: The end of the caller's time.
            harmless: Whether the request carries nothing that a server could die of. Only such a
                call is made again when the connection breaks: the same image would kill one
                server after the other.
            once: Whether to be content with whatever comes first, and to ask nothing more.

        Returns:
            The response.

        Raises:
            ServerError: The call failed; the subclass says how.
        """
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        attempt = 1
        while True:
            try:
                received = yield UnaryCall(method, raw, deadline.left())
                return self._read(received, read, target)
            except RpcFailure as failure:
                error = self._error(failure, target, deadline, harmless)
                seconds = backoff_delay(attempt)
                again = error.retryable or (harmless and isinstance(error, ConnectionLost))
                last = once or attempt >= self._attempts or seconds >= deadline.left()
                if last or not again:
                    if isinstance(error, ModelNotFound) and not once:
                        error = yield from self._with_versions(error, target, deadline)
                    raise error from failure
            attempt += 1
            yield Sleep(seconds)

    def _checked(
        self,
        given: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        target: RequestTarget,
        signature: str,
        outputs: tuple[str, ...],
        batch_size: int | None,
        deadline: Deadline,
    ) -> Flow[list[Arrays]]:
        offered = yield from self.signatures(target, deadline)
        if signature not in offered:
            raise unknown_name("signature", signature, offered)
        chosen = offered[signature]
        for name in outputs:
            if name not in chosen.outputs:
                raise unknown_name("output", name, chosen.outputs)
        parts = split_batch(bind_inputs(given, chosen), chosen, batch_size)
        form = template_key(given, target, signature, outputs, batch_size)
        if form is not None and len(parts) == 1:
            self._requests.keep(form, chosen, given, parts[0])
        return parts

    def _send(
        self,
        part: Arrays,
        target: RequestTarget,
        signature: str,
        outputs: tuple[str, ...],
        deadline: Deadline,
    ) -> Flow[tuple[int, Arrays]]:
        """Sends arrays; returns the version that answered, and its outputs."""
        # The bytes are made when it is this part's turn, not all of them at once.
        request = encode_predict_request(target, signature, part, outputs)
        return (yield from self._predict(request, target, deadline))

    def _predict(
        self, request: bytes, target: RequestTarget, deadline: Deadline
    ) -> Flow[tuple[int, Arrays]]:
        """Makes one Predict call."""
        try:
            return (
                yield from self.ask(
                    methods.PREDICT,
                    request,
                    decode_predict_response,
                    target,
                    deadline,
                    harmless=False,
                )
            )
        except (InvalidRequest, ModelNotFound):
            self.known.pop(target, None)
            raise

    def _read(self, raw: bytes, read: Callable[[bytes], AnswerT], target: RequestTarget) -> AnswerT:
        try:
            return read(raw)
        except (DecodeError, TensorError) as error:
            details = str(error)
        raise InvalidResponse(
            f"{self._endpoint.address} does not answer for {target.model!r} as a model server does",
            # As gRPC itself calls an answer that it cannot read.
            code="INTERNAL",
            details=details,
            hint="Look whether this is the gRPC port of a model server",
        )

    def _error(
        self, failure: RpcFailure, target: RequestTarget, deadline: Deadline, harmless: bool
    ) -> ServerError:
        return server_error(
            failure.code,
            failure.details,
            address=self._endpoint.address,
            model=target.model,
            timeout=deadline.seconds,
            harmless=harmless,
        )

    def _with_versions(
        self, error: ServerError, target: RequestTarget, deadline: Deadline
    ) -> Flow[ModelNotFound]:
        """Adds which versions of a model can be asked for."""
        look = Deadline(min(max(deadline.left(), _POLL), _LOOK))
        try:
            statuses = yield from self.status(RequestTarget(target.model), look, once=True)
        except ServerError:
            statuses = []
            hint = f"Use a name that the server serves; {target.model!r} is none"
        else:
            available = sorted(one.version for one in statuses if one.state == "AVAILABLE")
            hint = (
                f"Versions of {target.model!r} that are available: {', '.join(map(str, available))}"
                if available
                else f"No version of {target.model!r} is available yet: wait, or look at the "
                "server's log"
            )
        return ModelNotFound(error.problem, code=error.code, details=error.details, hint=hint)
