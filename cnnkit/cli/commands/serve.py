"""Serve exported models over gRPC until stopped.

MODELS is a model's folder, such as models/digits, with the versions in models/digits/1, 2, ...; the
newest one is served, and newer ones as they appear. Or it is TensorFlow Serving's models.config.
TensorFlow Serving's tensorflow_model_server runs if it is on the PATH, MODELS is a folder and no
option of the embedded server is given; otherwise a server of the same API in this process.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit.cli.serve.options import add_embedded_arguments, given_options, served_name
from cnnkit.cli.values import COUNT, Whole
from cnnkit.errors import UsageError

_ALL_INTERFACES = "0.0.0.0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "models", metavar="MODELS", type=Path, help="a model's folder, NAME/, or a models.config"
    )
    parser.add_argument(
        "--port",
        type=Whole(minimum=0, maximum=65535),
        default=8500,
        help="0 picks a free one (default 8500)",
    )
    parser.add_argument(
        "--host", help="the interface to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--name", help="the name to serve under (default: the folder's name)")
    group = parser.add_argument_group("the embedded server")
    group.add_argument(
        "--embedded",
        action="store_true",
        help="use it even where tensorflow_model_server is installed",
    )
    group.add_argument(
        "--workers", metavar="N", type=COUNT, help="processes that share the port (default 1)"
    )
    add_embedded_arguments(group)
    # One of --workers processes: it shares the port, and ends when its standard input does.
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from cnnkit._signals import defer_signals
    from cnnkit.server import find_model_server

    embedded = args.embedded or args.models.is_file() or bool(given_options(args))
    binary = None if embedded or args.workers is not None else find_model_server()
    # Workers get a second signal: Ctrl-C reaches every process, and then the parent stops them.
    with defer_signals(restore_after_first=False) as stop:
        if binary is not None:
            _check_host(args.host)
            from cnnkit.cli.serve.tf_serving import serve_with_tf_serving

            serve_with_tf_serving(binary, args.models, served_name(args), args.port, stop.is_set)
        elif args.workers is not None and args.workers != 1:
            from cnnkit.cli.serve.embedded import serve_with_workers

            serve_with_workers(args, stop.is_set)
        else:
            from cnnkit.cli.serve.embedded import serve_embedded

            serve_embedded(args, stop.is_set)
    return 0


def _check_host(host: str | None) -> None:
    """Refuse one interface for a program that listens on all of them."""
    if host not in (None, _ALL_INTERFACES):
        raise UsageError(
            f"--host must be {_ALL_INTERFACES} for tensorflow_model_server, which listens on every "
            "interface",
            received=f"--host {host}",
            hint="Add --embedded for the server that can listen on one, or leave --host out",
        )
