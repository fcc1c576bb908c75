"""Ports and TLS."""

import ssl
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from cnnkit.client import Client, ServerError
from cnnkit.errors import RunError, UsageError
from cnnkit.server import EmbeddedServer, server
from cnnkit.server.listen import (
    bind_port,
    check_port_free,
    reserve_port,
    server_credentials,
    server_tls_context,
)
from tests.helpers.serving import check_gray, predict_gray


def test_a_port_in_use_is_not_shared(colors_folder, colors_server):
    port = int(colors_server.address.rpartition(":")[2])
    with pytest.raises(RunError) as caught:
        EmbeddedServer({"colors": colors_folder}, port=port)
    text = str(caught.value)
    assert f"cannot listen on port {port} of 127.0.0.1" in text
    assert "Address already in use" in text


def test_a_port_taken_meanwhile_is_not_shared_either(colors_folder, colors_server, monkeypatch):
    """Models are loaded between the check of the port and listening on it."""
    monkeypatch.setattr(server, "check_port_free", lambda *place: None)
    port = int(colors_server.address.rpartition(":")[2])
    with pytest.raises(RunError, match=f"cannot listen on port {port}"):
        EmbeddedServer({"colors": colors_folder}, port=port)


def test_a_port_is_free_again_at_once(colors_folder):
    with EmbeddedServer({"colors": colors_folder}) as server, Client(server.address) as client:
        client.status("colors")
        port = int(server.address.rpartition(":")[2])
    with EmbeddedServer({"colors": colors_folder}, port=port) as server:
        assert server.address == f"127.0.0.1:{port}"


def test_only_this_machine_can_reach_it(colors_server):
    host, _, port = colors_server.address.rpartition(":")
    assert host == "127.0.0.1"
    with Client(f"127.0.0.2:{port}") as client, pytest.raises(ServerError):
        client.status("colors")


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
    """Returns credentials that trust `authority`, with a certificate signed by `client`."""
    key = chain = None
    if client is not None:
        issued = client.issue_cert("client.example")
        key = issued.private_key_pem.bytes()
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)


def refused(channel):
    with pytest.raises(grpc.RpcError) as caught:
        predict_gray(channel)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tls(colors_folder, authority, tmp_path):
    credentials = server_credentials(*files_of(authority, tmp_path, "localhost"))
    with EmbeddedServer({"colors": colors_folder}, credentials=credentials) as server:
        place = server.address.replace("127.0.0.1", "localhost")
        # The client needs no certificate.
        with grpc.secure_channel(place, client_credentials(authority)) as channel:
            check_gray(predict_gray(channel))
        with grpc.secure_channel(place, client_credentials(trustme.CA())) as channel:
            assert refused(channel)
        # The certificate is valid for the name only, not for this address.
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
            check_gray(predict_gray(channel))
        for other in (None, trustme.CA(), authority):
            with grpc.secure_channel(place, client_credentials(authority, other)) as channel:
                assert refused(channel)


@pytest.mark.parametrize("wrong", ["swapped", "text", "others"])
def test_invalid_tls_files(authority, tmp_path, wrong):
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


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_private_key_is_refused_where_its_file_belongs(authority, tmp_path, place):
    files = [*files_of(authority, tmp_path, "localhost"), tmp_path / "clients.pem"]
    text = files[1].read_text()
    files[place] = Path(text)
    with pytest.raises(UsageError, match="must be the path of a file") as caught:
        server_credentials(*files)
    assert text.splitlines()[1] not in str(caught.value)


def test_ports_that_are_shared_and_not():
    """Processes of one user share a port if all of them ask for it; 0 is any free one."""
    with bind_port("127.0.0.1", 0, shared=True) as first:
        port = first.getsockname()[1]
        assert port > 0
        with bind_port("127.0.0.1", port, shared=True) as second:
            assert second.getsockname() == first.getsockname()
        first.listen()
        for take in (check_port_free, reserve_port, bind_port):
            with pytest.raises(RunError) as caught:
                take("127.0.0.1", port)
            assert str(caught.value) == (
                f"The server cannot listen on port {port} of 127.0.0.1. Received: Address already "
                "in use. Stop what uses the port, or choose another one; port 0 picks a free one."
            )
    # At once, also while connections of the one before are being closed.
    check_port_free("127.0.0.1", port)
    with reserve_port("127.0.0.1", port) as held, bind_port("127.0.0.1", port, shared=True):
        assert held.getsockname()[1] == port


def test_hosts_that_are_not_this_machine():
    # A name that is too long, one that nobody has, and the address of another machine.
    for host, reason in (
        ("192.0.2.1", "not an address of this machine"),
        ("a" * 300, "encoding with 'idna' codec failed"),
        ("no.such.host.invalid", ""),
    ):
        with pytest.raises(RunError) as caught:
            check_port_free(host, 0)
        assert str(caught.value).startswith("`host` must be an address or a name of this machine")
        assert f"Received: {host}: {reason}" in str(caught.value)
        # The words of the system, without its number.
        assert "Errno" not in str(caught.value) and ": None" not in str(caught.value)


def test_the_context_of_tls(authority, tmp_path):
    pair = files_of(authority, tmp_path, "localhost")
    assert server_tls_context(*pair).verify_mode == ssl.CERT_NONE
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert server_tls_context(*pair, tmp_path / "ca.pem").verify_mode == ssl.CERT_REQUIRED
    key = serialization.load_pem_private_key(pair[1].read_bytes(), None)
    pair[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UsageError) as caught:
        server_tls_context(*pair, tmp_path / "none.pem")
    assert str(caught.value).startswith(
        f"{pair[0]} and {pair[1]} must be a certificate and its private key in PEM, not encrypted. "
        f"Received: {pair[0]}, {pair[1]}, {tmp_path / 'none.pem'}: "
    )
    assert "is encrypted" in str(caught.value)
