"""Ask a model server what images show.

PATH is an image file (JPEG, PNG, GIF, BMP, WebP), a folder, of which all such files are meant, or -
for an image on standard input. The encoded files go to a model that was exported with cnnkit, which
decodes them; a table of the most probable classes comes back. An image that the server refuses does
not keep the others from being asked about; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.connection import add_connection_arguments, open_client

if TYPE_CHECKING:
    from cnnkit.client import Client, Explanation

_STDIN = "-"
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})
# A picture of more is too long to be looked at.
_MOST_EXPLAINED = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cnnkit query`."""
    parser.add_argument("paths", metavar="PATH", nargs="*", help="an image, a folder, or -")
    parser.add_argument(
        "--server", metavar="HOST:PORT", default="localhost:8500", help="default localhost:8500"
    )
    parser.add_argument("--model", metavar="NAME", required=True, help="its name on the server")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model-version", metavar="N", type=int, help="default: the newest")
    which.add_argument("--label", help="the version of this label, such as stable")
    parser.add_argument(
        "--top", metavar="K", type=int, help="classes an image (default: 5 at most)"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=10.0, help="for each image (default 10)"
    )
    parser.add_argument(
        "--explain",
        metavar="FILE.png",
        type=Path,
        help="draw what made the winning class fire, by the server's deconvnet "
        f"({_MOST_EXPLAINED} images at most)",
    )
    parser.add_argument("--layer", help="explain the strongest unit of this layer instead")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="wait until the model can be used, and tell what it waits for; PATH may be left out",
    )
    parser.add_argument(
        "--watch-seconds", metavar="S", type=float, default=60.0, help="at most (default 60)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Waits if asked to, then asks about one image after the other; 1 if one was refused."""
    images = _images(args)
    document: dict[str, Any] = {
        "server": args.server,
        "model": args.model,
        "version": args.model_version,
        "label": args.label,
    }
    with open_client(args, args.server, timeout=args.timeout) as client:
        if args.watch:
            document["ready"] = _watch(client, args)
        if images:
            document["results"] = _classify(client, images, args)
        if args.explain is not None:
            document["explained"] = str(args.explain)
            _explain(client, images, args)
    if args.json:
        print(json.dumps(document, indent=2))
    return int(any("error" in result for result in document.get("results", ())))


def _images(args: argparse.Namespace) -> list[tuple[str, Path | bytes]]:
    """Returns names and images, all of them looked for before the first is sent."""
    from cnnkit.errors import DataError, UsageError

    images: list[tuple[str, Path | bytes]] = []
    for path in args.paths:
        if path == _STDIN:
            if args.paths.count(_STDIN) > 1:
                raise UsageError("Standard input can be read once", expected="one -")
            encoded = sys.stdin.buffer.read()
            if not encoded:
                raise DataError("There is no image on standard input", received="0 bytes")
            images.append((_STDIN, encoded))
        elif Path(path).is_dir():
            found = sorted(
                file
                for file in Path(path).rglob("*")
                if file.suffix.lower() in _SUFFIXES and file.is_file()
            )
            if not found:
                raise UsageError(
                    "There is no image in this folder",
                    expected=f"files {' '.join(sorted(_SUFFIXES))}",
                    received=path,
                )
            images += ((str(file), file) for file in found)
        elif Path(path).is_file():
            images.append((path, Path(path)))
        else:
            raise UsageError("There is no such image file", received=path)
    if not images and not args.watch:
        raise UsageError("There is nothing to ask about", expected="PATH, or --watch")
    if args.layer is not None and args.explain is None:
        raise UsageError("A layer is explained in a picture", expected="--explain with --layer")
    if args.explain is not None and not 0 < len(images) <= _MOST_EXPLAINED:
        raise UsageError(
            "So many images do not go into one picture",
            expected=f"1 to {_MOST_EXPLAINED}",
            received=len(images),
        )
    return images


def _watch(client: Client, args: argparse.Namespace) -> dict[str, Any]:
    """Waits until a version can be used; tells each change on standard error."""
    which = {"version": args.model_version, "label": args.label}
    begun = time.monotonic()

    def tell(change: str) -> None:
        seconds = time.monotonic() - begun
        print(f"{seconds:6.1f} s  {change}", file=sys.stderr, flush=True)

    client.wait_until_ready(args.model, args.watch_seconds, **which, on_change=tell)
    seconds = time.monotonic() - begun
    states = client.status(args.model, **which)
    available = [one.version for one in states if one.state == "AVAILABLE"]
    if not args.json:
        print(f"{args.model} is ready: version {', '.join(map(str, available))}", flush=True)
    return {"seconds": round(seconds, 3), "versions": available}


def _classify(
    client: Client, images: list[tuple[str, Path | bytes]], args: argparse.Namespace
) -> list[dict[str, Any]]:
    from cnnkit.client import InvalidRequest
    from cnnkit.errors import DataError

    width = max(len(name) for name, _ in images)
    results: list[dict[str, Any]] = []
    for name, image in images:
        # One call for each image, so that the one that cannot be decoded has a name.
        try:
            [found] = client.classify(
                image,
                model=args.model,
                version=args.model_version,
                label=args.label,
                top=args.top,
            )
        except (InvalidRequest, DataError) as error:
            told: Exception = error
            if isinstance(error, InvalidRequest):
                problem = f"{args.server} cannot classify {name} with {args.model!r}"
                told = InvalidRequest(problem, code=error.code, details=error.details)
            print(f"cnnkit: error: {told}", file=sys.stderr, flush=True)
            results.append({"image": name, "error": str(told)})
            continue
        predictions = [{"label": one.label, "probability": one.probability} for one in found]
        results.append({"image": name, "predictions": predictions})
        if not args.json:
            print(_table(name.ljust(width), predictions), flush=True)
    return results


def _table(name: str, predictions: list[dict[str, Any]]) -> str:
    width = max(len(one["label"]) for one in predictions)
    lines = []
    for one in predictions:
        lines.append(f"{name}  {one['label']:{width}}  {one['probability']:.4f}")
        name = " " * len(name)
    return "\n".join(lines)


def _explain(
    client: Client, images: list[tuple[str, Path | bytes]], args: argparse.Namespace
) -> None:
    """Draws the explanations of all images, or of none."""
    found: list[tuple[str, Explanation]] = []
    for name, image in images:
        [seen] = client.explain(
            image,
            model=args.model,
            layer=args.layer,
            version=args.model_version,
            label=args.label,
        )
        found.append((name, seen))
    # Pictures of the other kinds are made of TensorFlow's results. Imported when there is something
    # to draw: a refusal comes at once.
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.figures import draw_explanations

    draw_explanations(found, args.explain)
    if not args.json:
        print(f"explained in {args.explain}")
