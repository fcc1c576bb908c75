"""Write a trained network as a SavedModel for TensorFlow Serving."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("run_folder", metavar="RUN", help="folder that `cnnkit train` wrote")
    parser.add_argument(
        "--output",
        required=True,
        metavar="models/NAME",
        help="model folder; the next integer in it becomes the version",
    )


def run(args: argparse.Namespace) -> int:
    """Exports and prints the new folder."""
    from cnnkit.runs import Run

    finished = Run.open(args.run_folder)
    file = finished.finished_model()

    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.export import export
    from cnnkit.models import load_model

    folder = export(load_model(file), finished.labels, args.output)
    print(f"{folder}: reloaded, answers as the trained model does")
    return 0
