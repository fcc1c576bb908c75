"""Taking a port, and saying why it cannot be had."""

from __future__ import annotations

import socket

from cnnkit.errors import RunError


def check_free(host: str, port: int) -> None:
    """Tries a port before models are loaded for it, and to learn why it cannot be had.

    Raises:
        RunError: It is in use, or there is no such host.

    Example:
        >>> check_free("127.0.0.1", 0)
    """
    with _bound(host, port) as probe:
        probe.listen()


def reserve(host: str, port: int) -> socket.socket:
    """Takes a port without listening on it, so that this user's processes can share it.

    Args:
        host: The network interface.
        port: The port; 0 picks a free one.

    Returns:
        A socket; while it is open, nobody else can have the port.

    Raises:
        RunError: It is in use, or there is no such host.

    Example:
        >>> with reserve("127.0.0.1", 0) as held:
        ...     held.getsockname()[1] > 0
        True
    """
    # Others may be sharing it already: without the option, they are noticed.
    check_free(host, port)
    return _bound(host, port, shared=True)


def cannot_listen(host: str, port: int, reason: str) -> RunError:
    """Returns the error for a port that cannot be had."""
    return RunError(
        f"The server cannot listen on port {port} of {host}",
        received=reason,
        hint="Stop what uses the port, or choose another one; port 0 picks a free one",
    )


def _bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, protocol)
        try:
            # The connections of a server that has just ended do not keep its port.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(place)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise cannot_listen(host, port, error.strerror or str(error)) from error
    return taken
