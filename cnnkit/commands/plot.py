"""Draw the curves of training runs as a PNG.

Loss and error of every run by epoch: on the training images dashed, on the held-out ones solid.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--output", required=True, metavar="FILE.png", help="where it goes")


def run(args: argparse.Namespace) -> int:
    """Draws, and prints the path."""
    output = Path(args.output)
    if output.suffix.lower() != ".png":
        raise UsageError("The picture is a PNG", expected="--output FILE.png", received=output)
    if not output.parent.is_dir():
        raise UsageError(f"No folder {output.parent}")

    from cnnkit.commands._tensorflow import import_tensorflow
    from cnnkit.runs import Run

    runs = [Run.open(path) for path in args.runs]
    import_tensorflow()
    from cnnkit.figures import draw_curves

    draw_curves({str(run.path): run.metrics for run in runs}, output)
    print(output)
    return 0
