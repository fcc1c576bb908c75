"""Options that name a model server, a model on it, and how to connect."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.deprecated import deprecated_option
from cnnkit.cli.values import COUNT
from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from cnnkit.client import Client


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that name a model on the server, and its version or version label."""
    parser.add_argument(
        "--model", metavar="NAME", required=True, help="the name that the model is served under"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model-version", metavar="N", type=COUNT, help="default: the newest")
    which.add_argument(
        "--version-label", metavar="LABEL", help="the version with this label, such as stable"
    )
    deprecated_option(which, "--label", "--version-label")


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of an encrypted connection and of a token."""
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
    """Open a client with the options of `add_connection_arguments`.

    Args:
        args: The parsed arguments.
        address: HOST:PORT of the server.
        **options: Further arguments of `cnnkit.client.Client`.

    Raises:
        UsageError: If a file cannot be read, or the address or a combination is invalid.
    """
    from cnnkit.client import TLS, Client

    files = (args.tls_ca, args.tls_cert, args.tls_key)
    tls = TLS(*files) if any(files) else args.tls
    token = None if args.token_file is None else _first_line(args.token_file)
    return Client(address, tls=tls, token=token, **options)


def _first_line(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(f"--token-file {path} cannot be read", received=reason) from error
    return text.partition("\n")[0].strip()
