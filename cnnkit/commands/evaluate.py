"""Measure the errors of a trained network on the held-out images."""

from __future__ import annotations

import argparse
import dataclasses
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("run_folder", metavar="RUN", help="folder that `cnnkit train` wrote")
    parser.add_argument("--batch-size", type=int, default=64, metavar="IMAGES")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints a table."""
    from cnnkit.runs import Run

    finished = Run.open(args.run_folder)
    file = finished.finished_model()

    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.data import load_source
    from cnnkit.evaluation import ClassErrors, evaluate
    from cnnkit.models import load_model

    config = finished.config
    source = load_source(config.dataset, seed=config.seed)
    result = evaluate(
        load_model(file), source.splits["test"], finished.labels, batch_size=args.batch_size
    )
    if args.json:
        print(json.dumps({"run": args.run_folder, **dataclasses.asdict(result)}))
        return 0
    every = ClassErrors("all", result.images, result.top1_error, result.top5_error)
    rows = [*result.classes, every]
    width = max(len(row.label) for row in rows)
    print(f"{'class':<{width}}  images  top-1 error  top-5 error")
    for row in rows:
        print(
            f"{row.label:<{width}}  {row.images:>6}  {_percent(row.top1_error):>11}  "
            f"{_percent(row.top5_error):>11}"
        )
    return 0


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.1%}"
