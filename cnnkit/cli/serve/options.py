"""Options of the embedded model server."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.deprecated import deprecated_option
from cnnkit.cli.values import COUNT, Number, Whole
from cnnkit.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from cnnkit.server import ServerLimits

ENGINES = ("tensorflow", "openvino")
LOG_FORMATS = ("text", "json")

# Metavar, type and help of each option.
_TIME = Number(minimum=0)
_PORT = Whole(minimum=0, maximum=65535)
_OPTIONS: dict[str, tuple[str, Any, str]] = {
    "--versions": ("CHOICE", str, "latest, latest:N, all, or numbers such as 1,3 (default latest)"),
    "--version-labels": (
        "LABEL=VERSION,...",
        str,
        "names of versions, such as stable=1,canary=2",
    ),
    "--poll-seconds": ("S", _TIME, "time between two checks for new versions, 0 for no checks "
                       "(default 1)"),
    "--threads": ("N", COUNT, "graphs that run at once (default: one for each core)"),
    "--batch-window-ms": ("MS", _TIME, "time that a request waits for others to run with"),
    "--max-batch": ("N", COUNT, "images in a request (default 256)"),
    "--max-request-pixels": (
        "N",
        COUNT,
        "pixels of the image files of a request, those of a PNG file 6 times (default 1000000000)",
    ),
    "--max-calls": ("N", COUNT, "concurrent requests; more are refused (default 128)"),
    "--max-request-mb": ("MB", COUNT, "size of a request in MiB (default 256)"),
    "--max-memory-mb": ("MB", COUNT, "memory of all open requests in MiB (default 1024)"),
    "--max-models": ("N", COUNT, "models that a reload request may name (default 32)"),
    "--stuck-seconds": (
        "S",
        _TIME,
        "time without the end of a running graph after which the server says that it is not live, "
        "0 for never (default 300)",
    ),
    "--rest-port": (
        "PORT",
        _PORT,
        "serve TensorFlow Serving's REST API on this port of --host, 0 for any free one",
    ),
    "--metrics-port": (
        "PORT",
        _PORT,
        "answer GET /metrics for Prometheus on this port of --host, 0 for any free one",
    ),
    "--log-format": (
        "NAME",
        str,
        "lines on standard error: text (default), or json, one object a line",
    ),
    "--grace": ("S", _TIME, "time for running requests when the server stops (default 10)"),
    "--engine": ("NAME", str, "runtime of the graphs: tensorflow (default) or openvino"),
    "--tls-cert": ("FILE", Path, "the server's certificate, PEM"),
    "--tls-key": ("FILE", Path, "its private key, PEM"),
    "--tls-client-ca": ("FILE", Path, "accept only clients with a certificate of this authority"),
    "--tls-client-names": (
        "NAME,...",
        str,
        "and of those, only clients whose certificate holds one of these names",
    ),
}  # fmt: skip
# Field of `ServerLimits` and factor of each option that is a limit.
_LIMITS: dict[str, tuple[str, float]] = {
    "threads": ("threads", 1),
    "batch_window_ms": ("batch_timeout_seconds", 1e-3),
    "max_batch": ("max_request_rows", 1),
    "max_request_pixels": ("max_request_pixels", 1),
    "max_calls": ("max_concurrent_requests", 1),
    "max_models": ("max_models", 1),
    "stuck_seconds": ("stuck_seconds", 1),
    "max_request_mb": ("max_request_bytes", 2**20),
    "max_memory_mb": ("max_memory_bytes", 2**20),
}


def add_embedded_arguments(group: argparse._ArgumentGroup) -> None:
    """Declare the options that only the embedded server has."""
    for flag, (metavar, kind, text) in _OPTIONS.items():
        group.add_argument(flag, metavar=metavar, type=kind, help=text)
    group.add_argument(
        "--no-load-trial",
        action="store_true",
        help="load a new version at once, not in a process of its own first",
    )
    group.add_argument(
        "--access-log",
        action="store_true",
        help="log one line for each request: its method, model, status code, time and id",
    )
    group.add_argument(
        "--allow-reload",
        action="store_true",
        help="accept reload requests from this machine and from clients with a certificate",
    )
    deprecated_option(group, "--labels", "--version-labels")


def given_options(args: argparse.Namespace) -> list[str]:
    """Return the options of the embedded server that were given, as words of a command line."""
    flags = {
        "--access-log": args.access_log,
        "--allow-reload": args.allow_reload,
        "--no-load-trial": args.no_load_trial,
    }
    words = [flag for flag, given in flags.items() if given]
    for flag in _OPTIONS:
        value = getattr(args, flag.removeprefix("--").replace("-", "_"))
        if value is not None:
            words += [flag, str(value)]
    return words


def served_name(args: argparse.Namespace) -> str:
    """Return the name that the model is served under."""
    name: str = args.name or args.models.resolve().name
    return name


def embedded_server_options(args: argparse.Namespace) -> dict[str, Any]:
    """Check all options without importing TensorFlow.

    Returns:
        The arguments `models`, `versions`, `version_labels`, `limits`, `credentials`, `rest_tls`,
        `client_names`, `allow_reload` and `access_log` of `EmbeddedServer`.

    Raises:
        UsageError: If an option is out of range, a folder holds no model, or the environment asks
            for traces that cannot be sent.
    """
    from cnnkit.server.metrics import check_metrics_installed
    from cnnkit.server.model_config import (
        ModelConfig,
        check_served_versions,
        parse_version_policy,
        read_models_config,
    )
    from cnnkit.server.rest import check_rest_installed
    from cnnkit.server.tracing import check_tracing
    from cnnkit.server.version_folders import version_folders

    _check_engine(args.engine)
    if args.log_format not in (None, *LOG_FORMATS):
        raise unknown_name("log format", args.log_format, LOG_FORMATS)
    if args.metrics_port is not None:
        check_metrics_installed()
    check_tracing()
    if args.rest_port is not None:
        check_rest_installed()
        if args.rest_port == args.port != 0:
            raise UsageError(
                "--rest-port must be another port than --port", received=f"{args.rest_port}"
            )
    if args.allow_reload and args.workers not in (None, 1):
        raise UsageError(
            "--allow-reload must not be given with --workers: a reload request reaches only one of "
            "the processes",
            hint="Change models.config, which all of them read again",
        )
    options: dict[str, Any] = {
        "limits": _limits(args),
        **_tls(args),
        "client_names": _client_names(args),
        "allow_reload": args.allow_reload,
        "access_log": args.access_log,
    }
    if args.models.is_file():
        read_models_config(args.models)
        _check_models_config(args)
        return {**options, "models": args.models}
    versions = args.versions or "latest"
    found = version_folders(args.models)
    policy = parse_version_policy(versions)
    name = served_name(args)
    labels = {name: _version_labels(args.version_labels)}
    config = ModelConfig(name, args.models, policy, labels[name])
    # First all, which the error lists.
    for served in (list(found), policy.candidates(found)):
        check_served_versions(config, served)
    return {
        **options,
        "models": {name: args.models},
        "versions": versions,
        "version_labels": labels,
    }


def _check_engine(engine: str | None) -> None:
    if engine not in (None, *ENGINES):
        raise unknown_name("engine", engine, ENGINES)
    if engine == "openvino" and importlib.util.find_spec("openvino") is None:
        raise UsageError(
            f"The engine {engine} is not installed",
            hint="Install it: pip install openvino",
        )


def _limits(args: argparse.Namespace) -> ServerLimits:
    from cnnkit.server import ServerLimits

    given = {
        field: getattr(args, option) * factor
        for option, (field, factor) in _LIMITS.items()
        if getattr(args, option) is not None
    }
    return ServerLimits(**given)


def _tls(args: argparse.Namespace) -> dict[str, Any]:
    """Return the TLS settings of gRPC, and of REST."""
    files = (args.tls_cert, args.tls_key)
    if files == (None, None) and args.tls_client_ca is None:
        return {"credentials": None}
    if None in files:
        raise UsageError(
            "--tls-cert and --tls-key must be given together: TLS needs a certificate and its key"
        )
    from cnnkit.server.listen import server_credentials, server_tls_context

    settings: dict[str, Any] = {"credentials": server_credentials(*files, args.tls_client_ca)}
    if args.rest_port is not None:
        settings["rest_tls"] = server_tls_context(*files, args.tls_client_ca)
    return settings


def _client_names(args: argparse.Namespace) -> list[str] | None:
    if args.tls_client_names is None:
        return None
    names = [name.strip() for name in args.tls_client_names.split(",")]
    if args.tls_client_ca is None or not all(names):
        raise UsageError(
            "--tls-client-names must be names with commas, given with --tls-client-ca",
            received=f"--tls-client-names {args.tls_client_names}",
        )
    return names


def _version_labels(text: str | None) -> dict[str, int]:
    labels = {}
    for pair in text.split(",") if text else []:
        label, _, version = pair.partition("=")
        if not label or not version.isdecimal():
            raise UsageError(
                "--version-labels must be pairs with commas",
                expected="LABEL=VERSION",
                received=pair,
            )
        labels[label] = int(version)
    return labels


def _check_models_config(args: argparse.Namespace) -> None:
    """Check that no option repeats what a models.config file contains."""
    for option in ("name", "versions", "version_labels"):
        if getattr(args, option) is not None:
            flag = option.replace("_", "-")
            raise UsageError(f"--{flag} must not be given with a models.config file, which "
                             f"contains it", received=args.models)  # fmt: skip
