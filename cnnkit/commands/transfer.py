"""Score the features of trained networks on other classes, with linear classifiers.

`cnnkit transfer MODEL --dataset SPEC` draws random training and test images of every class and
prints the mean class recall over the splits. Several layers, several numbers of training images and
both classifiers make a table; the features of several models are stacked.
"""

from __future__ import annotations

import argparse
import json

from cnnkit.commands._network import (
    MODEL_HELP,
    add_network,
    add_protocol,
    counting,
    open_network,
    protocol_of,
    sides,
)
from cnnkit.commands._table import table
from cnnkit.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--dataset", metavar="SPEC", help="digits, folder:PATH, tfds:NAME ...")
    add_network(parser)
    add_protocol(parser, many=True)
    parser.add_argument(
        "--per-class",
        type=sides,
        default=(30,),
        metavar="N,N,...",
        help="training images of each class (default: 30)",
    )
    parser.add_argument(
        "--test-per-class",
        type=int,
        default=50,
        metavar="N",
        help="at most so many of the others are tested (default: 50); 0 tests all",
    )
    parser.add_argument("--splits", type=int, default=3, help="random splits (default: 3)")
    parser.add_argument(
        "--classifier", nargs="+", default=["svm"], help="svm (default), softmax or both"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first split")
    parser.add_argument("--batch-size", type=int, default=32, metavar="IMAGES")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Scores, and prints a table."""
    if args.dataset is None:
        raise UsageError("Classifiers are trained on images", expected="--dataset SPEC")

    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.data import load_source
    from cnnkit.features import split_of
    from cnnkit.transfer import transfer

    source = load_source(args.dataset)
    networks = [open_network(path, args) for path in args.models]
    with counting(len(split_of(source)) * len(networks), "features") as bar:
        scores = transfer(
            networks,
            source,
            args.layer,
            protocol=protocol_of(args, args.layer[0]),
            classifiers=args.classifier,
            per_class=args.per_class,
            test_per_class=args.test_per_class or None,
            splits=args.splits,
            seed=args.seed,
            batch_size=args.batch_size,
            progress=bar.update,
        )
    if args.json:
        print(
            json.dumps({"dataset": source.spec, "scores": [_facts(one, source) for one in scores]})
        )
        return 0
    print(table([_row(one) for one in scores]))
    return 0


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
