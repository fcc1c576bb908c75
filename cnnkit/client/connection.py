"""One gRPC channel: calls with a deadline, failures told as errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from cnnkit.client.errors import ServerUnavailable, server_error
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods

ResponseT = TypeVar("ResponseT", bound=Message)

_OPTIONS: tuple[tuple[str, Any], ...] = (
    *methods.UNLIMITED_MESSAGES,
    # A server that was just started is found within a second, not after gRPC's minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Without a pool of its own, a new client would inherit the back-off of an earlier one.
    ("grpc.use_local_subchannel_pool", 1),
)


class Connection:
    """A channel to one model server.

    Args:
        address: "HOST:PORT", or a name gRPC resolves itself, such as "dns:///models:8500".
        timeout: Seconds that a call may take unless it says otherwise.

    Raises:
        UsageError: The address has no port, or the timeout is not positive.

    Example:
        >>> Connection("localhost:8500", timeout=10.0).address
        'localhost:8500'
    """

    def __init__(self, address: str, *, timeout: float) -> None:
        self.address = check_address(address)
        self.timeout = check_timeout(timeout)
        options = list(_OPTIONS)
        if _is_local(address):
            # A proxy that the environment names for the web does not know this machine's ports.
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.insecure_channel(address, options=options)
        self._closed = False

    def close(self) -> None:
        """Ends the channel; calls in flight are cancelled."""
        self._closed = True
        self._channel.close()

    def call(
        self,
        method: str,
        request: Message,
        answer: type[ResponseT],
        *,
        model: str,
        timeout: float | None = None,
    ) -> ResponseT:
        """Makes one call and waits for its answer.

        Args:
            method: The full path of the method.
            request: What to ask.
            answer: The type of the response.
            model: The model that is asked, for the texts of errors.
            timeout: Seconds; None is the connection's own.

        Returns:
            The response.

        Raises:
            UsageError: The client is closed.
            ServerError: The call failed; the subclass says how.
        """
        if self._closed:
            raise UsageError("This client is closed", hint="Open another one")
        seconds = self.timeout if timeout is None else check_timeout(timeout)
        ask: Callable[..., ResponseT] = self._channel.unary_unary(
            method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            return ask(request, timeout=seconds)
        except grpc.RpcError as error:
            raise server_error(
                error.code().name,
                error.details() or "",
                address=self.address,
                model=model,
                timeout=seconds,
                versions=lambda: self._versions(model, method),
            ) from error
        except ValueError as error:
            # Closed by another thread between our look and the call.
            raise ServerUnavailable(
                "This client was closed during the call", code="CANCELLED", details=str(error)
            ) from error

    def _versions(self, model: str, method: str) -> str:
        """Says which versions of a model can be asked for, as a hint."""
        unknown = f"Use a name that the server serves; {model!r} is none"
        if method == methods.GET_MODEL_STATUS and not model:
            return unknown
        ask: Callable[..., pb.GetModelStatusResponse] = self._channel.unary_unary(
            methods.GET_MODEL_STATUS,
            request_serializer=pb.GetModelStatusRequest.SerializeToString,
            response_deserializer=pb.GetModelStatusResponse.FromString,
        )
        try:
            request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name=model))
            response = ask(request, timeout=min(self.timeout, 2.0))
        except (grpc.RpcError, ValueError):
            return unknown
        available = sorted(
            status.version
            for status in response.model_version_status
            if status.state == pb.ModelVersionStatus.AVAILABLE
        )
        if not available:
            return f"No version of {model!r} is available yet: wait, or look at the server's log"
        listed = ", ".join(str(version) for version in available)
        return f"Versions of {model!r} that are available: {listed}"


def check_timeout(timeout: float) -> float:
    """Returns a number of seconds a call can be given.

    Raises:
        UsageError: It is not a positive, finite number.

    Example:
        >>> check_timeout(2)
        2
    """
    if not 0 < timeout < float("inf"):
        raise UsageError(
            "A call needs a deadline", expected="a timeout above 0 seconds", received=timeout
        )
    return timeout


def check_address(address: str) -> str:
    """Returns an address that can be connected to.

    Raises:
        UsageError: It is not HOST:PORT and has no scheme of gRPC's.

    Example:
        >>> check_address("[::1]:8500")
        '[::1]:8500'
    """
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:", "xds:")):
        return address
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            "This is not the address of a model server",
            expected="HOST:PORT, such as localhost:8500",
            received=address,
        )
    return address


def _is_local(address: str) -> bool:
    return address.rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")
