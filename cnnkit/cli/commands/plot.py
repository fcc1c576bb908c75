"""Draw the curves of training runs, or the results of an evaluation, as a picture.

curves       loss and error of every run by epoch: dashed for the training images, solid for the
             held-out images
confusion    confusion matrix of the run's last evaluation
reliability  accuracy against confidence
answers      test images with bars of their most probable classes, the true class in red
mistakes     the same for the worst mistakes
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._file_tree import newest_results
from cnnkit.cli.console import print_line, table
from cnnkit.cli.picture import add_picture_arguments, check_picture_arguments, picture_options
from cnnkit.cli.values import input_file, run_folder
from cnnkit.errors import DataError, UsageError
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    from cnnkit.figures import PictureOptions

KINDS = ("curves", "confusion", "reliability", "answers", "mistakes")
MAX_EXAMPLES = 8
# The matrix of counts has 8 bytes for each pair of classes; ImageNet has 1,000.
MAX_CLASSES = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=run_folder,
        metavar="RUN",
        help="run folders; one, except for curves",
    )
    parser.add_argument("--kind", default=KINDS[0], choices=KINDS, help="the kind of figure")
    parser.add_argument(
        "--results",
        type=input_file,
        metavar="FILE.json",
        help="file of an evaluation (default: the run's last)",
    )
    add_picture_arguments(parser, required=True, help="the file to write")


def run(args: argparse.Namespace) -> int:
    """Draw the figure, and print its path."""
    output = check_picture_arguments(args)
    if args.kind == "curves" and args.results:
        raise UsageError("--results requires another --kind than curves")

    from cnnkit.stage_folder import open_stage_runs

    whole = [RunFolder(Path(path)) for path in args.runs]
    # The curves show every stage; the others show the network.
    is_run = args.kind != "curves" and all(run.exists() for run in whole)
    runs = whole if is_run else open_stage_runs(args.runs)
    if args.kind != "curves" and len(runs) > 1:
        raise UsageError(
            f"--kind {args.kind} draws one run",
            expected="one run folder",
            received=", ".join(str(run.path) for run in runs),
        )
    options = picture_options(args)
    if args.kind == "curves":
        from cnnkit.figures import draw_training_curves

        draw_training_curves({str(run.path): run.metrics for run in runs}, output, **options)
    else:
        file = Path(args.results) if args.results else newest_results(runs[0].path)

        from cnnkit.cli.quiet_tensorflow import import_tensorflow

        import_tensorflow()
        from cnnkit.evaluation.result_store import read_results

        for line in _draw_results(args.kind, read_results(file), output, options):
            print_line(line)
    print_line(str(output))
    return 0


def _draw_results(
    kind: str, results: dict[str, Any], output: Path, options: PictureOptions
) -> list[str]:
    """Draw the figure, and return the lines that name its images."""
    from cnnkit.figures import draw_confusion, draw_predictions, draw_reliability

    names = ("dataset", "protocol", "images", "seed", "fingerprint", "calibration")
    if missing := [name for name in names if name not in results]:
        raise DataError(f"--results must have the field {missing[0]!r}", hint="Evaluate again")
    evaluated = f"{results['dataset']}, {results['protocol']}: {results['images']:,} images"
    if kind == "reliability":
        calibration = results["calibration"]
        if not calibration["bins"]:
            raise DataError("--results must have bins of the calibration", hint="Evaluate again")
        title = f"{evaluated}\nexpected calibration error {calibration['error']:.1%}"
        draw_reliability(calibration["bins"], output, title=title, **options)
    elif kind == "confusion":
        labels = [one["label"] for one in results["classes"]]
        title = f"{evaluated}, {results['top1_error']:.1%} top-1 error"
        draw_confusion(_confusion_matrix(results), labels, output, title=title, **options)
    else:
        answers = results["examples" if kind == "answers" else "mistakes"][:MAX_EXAMPLES]
        if not answers:
            raise UsageError(
                "--kind mistakes needs an evaluation with mistakes", hint="Use --kind answers"
            )
        draw_predictions(_read_images(results, answers), answers, output, **options)
        return _lines(results["dataset"], answers)
    return []


def _lines(dataset: str, answers: list[dict[str, Any]]) -> list[str]:
    """Return a table of the files of images, their classes and the answers."""
    from cnnkit.data import image_path

    names = [one.get("name", "") for one in answers]
    return table(
        [
            {
                "image": image_path(dataset, name) or name,
                "class": one["label"],
                "answer": one["top"][0][0],
                "probability": f"{one['top'][0][1]:.1%}",
            }
            for name, one in zip(names, answers, strict=True)
        ]
    )


def _confusion_matrix(results: dict[str, Any]) -> Any:
    """Return the number of images by true class and predicted class, (k, k) int."""
    import numpy as np

    classes = len(results["classes"])
    if not 0 < classes <= MAX_CLASSES:
        raise UsageError(
            f"--kind confusion draws 1 to {MAX_CLASSES:,} classes", received=f"{classes:,}"
        )
    matrix = np.zeros((classes, classes), int)
    for label, predicted, images in results["confusion"]:
        matrix[label, predicted] = images
    return matrix


def _read_images(results: dict[str, Any], answers: list[dict[str, Any]]) -> list[Any]:
    """Read the test images of some answers.

    Raises:
        DataError: If the dataset has changed since the evaluation.
    """
    import tensorflow as tf

    from cnnkit.data import load_dataset, report_undecodable

    source = load_dataset(results["dataset"], seed=results["seed"])
    if source.fingerprint != results["fingerprint"]:
        raise DataError(
            f"The dataset {results['dataset']} is not the one that was evaluated",
            hint="Evaluate again",
        )
    split = source.splits["test"]
    if max(one["index"] for one in answers) >= len(split):
        raise DataError(
            "--results must name images of the test split",
            expected=f"images 0 to {len(split) - 1}",
            received=max(one["index"] for one in answers),
        )
    with report_undecodable(split):
        indices = (tf.constant(one["index"], tf.int64) for one in answers)
        return [split.load_image(index).numpy() for index in indices]
