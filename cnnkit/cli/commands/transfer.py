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
import json
import sys
from pathlib import Path

from cnnkit.cli.console import table
from cnnkit.cli.load_network import (
    MODEL_HELP,
    add_network_arguments,
    add_spec_arguments,
    open_networks,
    parse_scales,
    progress_bar,
    spec_from_arguments,
)
from cnnkit.errors import UsageError

# What may follow the verb in place of a network, and the module that does it.
ACTIONS = {"predict": "_transfer_predict"}
VOC = "voc:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--dataset", metavar="SPEC", help="digits, folder:PATH, tfds:NAME, voc:PATH ..."
    )
    add_network_arguments(parser)
    add_spec_arguments(parser, many=True)
    parser.add_argument(
        "--classifier", nargs="+", default=["svm"], help="svm (default), softmax or both"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first split")
    parser.add_argument("--batch-size", type=int, default=32, metavar="IMAGES")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--save", metavar="DIR", help="a new folder for the fitted classifier")
    parser.add_argument(
        "--exclude-overlap", metavar="SPEC", help="leave out images that this dataset has too"
    )
    parser.add_argument(
        "--overlap-threshold",
        type=float,
        metavar="CORRELATION",
        help="from which on two images are the same (default: 0.95)",
    )
    one = parser.add_argument_group("datasets of one class an image")
    one.add_argument(
        "--per-class",
        type=parse_scales,
        nargs="+",
        default=[(30,)],
        metavar="N",
        help="training images of each class (default: 30)",
    )
    one.add_argument(
        "--test-per-class",
        type=int,
        default=50,
        metavar="N",
        help="at most so many of the others are tested (default: 50); 0 tests all",
    )
    one.add_argument("--splits", type=int, default=3, help="random splits (default: 3)")
    one.add_argument(
        "--figure", metavar="PNG", help="recall against training images; JSON goes beside it"
    )
    several = parser.add_argument_group("voc:PATH")
    several.add_argument(
        "--metric", help="area (default, VOC2010 and later) or eleven-point (VOC2007)"
    )
    several.add_argument(
        "--train-split", metavar="NAME", help="default: trainval, or train without test images"
    )
    several.add_argument("--test-split", metavar="NAME", help="default: test, or else val")


def run(args: argparse.Namespace) -> int:
    """Scores, and prints a table."""
    args.per_class = sum(args.per_class, ())
    _check(args)

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    if args.save is not None:
        from cnnkit.transfer.linear_probe import check_no_overwrite

        check_no_overwrite(Path(args.save))
    if args.dataset.startswith(VOC):
        from cnnkit.cli.commands._transfer_voc import run_voc

        return run_voc(args)

    from cnnkit.data import load_dataset
    from cnnkit.features import select_features_split
    from cnnkit.transfer import extract_layers, score_layers
    from cnnkit.transfer.benchmark import check_splits

    source, left_out = drop_overlap(load_dataset(args.dataset), args)
    tested = args.test_per_class or None
    check_splits(source, args.per_class, tested, args.seed)
    networks = open_networks(args.models, args)
    images = select_features_split(source)
    with progress_bar(len(images) * len(networks), "features") as bar:
        described = extract_layers(
            networks,
            images,
            args.layer,
            protocol=spec_from_arguments(args, args.layer[0]),
            batch_size=args.batch_size,
            progress=bar.update,
        )
    scores = score_layers(
        described,
        source,
        classifiers=args.classifier,
        per_class=args.per_class,
        test_per_class=tested,
        splits=args.splits,
        seed=args.seed,
    )
    if args.save is not None:
        _save(args, source, described, scores[-1])
    facts = {
        "dataset": source.spec,
        "left_out": left_out,
        "scores": [_facts(one, source) for one in scores],
    }
    if args.figure is not None:
        _draw(args, scores, facts)
    if args.json:
        print(json.dumps(facts))
        return 0
    print(table([_row(one) for one in scores]))
    for written in (args.save, args.figure):
        if written is not None:
            print(written)
    return 0


def drop_overlap(source, args: argparse.Namespace):
    """Returns the dataset without images of `--exclude-overlap`, and facts about those."""
    if args.exclude_overlap is None:
        return source, []
    import dataclasses

    from cnnkit import transfer
    from cnnkit.transfer.near_duplicates import THRESHOLD

    asked = args.overlap_threshold
    threshold = THRESHOLD if asked is None else asked
    others = _splits(args.exclude_overlap)
    source, pairs = transfer.drop_duplicates(source, others, threshold)
    # On the error stream: `--json` prints one document.
    print(
        f"{len(pairs)} images left out that are in {args.exclude_overlap} too,"
        f" of a correlation of {threshold:g} or more",
        file=sys.stderr,
    )
    for pair in pairs:
        print(f"  {pair.correlation:.3f}  {pair.name} is {pair.other}", file=sys.stderr)
    return source, [dataclasses.asdict(pair) for pair in pairs]


def _splits(spec: str) -> list:
    if spec.startswith(VOC):
        from cnnkit.data.sources.voc import load_voc

        return list(load_voc(spec.removeprefix(VOC)).splits.values())
    from cnnkit.data import load_dataset

    return list(load_dataset(spec).splits.values())


def load_model_reference(args: argparse.Namespace) -> dict[str, object]:
    """Returns how the networks were named, in a way that holds in every folder."""
    paths = ((path, Path(path)) for path in args.models)
    return {
        "models": [str(file.resolve()) if file.exists() else path for path, file in paths],
        "model": args.model,
        "model_option": args.model_option,
        "model_seed": args.model_seed,
    }


def _check(args: argparse.Namespace) -> None:
    if args.dataset is None:
        raise UsageError("Classifiers are trained on images", expected="--dataset SPEC")
    if args.overlap_threshold is not None and args.exclude_overlap is None:
        raise UsageError("A threshold of an overlap with what?", hint="Add --exclude-overlap SPEC")
    several = args.dataset.startswith(VOC)
    for name in ("metric", "train_split", "test_split"):
        if getattr(args, name) is not None and not several:
            raise UsageError(f"--{name.replace('_', '-')} is of a dataset voc:PATH")
    if args.save is not None and len(args.layer) * len(args.classifier) > 1:
        raise UsageError(
            "One classifier is saved",
            expected="one layer and one kind of classifier",
            received=f"layers {' '.join(args.layer)}, classifiers {' '.join(args.classifier)}",
        )
    if args.figure is None:
        return
    figure = Path(args.figure)
    if figure.suffix.lower() != ".png":
        raise UsageError("The picture is a PNG", expected="--figure NAME.png", received=figure)
    if not figure.parent.is_dir():
        raise UsageError(f"No folder {figure.parent} for the picture")
    if several or len(set(args.per_class)) < 2:
        raise UsageError(
            "The picture is of recall against training images",
            expected="at least two numbers, as in --per-class 5 15 30",
            received=args.dataset if several else args.per_class[0],
        )


def _save(args: argparse.Namespace, source, described, score) -> None:
    from cnnkit.features import select_features_split
    from cnnkit.transfer import fit_linear_classifier
    from cnnkit.transfer.linear_probe import fit_linear_probe

    images = select_features_split(source)
    l2 = described.protocol.l2
    pipeline, c = fit_linear_classifier(
        described.values[0], images.labels, score.classifier, l2=l2, seed=args.seed
    )  # fmt: skip
    fit_linear_probe(
        described,
        pipeline,
        c,
        classes=source.labels,
        classifier=score.classifier,
        several=False,
        dataset=source.spec,
        fingerprint=source.fingerprint,
        images=len(images),
        estimates={
            "mean_class_recall": score.mean,
            "deviation": score.deviation,
            "per_class": score.per_class,
            "splits": len(score.splits),
        },
        opened=load_model_reference(args),
    ).save(args.save)


def _draw(args: argparse.Namespace, scores, facts: dict[str, object]) -> None:
    from cnnkit._files import write_text
    from cnnkit.figures import draw_per_class

    figure = Path(args.figure)
    draw_per_class(scores, figure, title=str(facts["dataset"]))
    write_text(figure.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")


def _row(score) -> dict[str, object]:
    first = score.splits[0]
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "per class": score.per_class,
        "tested": first.test_images,
        "mean class recall": f"{score.mean:.1%}",
        "deviation": "-" if score.deviation is None else f"{score.deviation:.1%}",
        "C": ", ".join(f"{split.c:g}" for split in score.splits),
    }


def _facts(score, source) -> dict[str, object]:
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "per_class": score.per_class,
        "mean": score.mean,
        "deviation": score.deviation,
        "splits": [
            {
                "seed": split.seed,
                "c": split.c,
                "recall": split.recall,
                "training_images": split.training_images,
                "test_images": split.test_images,
                "recalls": dict(zip(source.labels, split.recalls, strict=True)),
            }
            for split in score.splits
        ],
    }
