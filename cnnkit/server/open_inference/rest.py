"""The protocol's REST API, with its extension of binary tensors."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnkit.server.calls import CallHandler
from cnnkit.server.limits import ReceivedRequest, ServerLimits
from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.open_inference.model_info import (
    describe_signature,
    find_signature,
    server_metadata,
)
from cnnkit.server.open_inference.requests import model_spec, predict_request
from cnnkit.server.open_inference.rest_json import (
    InferDocument,
    read_infer_document,
    write_infer_document,
)
from cnnkit.server.predict import Outputs, PreparedCall
from cnnkit.server.repository import ModelRepository
from cnnkit.server.rest_json import dump_json, message_json
from cnnkit.server.service import Find, PredictionServicer
from cnnkit.server.status_error import invalid_argument, quote_name
from cnnkit.wire import open_inference_pb2 as v2

HEADER_LENGTH = "Inference-Header-Content-Length"

_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?"
)


@dataclass(frozen=True)
class BinaryAnswer:
    """An answer of JSON with binary tensors after it.

    Attributes:
        body: The bytes of both.
        json_bytes: Bytes of the JSON.
    """

    body: bytes
    json_bytes: int

    def __len__(self) -> int:
        return len(self.body)


Answer = bytes | BinaryAnswer
Route = tuple[str, Callable[[ReceivedRequest], Awaitable[Answer]], bool]


class InferenceRest:
    """Answers the paths below `/v2` but those of its probes.

    Args:
        calls: Runs functions in threads.
        service: Runs Predict.
        repository: The models.
        limits: Limits of the server.

    Example:
        >>> rest = InferenceRest(calls, service, repository, limits)  # doctest: +SKIP
        >>> rest.route("GET", "/v2/models/digits", {})  # doctest: +SKIP
    """

    def __init__(
        self,
        calls: CallHandler,
        service: PredictionServicer,
        repository: ModelRepository,
        limits: ServerLimits,
    ) -> None:
        self._calls = calls
        self._service = service
        self._repository = repository
        self._limits = limits

    def route(self, http_method: str, path: str, headers: Mapping[str, str]) -> Route | None:
        """Returns the name of a call, its handler, and whether it has a body.

        Args:
            http_method: "GET" or "POST".
            path: The path without its query.
            headers: The headers of the request.

        Returns:
            None if the protocol has no such path.
        """
        if http_method == "GET" and path in ("/v2", "/v2/"):
            return "REST ServerMetadata", self._server_metadata, False
        found = _MODEL.fullmatch(path)
        if found is None:
            return None
        name = urllib.parse.unquote(found["name"], errors="replace")
        version = urllib.parse.unquote(found["version"] or "", errors="replace")
        if http_method == "POST" and found["verb"] == "/infer":
            return (
                "REST ModelInfer",
                lambda request: self._infer(name, version, headers.get(HEADER_LENGTH), request),
                True,
            )
        if http_method == "GET" and found["verb"] != "/infer":
            is_ready = found["verb"] == "/ready"

            async def describe(request: ReceivedRequest) -> bytes:
                request.model_name = name
                if is_ready:
                    find_signature(name, version, self._repository)
                    return dump_json({"name": name, "ready": True})
                asked = v2.ModelMetadataRequest(name=name, version=version)
                return dump_json(_metadata_json(describe_signature(asked, self._repository)))

            return f"REST Model{'Ready' if is_ready else 'Metadata'}", describe, False
        return None

    async def _server_metadata(self, request: ReceivedRequest) -> bytes:
        return dump_json(message_json(server_metadata()))

    async def _infer(
        self, name: str, version: str, header: str | None, request: ReceivedRequest
    ) -> Answer:
        document = InferDocument()
        json_bytes: int | None = None

        def read(raw: bytes | bytearray, find: Find, memory: MemoryAccount) -> bytes:
            size = len(raw) if header is None else _header_length(header, len(raw))
            tensors = read_infer_document(document, raw, size, memory)
            spec = model_spec(name, version, self._repository, document.signature)
            return predict_request(spec, tensors, document.outputs, memory)

        def write(call: PreparedCall, outputs: Outputs, memory: MemoryAccount) -> bytes:
            nonlocal json_bytes
            body, json_bytes = write_infer_document(document, name, call, outputs, memory)
            return body

        body = await self._service.predict(request, read, write)
        return body if json_bytes is None else BinaryAnswer(body, json_bytes)


def _metadata_json(found: v2.ModelMetadataResponse) -> dict[str, Any]:
    document = message_json(found)
    for side in ("inputs", "outputs"):
        for tensor in document[side]:
            # Protobuf's JSON has int64 as text, the protocol's has numbers.
            tensor["shape"] = list(map(int, tensor["shape"]))
    return document


def _header_length(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise invalid_argument(
            f"The header {HEADER_LENGTH} must be the bytes of the JSON, at most {most}, received "
            f"{quote_name(text)}"
        )
    return int(text)
