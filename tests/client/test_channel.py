"""How the client connects: TLS in all its ways, token, headers, compression, turns, keepalive."""

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

from cnnkit.client import TLS, Client, NotAuthorized, ServerError, TLSError
from cnnkit.client.channel import ChannelOptions, check_address, is_loopback
from cnnkit.errors import UsageError
from cnnkit.wire import methods
from tests.helpers.fake_servers import Doubling, fake_server

X = np.float32([[1, 2]])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority, certificates of a server and a client, and files of them all."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, others = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    others.cert_pem.write_to_path(folder / "other-ca.pem")
    server, client = ours.issue_cert("models.example"), ours.issue_cert("client@example.org")
    stranger = others.issue_cert("client@example.org")
    for name, certificate in (("client", client), ("stranger", stranger)):
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
    return folder, pair, ours.cert_pem.bytes()


@pytest.fixture
def secure(authority):
    folder, pair, _ = authority
    with fake_server(Doubling(), credentials=grpc.ssl_server_credentials([pair])) as address:
        yield folder, address


@pytest.fixture
def mutual(authority):
    folder, pair, ca = authority
    credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
    with fake_server(Doubling(), credentials=credentials) as address:
        yield folder, address


def ask(address, **options):
    with Client(address, timeout=5, **options) as client:
        return client.predict(X, model="m")["y"].tolist()


def test_tls(secure):
    folder, address = secure
    tls = TLS(ca=folder / "ca.pem", server_name="models.example")
    assert ask(address, tls=tls) == [[2, 4]]


@pytest.mark.parametrize(
    "tls",
    [
        {"ca": "other-ca.pem", "server_name": "models.example"},
        {"ca": "ca.pem", "server_name": "other.example"},
        {"ca": "ca.pem"},
        {"server_name": "models.example"},
    ],
    ids=["another authority", "another name", "the address as the name", "the usual authorities"],
)
def test_a_server_that_is_not_who_it_should_be(secure, tls):
    folder, address = secure
    if "ca" in tls:
        tls["ca"] = folder / tls["ca"]
    with pytest.raises(TLSError) as caught:
        ask(address, tls=TLS(**tls))
    assert "Check the certificates" in str(caught.value)
    assert not caught.value.retryable


def test_plain_to_a_server_with_tls_and_the_other_way_round(secure):
    with pytest.raises(ServerError) as caught:
        ask(secure[1])
    assert "TLS" in str(caught.value)
    with fake_server(Doubling()) as address, pytest.raises(TLSError):
        ask(address, tls=True)


def test_mutual_tls(mutual):
    folder, address = mutual
    tls = {"ca": folder / "ca.pem", "server_name": "models.example"}
    own = {"certificate": folder / "client.pem", "key": folder / "client.key"}
    assert ask(address, tls=TLS(**tls, **own)) == [[2, 4]]
    strange = {"certificate": folder / "stranger.pem", "key": folder / "stranger.key"}
    for wrong in ({}, strange):
        with pytest.raises(ServerError) as caught:
            ask(address, tls=TLS(**tls, **wrong))
        assert "TLS" in str(caught.value)
        assert "may have crashed" not in str(caught.value)


def test_files_of_certificates_that_are_none(tmp_path):
    (tmp_path / "x.pem").write_text("hello")
    with pytest.raises(
        UsageError, match=r"`ca` must be a file that can be read, received .*no\.pem"
    ):
        Client("localhost:1", tls=TLS(ca=tmp_path / "no.pem"))
    with pytest.raises(UsageError, match=r"`ca` must be a PEM file, received .*x\.pem"):
        Client("localhost:1", tls=TLS(ca=tmp_path / "x.pem"))
    with pytest.raises(UsageError, match="`certificate` and `key` must be given together"):
        TLS(certificate="client.pem")


@pytest.mark.parametrize("name", ["ca", "certificate", "key"])
@pytest.mark.parametrize("kind", [str, Path, str.encode])
def test_a_private_key_is_refused_where_its_file_belongs(name, kind):
    text = trustme.CA().issue_cert("localhost").private_key_pem.bytes().decode()
    files = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key", name: kind(text)}
    with pytest.raises(UsageError, match=f"^`{name}` must be the path of a file") as caught:
        TLS(**files)
    assert text.splitlines()[1] not in str(caught.value)


def guarded(path, request, context):
    if ("authorization", "Bearer right") not in context.invocation_metadata():
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
    return Doubling()(path, request, context)


def test_token():
    with fake_server(guarded) as address:
        assert ask(address, token="right") == [[2, 4]]
        for options in ({}, {"token": "wrong"}):
            with pytest.raises(NotAuthorized) as caught:
                ask(address, **options)
            assert "Give the client a token" in str(caught.value)
        # A token that is renewed is asked for at every call.
        tokens = iter(["right", "right", "wrong"])
        with Client(address, token=lambda: next(tokens)) as client:
            assert client.predict(X, model="m")["y"].tolist() == [[2, 4]]
            with pytest.raises(NotAuthorized):
                client.predict(X, model="m")


