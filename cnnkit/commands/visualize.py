"""Draw what a trained network sees.

Beside every picture NAME.png stand NAME.png.json, with what it shows in words and numbers, and
NAME.png.npz with the arrays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cnnkit.commands._pictures import pictures
from cnnkit.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the pictures and their arguments."""
    names = parser.add_subparsers(metavar="NAME", dest="name", required=True)
    for name, module in pictures().items():
        summary = (module.__doc__ or name).splitlines()[0].rstrip(".")
        picture = names.add_parser(name, help=summary, description=module.__doc__)
        picture.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(picture)
        picture.add_argument(
            "--output", required=True, metavar="PNG", help="where the picture goes"
        )
        picture.add_argument("--json", action="store_true", help="print one JSON document")
        picture.set_defaults(draw=module.draw)


def run(args: argparse.Namespace) -> int:
    """Looks, draws, and writes down what was drawn."""
    output = Path(args.output)
    if output.suffix.lower() != ".png":
        raise UsageError("The picture is a PNG", expected="--output NAME.png", received=output)
    if not output.parent.is_dir():
        raise UsageError(f"No folder {output.parent} for the picture")

    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    drawn = args.draw(args)
    drawn.write_beside(output)
    print(json.dumps(dict(drawn.facts)) if args.json else f"{output}: {drawn.said}")
    return 0
