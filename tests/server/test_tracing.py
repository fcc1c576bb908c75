"""Spans of a server: in the trace of their client, with the id of the request."""

import http.client
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from opentelemetry import propagate
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cnnkit.client import Client, InvalidRequest, ModelNotFound
from cnnkit.errors import UsageError
from cnnkit.server import EmbeddedServer, ServerTracing, tracing_from_environment
from cnnkit.server.tracing import check_tracing
from tests.helpers.fake_servers import fake_server
from tests.helpers.serving import GRAY
from tests.helpers.trace_collector import collector, read_spans

pytest.importorskip("aiohttp")

# The example of https://www.w3.org/TR/trace-context, and the same that is not recorded.
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EXAMPLE = f"00-{TRACE}-{PARENT}-01"
PREDICT = "/v1/models/colors:predict"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
OFF = """
import sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "opentelemetry", name

sys.meta_path.insert(0, Forbid())
from cnnkit.server.calls import CallHandler
from cnnkit.server.tracing import tracing_from_environment
for environment in (
    {}, {"OTEL_SERVICE_NAME": "a", "OTEL_TRACES_SAMPLER": "always_on"},
    {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"},
    {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"},
):
    assert tracing_from_environment(environment) is None, environment
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


@pytest.fixture(scope="module")
def exported():
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def provider(exported):
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exported))
    return made


@pytest.fixture(scope="module")
def server(colors_folder, provider):
    tracing = ServerTracing(provider)
    with EmbeddedServer({"colors": colors_folder}, tracing=tracing, rest_port=0) as started:
        yield started


@pytest.fixture
def spans(exported):
    """Takes the spans that have ended."""
    exported.clear()

    def take():
        found = exported.get_finished_spans()
        exported.clear()
        return found

    return take


def rest(server, path, body, headers=()):
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def test_the_spans_of_a_client_and_of_the_server_are_one_trace(server, provider, spans):
    with provider.get_tracer("client").start_as_current_span("order") as own:
        metadata = {"x-request-id": "order-7"}
        propagate.inject(metadata)
        with Client(server.address, metadata=metadata) as client:
            client.predict(GRAY, model="colors")
    described, predicted, order = spans()
    assert order.context == own.get_span_context()
    for span in (described, predicted):
        assert span.context.trace_id == order.context.trace_id
        assert span.parent.span_id == order.context.span_id
        assert span.kind == SpanKind.SERVER
        assert order.start_time < span.start_time < span.end_time < order.end_time
    assert described.name == "GetModelMetadata"
    assert predicted.name == "Predict"
    assert dict(predicted.attributes) == {
        "rpc.method": "Predict",
        "cnnkit.request_id": "order-7",
        "cnnkit.model": "colors",
        "cnnkit.version": "2",
        "cnnkit.signature": "serving_default",
        "rpc.response.status_code": "OK",
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, {"instances": GRAY.tolist()}),
        (
            "/v2/models/colors/infer",
            {
                "inputs": [
                    {
                        "name": "images",
                        "datatype": "FP32",
                        "shape": list(GRAY.shape),
                        "data": GRAY.ravel().tolist(),
                    }
                ]
            },
        ),
    ],
)
def test_headers_of_http_name_the_span_of_the_client(server, spans, path, body):
    answer = rest(server, path, body, {"Traceparent": EXAMPLE, "X-Request-Id": "order-8"})
    assert answer.status == 200
    (span,) = spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.attributes["cnnkit.request_id"] == "order-8"
    assert span.attributes["cnnkit.version"] == "2"


@pytest.mark.parametrize(
    "given",
    [
        "", "00", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "-".join("abcd" * 99),
        f"00-{TRACE}-{PARENT}-01-9",
    ],
)  # fmt: skip
def test_other_headers_begin_a_trace(server, spans, given):
    headers = {"traceparent": given, "tracestate": ",=,;" * 40, "baggage": "=;%%,a=" * 400}
    assert rest(server, PREDICT, {"instances": GRAY.tolist()}, headers).status == 200
    (span,) = spans()
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE


def test_a_trace_that_is_not_recorded_stays_so(server, spans):
    headers = {"traceparent": EXAMPLE[:-1] + "0"}
    assert rest(server, PREDICT, {"instances": GRAY.tolist()}, headers).status == 200
    assert spans() == ()


def test_errors_of_the_server_are_marked_and_those_of_clients_are_not(server, spans, monkeypatch):
    with Client(server.address, metadata={"x-request-id": "order-9"}) as client:
        with pytest.raises(InvalidRequest):
            client.predict(
                {"image_bytes": [b"no image"]}, model="colors", signature="serving_bytes"
            )
        with pytest.raises(ModelNotFound):
            client.metadata("a" * 99)

        def broken(spec):
            raise KeyError("oops")

        monkeypatch.setattr(server.repository, "find", broken)
        assert rest(server, PREDICT, {"instances": [1]}).status == 500
    found = [
        (one.attributes["rpc.response.status_code"], one.status.status_code) for one in spans()
    ]
    assert ("INVALID_ARGUMENT", StatusCode.UNSET) in found
    assert ("NOT_FOUND", StatusCode.UNSET) in found
    assert found[-1] == ("INTERNAL", StatusCode.ERROR)


def test_nothing_is_imported_while_traces_are_off():
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_span_is_made_unless_asked(colors_server, spans, monkeypatch):
    monkeypatch.setattr(ServerTracing, "begin", lambda *_: pytest.fail("a span is made"))
    with Client(colors_server.address) as client:
        assert np.isfinite(client.predict(GRAY, model="colors")["means"]).all()
    assert spans() == ()


def trace_once(environment, monkeypatch):
    """Makes a span as the environment says."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracing = tracing_from_environment()
    span = tracing.begin("Predict", {"traceparent": EXAMPLE}, "order-7")
    tracing.end(span, ("digits", "1", "serving_default"), "OK")
    tracing.close()


