"""TensorFlow Serving's REST API, beside gRPC in one event loop.

Paths, codes and texts are those of https://www.tensorflow.org/tfx/serving/api_rest, and of
`http_rest_api_util.cc` and `http_server.cc` in its sources. The HTTP server is aiohttp's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from cnnkit.errors import check_installed
from cnnkit.server.access_log import request_id
from cnnkit.server.calls import MAX_SMALL_REQUEST_BYTES, Caller, CallHandler
from cnnkit.server.health import HealthServicer
from cnnkit.server.limits import ReceivedRequest, ServerLimits
from cnnkit.server.listen import bind_port
from cnnkit.server.model_calls import model_metadata, model_status, refuse_examples
from cnnkit.server.open_inference.rest import (
    HEADER_LENGTH,
    Answer,
    BinaryAnswer,
    InferenceRest,
)
from cnnkit.server.repository import ModelRepository
from cnnkit.server.rest_json import (
    dump_json,
    message_json,
    metadata_json,
    parse_request,
    predict_functions,
)
from cnnkit.server.service import PredictionServicer
from cnnkit.server.status_error import (
    StatusError,
    invalid_argument,
    quote_name,
    too_large,
    truncate_details,
)
from cnnkit.server.unpack import unpack_message
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

if TYPE_CHECKING:
    from aiohttp import web

_CHOICE = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_MODEL = rf"(?i)/v1/models/(?P<name>[^/:]+){_CHOICE}"
_INFERENCE = re.compile(rf"{_MODEL}:(?P<verb>classify|regress|predict)", re.ASCII)
_MODEL_STATUS = re.compile(rf"{_MODEL}(?P<metadata>/metadata)?", re.ASCII)
_HEALTH = re.compile(r"(?P<api>/v[12])/health/(?P<name>.*)")

# As `http_server.cc` maps them.
_HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
_OTHER_ERROR = 500
# Seconds between two looks at connections that send no request.
_SWEEP_SECONDS = 1.0

# aiohttp would log a traceback for each malformed request of a client.
_HTTP_LOG = logging.getLogger("cnnkit.server.http")
_HTTP_LOG.setLevel(logging.CRITICAL)

_Handle = Callable[[ReceivedRequest], Awaitable[Answer]]


class RestServer:
    """Answers HTTP requests by the services of the gRPC side, within the same limits.

    Args:
        calls: Admits and answers the calls.
        service: Runs Predict.
        health: Knows whether the models can be called.
        repository: The models.
        limits: Limits of the server. A connection on which no request arrives within
            `receive_timeout_seconds` is closed.

    Raises:
        UsageError: If aiohttp is not installed.

    Example:
        >>> rest = RestServer(calls, service, health, repository, limits)  # doctest: +SKIP
        >>> await rest.listen("127.0.0.1", 8501)  # doctest: +SKIP
        8501
    """

    def __init__(
        self,
        calls: CallHandler,
        service: PredictionServicer,
        health: HealthServicer,
        repository: ModelRepository,
        limits: ServerLimits,
    ) -> None:
        check_rest_installed()
        self._calls = calls
        self._service = service
        self._health = health
        self._repository = repository
        self._limits = limits
        self._inference = InferenceRest(calls, service, repository, limits)
        self._busy: set[object] = set()
        # Time at which each connection without a request was first seen to have none.
        self._silent_since: dict[Any, float] = {}
        self._stopping = False

    async def listen(
        self, host: str, port: int, tls: ssl.SSLContext | None = None, *, shared: bool = False
    ) -> int:
        """Binds a port, on which `start` listens.

        Args:
            host: The network interface.
            port: The port; 0 for any free one.
            tls: TLS settings; None for plain HTTP.
            shared: Whether other processes of this user may listen on the port too.

        Returns:
            The port.

        Raises:
            RunError: If the port cannot be bound.
        """
        from aiohttp import web

        self._server = web.Server(
            self._respond,
            # A client that is gone needs no answer.
            handler_cancellation=True,
            # `unpack_message` counts what it unpacks.
            auto_decompress=False,
            access_log=None,
            logger=_HTTP_LOG,
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=1.0)
        await self._runner.setup()
        self._bound = bind_port(host, port, shared=shared)
        self._site = web.SockSite(self._runner, self._bound, ssl_context=tls)
        return int(self._bound.getsockname()[1])

    async def start(self) -> None:
        """Starts to accept connections."""
        await self._site.start()
        self._sweeper = asyncio.create_task(self._close_silent_connections())

    def refuse_new(self) -> None:
        """Closes each connection after its next answer, and tells probes that the server stops."""
        self._stopping = True

    async def close(self) -> None:
        """Stops to listen and closes the connections when their answers are sent."""
        if hasattr(self, "_sweeper"):
            self._sweeper.cancel()
        await self._runner.cleanup()
        # That of a server that was not started is still open.
        self._bound.close()

    async def _close_silent_connections(self) -> None:
        """Closes connections whose request, or whose reader, takes too long."""
        while True:
            now, since = time.monotonic(), self._silent_since
            silent = [one for one in self._server.connections if one not in self._busy]
            self._silent_since = {one: since.get(one, now) for one in silent}
            for connection, begun in self._silent_since.items():
                if now - begun > self._limits.receive_timeout_seconds and connection.transport:
                    connection.transport.abort()
            await asyncio.sleep(_SWEEP_SECONDS)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        status, text = 200, ""
        identifier = request_id(request.headers.get(methods.REQUEST_ID))
        self._busy.add(request.protocol)
        body: Answer = b""
        try:
            body = await self._answer(request, identifier)
        except StatusError as error:
            status = error.http_status or _HTTP_STATUS.get(error.code, _OTHER_ERROR)
            text = error.details
        finally:
            self._busy.discard(request.protocol)
            # Also between two looks: a connection with short requests is not silent.
            self._silent_since.pop(request.protocol, None)
        if status != 200:
            body = dump_json({"error": truncate_details(text)})
        headers, kind = {"Server": "cnnkit", "X-Request-Id": identifier}, "application/json"
        if isinstance(body, BinaryAnswer):
            headers[HEADER_LENGTH], kind = str(body.json_bytes), "application/octet-stream"
            body = body.body
        response = web.Response(body=body, status=status, content_type=kind, headers=headers)
        if self._stopping:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest, identifier: str) -> Answer:
        path = request.raw_path.partition("?")[0]
        identity = _identity(request)
        if probe := _HEALTH.fullmatch(path):
            with self._calls.errors_as_status(identifier):
                self._calls.clients.check(identity)
                return self._health_answer(probe["api"], probe["name"])
        method, handle, has_body = self._route(request, path)

        async def read() -> bytes:
            return await self._read_body(request) if has_body else b""

        caller = Caller(_peer(request), identity, read, identifier, request.headers)
        return await self._calls.call(method, caller, handle)

    def _route(self, request: web.BaseRequest, path: str) -> tuple[str, _Handle, bool]:
        """Returns the name of a call, its handler, and whether it has a body."""
        http_method = request.method
        if route := self._inference.route(http_method, path, request.headers):
            return route
        if http_method == "POST" and (found := _INFERENCE.fullmatch(path)):
            verb = found["verb"]
            if verb == "predict":
                return "REST Predict", lambda request: self._predict(found, request), True
            if verb in ("classify", "regress"):
                name = f"REST {verb.capitalize()}"
                return name, lambda request: self._refuse_examples(found, request), True
        if http_method == "GET" and (found := _MODEL_STATUS.fullmatch(path)):
            name = "GetModelMetadata" if found["metadata"] else "GetModelStatus"
            return f"REST {name}", lambda request: self._describe(found), False
        text = f"Malformed request: {http_method} {quote_name(path)}"
        if http_method == "GET" and path.lower() == "/v1/models":
            text = "Missing model name in request."

        async def refuse(request: ReceivedRequest) -> bytes:
            if path.lower().startswith(("/v1/", "/v2/")):
                raise invalid_argument(text)
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"Not found: {quote_name(path)}")

        return "REST", refuse, False

    async def _predict(self, found: re.Match[str], request: ReceivedRequest) -> bytes:
        functions = predict_functions(_model_spec(found), self._limits.max_request_bytes)
        return await self._service.predict(request, *functions)

    async def _refuse_examples(self, found: re.Match[str], request: ReceivedRequest) -> bytes:
        def refuse() -> bytes:
            most = MAX_SMALL_REQUEST_BYTES
            raw = unpack_message(request.take(), request.memory, most)
            spec = _model_spec(found)
            spec.signature_name = parse_request(raw, request.memory, most).get("signature_name", "")
            kind = "classification" if found["verb"] == "classify" else "regression"
            return refuse_examples(kind, [spec], self._repository).SerializeToString()

        return await self._calls.in_thread(refuse)

    async def _describe(self, found: re.Match[str]) -> bytes:
        spec = _model_spec(found)
        if found["metadata"] is None:
            status = model_status(pb.GetModelStatusRequest(model_spec=spec), self._repository)
            return dump_json(message_json(status))
        request = pb.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[methods.SIGNATURE_DEF]
        )
        return dump_json(metadata_json(model_metadata(request, self._repository)))

    def _health_answer(self, api: str, name: str) -> bytes:
        if name not in ("live", "ready"):
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"Not found: {api}/health/{quote_name(name)}"
            )
        if (problem := self._health.problem()) is not None:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, problem)
        if name == "ready" and self._stopping:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server is stopping")
        if name == "ready" and not self._health.is_ready():
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "A model has no version to call")
        return dump_json({"status": name} if api == "/v1" else {name: True})

    async def _read_body(self, request: web.BaseRequest) -> bytes:
        most = self._limits.max_request_bytes
        pieces, size = list[bytes](), request.content_length or 0
        if size <= most:
            size = 0
            async for piece in request.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    break
        if size > most:
            raise too_large(f"Received message larger than max ({size} vs. {most})")
        return b"".join(pieces)


def check_rest_installed() -> None:
    """Checks that aiohttp is installed, without importing it.

    Raises:
        UsageError: If it is not.
    """
    check_installed("aiohttp", package="aiohttp", needed_by="rest_port")


def _model_spec(found: re.Match[str]) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=_decode(found["name"]))
    if found["version"] is not None:
        # Python converts at most 4300 digits.
        digits = found["version"].lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise invalid_argument(
                f"Failed to convert version: {quote_name(found['version'])} to numeric."
            )
        spec.version.value = int(digits)
    if found["label"] is not None:
        spec.version_label = _decode(found["label"])
    return spec


def _decode(quoted: str) -> str:
    return urllib.parse.unquote(quoted, errors="replace")


def _peer(request: web.BaseRequest) -> str:
    """Returns the address of a client, as gRPC names it."""
    transport = request.transport
    place = None if transport is None else transport.get_extra_info("peername")
    if not place:
        return "unknown"
    host, port = urllib.parse.quote(place[0], safe=":."), place[1]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _identity(request: web.BaseRequest) -> dict[str, list[bytes]]:
    """Returns the certificate of a client and its names, in fields named as by gRPC."""
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    if tls is None or (certificate := tls.getpeercert(binary_form=True)) is None:
        return {}
    fields = tls.getpeercert()
    subject = [pair for group in fields.get("subject", ()) for pair in group]
    names = [value for _, value in fields.get("subjectAltName", ())]
    return {
        "x509_pem_cert": [ssl.DER_cert_to_PEM_cert(certificate).encode()],
        "x509_common_name": [value.encode() for kind, value in subject if kind == "commonName"],
        "x509_subject_alternative_name": [name.encode() for name in names if isinstance(name, str)],
    }
