"""The classification of failed calls."""

import errno
import os
from pathlib import Path

import grpc
import pytest
from grpc._cython import cygrpc

from cnnkit.client import (
    Client,
    ConnectionLost,
    InvalidRequest,
    ModelNotFound,
    ServerBusy,
    ServerError,
    ServerUnreachable,
    TLSError,
)
from cnnkit.client.errors import STATUS_TEXTS, batch_limit, error_text, server_error
from tests.helpers.fake_servers import fake_server


def refuse(code, details):
    def answer(path, request, context):
        context.abort(code, details)

    return answer


@pytest.mark.parametrize(
    ("code", "details", "kind", "text"),
    [
        ("UNAVAILABLE", "Socket closed", ConnectionLost, "broke during a call"),
        ("UNAVAILABLE", "The batch scheduling queue is full", ServerBusy, "try again"),
        ("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", ServerBusy, "--grpc_max_threads"),
        ("RESOURCE_EXHAUSTED", "memory", ServerError, "at its limit"),
        ("UNIMPLEMENTED", "", ServerError, "8500 by custom"),
        ("INTERNAL", "oops\nnode 3", ServerError, "Received: INTERNAL: oops. The server's log"),
        ("FAILED_PRECONDITION", "Serving signature key", InvalidRequest, "refuses this request"),
        ("OUT_OF_RANGE", "x", InvalidRequest, "refuses this request"),
        (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: a",
            ModelNotFound,
            "Use the name of a served model",
        ),
    ],
)
def test_codes_become_errors(code, details, kind, text):
    with (
        fake_server(refuse(grpc.StatusCode[code], details)) as address,
        Client(address, timeout=5, max_attempts=1) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.status("m")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert text in str(caught.value)
    assert (caught.value.code, caught.value.details) == (code, details)


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("first\nsecond", "first"),
        (
            "assertion failed: [image_bytes[3]: the file is ...]\n\t [[{{node map/Assert}}]]",
            "image_bytes[3]: the file is ...",
        ),
        # A graph exported by version 0.1.0.
        (
            "assertion failed: [a request has too many; it has, and may have:] [257] [256]\n\t [[",
            "a request has too many; it has, and may have: 257 256",
        ),
        (
            "2 root error(s) found.\n  (0) INVALID_ARGUMENT: assertion failed: [bad]\n\t [[{{x}}]]"
            "\n  (1) INVALID_ARGUMENT: assertion failed: [worse]\n0 successful operations.",
            "bad",
        ),
        ("2 root error(s) found.\n  (0) Invalid argument: bad\n  (1) Invalid argument: x", "bad"),
    ],
)
def test_an_error_shows_one_sentence(details, text):
    assert error_text(details) == text
    error = ServerError("No", code="INVALID_ARGUMENT", details=details)
    assert "assertion failed" not in str(error)
    assert "{{" not in str(error)
    assert error.details == details


def test_shapes_that_a_server_merges_are_explained():
    text = "Tensors with name 'x' from different tasks have different shapes and padding is " \
        "turned off. Set pad_variable_length_inputs to true, or ensure that ..."  # fmt: skip
    error = server_error("FAILED_PRECONDITION", text, address="a:1", model="m", timeout=1)
    assert "another caller sent images of another size: send it again" in str(error)


def test_only_a_predict_call_blames_its_input():
    for idempotent, text in ((True, "requires TLS"), (False, "may have crashed the server")):
        error = server_error(
            "UNAVAILABLE",
            "Socket closed",
            address="a:1",
            model="m",
            timeout=1,
            idempotent=idempotent,
        )
        assert text in str(error)
    # A call of which nothing is known is not repeated, so that it may be one.
    error = server_error("UNAVAILABLE", "Socket closed", address="a:1", model="m", timeout=1)
    assert "may have crashed the server" in str(error)


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ("failed to connect to all addresses; Connection refused", ServerUnreachable),
        ("failed to connect to all addresses; Socket closed", ServerUnreachable),
        (
            "failed to connect to all addresses; Ssl handshake failed (TSI_PROTOCOL_FAILURE)",
            TLSError,
        ),
        (
            "failed to connect to all addresses; Trying to connect an http1.x server",
            ServerUnreachable,
        ),
        ("DNS resolution failed for models:8500", ServerUnreachable),
        ("no healthy upstream", ServerUnreachable),
        ("Broken pipe", ConnectionLost),
        ("The server is stopping", ServerBusy),
    ],
)
def test_texts_of_unavailable_servers(details, kind):
    error = server_error("UNAVAILABLE", details, address="a:1", model="m", timeout=1)
    assert type(error) is kind
    # Words in later lines do not count: they are a dump of the server's graph.
    later = server_error("UNAVAILABLE", f"x\n{details}", address="a:1", model="m", timeout=1)
    assert type(later).__name__ == "ServerUnavailable"


BUSY = "a:1 is busy. Received: {}: {}. Send less at once, or try again in a moment"
LOG = "a:1 failed on this request to 'm'. Received: {}: {}. The server's log may say why"


