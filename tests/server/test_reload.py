"""HandleReloadConfigRequest changes the models, or changes nothing."""

import contextlib
import threading

import grpc
import pytest
import trustme

from cnnkit.client import ModelNotFound
from cnnkit.errors import UsageError
from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.server.calls import MAX_SMALL_REQUEST_BYTES
from cnnkit.server.listen import server_credentials
from cnnkit.server.reload import is_local_caller
from cnnkit.server.servable import SavedModelServable
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from tests.helpers.polled_server import IMAGE, serve, version_states
from tests.helpers.serving import check_gray, predict_gray


def send(channel, *configs):
    """Sends a reload request and returns its future."""
    request = pb.ReloadConfigRequest()
    request.config.model_config_list.config.extend(configs)
    return channel.unary_unary(methods.RELOAD_CONFIG).future(
        request.SerializeToString(), timeout=30
    )


def error_of(call):
    error = call.exception(timeout=30)
    return error.code().name, error.details()


@pytest.fixture
def reload():
    def call(server, *configs):
        with grpc.insecure_channel(server.address) as channel:
            status = pb.ReloadConfigResponse.FromString(send(channel, *configs).result()).status
        return pb.Code.Name(status.error_code), status.error_message

    return call


def model_config(name, path, **fields):
    return pb.ModelConfigList.ModelConfig(name=name, base_path=str(path), **fields)


def test_reload_changes_models_versions_and_labels(models_config, model_folder, reload):
    with serve(models_config, allow_reload=True) as (server, client):
        both = pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy(
            latest={"num_versions": 2}
        )
        answered = reload(
            server,
            model_config(
                "colors", model_folder, model_version_policy=both, version_labels={"stable": 3}
            ),
            model_config("shades", "colors"),
        )
        assert answered == ("OK", "")
        assert version_states(client)[3] == version_states(client)[2] == "AVAILABLE"
        assert version_states(client)[1] == "END"
        assert version_states(client, "shades") == {3: "AVAILABLE"}
        assert client.predict(IMAGE, model="colors", version_label="stable")
        with pytest.raises(ModelNotFound):
            client.status("tints")


def test_a_failed_reload_changes_nothing(tmp_path, models_config, model_folder, reload):
    outside = tmp_path.parent
    with serve(models_config, allow_reload=True) as (server, client):
        before = server.repository.configs
        assert reload(
            server, model_config("colors", model_folder, version_labels={"stable": 7})
        ) == (
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model colors, which is not currently "
            "available for inference",
        )
        for path in (outside, "../..", "/", str(model_folder / ".." / ".."), "/etc"):
            code, text = reload(server, model_config("x", path))
            assert code == "INVALID_ARGUMENT"
            assert text == "The base_path of model 'x' is outside of the server's model folders"
        code, text = reload(server, model_config("x", model_folder.with_name("none")))
        assert (code, text) == ("INVALID_ARGUMENT", "Model folder 'none' does not exist")
        for path in ("colors/\0", "x" * 5000, "x/" * 3000):
            code, text = reload(server, model_config("x", path))
            assert code == "INVALID_ARGUMENT"
            assert "cannot be read" in text
        assert server.repository.configs == before
        assert version_states(client) == {2: "AVAILABLE", 1: "AVAILABLE"}


OFF = (
    "PERMISSION_DENIED",
    "Reload requests are off. Change the server's models.config, or start it with `cnnkit serve "
    "--allow-reload`",
)
ELSEWHERE = (
    "PERMISSION_DENIED",
    "Reload requests are accepted from the server's machine and from clients with a certificate "
    "only",
)


