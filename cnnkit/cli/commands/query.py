"""Ask a model server for the classes of images.

PATH is an image file (JPEG, PNG, GIF, BMP, WebP), a folder, which stands for all such files in it,
or - for an image on standard input. The encoded files are sent to a model that was exported with
cnnkit, which decodes them; the most probable classes are printed as a table. If the server refuses
an image, the others are still classified, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from cnnkit.cli.connection import add_connection_arguments, add_model_arguments, open_client
from cnnkit.cli.console import (
    add_json_argument,
    cell,
    print_error,
    print_json,
    print_line,
)
from cnnkit.cli.image_paths import NamedImage, find_images, print_predictions
from cnnkit.cli.picture import (
    add_picture_arguments,
    check_picture_arguments,
    picture_options,
    refuse_picture_options,
)
from cnnkit.cli.values import COUNT, SECONDS
from cnnkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from cnnkit.client import Client, Explanation

# The classes of an image take 1 kB; its explanation 15 bytes for each pixel: 4 million.
_MAX_RESPONSE_BYTES = 2**26
# A figure of more rows is too long to be looked at.
_MAX_EXPLAINED = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="*", help="an image, a folder, or -")
    parser.add_argument(
        "--server", metavar="HOST:PORT", default="localhost:8500", help="default localhost:8500"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--top", metavar="K", type=COUNT, help="classes per image (default: 5 at most)"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=SECONDS,
        default=10.0,
        help="for each image (default 10)",
    )
    add_picture_arguments(
        parser,
        "--explain",
        help="draw the pixels that activated the most probable class, by the server's deconvnet "
        f"({_MAX_EXPLAINED} images at most)",
    )
    parser.add_argument("--layer", help="explain the strongest unit of this layer instead")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="wait until the model is available, and print each change of its state; PATH may be "
        "left out",
    )
    parser.add_argument(
        "--watch-seconds", metavar="S", type=SECONDS, default=60.0, help="at most (default 60)"
    )
    add_json_argument(parser)
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Wait if --watch is given, classify the images in order; return 1 if one was refused."""
    images = find_images(args.paths)
    _check(args, images)
    document: dict[str, Any] = {
        "server": args.server,
        "model": args.model,
        "version": args.model_version,
        "label": args.version_label,
    }
    with open_client(
        args, args.server, timeout=args.timeout, max_response_bytes=_MAX_RESPONSE_BYTES
    ) as client:
        if args.watch:
            document["ready"] = _watch(client, args)
        if images:
            document["results"] = _classify(client, images, args)
        if args.explain is not None:
            document["explained"] = str(args.explain)
            _explain(client, images, args)
    if args.json:
        print_json(document, indent=2)
    return int(any("error" in result for result in document.get("results", ())))


def _check(args: argparse.Namespace, images: list[NamedImage]) -> None:
    """Check the combination of options."""
    if not images and not args.watch:
        raise UsageError("`PATH` or --watch must be given")
    if args.layer is not None and args.explain is None:
        raise UsageError("--layer requires --explain PICTURE")
    if args.explain is None:
        refuse_picture_options(args, "--explain")
        return
    check_picture_arguments(args, "--explain")
    if not 0 < len(images) <= _MAX_EXPLAINED:
        raise UsageError(
            "--explain draws a limited number of images",
            expected=f"1 to {_MAX_EXPLAINED}",
            received=len(images),
        )


def _watch(client: Client, args: argparse.Namespace) -> dict[str, Any]:
    """Wait until a version is available; print each change of state on standard error."""
    which = {"version": args.model_version, "version_label": args.version_label}
    begun = time.monotonic()

    def print_change(change: str) -> None:
        seconds = time.monotonic() - begun
        print_error(f"{seconds:6.1f} s  {change}")

    client.wait_until_ready(args.model, args.watch_seconds, **which, on_change=print_change)
    seconds = time.monotonic() - begun
    states = client.status(args.model, **which)
    available = [state.version for state in states if state.state == "AVAILABLE"]
    if not args.json:
        print_line(f"{args.model} is ready: version {', '.join(map(str, available))}")
    return {"seconds": round(seconds, 3), "versions": available}


def _classify(
    client: Client, images: list[NamedImage], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Classify each image by a call of its own, and print the classes or the error."""
    from cnnkit.client import InvalidRequest

    width = max(len(cell(name)) for name, _ in images)
    results: list[dict[str, Any]] = []
    for name, image in images:
        # A call for each image, so that the error for an undecodable one has its name.
        try:
            [found] = client.classify(
                image,
                model=args.model,
                version=args.model_version,
                version_label=args.version_label,
                top=args.top,
            )
        except (InvalidRequest, DataError) as error:
            failure: Exception = error
            if isinstance(error, InvalidRequest):
                problem = f"{args.server} cannot classify {name} with {args.model!r}"
                failure = InvalidRequest(problem, code=error.code, details=error.details)
            print_error(f"cnnkit: error: {failure}")
            results.append({"image": name, "error": str(failure)})
            continue
        predictions = [{"label": one.label, "probability": one.probability} for one in found]
        results.append({"image": name, "predictions": predictions})
        if not args.json:
            print_predictions(
                cell(name).ljust(width), [(one.label, one.probability) for one in found]
            )
    return results


def _explain(client: Client, images: list[NamedImage], args: argparse.Namespace) -> None:
    """Draw the explanations of all images; none is drawn if one image is refused."""
    explanations: list[tuple[str, Explanation]] = []
    for name, image in images:
        [explanation] = client.explain(
            image,
            model=args.model,
            layer=args.layer,
            version=args.model_version,
            version_label=args.version_label,
        )
        explanations.append((name, explanation))
    from cnnkit.figures import draw_explanations

    draw_explanations(explanations, args.explain, **picture_options(args))
    if not args.json:
        print_line(f"explained in {args.explain}")