@pytest.mark.parametrize(
    ("code", "details", "kind", "text"),
    [
        ("UNAVAILABLE", "batch scheduling queue", "ServerBusy", BUSY + "."),
        ("RESOURCE_EXHAUSTED", "batch scheduling queue", "ServerBusy", BUSY + "."),
        (
            "RESOURCE_EXHAUSTED",
            "Server Threadpool Exhausted",
            "ServerBusy",
            BUSY + ". TensorFlow Serving takes --grpc_max_threads calls at once.",
        ),
        ("INTERNAL", "batch scheduling queue", "ServerError", LOG + ", at the request r-7."),
        (
            "CANCELLED",
            "x",
            "ServerBusy",
            "a:1 is stopping and has not started to process this call",
        ),
        ("INTERNAL", "The server is stopping", "ServerError", LOG + ", at the request r-7."),
        ("NOT_FOUND", "x", "ModelNotFound", "a:1 has no such model, version or label of 'm'"),
        ("INTERNAL", "version label", "ModelNotFound", "a:1 has no such model, version or label"),
        ("DEADLINE_EXCEEDED", "", "DeadlineExceeded", "a:1 did not answer within 2.5 s"),
        (
            "INVALID_ARGUMENT",
            "larger than maximum input batch size 123456789",
            "InvalidRequest",
            "a:1 refuses this request to 'm'. Received: {}: {}. Send at most 123456789 at once: "
            "batch_size=123456789.",
        ),
        # No number that is sent: it is one of too many digits.
        (
            "INVALID_ARGUMENT",
            "larger than maximum input batch size 1234567890",
            "InvalidRequest",
            "a:1 refuses this request to 'm'. Received: {}: {}.",
        ),
        (
            "FAILED_PRECONDITION",
            'Serving signature key "x" not found.',
            "InvalidRequest",
            "a:1 refuses this request to 'm'. Received: {}: {} metadata() lists the model's sig",
        ),
        (
            "RESOURCE_EXHAUSTED",
            "larger than max",
            "MessageTooLarge",
            "A message to or from a:1 exceeds a size limit. Received: {}: {}. Send fewer images",
        ),
        ("INTERNAL", "larger than max", "ServerError", LOG),
        (
            "RESOURCE_EXHAUSTED",
            "quota",
            "ServerError",
            "a:1 failed on this request to 'm'. Received: {}: {}. The server is at its limit: send "
            "less at once, or try again later.",
        ),
        (
            "UNIMPLEMENTED",
            "x",
            "ServerError",
            "a:1 failed on this request to 'm'. Received: {}: {}. Use the port of the server",
        ),
        (
            "PERMISSION_DENIED",
            "x",
            "NotAuthorized",
            "a:1 does not authorize this client to use 'm'. Received: {}: {}. Give the client a to",
        ),
        ("UNAVAILABLE", "SSL_ERROR", "TLSError", "No TLS connection to a:1. Received: {}: {}. Che"),
        (
            "UNAVAILABLE",
            "http1",
            "ServerUnreachable",
            "a:1 does not speak gRPC. Received: {}: {}. Use the port of the server's gRPC",
        ),
        (
            "UNAVAILABLE",
            "failed to connect; Socket closed",
            "ServerUnreachable",
            "a:1 closes every connection immediately. Received: {}: {}. The server may require TLS",
        ),
        (
            "UNAVAILABLE",
            "failed to connect",
            "ServerUnreachable",
            "No model server answers at a:1. Received: {}: {}. Start one with `cnnkit serve DIR "
            "--port 1`.",
        ),
        (
            "UNAVAILABLE",
            "x",
            "ServerUnavailable",
            "a:1 is unavailable. Received: {}: {}. Try again in a moment.",
        ),
    ],
)
def test_what_an_error_says(code, details, kind, text):
    error = server_error(
        code, details, address="a:1", model="m", timeout=2.5, idempotent=True, request_id="r-7"
    )
    assert type(error).__name__ == kind
    assert str(error).startswith(text.format(code, details))
    assert (error.code, error.details, error.request_id) == (code, details, "r-7")
    assert batch_limit(error) == (123456789 if "123456789." in str(error) else None)


def test_a_call_that_a_stopping_server_cancels_has_not_begun():
    for code, details in [("CANCELLED", "CANCELLED"), ("UNAVAILABLE", "The server is stopping")]:
        error = server_error(code, details, address="a:1", model="m", timeout=1, idempotent=False)
        assert error.retryable
        assert str(error).startswith("a:1 is stopping and has not started to process this call")
    begun = server_error(
        "UNAVAILABLE",
        "The server stopped during the call",
        address="a:1",
        model="m",
        timeout=1,
        idempotent=False,
    )
    assert not begun.retryable


def test_grpc_and_the_operating_system_still_write_these_texts():
    library = Path(cygrpc.__file__).read_bytes()
    system = {
        os.strerror(getattr(errno, name))
        for name in ("ECONNRESET", "EPIPE", "ECONNREFUSED", "EHOSTUNREACH")
    }
    for known in STATUS_TEXTS:
        if known.source.startswith("gRPC C core"):
            assert known.text.encode() in library, known
        elif known.source.startswith("strerror"):
            assert known.text in {text[: len(known.text)] for text in system}, known


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("order-7", "order-7"),
        ("two words", None),
        ("x" * 129, None),
        ("\x7e\x5b2J", None),
        (None, None),
    ],
)
def test_the_id_of_a_call_is_taken_if_it_can_be_printed(sent, expected):
    def answer(path, request, context):
        if sent is not None:
            context.set_trailing_metadata((("x-request-id", sent),))
        context.abort(grpc.StatusCode.INTERNAL, "oops")

    with (
        fake_server(answer) as address,
        Client(address, timeout=5) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.status("m")
    assert caught.value.request_id == expected
    told = "" if expected is None else ", at the request order-7"
    assert str(caught.value).endswith(f"The server's log may say why{told}.")
