"""Ports and TLS."""

from pathlib import Path

import grpc
import pytest
import trustme

from cnnkit.client import Client, ServerError
from cnnkit.errors import RunError, UsageError
from cnnkit.server import EmbeddedServer, server
from cnnkit.server.listen import server_credentials
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
