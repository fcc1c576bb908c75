"""Draw the curves of training runs, or what an evaluation found, as a PNG.

curves       loss and error of every run by epoch: on the training images dashed, on the held-out
             ones solid
confusion    which classes are taken for which, of the run's last evaluation
reliability  whether it is right as often as it says, by how sure it is
answers      test images with bars of their most probable classes, that of the right one red
mistakes     the same of the worst mistakes
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cnnkit.cli.console import check_png
from cnnkit.errors import DataError, UsageError

KINDS = ("curves", "confusion", "reliability", "answers", "mistakes")
SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; one but for curves")
    parser.add_argument("--kind", default=KINDS[0], choices=KINDS, help="what is drawn")
    parser.add_argument(
        "--results", metavar="FILE.json", help="of which evaluation (default: the run's last)"
    )
    parser.add_argument("--output", required=True, metavar="FILE.png", help="where it goes")


def run(args: argparse.Namespace) -> int:
    """Draws, and prints the path."""
    output = check_png(args.output)
    if args.kind == "curves" and args.results:
        raise UsageError("Curves are drawn of the training", hint="--results goes with --kind")

    from cnnkit.cli.quiet_tensorflow import import_tensorflow
    from cnnkit.cli.train_stages import open_stage_runs

    runs = open_stage_runs(args.runs)
    if args.kind != "curves" and len(runs) > 1:
        raise UsageError(
            f"One run at a time for --kind {args.kind}",
            expected="one run folder",
            received=", ".join(str(run.path) for run in runs),
        )
    import_tensorflow()
    if args.kind == "curves":
        from cnnkit.figures import draw_training_curves

        draw_training_curves({str(run.path): run.metrics for run in runs}, output)
    else:
        from cnnkit.evaluation.result_store import newest_results, read_results

        file = Path(args.results) if args.results else newest_results(runs[0].path)
        _draw_results(args.kind, read_results(file), output)
    print(output)
    return 0


def _draw_results(kind: str, found: dict[str, Any], output: Path) -> None:
    import numpy as np

    from cnnkit.figures import draw_confusion, draw_predictions, draw_reliability

    evaluated = f"{found['dataset']}, {found['protocol']}: {found['images']:,} images"
    if kind == "reliability":
        calibration = found["calibration"]
        title = f"{evaluated}\nexpected calibration error {calibration['error']:.1%}"
        draw_reliability(calibration["bins"], output, title=title)
        return
    if kind == "confusion":
        labels = [one["label"] for one in found["classes"]]
        matrix = np.zeros((len(labels), len(labels)), int)
        for label, answer, images in found["confusion"]:
            matrix[label, answer] = images
        title = f"{evaluated}, {found['top1_error']:.1%} top-1 error"
        draw_confusion(matrix, labels, output, title=title)
        return

    answers = found["examples" if kind == "answers" else "mistakes"][:SHOWN]
    if not answers:
        raise UsageError("There are no mistakes to draw", hint="--kind answers draws right ones")
    draw_predictions(_images(found, answers), answers, output)


def _images(found: dict[str, Any], answers: list[dict[str, Any]]) -> list[Any]:
    """Returns the test images of some answers, from the dataset as it is now."""
    import tensorflow as tf

    from cnnkit.data import load_dataset, report_undecodable

    source = load_dataset(found["dataset"], seed=found["seed"])
    if source.fingerprint != found["fingerprint"]:
        raise DataError(
            f"The dataset {found['dataset']} is not the one that was evaluated",
            hint="Evaluate again",
        )
    split = source.splits["test"]
    with report_undecodable(split):
        places = (tf.constant(one["index"], tf.int64) for one in answers)
        return [split.load_image(place).numpy() for place in places]
