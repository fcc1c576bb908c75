"""`cnnkit serve` as it is started: several workers, TLS, and options that cannot be."""

import signal
import subprocess
import sys
import time

import grpc
import numpy as np
import psutil
import pytest
import trustme

from cnnkit.cli.main import main
from cnnkit.errors import RunError, UsageError
from cnnkit.server import EmbeddedServer
from cnnkit.server.listen import server_credentials
from cnnkit.server.worker_pool import WorkerPool
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE, expected_probabilities

IMAGE = np.full((1, SIZE, SIZE, 3), 40, np.float32)


def predict(channel, wait=False, seconds=60):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors"))
    request.inputs["images"].CopyFrom(to_tensor_proto(IMAGE))
    raw = channel.unary_unary(methods.PREDICT)(
        request.SerializeToString(), timeout=seconds, wait_for_ready=wait
    )
    return decode_tensor(pb.PredictResponse.FromString(raw).outputs["probabilities"])


def check_answer(probabilities):
    np.testing.assert_allclose(probabilities, expected_probabilities(IMAGE, 64), atol=1e-6)


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.05)


# Stands for a worker: ready at once, and there until it is told to end.
WORKER = "print('serving m version 1 at here (Ctrl-C stops)', flush=True); input()"


def test_each_worker_that_ends_is_replaced_until_it_is_too_often(caplog):
    with WorkerPool([sys.executable, "-c", WORKER], 3) as workers:
        assert workers.start(lambda: False) == "serving m version 1 at here (Ctrl-C stops)"
        me = psutil.Process()
        with pytest.raises(RunError, match="11 workers exited within 60 s"):
            for _ in range(11):
                assert len(me.children()) == 3
                me.children()[0].kill()
                wait_for(lambda: any(one.status() == "zombie" for one in me.children()))
                workers.replace_exited()
        assert caplog.text.count("a new one starts") == 10
    assert not me.children()


def test_a_worker_that_is_never_ready():
    with (
        WorkerPool([sys.executable, "-c", "raise SystemExit(3)"], 2) as workers,
        pytest.raises(RunError, match="exited before it was ready. Received: exit code 3"),
    ):
        workers.start(lambda: False)


