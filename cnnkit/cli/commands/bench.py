"""Measure how fast a model server answers: latency percentiles, throughput, errors.

A small honest load test. So many callers ask at once, each again as soon as its answer is there,
with one and the same request: seeded noise of the signature's shape, or an image file. Latency is
what a caller in Python sees, sending and reading included; nothing that fails is tried again. Only
a server on this machine is put under load, unless --remote says that it may be another.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.connection import add_connection_arguments, open_client

if TYPE_CHECKING:
    from cnnkit.client import Client
    from cnnkit.client.load_test import LoadTestResult

_PERCENTILES = (50, 90, 95, 99, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cnnkit bench`."""
    parser.add_argument("server", metavar="HOST:PORT")
    parser.add_argument("--model", metavar="NAME", required=True, help="its name on the server")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model-version", metavar="N", type=int, help="default: the newest")
    which.add_argument("--label", help="the version of this label, such as stable")
    parser.add_argument(
        "--signature", help="default: serving_default, or classify_bytes where --image is given"
    )
    parser.add_argument("--image", metavar="FILE", type=Path, help="send this encoded image")
    for flag, value, kind, usual, text in (
        ("--batch", "N", int, 1, "images in each request"),
        ("--size", "PIXELS", int, 224, "height and width, where the model leaves them open"),
        ("--callers", "N", int, 1, "requests at once"),
        ("--requests", "N", int, 200, "stop after so many"),
        ("--seconds", "S", float, 10.0, "begin none after this time"),
        ("--timeout", "S", float, 10.0, "for each request"),
    ):
        parser.add_argument(
            flag, metavar=value, type=kind, default=usual, help=f"{text} (default {usual:g})"
        )
    parser.add_argument(
        "--remote", action="store_true", help="allow a server that is not on this machine"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the figures; returns 1 if a request was not answered."""
    from cnnkit.client.channel import check_address, is_loopback
    from cnnkit.client.inputs import DEFAULT_BATCH_ROWS
    from cnnkit.client.load_test import run_load_test
    from cnnkit.errors import UsageError

    if not args.remote and not is_loopback(check_address(args.server)):
        raise UsageError(
            f"{args.server} is not surely this machine, and a load test can take a server down",
            expected="localhost, 127.0.0.1 or [::1]",
            hint="Add --remote if it may",
        )
    # An attempt that fails is an error here, not a reason to try again.
    with open_client(args, args.server, timeout=args.timeout, attempts=1) as client:
        signature, inputs = _inputs(client, args)
        rows = args.batch
        result = run_load_test(
            lambda: client.predict(
                inputs,
                model=args.model,
                version=args.model_version,
                label=args.label,
                signature=signature,
                # One request however many images: parts would be requests that nobody counts.
                batch_size=rows if rows > DEFAULT_BATCH_ROWS else None,
            ),
            callers=args.callers,
            requests=args.requests,
            seconds=args.seconds,
        )
    document = _document(args, signature, rows, result)
    print(json.dumps(document, indent=2) if args.json else _text(document))
    return int(bool(result.errors))


def _inputs(client: Client, args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Returns the signature that is asked and what it is sent."""
    import numpy as np

    from cnnkit.client.image_calls import read_images
    from cnnkit.client.load_test import check_load_size, random_inputs
    from cnnkit.errors import UsageError, unknown_name

    if args.batch < 1:
        raise UsageError("A request has one image at least", received=f"--batch {args.batch}")
    encoded = None if args.image is None else read_images(args.image)
    usual = "serving_default" if encoded is None else "classify_bytes"
    name = usual if args.signature is None else args.signature
    offered = client.metadata(args.model, args.model_version, args.label)
    if name not in offered:
        raise unknown_name("signature", name, offered)
    if encoded is None:
        return name, random_inputs(offered[name], args.batch, args.size)
    if len(offered[name].inputs) != 1:
        raise UsageError(
            f"Signature {name} does not take one image", received=", ".join(offered[name].inputs)
        )
    check_load_size(args.batch * len(encoded[0]))
    return name, {next(iter(offered[name].inputs)): np.repeat(encoded, args.batch)}


def _document(
    args: argparse.Namespace, signature: str, rows: int, result: LoadTestResult
) -> dict[str, Any]:
    found = {f"p{percent}": result.percentile(percent) for percent in _PERCENTILES}
    found["max"] = found.pop("p100")
    return {
        "server": args.server,
        "model": args.model,
        "version": args.model_version,
        "label": args.label,
        "signature": signature,
        "images_per_request": rows,
        "callers": args.callers,
        "requests": result.requests,
        "answered": len(result.latencies),
        "errors": dict(result.errors),
        "seconds": result.seconds,
        "requests_per_second": result.answers_per_second,
        "images_per_second": result.answers_per_second * rows,
        "latency_ms": {
            name: None if seconds is None else seconds * 1e3 for name, seconds in found.items()
        },
        "client_cpu_share": result.client_cpu_seconds / result.seconds,
    }


def _text(found: dict[str, Any]) -> str:
    callers = f"{found['callers']} caller{'s' if found['callers'] > 1 else ''}"
    images = found["images_per_request"]
    lines = [
        f"{found['model']} {found['signature']} at {found['server']}, {callers}, "
        f"{images} image{'s' if images > 1 else ''} a request",
        f"requests   {found['answered']} answered of {found['requests']} in "
        f"{found['seconds']:.2f} s",
        f"throughput {found['requests_per_second']:.1f} requests/s, "
        f"{found['images_per_second']:.1f} images/s",
    ]
    if found["answered"]:
        latencies = (f"{name} {value:.2f}" for name, value in found["latency_ms"].items())
        lines.append(f"latency    {'  '.join(latencies)} ms")
    lines += [f"errors     {count} {code}" for code, count in found["errors"].items()]
    lines.append(f"caller CPU {found['client_cpu_share']:.0%} of one core")
    return "\n".join(lines)