def test_reload_requests_are_refused_by_default(colors_folder):
    """One request of any client unloaded the models of all others."""
    with (
        EmbeddedServer({"colors": colors_folder}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert error_of(send(channel, model_config("other", colors_folder))) == OFF
        check_gray(predict_gray(channel))


def test_other_machines_may_not_reload(colors_folder, monkeypatch):
    monkeypatch.setattr("cnnkit.server.reload.is_local_caller", lambda peer: False)
    with (
        EmbeddedServer({"colors": colors_folder}, allow_reload=True) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        assert error_of(send(channel, model_config("other", colors_folder))) == ELSEWHERE
        check_gray(predict_gray(channel))


@pytest.mark.parametrize("certified", [True, False])
def test_other_machines_may_reload_with_a_certificate(
    colors_folder, tmp_path, monkeypatch, certified
):
    monkeypatch.setattr("cnnkit.server.reload.is_local_caller", lambda peer: False)
    authority, files = trustme.CA(), {}
    certificate, client = authority.issue_cert("localhost"), authority.issue_cert("client@cnnkit")
    for name, blob in (
        ("ca", authority.cert_pem),
        ("cert", certificate.cert_chain_pems[0]),
        ("key", certificate.private_key_pem),
    ):
        files[name] = tmp_path / f"{name}.pem"
        blob.write_to_path(str(files[name]))
    credentials = server_credentials(
        files["cert"], files["key"], files["ca"] if certified else None
    )
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            EmbeddedServer({"colors": colors_folder}, credentials=credentials, allow_reload=True)
        )
        own = (
            (client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes())
            if certified
            else (None, None)
        )
        channel = stack.enter_context(
            grpc.secure_channel(
                server.address.replace("127.0.0.1", "localhost"),
                grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *own),
            )
        )
        call = send(channel, model_config("other", colors_folder))
        if certified:
            assert pb.ReloadConfigResponse.FromString(call.result()).status.error_code == pb.OK
            assert server.repository.versions("other") == [2]
        else:
            assert error_of(call) == ELSEWHERE


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:127.0.0.1:1", True),
        ("ipv4:127.8.9.1:1", True),
        ("ipv6:[::1]:1", True),
        ("ipv6:%5B::1%5D:1", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:1", True),
        ("unix:/run/server", True),
        ("ipv4:10.0.0.1:1", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", False),
        ("ipv6:%5B::ffff:10.0.0.1%5D:1", False),
        ("ipv4:127.0.0.1.example.org:1", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_callers_on_this_machine(peer, expected):
    assert is_local_caller(peer) is expected


def test_reload_needs_one_process(colors_folder):
    with pytest.raises(UsageError, match="`allow_reload` must be False with `reuse_port`"):
        EmbeddedServer({"colors": colors_folder}, reuse_port=True, allow_reload=True)


def test_one_reload_at_a_time_which_no_prediction_waits_for(colors_folder, gate):
    """Four reloads at a time held every thread that decodes messages."""
    loading, loaded = threading.Semaphore(0), []

    def load(name, version, folder):
        if loaded:
            loading.release()
            assert gate.open.wait(30)
        loaded.append((name, version))
        return SavedModelServable(name, version, folder)

    everything = pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy(all={})
    configs = [
        model_config(name, colors_folder, model_version_policy=everything)
        for name in ("colors", "other", "third")
    ]
    with (
        EmbeddedServer({"colors": colors_folder}, load=load, allow_reload=True) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        first = send(channel, *configs)
        assert loading.acquire(timeout=30)
        for _ in range(5):
            assert error_of(send(channel, *configs)) == (
                "RESOURCE_EXHAUSTED",
                "Another reload request is being applied",
            )
            check_gray(predict_gray(channel))
        gate.open.set()
        assert pb.ReloadConfigResponse.FromString(first.result()).status.error_code == pb.OK
        assert server.repository.versions("third") == [2, 1]
        check_gray(predict_gray(channel))
    # One copy of each version, for three models.
    assert loaded == [("colors", 2), ("colors", 1)]


def test_a_reload_request_is_small(colors_folder):
    with (
        EmbeddedServer(
            {"colors": colors_folder}, limits=ServerLimits(max_models=2), allow_reload=True
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        configs = [model_config(name, colors_folder) for name in "abc"]
        assert error_of(send(channel, *configs)) == (
            "INVALID_ARGUMENT",
            "A reload request names 3 models, and may name 2",
        )
        code, text = error_of(
            send(channel, model_config("a" * MAX_SMALL_REQUEST_BYTES, colors_folder))
        )
        assert code == "INVALID_ARGUMENT"
        assert text.endswith(f"and may have {MAX_SMALL_REQUEST_BYTES}")
        assert server.repository.versions("colors") == [2]
        answer = pb.ReloadConfigResponse.FromString(send(channel, *configs[:2]).result())
        # As of TensorFlow Serving, with a status also where it is OK.
        assert answer.HasField("status") and answer.status.error_code == pb.OK
