"""Find the classes in image files and a box around each, or measure boxes that are known.

MODEL is a network that `cnnkit train --task localize` or `cnnkit finetune --task localize` trained.
For any other classifier, a box is drawn around the part of the image that speaks for the class, by
Grad-CAM or another --method. PATH is an image file, a folder, or - for standard input. A box is
left, top, right and bottom in pixels of the image.

With --dataset in place of PATH, the held-out images of the dataset are measured: the error of the
most probable class and its box, of the five most probable ones, and of the box of the right class,
which counts as right if it overlaps a known one by half (intersection over union).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cnnkit.cli.picture as picture
from cnnkit._file_tree import is_exported
from cnnkit._network_names import REGRESSIONS, check_crop_side, without_boxes
from cnnkit.cli.console import (
    add_json_argument,
    cell,
    print_json,
    print_line,
    print_note,
    progress_bar,
)
from cnnkit.cli.image_paths import find_images, print_results
from cnnkit.cli.load_network import (
    add_network_arguments,
    builder_arguments,
    check_networks,
    load_network,
)
from cnnkit.cli.read_image import add_decoding_arguments, set_decoding
from cnnkit.cli.values import COUNT, DatasetSpec, WholeNumbers, network_path
from cnnkit.cli.visualize.attribution import EXPLANATIONS
from cnnkit.errors import RunError, UsageError
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    from cnnkit.data import Dataset
    from cnnkit.evaluation import FileLocalization, ImageClassifier, Localizer

METHODS = (*REGRESSIONS, "center", *EXPLANATIONS)
MAX_DRAWN = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="*", help="an image, a folder, or -")
    parser.add_argument(
        "--dataset",
        type=DatasetSpec(),
        metavar="SPEC",
        help="measure the held-out images of boxes:PATH, a .csv or .json file or a VOC folder",
    )
    parser.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        help="crop: the box of the center crop; dense: of all places of the image; center: always "
        "the center; or a method that explains (default: crop, or gradcam for a classifier; "
        "repeatable with --dataset)",
    )
    parser.add_argument(
        "--scales",
        type=WholeNumbers(minimum=1, maximum=4096),
        metavar="SIDE,SIDE,...",
        help="shorter sides of the image for --method dense (default: that of the crop)",
    )
    parser.add_argument(
        "--classifier",
        type=network_path,
        metavar="MODEL",
        help="network of the same classes whose probabilities are used in place of MODEL's",
    )
    parser.add_argument(
        "--top", metavar="K", type=COUNT, default=1, help="classes per image (default: 1)"
    )
    picture.add_picture_arguments(
        parser, "--panel", help=f"draw the images, at most {MAX_DRAWN}, with their boxes"
    )
    parser.add_argument(
        "--image-size", type=COUNT, metavar="PIXELS", help="for a network of no fixed size"
    )
    add_json_argument(parser, "print one JSON document a line for each image or method")
    add_decoding_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the boxes of each image in order; return 1 if one could not be read."""
    _check(args)
    images = find_images(args.paths)

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    network = _open(args, args.network)
    options: dict[str, Any] = {
        "classifier": None if args.classifier is None else _open(args, args.classifier)
    }
    if args.dataset is not None:
        return _measure(args, network, options)
    from cnnkit.evaluation import Localizer
    from cnnkit.evaluation.localize import iter_localizations

    [method] = args.method or [None]
    localizer = Localizer(network, method=method, scales=args.scales, **options)
    width = max(len(cell(name)) for name, _ in images)
    drawn: list[FileLocalization] = []
    readable = 0

    def keep(one: FileLocalization) -> None:
        nonlocal readable
        readable += 1
        if args.panel is not None and len(drawn) < MAX_DRAWN:
            drawn.append(one)

    failed = print_results(
        iter_localizations(localizer, images, top=args.top),
        count=len(images),
        document=_document if args.json else None,
        print_one=lambda one: _print_objects(one, width),
        keep=keep,
    )
    if args.panel is not None:
        _draw(args, drawn, None, readable)
    return int(failed)


def _check(args: argparse.Namespace) -> None:
    """Check the combination of options."""
    if bool(args.paths) == (args.dataset is not None):
        raise UsageError("Either PATH or --dataset boxes:PATH must be given")
    if args.dataset is None and len(args.method or ()) > 1:
        raise UsageError("--method must be given once without --dataset")
    if args.dataset is not None and not args.dataset.startswith("boxes:"):
        raise UsageError("--dataset must have boxes", expected="boxes:PATH", received=args.dataset)
    if args.scales is not None and "dense" not in (args.method or ()):
        raise UsageError("--scales requires --method dense")
    if args.panel is None:
        picture.refuse_picture_options(args, "--panel")
    else:
        picture.check_picture_arguments(args, "--panel")
    run = RunFolder(Path(args.network))
    needs_boxes = next((one for one in args.method or () if one in REGRESSIONS), None)
    if needs_boxes is not None and run.exists() and run.config.task != "localize":
        raise without_boxes(needs_boxes)
    if run.exists():
        check_crop_side(run.config.image_size, args.image_size)
    for path in filter(None, (args.network, args.classifier)):
        if is_exported(Path(path)):
            raise UsageError(
                f"{path} is an exported folder", expected="the run or the file it was made of"
            )
    check_networks(args, [args.network])


