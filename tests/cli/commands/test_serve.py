"""`cnnkit serve`: output, errors, exit codes."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import cnnkit as package
from cnnkit.cli.main import main
from cnnkit.client import Client
from cnnkit.errors import RunError
from tests.helpers.trace_collector import collector


@pytest.fixture
def cnnkit(capfd):
    """Runs a command in this process; returns its exit code, standard output and standard error."""

    def run(*argv):
        capfd.readouterr()
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err

    return run


def failure(result, code):
    """Returns the one line of an error."""
    assert result[0] == code
    assert result[1] == ""
    lines = result[2].splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("cnnkit: error: ")
    return lines[0]


def test_serve_on_a_port_in_use(cnnkit, colors_folder, colors_server):
    port = colors_server.address.rpartition(":")[2]
    line = failure(cnnkit("serve", colors_folder, "--port", port, "--embedded"), 1)
    assert f"cannot listen on port {port} of 127.0.0.1. Received: Address already in use." in line


def test_a_host_that_is_not_this_machine_is_named(cnnkit, colors_folder):
    for host in ("nonsense.invalid", "192.0.2.1", "a" * 300):
        line = failure(cnnkit("serve", colors_folder, "--host", host, "--port", "0"), 1)
        assert "--host must be an address or a name of this machine" in line
        assert "Stop what uses the port" not in line


STARTING = """
import sys, threading
from cnnkit.cli.main import main
from cnnkit.cli.serve import embedded

def start(args, host, options):
    print("starting", flush=True)
    threading.Event().wait()

