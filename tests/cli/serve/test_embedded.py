"""What `cnnkit serve` asks of the server and of its workers; both are stand-ins here."""

import contextlib
import itertools
import os
import resource
import socket
import sys
import threading
from concurrent import futures
from types import SimpleNamespace

import pytest

import cnnkit.server
from cnnkit.cli.main import build_parser
from cnnkit.cli.serve import embedded
from cnnkit.errors import RunError
from cnnkit.server import worker_pool
from cnnkit.server.load_trial import LoadTrial


def parsed(*words):
    argv = ["serve", *map(str, words)]
    return build_parser(argv).parse_args(argv)


class Server:
    """A server that does nothing, and records what it is asked to do."""

    address = "127.0.0.1:8500"
    rest_address = None
    answers = True

    def __init__(self, **options):
        self.options, self.asked, self.pings = options, [], 0
        models = {"digits": [2, 1], "tints": [3]}
        self.repository = SimpleNamespace(
            configs=[SimpleNamespace(name=name) for name in models], versions=models.__getitem__
        )

    def start(self):
        self.asked.append("start")

    def stop(self, grace):
        self.asked.append(("stop", grace))

    def ping(self):
        self.pings += 1
        answer = futures.Future()
        if self.answers:
            answer.set_result(None)
        return answer


@pytest.fixture
def started(monkeypatch):
    """The servers that were made; none changes the number of files that this process may open."""
    made = []

    def make(**options):
        made.append(Server(**options))
        return made[-1]

    monkeypatch.setattr(cnnkit.server, "EmbeddedServer", make, raising=False)
    monkeypatch.setattr(embedded, "_raise_open_file_limit", lambda: None)
    monkeypatch.setattr(embedded, "log_to_stderr", lambda log_format: None)
    # Other servers of this process have threads for graphs, for which it would end.
    monkeypatch.setattr(embedded, "_end_despite_graphs", lambda: made[-1].asked.append("end"))
    return made


def test_the_server_of_a_command_without_options(started, colors_folder, monkeypatch, capsys):
    places = []
    monkeypatch.setattr("cnnkit.server.listen.check_port_free", lambda *place: places.append(place))
    embedded.serve_embedded(parsed(colors_folder, "--embedded"), lambda: True)
    [server] = started
    assert server.asked == ["start", ("stop", 10.0), "end"]
    assert places == [("127.0.0.1", 8500)]
    options = server.options
    assert (options["host"], options["port"], options["rest_port"]) == ("127.0.0.1", 8500, None)
    assert (options["poll_seconds"], options["reuse_port"]) == (1.0, False)
    assert isinstance(options["trial"], LoadTrial) and options["trial"]._engine == "tensorflow"
    assert options["tracing"] is None and "metrics" not in options and "load" not in options
    assert capsys.readouterr().out == (
        "serving digits versions 2, 1; tints version 3 at 127.0.0.1:8500 (Ctrl-C stops)\n"
    )


def test_the_server_of_a_command_with_options(started, colors_folder, monkeypatch, capfd):
    monkeypatch.setattr(Server, "rest_address", "[::1]:8501")
    words = ["--host", "::1", "--port", "0", "--rest-port", "0", "--metrics-port", "0"]
    words += ["--poll-seconds", "0", "--grace", "0", "--no-load-trial"]
    stops = iter([False, False, True])
    embedded.serve_embedded(parsed(colors_folder, *words), lambda: next(stops))
    [server] = started
    assert server.asked == ["start", ("stop", 0.0), "end"]
    options = server.options
    assert (options["host"], options["port"], options["rest_port"]) == ("::1", 0, 0)
    assert options["poll_seconds"] == 0 and "trial" not in options
    assert options["metrics"].registry is not None
    metrics, rest = capfd.readouterr().err.splitlines()[-2:]
    assert metrics.startswith("cnnkit: note: metrics at http://[::1]:")
    assert metrics.endswith("/metrics") and ":0/" not in metrics
    assert rest == "cnnkit: note: REST API at http://[::1]:8501/v1"
    assert next(stops, None) is None


