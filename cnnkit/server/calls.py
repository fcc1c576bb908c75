"""Admission, metrics and log of every call, whichever API it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from cnnkit.server.access_log import log_request, request_id
from cnnkit.server.client_certificate import ClientCertificates
from cnnkit.server.incoming import ReadMessage
from cnnkit.server.limits import ConcurrencyLimiter, ReceivedRequest, ServerLimits
from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.metrics import NO_METRICS, NoMetrics
from cnnkit.server.status_error import STOPPED, StatusError, invalid_argument, truncate_details
from cnnkit.server.tracing import ServerTracing
from cnnkit.server.unpack import unpack_message
from cnnkit.wire.methods import REQUEST_ID

_LOG = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)
Handle = Callable[[ReceivedRequest], Awaitable[_T]]

# Protobuf turns two bytes of an empty message in a list into fifty or more. The largest request
# without tensors is a configuration of many models.
MAX_SMALL_REQUEST_BYTES = 2**20


@dataclass(frozen=True)
class Caller:
    """The client of one call.

    Attributes:
        peer: Its address, as gRPC names it: "ipv4:10.0.0.7:41234".
        identity: What is known of its certificate: `ServicerContext.auth_context()`.
        read: Receives the message of the call.
        request_id: Id of the call.
        headers: Metadata of gRPC, or headers of HTTP.
        authorize: Raises a `StatusError` if the client may not make the call; None if all may.
    """

    peer: str
    identity: Mapping[str, Iterable[bytes]]
    read: ReadMessage
    request_id: str
    headers: Mapping[str, Any]
    authorize: Callable[[], None] | None = None


class CallHandler:
    """Answers calls by the functions of the services.

    Args:
        limits: Limits of the server.
        executor: Threads for everything except graphs: they decode and encode messages.
        clients: The clients that are answered, if they have certificates.
        metrics: Counts the calls.
        access_log: Log one line for each call.
        tracing: Makes a span for each call; None for none.

    Attributes:
        clients: The clients that are answered.
        limiter: Counts the calls; ends them when the server stops.

    Example:
        >>> calls = CallHandler(ServerLimits(), executor)  # doctest: +SKIP
        >>> handler = calls.grpc_handler("Predict", service.predict)  # doctest: +SKIP
    """

    def __init__(
        self,
        limits: ServerLimits,
        executor: Executor,
        clients: ClientCertificates | None = None,
        metrics: NoMetrics = NO_METRICS,
        *,
        access_log: bool = False,
        tracing: ServerTracing | None = None,
    ) -> None:
        self._executor = executor
        self._metrics = metrics
        self._access_log = access_log
        self._tracing = tracing
        self.clients = clients or ClientCertificates()
        self.limiter = ConcurrencyLimiter(limits)

    def grpc_handler(
        self,
        method: str,
        handle: Handle[bytes],
        authorize: Callable[[Context], None] | None = None,
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Returns the handler of a gRPC method.

        Args:
            method: Name of the method.
            handle: Returns the serialized response to a request.
            authorize: Raises a `StatusError` if the client may not make the call.
        """

        async def respond(_: object, context: Context) -> bytes | None:
            headers = dict(context.invocation_metadata() or ())
            caller = Caller(
                context.peer(),
                context.auth_context(),
                context.read,
                request_id(headers.get(REQUEST_ID)),
                headers,
                None if authorize is None else functools.partial(authorize, context),
            )
            context.set_trailing_metadata(((REQUEST_ID, caller.request_id),))
            with self.status_of_errors(context):
                return await self.call(method, caller, handle)
            return None

        # The call is unary. As a stream, its message is not read before the request is admitted.
        return grpc.stream_unary_rpc_method_handler(respond)

    async def call(self, method: str, caller: Caller, handle: Handle[_T]) -> _T:
        """Answers one call: checks its client, admits, counts, handles and logs it.

        Args:
            method: Name of the method, for the metrics and the log.
            caller: The client.
            handle: Returns the answer to a request.

        Raises:
            StatusError: Whatever goes wrong.
        """
        begun, code = time.monotonic(), "CANCELLED"
        request: ReceivedRequest | None = None
        answer: Any = b""
        tracing = self._tracing
        span = tracing.begin(method, caller.headers, caller.request_id) if tracing else None
        try:
            with self._metrics.open_request(), self.errors_as_status(caller.request_id):
                self.clients.check(caller.identity)
                if caller.authorize is not None:
                    caller.authorize()
                async with self.limiter.admit(caller.peer, caller.read) as request:
                    answer = await handle(request)
                code = "OK"
                return answer
        except StatusError as error:
            code = error.code.name
            raise
        finally:
            seconds = time.monotonic() - begun
            called = ("", "", "") if request is None else request.called
            self._metrics.finish_request(method, *called, code, seconds)
            if tracing and span:
                tracing.end(span, called, code)
            if self._access_log:
                model, version, signature = called
                log_request(
                    method=method,
                    model=model or (request.model_name if request else ""),
                    version=version,
                    signature=signature,
                    code=code,
                    seconds=seconds,
                    request_bytes=request.size if request else 0,
                    response_bytes=len(answer) if code == "OK" else 0,
                    request_id=caller.request_id,
                )

    async def read_unlimited(self, request_type: type[_M], context: Context) -> _M:
        """Returns the message of a gRPC call that is answered at once, also at the limits.

        Args:
            request_type: The type of the message, which has no tensors.
            context: The call.

        Raises:
            StatusError: If the client is not answered, or its message cannot be received.
        """
        self.clients.check(context.auth_context())
        raw = await self.limiter.receive(context.peer(), context.read)
        with self.limiter.open_memory() as memory:
            return parse_small(request_type, raw, memory)

    @contextlib.contextmanager
    def errors_as_status(self, request_id: str = "") -> Iterator[None]:
        """Raises a `StatusError` for any error of the block.

        Args:
            request_id: Id of the request, by which its traceback is found in the server's log.
        """
        code, text = grpc.StatusCode.INTERNAL, ""
        try:
            yield
            return
        except StatusError:
            raise
        except DecodeError:
            pass
        except asyncio.CancelledError:
            if not self.limiter.ended:
                # The client is gone.
                raise
            # Not the CANCELLED of gRPC, with which clients repeat a call that never began.
            code, text = grpc.StatusCode.UNAVAILABLE, STOPPED
        except Exception as error:
            # An error of the server itself must not end it.
            which = f"request {request_id}" if request_id else "a request"
            _LOG.exception("An error of the server in %s", which)
            text = f"{type(error).__name__}; see the server's log of {which}"
        raise StatusError(code, text)

    @contextlib.contextmanager
    def status_of_errors(self, context: Context) -> Iterator[None]:
        """Sets the status of a gRPC call whose block raises an error."""
        try:
            with self.errors_as_status():
                yield
        except StatusError as error:
            # `context.abort` raises an error that the context keeps, and its traceback keeps the
            # request: a reference cycle, which is collected too rarely in a TensorFlow process.
            context.set_code(error.code)
            context.set_details(truncate_details(error.details))

    async def in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        """Runs a function in a thread for messages, and returns its result."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def parse_small(request_type: type[_M], raw: bytes, memory: MemoryAccount) -> _M:
    """Parses a request without tensors.

    Args:
        request_type: The type of the message.
        raw: The message, which may be packed.
        memory: The account of the request.

    Raises:
        StatusError: If it is too large, or memory is full.
        google.protobuf.message.DecodeError: If it is not a message.
    """
    unpacked = unpack_message(raw, memory, MAX_SMALL_REQUEST_BYTES)
    if len(unpacked) > MAX_SMALL_REQUEST_BYTES:
        raise invalid_argument(
            f"The request has {len(unpacked)} bytes, and may have {MAX_SMALL_REQUEST_BYTES}"
        )
    return request_type.FromString(bytes(unpacked))
