"""Measure how fast a model server answers: latency percentiles, throughput, errors.

A number of callers send the same request at the same time, each again as soon as it has the
response: seeded noise of the signature's shape, or an image file. Latency is what a caller in
Python measures, with sending and parsing; failed requests are not retried. Only a server on this
machine is put under load, unless --remote is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.connection import add_connection_arguments, add_model_arguments, open_client
from cnnkit.cli.console import add_json_argument, print_json, print_line
from cnnkit.cli.values import COUNT, SECONDS, Number, Whole, input_file
from cnnkit.client.load_test import MAX_CALLERS, MAX_REQUESTS, MAX_SECONDS
from cnnkit.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from cnnkit.client import Client
    from cnnkit.client.load_test import LoadTestResult

_PERCENTILES = (50, 90, 95, 99, 100)
# Where neither `--requests` nor `--seconds` is given.
REQUESTS = 200
SECONDS_WITHOUT_REQUESTS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("server", metavar="HOST:PORT")
    add_model_arguments(parser)
    parser.add_argument(
        "--signature", help="default: serving_default, or classify_bytes where --image is given"
    )
    parser.add_argument("--image", metavar="FILE", type=input_file, help="send this encoded image")
    for flag, metavar, kind, default, text in (
        ("--batch", "N", COUNT, 1, "images in each request"),
        ("--size", "PIXELS", COUNT, 224, "height and width, where the model leaves them open"),
        ("--callers", "N", Whole(minimum=1, maximum=MAX_CALLERS), 1, "concurrent callers"),
        ("--timeout", "S", SECONDS, 10.0, "for each request"),
    ):
        parser.add_argument(
            flag, metavar=metavar, type=kind, default=default, help=f"{text} (default {default:g})"
        )
    parser.add_argument(
        "--requests",
        metavar="N",
        type=Whole(minimum=1, maximum=MAX_REQUESTS),
        help=f"number of requests (default {REQUESTS}, or {MAX_REQUESTS:,} with --seconds)",
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=Number(above=0, maximum=MAX_SECONDS),
        help=f"start no request after this time (default {SECONDS_WITHOUT_REQUESTS}, or"
        f" {MAX_SECONDS:g} with --requests)",
    )
    parser.add_argument(
        "--remote", action="store_true", help="allow a server that is not on this machine"
    )
    add_json_argument(parser)
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the measurements; return 1 if a request failed."""
    from cnnkit.client.channel import check_address, is_loopback

    if not args.remote and not is_loopback(check_address(args.server)):
        raise UsageError(
            f"{args.server} is not surely this machine, and a load test can take a server down",
            expected="localhost, 127.0.0.1 or [::1]",
            hint="Add --remote if it may",
        )
    # One attempt: a failed request counts as an error, and a retry would hide it.
    with open_client(args, args.server, timeout=args.timeout, max_attempts=1) as client:
        signature, inputs = _signature_and_inputs(client, args)
        result = _run_load_test(client, args, signature, inputs)
    document = _document(args, signature, result)
    if args.json:
        print_json(document, indent=2)
    else:
        for line in _summary(document):
            print_line(line)
    return int(bool(result.errors))


def _signature_and_inputs(client: Client, args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the name of the signature and the arrays that are sent to it."""
    import numpy as np

    from cnnkit.client.image_calls import read_images
    from cnnkit.client.load_test import check_load_size, random_inputs

    encoded = None if args.image is None else read_images(Path(args.image))
    default = "serving_default" if encoded is None else "classify_bytes"
    name = default if args.signature is None else args.signature
    offered = client.metadata(args.model, args.model_version, args.version_label)
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


def _run_load_test(
    client: Client, args: argparse.Namespace, signature: str, inputs: dict[str, Any]
) -> LoadTestResult:
    from cnnkit.client.inputs import DEFAULT_BATCH_ROWS
    from cnnkit.client.load_test import run_load_test

    # One limit that is given is not undercut by the default of the other.
    requests = args.requests or (REQUESTS if args.seconds is None else MAX_REQUESTS)
    seconds = args.seconds or (SECONDS_WITHOUT_REQUESTS if args.requests is None else MAX_SECONDS)
    # The client splits large batches by default; the parts would be requests that are not counted.
    batch_size = args.batch if args.batch > DEFAULT_BATCH_ROWS else None
    return run_load_test(
        lambda: client.predict(
            inputs,
            model=args.model,
            version=args.model_version,
            version_label=args.version_label,
            signature=signature,
            batch_size=batch_size,
        ),
        callers=args.callers,
        requests=requests,
        seconds=seconds,
    )


def _document(args: argparse.Namespace, signature: str, result: LoadTestResult) -> dict[str, Any]:
    found = {f"p{percent}": result.percentile(percent) for percent in _PERCENTILES}
    found["max"] = found.pop("p100")
    return {
        "server": args.server,
        "model": args.model,
        "version": args.model_version,
        "label": args.version_label,
        "signature": signature,
        "images_per_request": args.batch,
        "callers": args.callers,
        "requests": result.requests,
        "answered": len(result.latencies),
        "errors": dict(result.errors),
        "seconds": result.seconds,
        "requests_per_second": result.answers_per_second,
        "images_per_second": result.answers_per_second * args.batch,
        "latency_ms": {
            name: None if seconds is None else seconds * 1e3 for name, seconds in found.items()
        },
        "client_cpu_share": result.client_cpu_seconds / result.seconds,
    }


def _summary(found: dict[str, Any]) -> list[str]:
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
    return lines
