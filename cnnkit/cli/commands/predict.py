"""Classify image files with a trained network.

MODEL is a run folder, a .keras file, a weights file of others, or a folder that `cnnkit export`
wrote. PATH is an image file (JPEG, PNG, GIF, BMP, WebP), a folder, which stands for all such files
in it, or - for an image on standard input. The most probable classes are printed as a table, or
with --json as one JSON document a line for each image. If an image cannot be read, the others are
still classified, and the exit code is 1.

--panel draws the images with bars of their classes (Krizhevsky et al. 2012, Fig. 4). --explain adds
the pixels that speak for the class. An exported folder is a SavedModel: a program, which runs with
your rights. Open no stranger's.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._file_tree import is_exported
from cnnkit._network_names import check_crop_side
from cnnkit.cli.console import (
    add_json_argument,
    cell,
    print_line,
    print_note,
    read_labels,
)
from cnnkit.cli.image_paths import (
    NamedImage,
    find_images,
    print_predictions,
    print_results,
)
from cnnkit.cli.load_network import (
    NETWORK_HELP,
    add_network_arguments,
    builder_arguments,
    check_networks,
    load_network,
)
from cnnkit.cli.network_words import check_exported_words
from cnnkit.cli.picture import (
    add_picture_arguments,
    check_picture_arguments,
    picture_options,
    refuse_picture_options,
)
from cnnkit.cli.read_image import add_decoding_arguments, set_decoding
from cnnkit.cli.values import COUNT, classifier_path, input_file
from cnnkit.cli.visualize.attribution import EXPLANATIONS
from cnnkit.errors import RunError, UsageError
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    from cnnkit.evaluation import FilePrediction, ImageClassifier

# More images make a figure that is too long to be looked at.
MAX_DRAWN = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(
        parser, type=classifier_path, help=f"{NETWORK_HELP}; or folder of `cnnkit export`"
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="an image, a folder, or -")
    parser.add_argument(
        "--top", metavar="K", type=COUNT, default=5, help="classes per image (default: 5)"
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=input_file,
        help="class names, one a line (default: the network's own)",
    )
    add_picture_arguments(
        parser,
        "--panel",
        help=f"draw the images, at most {MAX_DRAWN}, with bars of their classes",
    )
    parser.add_argument(
        "--explain",
        metavar="METHOD",
        choices=EXPLANATIONS,
        help=f"add to --panel the pixels that speak for the class: {', '.join(EXPLANATIONS)}",
    )
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="class to explain, by name or number (default: the most probable of each image)",
    )
    parser.add_argument(
        "--image-size", type=COUNT, metavar="PIXELS", help="for a network of no fixed size"
    )
    parser.add_argument("--batch-size", type=COUNT, default=32, metavar="IMAGES")
    add_json_argument(parser, "print one JSON document a line for each image")
    add_decoding_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the classes of each image in order; return 1 if one could not be read."""
    _check(args)
    images = find_images(args.paths)

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    classifier = _load(args)
    width = max(len(cell(name)) for name, _ in images)
    drawn: list[FilePrediction] = []
    readable = 0

    def keep(one: FilePrediction) -> None:
        nonlocal readable
        readable += 1
        if one.image is not None:
            drawn.append(one)

    failed = print_results(
        _predict(classifier, images, args),
        count=len(images),
        document=functools.partial(_document, classifier) if args.json else None,
        print_one=lambda one: print_predictions(
            cell(one.name).ljust(width), one.top, classifier.class_names
        ),
        keep=keep,
    )
    if args.panel is not None:
        _draw(drawn, classifier, args, readable)
        if not args.json:
            print_line(args.panel)
    return int(failed)


def _check(args: argparse.Namespace) -> None:
    """Check the combination of options."""
    if args.explain is not None and args.panel is None:
        raise UsageError("--explain requires --panel PICTURE", received=args.explain)
    if args.target is not None and args.explain is None:
        raise UsageError("--target requires --explain METHOD", received=args.target)
    if args.panel is None:
        refuse_picture_options(args, "--panel")
    else:
        check_picture_arguments(args, "--panel")
    path = Path(args.network)
    if is_exported(path):
        check_exported_words(args, path)
    else:
        run = RunFolder(path)
        names = run.class_names if run.exists() else None
        if run.exists():
            check_crop_side(run.config.image_size, args.image_size)
        check_networks(args, [args.network], class_names=names)


def _load(args: argparse.Namespace) -> ImageClassifier:
    from cnnkit.data import Decoding
    from cnnkit.evaluation.image_classifier import (
        ExportedClassifier,
        ImageClassifier,
        run_classifier,
    )
    from cnnkit.models.class_names import class_captions

    labels = None if args.labels is None else read_labels(args.labels)
    path = Path(args.network)
    if is_exported(path):
        print_note(f"{path} is a program (a SavedModel): open no stranger's")
        exported = ExportedClassifier(path, class_names=labels)
        check_crop_side(exported.augmentation.image_size, args.image_size)
        return exported
    decoding: Decoding = set_decoding(args)
    loaded = load_network(args.network, classifier=True, **builder_arguments(args))
    if loaded.run is not None:
        return run_classifier(loaded.run, loaded.model, class_names=labels, decoding=decoding)
    if labels is None and class_captions(loaded.model) is None:
        print_note(f"{path} has no class names: --labels FILE gives them")
    return ImageClassifier(
        loaded.model, class_names=labels, decoding=decoding, image_size=args.image_size
    )


def _predict(
    classifier: ImageClassifier, images: list[NamedImage], args: argparse.Namespace
) -> Iterator[FilePrediction]:
    from cnnkit.evaluation.predict import iter_predictions

    return iter_predictions(
        classifier,
        images,
        top=args.top,
        batch_size=args.batch_size,
        kept=0 if args.panel is None else MAX_DRAWN,
        explain=args.explain,
        target=args.target,
    )


def _document(classifier: ImageClassifier, one: FilePrediction) -> dict[str, Any]:
    if one.error is not None:
        return {"image": one.name, "error": one.error}
    document: dict[str, Any] = {
        "image": one.name,
        "predictions": [
            {"label": label, "class": index, "probability": probability}
            for index, (label, probability) in zip(one.indices, one.top, strict=True)
        ],
    }
    if one.explanation is not None:
        target = one.explanation.target
        document["explained"] = {
            "method": one.explanation.method,
            "label": classifier.class_names[target],
            "class": target,
        }
    return document


def _draw(
    drawn: list[FilePrediction], classifier: ImageClassifier, args: argparse.Namespace, images: int
) -> None:
    from cnnkit.figures import draw_predictions

    if not drawn:
        raise RunError("--panel has no image to draw: none could be read")
    if images > len(drawn):
        print_note(f"{args.panel} shows the first {len(drawn)} of {images:,} images")
    rows = [{"name": one.name, "label": None, "top": one.top} for one in drawn]
    explained = [one.explanation for one in drawn if one.explanation is not None]
    draw_predictions(
        [one.image for one in drawn if one.image is not None],
        rows,
        args.panel,
        explanations=explained or None,
        class_names=classifier.class_names,
        **picture_options(args),
    )