def _open(args: argparse.Namespace, path: str) -> ImageClassifier:
    """Return a network with the crop and the decoding of its run."""
    from cnnkit.evaluation import ImageClassifier, open_classifier
    from cnnkit.models.loading import holds_model

    decoding = set_decoding(args)
    place = Path(path)
    given = builder_arguments(args)
    is_stated = any(value is not None for value in given["preprocessing"].values())
    if RunFolder(place).exists() or (place.is_file() and holds_model(place) and not is_stated):
        return open_classifier(path, decoding=decoding, image_size=args.image_size)
    model = load_network(path, classifier=True, **given).model
    return ImageClassifier(model, decoding=decoding, image_size=args.image_size)


def _measure(args: argparse.Namespace, network: ImageClassifier, options: dict[str, Any]) -> int:
    """Print the errors of each method on the held-out images of a dataset."""
    from cnnkit.data import load_dataset
    from cnnkit.evaluation import Localizer, measure_localization
    from cnnkit.evaluation.localize import mean_box_size

    run = RunFolder(Path(args.network))
    seed = run.config.seed if run.exists() else 0
    dataset = load_dataset(args.dataset, seed=seed, decoding=network.decoding)
    split = dataset.splits["test"]
    default = ["center", "gradcam" if network.localizer is None else "crop"]
    methods = args.method or default
    if "center" in methods:
        options["center_size"] = mean_box_size(dataset.splits["train"])
    localizers = [
        Localizer(
            network, method=method, scales=args.scales if method == "dense" else None, **options
        )
        for method in methods
    ]
    rows = []
    with progress_bar(len(split) * len(methods)) as progress:
        for one in localizers:
            rows.append(
                measure_localization(one, split, dataset.class_names, progress=progress).to_dict()
            )
    if args.json:
        for row in rows:
            print_json(row)
    else:
        _print_errors(rows)
    if args.panel is not None:
        _draw_held_out(args, localizers[-1], dataset)
    return 0


def _print_errors(rows: Sequence[dict[str, Any]]) -> None:
    print_line(
        f"{rows[0]['images']:,} held-out images; a box is right if its overlap is at least 0.5"
    )
    print_line("method      top-1    top-5    box of the right class      class   mean overlap")
    for row in rows:
        low, high = row["box_interval"]
        box = f"{row['box_error']:6.1%} [{low:.1%}, {high:.1%}]"
        print_line(
            f"{row['method']:10} {row['top1_error']:6.1%}   {row['top5_error']:6.1%}   {box:25}"
            f" {row['class_error']:6.1%}   {row['mean_overlap']:12.3f}"
        )


def _print_objects(one: FileLocalization, width: int) -> None:
    name = cell(one.name).ljust(width)
    labels = max(len(cell(found.label)) for found in one.objects)
    for found in one.objects:
        sides = "  ".join(f"{side:6.0f}" for side in found.box)
        print_line(f"{name}  {cell(found.label):{labels}}  {found.probability:.4f}  {sides}")
        name = " " * len(name)


def _document(one: FileLocalization) -> dict[str, Any]:
    if one.error is not None:
        return {"image": one.name, "error": one.error}
    objects = [
        {
            "label": found.label,
            "class": found.index,
            "probability": found.probability,
            "box": list(found.box),
        }
        for found in one.objects
    ]
    return {"image": one.name, "objects": objects}


def _draw(args: argparse.Namespace, drawn: list[FileLocalization], known: Any, images: int) -> None:
    from cnnkit.figures import draw_localizations

    if not drawn:
        raise RunError("--panel has no image to draw: none could be read")
    if images > len(drawn):
        print_note(f"{args.panel} shows {len(drawn)} of {images:,} images")
    draw_localizations(drawn, args.panel, known=known, **picture.picture_options(args))
    if not args.json:
        print_line(args.panel)


def _draw_held_out(args: argparse.Namespace, localizer: Localizer, dataset: Dataset) -> None:
    """Draw held-out images of all classes with their known boxes."""
    import numpy as np
    import tensorflow as tf

    from cnnkit.evaluation import FileLocalization

    split = dataset.splits["test"]
    chosen = np.linspace(0, len(split) - 1, min(MAX_DRAWN, len(split))).round().astype(int)
    drawn = []
    for i in chosen.tolist():
        image = split.load_image(tf.constant(i, tf.int64)).numpy()
        found = tuple(localizer.locate(image, top=args.top, name=split.names[i]))
        drawn.append(FileLocalization(split.names[i], found, image))
    boxes = [] if split.boxes is None else [split.boxes[i] for i in chosen]
    known = [one[~np.isnan(one).any(axis=-1)] for one in boxes]
    _draw(args, drawn, known, len(split))
