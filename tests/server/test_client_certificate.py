"""Certificates of clients: their usage and their names."""

import contextlib
import datetime
import http.client
import ssl

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.errors import UsageError
from cnnkit.server import EmbeddedServer
from cnnkit.server.client_certificate import ClientCertificates, has_extended_key_usage
from cnnkit.server.listen import server_credentials, server_tls_context
from cnnkit.server.status_error import StatusError
from tests.helpers.serving import check_gray, predict_gray


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def client_certificate(authority, usages, name="lab", extensions=()):
    """Returns the key and the certificate, in PEM, of a client that an authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        builder.sign(signer, hashes.SHA256()).public_bytes(pem),
    )


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def test_only_certificates_for_clients_with_a_name_are_answered(colors_folder, authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    credentials = server_credentials(
        tmp_path / "server.pem", tmp_path / "server.pem", tmp_path / "ca.pem"
    )
    with EmbeddedServer(
        {"colors": colors_folder}, credentials=credentials, client_names=["lab", "other"]
    ) as server:
        place = server.address.replace("127.0.0.1", "localhost")

        def ask(usages, **options):
            key, chain = client_certificate(authority, usages, **options)
            chosen = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)
            with grpc.secure_channel(place, chosen) as channel:
                return predict_gray(channel)

        check_gray(ask([CLIENT]))
        check_gray(ask([SERVER, CLIENT]))
        alternative = x509.SubjectAlternativeName([x509.DNSName("other")])
        check_gray(ask([CLIENT], name="x", extensions=[alternative]))
        for usages, options, code, text in [
            ([], {}, "UNAUTHENTICATED", "must have the extended key usage clientAuth"),
            ([CLIENT], {"name": "lab2"}, "PERMISSION_DENIED", "no name that this server answers"),
            # TLS refuses the connection.
            ([SERVER], {}, "UNAVAILABLE", ""),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                ask(usages, **options)
            assert caught.value.code().name == code
            assert text in caught.value.details()


def test_rest_answers_the_same_clients(colors_folder, authority, tmp_path):
    pytest.importorskip("aiohttp")
    files = [tmp_path / "server.pem"] * 2 + [tmp_path / "ca.pem"]
    authority.cert_pem.write_to_path(files[2])
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(files[0])
    with EmbeddedServer(
        {"colors": colors_folder},
        credentials=server_credentials(*files),
        client_names=["lab", "other"],
        rest_port=0,
        rest_tls=server_tls_context(*files),
    ) as server:
        port = int(server.rest_address.rpartition(":")[2])

        def ask(usages, path="/v1/models/colors", **options):
            key, chain = client_certificate(authority, usages, **options)
            (tmp_path / "client.pem").write_bytes(key + chain)
            tls = ssl.create_default_context(cafile=files[2])
            tls.load_cert_chain(tmp_path / "client.pem")
            https = http.client.HTTPSConnection("localhost", port, context=tls, timeout=30)
            with contextlib.closing(https) as connection:
                connection.request("GET", path)
                return connection.getresponse().status

        alternative = x509.SubjectAlternativeName([x509.DNSName("other")])
        assert ask([CLIENT]) == 200
        assert ask([CLIENT], name="x", extensions=[alternative]) == 200
        assert ask([]) == ask([], "/v1/health/live") == 401
        assert ask([CLIENT], name="lab2") == ask([CLIENT], "/v1/health/live", name="lab2") == 403
        with pytest.raises(OSError):
            ask([SERVER])
        plain = http.client.HTTPConnection("localhost", port, timeout=30)
        with (
            contextlib.closing(plain),
            pytest.raises((OSError, http.client.HTTPException)),
        ):
            plain.request("GET", "/v1/models/colors")
            plain.getresponse()


def test_the_extension_is_found_where_it_is_and_not_in_a_name(authority):
    spoiled = x509.SubjectAlternativeName([x509.DNSName("\x06\x03\x55\x1d\x25")])
    for usages, extensions, found in [
        ([CLIENT], [], True),
        ([CLIENT], [spoiled], True),
        ([], [spoiled], False),
        ([], [], False),
    ]:
        _, pem = client_certificate(
            authority, usages, "\x06\x03\x55\x1d\x25", extensions=extensions
        )
        assert has_extended_key_usage(pem) is found


def test_names_of_clients():
    for names in ([], [""], ["lab", ""]):
        with pytest.raises(UsageError, match="`client_names` must be names of clients"):
            ClientCertificates(names)
    ClientCertificates().check({})
    with pytest.raises(StatusError, match="A client certificate is required") as caught:
        ClientCertificates(["lab"]).check({})
    assert caught.value.code.name == "UNAUTHENTICATED"


@settings(max_examples=50)
@given(st.data())
def test_damaged_certificates_are_refused(data):
    """TLS has checked a certificate before; its reader raises nothing but its own error anyhow."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(PEM))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    del der[data.draw(st.integers(1, len(der))) :]
    with pytest.raises(StatusError):
        ClientCertificates(["x"]).check(
            {"x509_pem_cert": [ssl.DER_cert_to_PEM_cert(bytes(der)).encode()]}
        )


PEM = trustme.CA().cert_pem.bytes().decode()
