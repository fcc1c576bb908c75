"""Ask a model server what images show.

Sends the encoded files (JPEG, PNG, GIF, BMP, WebP) to a model that was exported with cnnkit, and
prints the most probable classes of each.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnkit.client import Client, Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `cnnkit query`."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="an image file")
    parser.add_argument(
        "--server", metavar="HOST:PORT", default="localhost:8500", help="default localhost:8500"
    )
    parser.add_argument("--model", metavar="NAME", required=True, help="its name on the server")
    parser.add_argument("--model-version", metavar="N", type=int, help="default: the newest")
    parser.add_argument(
        "--top", metavar="K", type=int, help="classes an image (default: 5 at most)"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=10.0, help="for each image (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Classifies the images one after the other; returns 0."""
    from cnnkit.client import Client
    from cnnkit.errors import UsageError

    for path in args.images:
        if not path.is_file():
            raise UsageError("There is no such image file", received=path)
    width = max(len(str(path)) for path in args.images)
    results: list[tuple[Path, list[Prediction]]] = []
    with Client(args.server, timeout=args.timeout) as client:
        for path in args.images:
            results.append((path, _classify(client, path, args)))
            if not args.json:
                print(_table(str(path).ljust(width), results[-1][1]), flush=True)
    if args.json:
        print(json.dumps(_document(args, results), indent=2))
    return 0


def _classify(client: Client, path: Path, args: argparse.Namespace) -> list[Prediction]:
    from cnnkit.client import InvalidRequest

    try:
        return client.classify(path, model=args.model, version=args.model_version, top=args.top)[0]
    except InvalidRequest as error:
        # One call for each image, so that the one that cannot be decoded has a name.
        raise InvalidRequest(
            f"{args.server} cannot classify {path} with {args.model!r}",
            code=error.code,
            details=error.details,
        ) from error


def _table(path: str, predictions: list[Prediction]) -> str:
    width = max(len(prediction.label) for prediction in predictions)
    lines = []
    for prediction in predictions:
        lines.append(f"{path}  {prediction.label:{width}}  {prediction.probability:.4f}")
        path = " " * len(path)
    return "\n".join(lines)


def _document(
    args: argparse.Namespace, results: list[tuple[Path, list[Prediction]]]
) -> dict[str, object]:
    return {
        "server": args.server,
        "model": args.model,
        "version": args.model_version,
        "results": [
            {
                "image": str(path),
                "predictions": [
                    {"label": prediction.label, "probability": prediction.probability}
                    for prediction in predictions
                ],
            }
            for path, predictions in results
        ],
    }
