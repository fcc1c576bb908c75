"""The probes of a TensorFlow Serving, by its status and by a prediction, against fake servers."""

import base64
import contextlib
import http.server
import json
import subprocess
import threading
from pathlib import Path

import pytest

SERVING = Path(__file__).resolve().parents[1] / "serving"


@contextlib.contextmanager
def served(handler):
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def rest(body):
    """Yield the port of a fake server that returns `body` for every GET, and the paths asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with served(Handler) as port:
        yield port, asked


def status(state):
    version = {"version": "1", "state": state, "status": {"error_code": "OK", "error_message": ""}}
    # With an indent of one, as the server writes it.
    return json.dumps({"model_version_status": [version]}, indent=1) + "\n"


def probe(port):
    command = ["/bin/bash", SERVING / "status.sh", "digits", str(port)]
    return subprocess.run(command, capture_output=True, timeout=30).returncode


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (status("AVAILABLE"), 0),
        (status("AVAILABLE").rstrip(), 0),
        (status("LOADING"), 1),
        (status("END"), 1),
        ('{"error": "Could not find any versions of model digits"}', 1),
        ("", 1),
    ],
)
def test_the_probe_reads_the_status(body, code):
    """A server also returns 200 while it is loading, so the probe has to read the body."""
    with rest(body) as (port, asked):
        assert probe(port) == code
        assert asked == ["/v1/models/digits"]


def test_the_probe_fails_if_the_server_is_down():
    with rest("") as (port, _):
        pass
    assert probe(port) == 1


@contextlib.contextmanager
def predictions(answer):
    """Yield the port of a fake server that returns `answer(path, body)`, a code and a body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code, text = answer(self.path, json.loads(body))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with served(Handler) as port:
        yield port


def probe_prediction(port):
    command = ["/bin/bash", SERVING / "predict.sh", "digits", str(port)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


def test_the_liveness_probe_predicts_with_an_exported_model(tmp_path, unoptimized):
    """Its image passes the checks of an export, which answers with probabilities."""
    import tensorflow as tf

    from cnnkit.export import export
    from tests.helpers.exported_network import LABELS, small_alexnet

    folder = export(small_alexnet(), LABELS, tmp_path / "digits", signatures=["serving_bytes"])
    loaded = tf.saved_model.load(str(folder))
    answered = []

    def answer(path, body):
        assert path == "/v1/models/digits:predict"
        files = [base64.b64decode(one["b64"], validate=True) for one in body["instances"]]
        function = loaded.signatures[body["signature_name"]]
        answered.append(function(image_bytes=tf.constant(files))["probabilities"].numpy())
        return 200, json.dumps({"predictions": answered[-1].tolist()})

    with predictions(answer) as port:
        assert probe_prediction(port) == 0
    assert answered[0].shape == (1, len(LABELS))


@pytest.mark.parametrize("code", [400, 404, 500, 503])
def test_the_liveness_probe_fails_without_an_answer(code):
    with predictions(lambda path, body: (code, "200 is not the code")) as port:
        assert probe_prediction(port) == 1
    assert probe_prediction(port) == 1
