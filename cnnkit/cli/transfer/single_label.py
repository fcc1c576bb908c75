"""`cnnkit transfer` on images of one class each: mean class recall over random splits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.cli.console import print_json, print_line, print_table, progress_bar
from cnnkit.cli.load_network import builder_arguments, load_networks
from cnnkit.cli.transfer.inputs import extract_features_of, load_without_overlap, model_reference

if TYPE_CHECKING:
    from cnnkit.data import Dataset
    from cnnkit.transfer import LayerFeatures, TransferScore


def transfer_to_classes(args: argparse.Namespace) -> None:
    """Score classifiers on random splits of a dataset, and print a table.

    Raises:
        UsageError: If a class has too few images, or there is no such layer or classifier.
    """
    from cnnkit.features import select_features_split
    from cnnkit.transfer import score_layers
    from cnnkit.transfer.benchmark import check_splits

    source, left_out = load_without_overlap(args)
    tested = args.test_per_class or None
    check_splits(source, args.per_class, tested, args.seed)
    networks = load_networks(args.models, **builder_arguments(args))
    [features] = extract_features_of(args, networks, select_features_split(source))
    fits = len(args.layer) * len(args.classifier) * len(args.per_class) * args.splits
    with progress_bar(fits, unit="classifiers") as progress:
        scores = score_layers(
            features,
            source,
            classifiers=args.classifier,
            per_class=args.per_class,
            test_per_class=tested,
            splits=args.splits,
            seed=args.seed,
            progress=progress,
        )
    if args.save is not None:
        _save(args, source, features, scores[-1])
    facts = {
        "dataset": source.spec,
        "left_out": left_out,
        "scores": [_facts(score, source.class_names) for score in scores],
    }
    if args.figure is not None:
        _draw(args, scores, facts)
    if args.json:
        print_json(facts)
        return
    print_table([_row(score) for score in scores])
    for written in (args.save, args.figure):
        if written is not None:
            print_line(str(written))


def _save(
    args: argparse.Namespace, source: Dataset, features: LayerFeatures, score: TransferScore
) -> None:
    """Fit a classifier on all images and save it."""
    from cnnkit.features import select_features_split
    from cnnkit.transfer import LinearProbe, fit_linear_classifier

    images = select_features_split(source)
    pipeline, c = fit_linear_classifier(
        features.values[0],
        images.labels,
        score.classifier,
        l2=features.spec.l2,
        seed=args.seed,
    )
    LinearProbe.from_features(
        features,
        pipeline,
        c,
        classes=source.class_names,
        classifier=score.classifier,
        multilabel=False,
        dataset=source.spec,
        fingerprint=source.fingerprint,
        images=len(images),
        estimates={
            "mean_class_recall": score.mean,
            "deviation": score.std,
            "per_class": score.per_class,
            "splits": len(score.splits),
        },
        model_reference=model_reference(args),
    ).save(args.save)


def _draw(
    args: argparse.Namespace, scores: Sequence[TransferScore], facts: dict[str, object]
) -> None:
    """Draw recall against the number of training images, and write the JSON beside the figure."""
    from cnnkit._files import json_text, write_text
    from cnnkit.cli.picture import picture_options
    from cnnkit.figures import draw_learning_curve

    draw_learning_curve(scores, args.figure, title=str(facts["dataset"]), **picture_options(args))
    write_text(Path(args.figure).with_suffix(".json"), json_text(facts, indent=2) + "\n")


def _row(score: TransferScore) -> dict[str, object]:
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "per class": score.per_class,
        "tested": score.splits[0].test_images,
        "mean class recall": f"{score.mean:.1%}",
        "deviation": "-" if score.std is None else f"{score.std:.1%}",
        "C": ", ".join(f"{split.c:g}" for split in score.splits),
    }


def _facts(score: TransferScore, labels: Sequence[str]) -> dict[str, object]:
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "per_class": score.per_class,
        "mean": score.mean,
        "deviation": score.std,
        "splits": [
            {
                "seed": split.seed,
                "c": split.c,
                "recall": split.recall,
                "training_images": split.training_images,
                "test_images": split.test_images,
                "recalls": dict(zip(labels, split.recalls, strict=True)),
            }
            for split in score.splits
        ],
    }
