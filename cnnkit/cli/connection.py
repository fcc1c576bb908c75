"""Arguments that say how a model server is spoken to, and the client made of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnkit.client import Client


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of an encrypted connection and of a token."""
    group = parser.add_argument_group("the connection")
    group.add_argument("--tls", action="store_true", help="encrypt it; certificates imply this")
    for flag, text in (
        ("--tls-ca", "the authority that signed the server's certificate, PEM"),
        ("--tls-cert", "this client's own certificate, PEM"),
        ("--tls-key", "the key to it, PEM"),
        ("--token-file", "a file whose first line is sent as authorization: Bearer"),
    ):
        group.add_argument(flag, metavar="FILE", type=Path, help=text)


def open_client(args: argparse.Namespace, address: str, **options: Any) -> Client:
    """Returns the client that the arguments describe.

    Raises:
        UsageError: If a file cannot be read, or the address or a combination cannot be.
    """
    from cnnkit.client import TLS, Client

    files = (args.tls_ca, args.tls_cert, args.tls_key)
    tls = TLS(*files) if any(files) else args.tls
    token = None if args.token_file is None else _first_line(args.token_file)
    return Client(address, tls=tls, token=token, **options)


def _first_line(path: Path) -> str:
    from cnnkit.errors import UsageError

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(f"The token's file {path} cannot be read", received=reason) from error
    return text.partition("\n")[0].strip()