@pytest.mark.parametrize("service", ["", "letters"])
def test_a_collector_receives_the_spans_by_http(monkeypatch, service):
    with collector() as (address, received):
        environment = {ENDPOINT: address, PROTOCOL: "http/protobuf", "OTEL_SERVICE_NAME": service}
        trace_once(environment, monkeypatch)
    assert received == [
        {
            "service": service or "cnnkit-serve",
            "name": "Predict",
            "trace": TRACE,
            "parent": PARENT,
            "rpc.method": "Predict",
            "cnnkit.request_id": "order-7",
            "cnnkit.model": "digits",
            "cnnkit.version": "1",
            "cnnkit.signature": "serving_default",
            "rpc.response.status_code": "OK",
        }
    ]


def test_a_collector_receives_the_spans_by_grpc(monkeypatch):
    received = []

    def answer(path, request, context):
        assert path == "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        received.extend(read_spans(request))
        return b""

    with fake_server(answer) as address:
        trace_once({ENDPOINT: f"http://{address}"}, monkeypatch)
    assert [(one["service"], one["trace"]) for one in received] == [("cnnkit-serve", TRACE)]


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "console"},
            "OTEL_TRACES_EXPORTER must be otlp or none. Received: 'console'",
        ),
        (
            {ENDPOINT: "http://localhost", PROTOCOL: "http/json"},
            f"{PROTOCOL} must be grpc or http/protobuf. Received: 'http/json'",
        ),
    ],
)
def test_other_exporters_are_refused(environment, text):
    with pytest.raises(UsageError) as caught:
        tracing_from_environment(environment)
    assert text in str(caught.value)


TRACES = "OTEL_EXPORTER_OTLP_TRACES_"


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://a"}, True),
        ({f"{TRACES}ENDPOINT": "http://a"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "", ENDPOINT: "http://a"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://a"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", ENDPOINT: "http://a"}, False),
        ({"OTEL_SDK_DISABLED": "false", ENDPOINT: "http://a"}, True),
        ({PROTOCOL: "http/protobuf"}, False),
        # That of traces alone counts.
        ({ENDPOINT: "http://a", f"{TRACES}PROTOCOL": "grpc", PROTOCOL: "http/json"}, True),
    ],
)
def test_what_switches_traces_on(environment, on):
    assert check_tracing(environment) is on


@pytest.mark.parametrize(
    ("named", "service"),
    [({}, "cnnkit-serve"), ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=letters"}, "letters")],
)
def test_the_name_of_the_service(monkeypatch, named, service):
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    tracing = tracing_from_environment({"OTEL_TRACES_EXPORTER": "otlp", **named})
    try:
        assert tracing._provider.resource.attributes["service.name"] == service
    finally:
        tracing.close()


@pytest.mark.parametrize(
    "code",
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"],
)
def test_codes_that_are_errors_of_a_server(code, provider, spans):
    """Those of OpenTelemetry's conventions for gRPC."""
    tracing = ServerTracing(provider)
    for given in (code, "RESOURCE_EXHAUSTED"):
        tracing.end(tracing.begin("Predict", {}, "r"), ("m", "", ""), given)
    first, second = spans()
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, code)
    assert second.status.status_code == StatusCode.UNSET
    assert "cnnkit.version" not in first.attributes and first.attributes["cnnkit.model"] == "m"


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter.otlp"])
def test_a_missing_package_is_named_by_the_variable_that_needs_it(monkeypatch, missing):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(UsageError) as caught:
        check_tracing({ENDPOINT: "http://localhost:4317"})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"OpenTelemetry, which {ENDPOINT} needs, is not installed.")
    assert "pip install opentelemetry-sdk opentelemetry-exporter-otlp" in line
    with pytest.raises(UsageError, match="which ServerTracing needs"):
        ServerTracing()