embedded._start = start
sys.exit(main(["serve", sys.argv[1], "--embedded", "--port", "0"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_that_is_starting(number, tmp_path):
    (tmp_path / "models/1").mkdir(parents=True)
    (tmp_path / "models/1/saved_model.pb").write_bytes(b"")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", STARTING, str(tmp_path / "models")]
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "starting\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "cnnkit: interrupted\n")


def test_serve_folders_that_hold_no_model(cnnkit, tmp_path, colors_folder):
    (tmp_path / "empty").mkdir()
    for folder, text in (
        (tmp_path / "none", "Model folder 'none' does not exist"),
        (tmp_path / "empty", "Model folder 'empty' holds no version"),
        (colors_folder / "2", f"Use {colors_folder}."),
    ):
        assert text in failure(cnnkit("serve", folder, "--embedded"), 2)


def test_serve_with_packages_that_are_not_there(cnnkit, colors_folder, monkeypatch):
    line = failure(cnnkit("serve", colors_folder, "--engine", "openvin"), 2)
    assert "openvin" in line and "Did you mean openvino?" in line
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = failure(cnnkit("serve", colors_folder, "--engine", "openvino"), 2)
    assert "The engine openvino is not installed. Install it: pip install" in line
    line = failure(cnnkit("serve", colors_folder, "--metrics-port", "0"), 2)
    assert "Install it: pip install prometheus-client" in line
    line = failure(cnnkit("serve", colors_folder, "--rest-port", "0"), 2)
    assert "Install it: pip install aiohttp" in line
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    line = failure(cnnkit("serve", colors_folder, "--embedded"), 2)
    assert "which OTEL_TRACES_EXPORTER needs, is not installed. Install it: pip install" in line


def test_labels_of_versions_have_a_new_name(cnnkit, colors_folder):
    code, out, err = cnnkit("serve", colors_folder, "--port", "0", "--labels", "stable")
    note, error = err.splitlines()
    assert (code, out) == (2, "")
    assert note == ("cnnkit: note: --labels is now --version-labels; --labels works until 0.3.0")
    assert "--version-labels must be pairs with commas" in error


def test_serve_a_port_that_is_none(cnnkit, colors_folder):
    assert "at least 0 and at most 65535" in failure(
        cnnkit("serve", colors_folder, "--port", "65536"), 2
    )


def start(*argv, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "cnnkit", "serve", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def first_line(process):
    ready, _, _ = select.select([process.stdout], [], [], 60)
    if not ready:
        process.kill()
    return process.stdout.readline()


def end(process, number):
    """Sends a signal; returns the exit code and what came after the first line."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_when_it_is_ready_and_stops_cleanly(colors_folder, number):
    process = start(colors_folder, "--port", "0", "--embedded")
    line = first_line(process)
    found = re.fullmatch(r"serving colors version 2 at (127\.0\.0\.1:\d+) \(Ctrl-C stops\)\n", line)
    assert found, (line, process.poll())
    with Client(found[1]) as client:
        assert client.status("colors")[0].state == "AVAILABLE"
    assert end(process, number) == (0, "", "")


@pytest.fixture
def installed(tmp_path):
    """Puts a tensorflow_model_server on the PATH that runs the given lines of Python."""

    def install(body):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "tensorflow_model_server"
        program.write_text(f"#!{sys.executable}\n{body}")
        program.chmod(0o755)
        return program, f"{folder}{os.pathsep}{os.environ['PATH']}"

    return install


# A model server as far as `cnnkit serve` looks at one: it says that version 5 is available.
READY = """
import sys, time
from concurrent import futures
import grpc
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
sys.stderr.write(repr(sorted(options.items())))
sys.stderr.flush()

def status(request, context):
    response = pb.GetModelStatusResponse()
    asked = pb.GetModelStatusRequest.FromString(request).model_spec.name
    if asked == options["model_name"]:
        response.model_version_status.add(version=5, state=30)
    return response.SerializeToString()

server = grpc.server(futures.ThreadPoolExecutor(1))
handlers = {"GetModelStatus": grpc.unary_unary_rpc_method_handler(status)}
server.add_generic_rpc_handlers(
    [grpc.method_handlers_generic_handler(methods.MODEL_SERVICE, handlers)]
)
server.add_insecure_port("127.0.0.1:" + options["port"])
server.start()
time.sleep(60)
"""


def test_serve_runs_tensorflow_serving_where_it_is_installed(colors_folder, installed):
    program, path = installed(READY)
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    root = str(Path(package.__file__).parents[1])
    process = start(colors_folder, "--port", port, "--name", "shades", PATH=path, PYTHONPATH=root)
    assert first_line(process) == (
        f"serving shades version 5 at 0.0.0.0:{port} with {program}, which listens on every "
        "network interface (Ctrl-C stops)\n"
    )
    begun = time.monotonic()
    code, out, err = end(process, signal.SIGTERM)
    assert (code, out) == (0, "")
    # It was asked to end, not killed after the time it is given for that.
    assert time.monotonic() - begun < 8
    assert err == repr(
        [
            ("grpc_max_threads", "64"),
            ("model_base_path", str(colors_folder)),
            ("model_name", "shades"),
            ("port", str(port)),
        ]
    )
    # The child went with it.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_serve_tells_when_tensorflow_serving_ends(cnnkit, colors_folder, installed, monkeypatch):
    _, path = installed("raise SystemExit(3)")
    monkeypatch.setenv("PATH", path)
    begun = time.monotonic()
    line = failure(cnnkit("serve", colors_folder, "--port", "0"), 1)
    assert "tensorflow_model_server exited. Received: exit code 3." in line
    assert time.monotonic() - begun < 30


def test_serve_does_not_open_to_the_world_what_was_to_stay_here(
    cnnkit, colors_folder, installed, monkeypatch
):
    _, path = installed("raise SystemExit(3)")
    monkeypatch.setenv("PATH", path)
    line = failure(cnnkit("serve", colors_folder, "--host", "127.0.0.1"), 2)
    assert "Received: --host 127.0.0.1. Add --embedded" in line


@pytest.mark.parametrize(
    ("words", "reload", "tried"),
    [
        ((), False, True),
        (("--allow-reload",), True, True),
        (("--no-load-trial",), False, False),
    ],
)
def test_serve_tries_new_versions_and_refuses_reloads(
    cnnkit, colors_folder, monkeypatch, words, reload, tried
):
    given = []

    def server(**options):
        given.append(options)
        raise RunError("The server cannot listen")

    monkeypatch.setattr("cnnkit.server.EmbeddedServer", server, raising=False)
    failure(cnnkit("serve", colors_folder, "--embedded", "--max-models", 7, *words), 1)
    [options] = given
    assert options["allow_reload"] is reload
    assert ("trial" in options) is tried
    assert options["limits"].max_models == 7


def test_reloads_and_workers_exclude_each_other(cnnkit, colors_folder):
    line = failure(cnnkit("serve", colors_folder, "--workers", 2, "--allow-reload"), 2)
    assert "--allow-reload must not be given with --workers" in line


@pytest.fixture
def traces():
    with collector() as started:
        yield started


def test_workers_share_the_port_of_the_rest_api(colors_folder, traces):
    pytest.importorskip("aiohttp")
    words = ("--port", "0", "--rest-port", "0", "--workers", "2", "--no-load-trial")
    address, spans = traces
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    process = start(colors_folder, *words, "--access-log", "--log-format", "json", **otel)
    line = first_line(process)
    assert re.fullmatch(r"serving colors version 2 at .* in 2 processes \(Ctrl-C stops\)\n", line)
    os.set_blocking(process.stderr.fileno(), False)
    note = process.stderr.readline()
    [place] = re.findall(r"REST API at http://(127\.0\.0\.1:\d+)/v1\n", note)
    for _ in range(4):
        with urllib.request.urlopen(f"http://{place}/v1/health/ready", timeout=30) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://{place}/v1/models/colors", timeout=30) as answer:
            assert answer.status == 200
    os.set_blocking(process.stderr.fileno(), True)
    code, _, log = end(process, signal.SIGTERM)
    assert code == 0
    # Every line is a JSON object, those of the workers too.
    found = [json.loads(line) for line in log.splitlines()]
    assert [(one["method"], one["code"]) for one in found] == [("REST GetModelStatus", "OK")] * 4
    # Each worker sends its last spans when it ends.
    assert {one["service"] for one in spans} == {"cnnkit-serve"}
    assert sorted(one["cnnkit.request_id"] for one in spans) == sorted(
        one["request_id"] for one in found
    )


def test_help_imports_no_tensorflow():
    for verb in ("serve", "query"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "cnnkit", verb, "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert f"usage: cnnkit {verb}" in done.stdout
        assert "| tensorflow\n" not in done.stderr