def test_a_token_does_not_leave_this_machine_unencrypted():
    with pytest.raises(UsageError) as caught:
        Client("models.example:8500", token="hush")
    assert "hush" not in str(caught.value)
    assert "tls=True" in str(caught.value)
    Client("models.example:8500", token="hush", tls=True).close()
    Client("unix:/run/models.sock", token="hush").close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization", "hush"),
        ("Authorization", "hush"),
        ("proxy-authorization", "hush"),
        ("cookie", "session=hush"),
        ("x-api-key", "hush"),
        ("X-API-KEY", "hush"),
        ("x-goog-api-key", "hush"),
        ("apikey", "hush"),
        ("x-auth-token", "hush"),
        ("x-amz-security-token", "hush"),
        ("client_secret", "hush"),
        ("x-session-id", "hush"),
        ("password", "hush"),
        ("x-tenant", "Bearer hushhush"),
        ("x-tenant", "Basic aHVzaDpodXNo"),
    ],
)
def test_secrets_in_metadata_do_not_leave_this_machine_unencrypted(name, value):
    with pytest.raises(UsageError, match="would be sent to .* unencrypted.*tls=True") as caught:
        Client("models.example:8500", metadata={name: value})
    assert "hush" not in str(caught.value)
    if name == name.lower():
        Client("models.example:8500", metadata={name: value}, tls=True).close()
        Client("localhost:8500", metadata={name: value}).close()


@pytest.mark.parametrize(
    "name", ["x-tenant", "x-request-id", "traceparent", "x-author", "x-monkey", "x-keyboard"]
)
def test_other_headers_may_be_sent_to_any_server(name):
    Client("models.example:8500", metadata={name: "basic plan"}).close()


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("localhost:8500", True),
        ("127.9.9.9:8500", True),
        ("[::1]:8500", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("ipv6:[::1]:1", True),
        ("unix:/x", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("10.0.0.1:8500", False),
        ("localhost.example:8500", False),
        ("dns:///localhost:8500", False),
        ("127.0.0.1.example:1", False),
        ("[2001:db8::1]:8500", False),
    ],
)
def test_which_addresses_are_on_this_machine(address, local):
    assert is_loopback(address) is local


def test_headers():
    model = Doubling()
    with fake_server(model) as address:
        ask(address, metadata={"x-tenant": "zoo"})
        assert model.headers["x-tenant"] == "zoo"
        with Client(address, metadata={"x-tenant": "parts"}) as client:
            client.predict(np.zeros((2, 2)), model="m", batch_size=1)
    assert (len(model.rows), model.headers["x-tenant"]) == (3, "parts")
    for name in ("X-Tenant", "grpc-timeout", "é", "x tenant", "", "x-tenant-bin"):
        with pytest.raises(UsageError, match="`metadata` must have names of headers as keys"):
            Client("localhost:1", metadata={name: "zoo"})
    with pytest.raises(UsageError, match="The header x-tenant must be a text"):
        Client("localhost:1", metadata={"x-tenant": 7})
    for options in ({"metadata": {"x-tenant": "a\nhush"}}, {"token": "hush\n"}):
        with pytest.raises(UsageError, match="cannot be sent") as caught:
            ask("localhost:1", **options)
        assert "hush" not in str(caught.value)


