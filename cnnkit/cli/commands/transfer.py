"""Score the features of trained networks on other classes, with linear classifiers.

`cnnkit transfer MODEL --dataset SPEC` draws random training and test images of every class and
prints the mean class recall over the splits. Several layers, several numbers of training images and
both classifiers make a table; the features of several models are stacked. On `voc:DIR`, images of
several classes each, it prints the mean average precision on the set's own test images.

`--save DIR` keeps a classifier, fitted on all images of the dataset (of voc: on the training
images), and `cnnkit transfer predict DIR IMAGE ...` applies it; a run folder called predict is
./predict.
"""

from __future__ import annotations

import argparse

from cnnkit.cli.arguments import add_spec_arguments, check_spec_arguments
from cnnkit.cli.console import add_json_argument
from cnnkit.cli.load_network import add_network_arguments, check_networks
from cnnkit.cli.picture import (
    add_picture_arguments,
    check_picture_arguments,
    refuse_picture_options,
)
from cnnkit.cli.transfer.inputs import is_multilabel
from cnnkit.cli.values import COUNT, INDEX, SEED, DatasetSpec, Number, WholeNumbers, new_folder
from cnnkit.errors import UsageError

# Subcommands, which stand in place of a network, and their modules in `cnnkit.cli.commands`.
SUBCOMMANDS = {"predict": "_transfer_predict"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(parser, "models", nargs="+")
    parser.add_argument(
        "--dataset",
        metavar="SPEC",
        type=DatasetSpec(voc=True),
        help="digits, folder:PATH, tfds:NAME, voc:PATH ...",
    )
    add_spec_arguments(parser, many=True)
    parser.add_argument(
        "--classifier",
        nargs="+",
        default=["svm"],
        choices=("svm", "softmax"),
        help="one or both (default: svm)",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of the first split")
    parser.add_argument("--batch-size", type=COUNT, default=32, metavar="IMAGES")
    add_json_argument(parser)
    parser.add_argument(
        "--save",
        metavar="DIR",
        type=new_folder,
        help="a new folder for the fitted classifier",
    )
    parser.add_argument(
        "--exclude-overlap",
        metavar="SPEC",
        type=DatasetSpec(voc=True),
        help="leave out images that this dataset has too",
    )
    parser.add_argument(
        "--overlap-threshold",
        type=Number(minimum=-1, maximum=1),
        metavar="CORRELATION",
        help="correlation from which two images count as the same (default: 0.95)",
    )
    _add_single_label_arguments(parser.add_argument_group("datasets of one class per image"))
    _add_multilabel_arguments(parser.add_argument_group("datasets voc:PATH"))


def _add_single_label_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--per-class",
        type=WholeNumbers(minimum=1),
        nargs="+",
        default=[(30,)],
        metavar="N",
        help="training images of each class (default: 30)",
    )
    group.add_argument(
        "--test-per-class",
        type=INDEX,
        default=50,
        metavar="N",
        help="test images of each class at most (default: 50); 0 takes all others",
    )
    group.add_argument("--splits", type=COUNT, default=3, help="random splits (default: 3)")
    add_picture_arguments(
        group, "--figure", help="plot of recall against training images, with a JSON file"
    )


def _add_multilabel_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--metric",
        choices=("area", "eleven-point"),
        help="area (default, VOC2010 and later) or eleven-point (VOC2007)",
    )
    group.add_argument(
        "--train-split", metavar="NAME", help="default: trainval, or train without test images"
    )
    group.add_argument("--test-split", metavar="NAME", help="default: test, or else val")


def run(args: argparse.Namespace) -> int:
    """Score the features, and print a table."""
    args.per_class = sum(args.per_class, ())
    _check(args)
    check_spec_arguments(args)
    check_networks(args, args.models)

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    if is_multilabel(args.dataset):
        from cnnkit.cli.transfer.multilabel import transfer_to_labels

        transfer_to_labels(args)
    else:
        from cnnkit.cli.transfer.single_label import transfer_to_classes

        transfer_to_classes(args)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Check the combination of options, before TensorFlow is imported."""
    if args.dataset is None:
        raise UsageError("--dataset must name the images", expected="--dataset SPEC")
    if args.overlap_threshold is not None and args.exclude_overlap is None:
        raise UsageError("--overlap-threshold requires --exclude-overlap SPEC")
    multilabel = is_multilabel(args.dataset)
    for name in ("metric", "train_split", "test_split"):
        if getattr(args, name) is not None and not multilabel:
            raise UsageError(
                f"--{name.replace('_', '-')} requires --dataset voc:PATH", received=args.dataset
            )
    if args.save is not None and len(args.layer) * len(args.classifier) > 1:
        raise UsageError(
            "--save keeps one classifier",
            expected="one --layer and one --classifier",
            received=f"layers {' '.join(args.layer)}, classifiers {' '.join(args.classifier)}",
        )
    if args.figure is None:
        refuse_picture_options(args, "--figure")
        return
    figure = check_picture_arguments(args, "--figure")
    if not args.overwrite:
        from cnnkit.figures.canvas import check_free

        check_free(figure.with_suffix(".json"), "--figure")
    if multilabel or len(set(args.per_class)) < 2:
        raise UsageError(
            "--figure shows recall against training images",
            expected="at least two numbers, as in --per-class 5 15 30",
            received=args.dataset if multilabel else args.per_class[0],
        )
