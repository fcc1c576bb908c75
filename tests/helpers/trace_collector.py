"""A collector of OpenTelemetry's traces over HTTP."""

import contextlib
import http.server
import threading

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2


def read_spans(message):
    """Returns the spans of a serialized request to a collector, as dictionaries."""
    request = trace_service_pb2.ExportTraceServiceRequest.FromString(message)
    return [
        {
            "service": _attributes(of.resource)["service.name"],
            "name": span.name,
            "trace": span.trace_id.hex(),
            "parent": span.parent_span_id.hex(),
            **_attributes(span),
        }
        for of in request.resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _attributes(message):
    return {one.key: one.value.string_value for one in message.attributes}


@contextlib.contextmanager
def collector():
    """Yields the address of a collector, and the list of the spans that it has received."""
    spans = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            assert self.path == "/v1/traces"
            spans.extend(read_spans(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