def test_several_processes_stop_cleanly(colors_folder, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{WORKER}"\n')
    python.chmod(0o755)
    program = (
        "import sys; from cnnkit.cli.main import main; sys.executable = sys.argv.pop(1);"
        "sys.exit(main(sys.argv[1:]))"
    )
    options = ["serve", colors_folder, "--port", "0", "--workers", "3"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, python, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    workers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert line == "serving m version 1 at here in 3 processes (Ctrl-C stops)\n"
    assert len(workers) == 3
    assert not any(one.is_running() for one in workers)


@pytest.mark.slow
def test_real_workers_that_are_killed_and_a_parent_that_is(colors_folder):
    """Kills with nothing to catch: first a worker among requests, then the process above them."""
    command = [sys.executable, "-m", "cnnkit", "serve", colors_folder, "--port", "0"]
    with subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        parent = psutil.Process(process.pid)
        address = process.stdout.readline().split(" at ")[1].split()[0]
        alone = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(address, alone) for _ in range(8)]
        for channel in channels:
            check_answer(predict(channel))
        first, second = parent.children()
        first.kill()
        # A process that has ended is a child until its parent has looked, and replaced it.
        wait_for(lambda: first not in parent.children() and len(parent.children()) == 2)
        # Connections to the other one were not touched, the rest find a worker again.
        for channel in channels:
            check_answer(predict(channel, wait=True))
        assert second in parent.children()
        second.kill()
        wait_for(lambda: second not in parent.children() and len(parent.children()) == 2)
        # Only workers that came later are left to answer.
        with grpc.insecure_channel(address, alone) as channel:
            check_answer(predict(channel, wait=True, seconds=120))
        workers = parent.children()
        process.kill()
        wait_for(lambda: not any(one.is_running() for one in workers))
        for channel in channels:
            channel.close()


def test_a_reload_that_would_reach_one_of_several_processes_is_refused(colors_folder):
    request = pb.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path="elsewhere")
    with (
        EmbeddedServer({"colors": colors_folder}, reuse_port=True) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(methods.RELOAD_CONFIG)(request.SerializeToString(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "This server runs several processes" in caught.value.details()
        check_answer(predict(channel))


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def files_of(authority, folder, *names, **options):
    issued = authority.issue_cert(*names, **options)
    certificate, key = folder / f"{names[0]}.pem", folder / f"{names[0]}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def client_credentials(authority, client=None):
    """Of a client that trusts an authority, and shows what another one gave it."""
    key = chain = None
    if client is not None:
        issued = client.issue_cert("client.example")
        key = issued.private_key_pem.bytes()
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)


def refused(channel):
    with pytest.raises(grpc.RpcError) as caught:
        predict(channel)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls(colors_folder, authority, tmp_path):
    credentials = server_credentials(*files_of(authority, tmp_path, "localhost"))
    with EmbeddedServer({"colors": colors_folder}, credentials=credentials) as server:
        place = server.address.replace("127.0.0.1", "localhost")
        # No certificate of its own is asked for.
        with grpc.secure_channel(place, client_credentials(authority)) as channel:
            check_answer(predict(channel))
        with grpc.secure_channel(place, client_credentials(trustme.CA())) as channel:
            assert refused(channel)
        # The certificate is for the name, not for this address.
        with grpc.secure_channel(server.address, client_credentials(authority)) as channel:
            assert refused(channel)
        with grpc.insecure_channel(place) as channel:
            assert refused(channel)


def test_mutual_tls(colors_folder, authority, tmp_path):
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    credentials = server_credentials(
        *files_of(authority, tmp_path, "localhost"), tmp_path / "clients.pem"
    )
    with EmbeddedServer({"colors": colors_folder}, credentials=credentials) as server:
        place = server.address.replace("127.0.0.1", "localhost")
        with grpc.secure_channel(place, client_credentials(authority, clients)) as channel:
            check_answer(predict(channel))
        for other in (None, trustme.CA(), authority):
            with grpc.secure_channel(place, client_credentials(authority, other)) as channel:
                assert refused(channel)


@pytest.fixture
def failure(capfd):
    """The one line of a wrong call of `cnnkit serve`."""

    def run(*argv):
        capfd.readouterr()
        assert main(["serve", *map(str, argv)]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        return line

    return run


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--workers", "0"], "--workers is out of range. Expected: 1 or more. Received: 0."),
        (["--threads", "0"], "`threads` must be in"),
        (["--max-calls", "-1"], "`max_concurrent_requests` must be in"),
        (["--max-request-mb", "4096"], "`max_request_bytes` must be in"),
        (["--batch-window-ms", "-1"], "`batch_timeout_seconds` must be in"),
        (["--poll-seconds", "-1"], "--poll-seconds"),
        (["--poll-seconds", "nan"], "--poll-seconds"),
        (["--grace", "-1"], "--grace"),
        (["--versions", "newest"], "`versions` must be latest, all, latest:N"),
        (
            ["--version-labels", "stable"],
            "--version-labels must be pairs with commas. Expected: LABEL=VERSION. Received: stable.",
        ),
        (["--version-labels", "stable=one"], "--version-labels must be pairs"),
        (["--tls-cert", "a.pem"], "TLS needs a certificate and its key"),
        (["--tls-client-ca", "a.pem"], "TLS needs a certificate and its key"),
        (
            ["--tls-cert", "none.pem", "--tls-key", "none.key"],
            "must be a certificate and its private key in PEM",
        ),
    ],
)
def test_options_that_cannot_be(failure, colors_folder, options, text):
    assert text in failure(colors_folder, "--port", "0", *options)
    if "--workers" not in options:
        # Said by the parent, once, and not by workers.
        assert text in failure(colors_folder, "--port", "0", "--workers", "2", *options)


def test_a_label_for_a_version_that_is_not_served(failure, colors_folder):
    line = failure(colors_folder, "--embedded", "--port", "0", "--version-labels", "stable=7")
    assert "Label 'stable' of model 'colors' must name a version that is served" in line


def test_what_the_file_of_models_says_itself(failure, colors_folder, tmp_path):
    file = tmp_path / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "colors" base_path: "{colors_folder}" }} }}'
    )
    for option in (["--name", "x"], ["--versions", "all"], ["--version-labels", "a=1"]):
        assert f"{option[0]} must not be given with a models.config file" in failure(
            file, "--port", "0", *option
        )


@pytest.mark.parametrize("wrong", ["swapped", "text", "others"])
def test_files_that_are_none_for_tls(authority, tmp_path, wrong):
    certificate, key = files_of(authority, tmp_path, "localhost")
    if wrong == "swapped":
        certificate, key = key, certificate
    elif wrong == "text":
        certificate.write_text("no certificate")
    else:
        key = files_of(authority, tmp_path, "other.example")[1]
    with pytest.raises(UsageError) as caught:
        server_credentials(certificate, key)
    assert "must be a certificate and its private key in PEM" in str(caught.value)