def test_a_port_in_use_is_found_before_tensorflow_starts(started, colors_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words in (["--port", port], ["--port", "0", "--rest-port", port]):
            with pytest.raises(RunError, match=f"cannot listen on port {port} of 127.0.0.1"):
                embedded.serve_embedded(parsed(colors_folder, *words), lambda: True)
    assert started == []


def test_tls_the_log_and_traces_of_a_server(started, colors_folder, monkeypatch, capfd):
    monkeypatch.setattr(Server, "rest_address", "127.0.0.1:8501")
    told, closed = [], []
    monkeypatch.setattr(embedded, "log_to_stderr", told.append)
    monkeypatch.setattr(embedded, "embedded_server_options", lambda args: {})
    tracing = SimpleNamespace(close=lambda: closed.append(1))
    monkeypatch.setattr(cnnkit.server, "tracing_from_environment", lambda: tracing, raising=False)
    words = ["--tls-cert", "a.pem", "--log-format", "json", "--port", "0", "--rest-port", "0"]
    embedded.serve_embedded(parsed(colors_folder, *words), lambda: True)
    assert capfd.readouterr().err == "cnnkit: note: REST API at https://127.0.0.1:8501/v1\n"
    # The last spans are sent when the server has ended.
    assert (told, closed, started[0].options["tracing"]) == (["json"], [1], tracing)


def test_a_graph_that_does_not_end_does_not_keep_the_process(monkeypatch):
    """Python would wait for its thread; one that ends, or is of something else, changes nothing."""
    release, codes = threading.Event(), []
    ended = threading.Thread(target=int, name="cnnkit-graph_0")
    other = threading.Thread(target=release.wait, name="other")
    stuck = threading.Thread(target=release.wait, name="cnnkit-graph_1")
    for thread in (ended, other, stuck):
        thread.start()
    monkeypatch.setattr(embedded.os, "_exit", codes.append)
    monkeypatch.setattr(embedded, "_THREAD_EXIT_SECONDS", 0.01)
    try:
        for threads, expected in (([ended, other], []), ([other, stuck], [0])):
            with monkeypatch.context() as patched:
                patched.setattr(embedded.threading, "enumerate", lambda threads=threads: threads)
                embedded._end_despite_graphs()
            assert codes == expected
    finally:
        release.set()


def test_openvino_loads_and_tries_its_own_versions(started, colors_folder):
    pytest.importorskip("openvino")
    from cnnkit.server.openvino import load_openvino

    embedded.serve_embedded(parsed(colors_folder, "--engine", "openvino"), lambda: True)
    assert started[0].options["load"] is load_openvino
    assert started[0].options["trial"]._engine == "openvino"


@pytest.fixture
def worker(started, monkeypatch):
    """Runs a worker for so many looks at the signals, with a pipe as its standard input."""
    monkeypatch.setattr(embedded, "_CHECK_SECONDS", 0)
    ends = os.pipe()
    with os.fdopen(ends[0]) as given, os.fdopen(ends[1], "w") as held:
        monkeypatch.setattr(sys, "stdin", given)

        def run(folder, looks, close=False):
            stops = itertools.repeat(False, looks)
            if close:
                held.close()
            embedded.serve_embedded(
                parsed(folder, "--worker", "--metrics-port", "0"), lambda: next(stops, True)
            )
            return started[-1]

        yield run


def test_a_worker_that_answers_prints_heartbeats(worker, colors_folder, monkeypatch, capfd):
    """The first at once, the others a second later; none while a call would not be answered."""
    for wait, answers, beats in ((0, True, 20), (3600, True, 1), (0, False, 0)):
        monkeypatch.setattr(worker_pool, "HEARTBEAT_SECONDS", wait)
        monkeypatch.setattr(Server, "answers", answers)
        server = worker(colors_folder, 20)
        out, err = capfd.readouterr()
        assert out.splitlines()[1:] == ["."] * beats
        assert server.pings == 1 + beats
        # The parent process shows the metrics.
        assert "metrics at" not in err and server.options["metrics"] is not None
        assert server.options["reuse_port"] is True
        assert server.asked == ["start", ("stop", 10.0), "end"]


def test_a_worker_ends_with_its_standard_input(worker, colors_folder, monkeypatch, capfd):
    monkeypatch.setattr(worker_pool, "HEARTBEAT_SECONDS", 0)
    worker(colors_folder, 10**9, close=True)
    assert "." not in capfd.readouterr().out.splitlines()


class Pool:
    """Workers that serve until they are asked to stop."""

    line = "serving colors version 2 at 127.0.0.1:8500 (Ctrl-C stops)"

    def __init__(self, command, count, **options):
        self.command, self.count, self.options, self.asked = command, count, options, []

    def start(self, should_stop):
        return self.line

    def replace_lost(self):
        self.asked.append("replace")

    def stop(self, grace):
        self.asked.append(("stop", grace))


@pytest.fixture
def pools(monkeypatch):
    made = []

    @contextlib.contextmanager
    def make(*given, **options):
        made.append(Pool(*given, **options))
        yield made[-1]
        made[-1].asked.append("end")

    monkeypatch.setattr(worker_pool, "WorkerPool", make)
    monkeypatch.setattr(embedded, "_CHECK_SECONDS", 0)
    monkeypatch.setattr(embedded, "log_to_stderr", lambda log_format: None)
    return made


def test_workers_get_the_options_and_the_time_to_end(pools, colors_folder, capfd):
    """They have as long as their requests may take, and five seconds for themselves."""
    words = ["--port", "0", "--rest-port", "0", "--workers", "3", "--threads", "2"]
    stops = iter([False, False, True])
    embedded.serve_with_workers(
        parsed(colors_folder, *words, "--grace", "30", "--name", "x", "--metrics-port", "0"),
        lambda: next(stops),
    )
    [pool] = pools
    assert pool.count == 3
    assert pool.asked == ["replace", "replace", ("stop", 35.0), "end"]
    assert callable(pool.options["on_end"])
    out, err = capfd.readouterr()
    assert out == "serving colors version 2 at 127.0.0.1:8500 in 3 processes (Ctrl-C stops)\n"
    notes = err.splitlines()[-2:]
    assert notes[0].startswith("cnnkit: note: metrics at http://127.0.0.1:")
    rest_port = notes[1].removeprefix("cnnkit: note: REST API at http://127.0.0.1:")
    rest_port = rest_port.removesuffix("/v1")
    assert pool.command[:4] == [sys.executable, "-m", "cnnkit", "serve"]
    args = parsed(*pool.command[4:])
    assert (args.models, args.worker, args.host) == (colors_folder, True, "127.0.0.1")
    assert (args.rest_port, args.threads, args.grace, args.name) == (int(rest_port), 2, 30.0, "x")
    # The port that is held, not any free one for each.
    assert args.port > 0 and args.rest_port > 0 and args.workers is None


def test_workers_without_a_name_and_a_stop_while_they_start(pools, colors_folder, monkeypatch):
    monkeypatch.setattr(Pool, "line", None)
    with pytest.raises(KeyboardInterrupt):
        embedded.serve_with_workers(
            parsed(colors_folder, "--port", "0", "--workers", "2", "--host", "::1"), lambda: True
        )
    [pool] = pools
    assert pool.asked == []
    assert pool.options == {} and "--name" not in pool.command
    assert pool.command[pool.command.index("--host") + 1] == "::1"


def test_a_server_may_open_as_many_files_as_the_system_allows(monkeypatch):
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda name: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *given: limits.append(given))
    embedded._raise_open_file_limit()
    assert limits == [(resource.RLIMIT_NOFILE, (4096, 4096))]
