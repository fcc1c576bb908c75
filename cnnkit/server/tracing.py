"""OpenTelemetry: one span for each request, in the trace of its client.

`ServerTracing` needs the extra `otel`. Nothing of OpenTelemetry is imported before it is made.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

# Environment variables of OpenTelemetry that name where the spans go, or that there are some.
EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# The name of the service, unless the environment has one.
_SERVICE_NAME = "cnnkit-serve"
# Status codes that are errors of a server, as OpenTelemetry's conventions for gRPC say.
_SERVER_ERRORS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)


class ServerTracing:
    """Makes the spans of a server.

    Args:
        provider: A `TracerProvider` of OpenTelemetry; None for the global one.

    Raises:
        UsageError: If OpenTelemetry is not installed.

    Example:
        >>> tracing = ServerTracing()
        >>> span = tracing.begin("Predict", {}, "order-7")
        >>> tracing.end(span, ("digits", "1", "serving_default"), "OK")
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        _check_installed("ServerTracing")
        from opentelemetry import propagate, trace

        self._provider = provider or trace.get_tracer_provider()
        self._tracer = self._provider.get_tracer("cnnkit.server")
        self._extract = propagate.extract
        self._kind = trace.SpanKind.SERVER
        self._error = trace.StatusCode.ERROR

    def begin(self, method: str, headers: Mapping[str, Any], request_id: str) -> Span:
        """Begins the span of a request.

        Args:
            method: Name of the method.
            headers: Metadata of gRPC or headers of HTTP; `traceparent` names the client's span.
            request_id: Id of the request.
        """
        return self._tracer.start_span(
            method,
            self._extract(headers),
            self._kind,
            {"rpc.method": method, "cnnkit.request_id": request_id},
        )

    def end(self, span: Span, called: tuple[str, str, str], code: str) -> None:
        """Ends the span of a request.

        Args:
            span: The span.
            called: Name of the model, number of its version, name of the signature; empty if none
                was called.
            code: Name of the gRPC status code.
        """
        for name, value in zip(("model", "version", "signature"), called, strict=True):
            if value:
                span.set_attribute(f"cnnkit.{name}", value)
        span.set_attribute("rpc.response.status_code", code)
        if code in _SERVER_ERRORS:
            span.set_status(self._error, code)
        span.end()

    def close(self) -> None:
        """Sends the spans that wait, and ends the threads of the provider."""
        shut_down = getattr(self._provider, "shutdown", None)
        if shut_down is not None:
            shut_down()


def check_tracing(environment: Mapping[str, str] | None = None) -> bool:
    """Checks what the environment says about traces, without importing anything.

    Args:
        environment: The environment variables; None for those of this process.
            `OTEL_EXPORTER_OTLP_ENDPOINT`, that of traces, or `OTEL_TRACES_EXPORTER=otlp` switches
            traces on.

    Returns:
        Whether traces are on.

    Raises:
        UsageError: If they are, and the extra `otel` is not installed, or there is no such
            exporter or protocol.

    Example:
        >>> check_tracing({"OTEL_SERVICE_NAME": "digits"})
        False
    """
    environment = os.environ if environment is None else environment
    exporter = environment.get(EXPORTER, "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    switch = next((name for name in (EXPORTER, *ENDPOINTS) if environment.get(name)), None)
    if switch is None:
        return False
    if exporter not in ("", "otlp"):
        raise UsageError(f"{EXPORTER} must be otlp or none", received=repr(exporter))
    _protocol(environment)
    _check_installed(switch)
    return True


def tracing_from_environment(
    environment: Mapping[str, str] | None = None,
) -> ServerTracing | None:
    """Returns the tracing that the environment asks for: see `check_tracing`.

    Spans are sent in batches, by a thread, to OpenTelemetry's collector. OpenTelemetry itself reads
    its other variables, such as `OTEL_TRACES_SAMPLER` and `OTEL_SERVICE_NAME`.

    Args:
        environment: The environment variables; None for those of this process.

    Returns:
        The tracing; None if traces are off.

    Raises:
        UsageError: See `check_tracing`.

    Example:
        >>> tracing_from_environment({}) is None
        True
    """
    environment = os.environ if environment is None else environment
    if not check_tracing(environment):
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

    exporter: SpanExporter
    if _protocol(environment) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

        exporter = over_grpc.OTLPSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http

        exporter = over_http.OTLPSpanExporter()
    named = environment.get("OTEL_SERVICE_NAME") or SERVICE_NAME in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {SERVICE_NAME: _SERVICE_NAME})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return ServerTracing(provider)


def _protocol(environment: Mapping[str, str]) -> str:
    """Returns the protocol to send spans by."""
    found = next((name for name in PROTOCOLS if environment.get(name)), None)
    protocol = "grpc" if found is None else environment[found]
    if protocol not in ("grpc", "http/protobuf"):
        raise UsageError(f"{found} must be grpc or http/protobuf", received=repr(protocol))
    return protocol


def _check_installed(needed_by: str) -> None:
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise UsageError(
                f"OpenTelemetry, which {needed_by} needs, is not installed",
                hint="Install it: pip install opentelemetry-sdk opentelemetry-exporter-otlp",
            )