@contextlib.contextmanager
def counting_relay():
    """A server behind a relay that counts the bytes that a client sends."""
    counts = []
    with (
        fake_server(Doubling(), options=methods.UNLIMITED_MESSAGES) as address,
        socket.create_server(("127.0.0.1", 0)) as listening,
        contextlib.ExitStack() as sockets,
    ):

        def copy(source, target, count):
            with contextlib.suppress(OSError):
                while content := source.recv(2**16):
                    counts.append(len(content) if count else 0)
                    target.sendall(content)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    client = sockets.enter_context(listening.accept()[0])
                    host, _, port = address.rpartition(":")
                    server = sockets.enter_context(socket.create_connection((host, int(port))))
                    for words in ((client, server, True), (server, client, False)):
                        threading.Thread(target=copy, args=words, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", lambda: sum(counts)
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression(compression):
    zeros = np.zeros((2**16, 2), np.float32)
    with counting_relay() as (address, counted), Client(address, compression=compression) as client:
        np.testing.assert_array_equal(client.predict(zeros, model="m", batch_size=2**16)["y"], 0)
        assert counted() < 20_000
    with counting_relay() as (address, counted), Client(address) as client:
        client.predict(zeros, model="m", batch_size=2**16)
        assert counted() > zeros.nbytes
    with pytest.raises(UsageError, match="Unknown compression 'zip'"):
        Client("localhost:1", compression="zip")


def test_calls_take_turns():
    models = [Doubling(version=number) for number in (1, 2, 3)]
    with (
        fake_server(models[0]) as one,
        fake_server(models[1]) as two,
        fake_server(models[2]) as three,
        Client(f"ipv4:{one},{two},{three}", round_robin=True) as client,
    ):
        client.metadata("m")
        # The connections are made in their own time.
        for _ in range(200):
            client.predict(X, model="m")
            if all(model.predicts for model in models):
                break
        before = [model.predicts for model in models]
        for _ in range(30):
            client.predict(X, model="m")
    assert [model.predicts - count for model, count in zip(models, before, strict=True)] == [10] * 3


def test_without_turns_one_server_gets_all():
    models = [Doubling(), Doubling()]
    with (
        fake_server(models[0]) as one,
        fake_server(models[1]) as two,
        Client(f"ipv4:{one},{two}") as client,
    ):
        for _ in range(10):
            client.predict(X, model="m")
    assert sorted(model.predicts for model in models) == [0, 10]


def test_keepalive():
    options = dict(ChannelOptions("localhost:1", keepalive=30).channel_arguments()["options"])
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert "grpc.keepalive_time_ms" not in dict(
        ChannelOptions("localhost:1").channel_arguments()["options"]
    )
    with pytest.raises(UsageError, match="keepalive > 0"):
        Client("localhost:1", keepalive=0)


def options_of(address, **options):
    arguments = ChannelOptions(address, **options).channel_arguments()
    assert (arguments["target"], arguments["compression"]) == (address, None)
    return dict(arguments["options"])


def test_the_options_of_grpc():
    """By their names in grpc_types.h: -1 is no limit, 0 is off, and times are milliseconds."""
    found = options_of("models.example:8500")
    service = json.loads(found.pop("grpc.service_config"))
    assert found == {
        "grpc.max_send_message_length": -1,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 1000,
        "grpc.use_local_subchannel_pool": 1,
        "grpc.service_config_disable_resolution": 1,
        "grpc.max_receive_message_length": 256 * 2**20,
    }
    # https://github.com/grpc/grpc/blob/master/doc/service_config.md
    assert service == {
        "methodConfig": [
            {
                "name": [
                    {
                        "service": "tensorflow.serving.PredictionService",
                        "method": "GetModelMetadata",
                    },
                    {"service": "tensorflow.serving.ModelService", "method": "GetModelStatus"},
                ],
                "maxResponseMessageBytes": 2**20,
            }
        ]
    }
    more = options_of("localhost:1", max_response_bytes=1, keepalive=0.5, round_robin=True)
    assert more["grpc.max_receive_message_length"] == 1
    # No proxy of the environment for this machine.
    assert more["grpc.enable_http_proxy"] == 0
    assert more["grpc.keepalive_time_ms"] == 500
    # Pings during a call that sends nothing are not limited.
    assert more["grpc.http2.max_pings_without_data"] == 0
    assert more["grpc.lb_policy_name"] == "round_robin"
    assert "grpc.ssl_target_name_override" not in more
    named = options_of("models.example:1", tls=TLS(server_name="a.example"))
    assert named["grpc.ssl_target_name_override"] == "a.example"
    assert "grpc.ssl_target_name_override" not in options_of("models.example:1", tls=TLS())
    assert ChannelOptions("a:1", max_response_bytes=2**31 - 1).credentials() is None
    assert ChannelOptions("a:1", tls=True).credentials() is not None


@pytest.mark.parametrize(
    "address",
    [
        "a:1",
        "a:65535",
        "[::1]:8500",
        "unix:/x",
        "dns:///a:1",
        "ipv4:1.2.3.4:5",
        "ipv6:[::1]:5",
        "xds:///a",
    ],
)
def test_addresses(address):
    assert check_address(address) == address


@pytest.mark.parametrize("address", ["a:0", "a:65536", "a", "a:", ":1", "a/b:1", "a:b"])
def test_addresses_that_are_none(address):
    with pytest.raises(UsageError) as caught:
        check_address(address)
    assert str(caught.value) == (
        "`address` must be the address of a model server. Expected: HOST:PORT, such as "
        f"localhost:8500. Received: {address}."
    )


def test_messages_are_not_limited():
    """An answer of 16 MB: gRPC's own limit is 4."""
    model = Doubling()
    x = np.arange(2 * 2**21, dtype=np.float32).reshape(-1, 2)
    with (
        fake_server(model, options=methods.UNLIMITED_MESSAGES) as address,
        Client(address) as client,
    ):
        answered = client.predict(x, model="m", batch_size=len(x))["y"]
    np.testing.assert_array_equal(answered, 2 * x)
    assert model.rows == [len(x)]


@pytest.mark.parametrize("size", [0, 2**31, 1.5, None])
def test_the_limit_of_a_response_is_a_size(size):
    with pytest.raises(UsageError, match="`max_response_bytes` must be a size of a message"):
        Client("localhost:1", max_response_bytes=size)


def test_a_client_is_not_used_after_a_fork():
    """The connection would be written to by both processes; the first one keeps it."""
    x = np.ones((1, 2), np.float32)
    with fake_server(Doubling()) as address, Client(address) as client:
        client.predict(x, model="m")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            with pytest.raises(UsageError, match="used in the process that created it. Create a"):
                client.predict(x, model="m")
        assert client.predict(x, model="m")["y"].tolist() == [[2, 2]]
