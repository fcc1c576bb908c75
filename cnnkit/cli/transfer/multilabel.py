"""`cnnkit transfer` on images of several classes each: mean average precision."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.cli.console import print_json, print_line, print_table, progress_bar
from cnnkit.cli.load_network import builder_arguments, load_networks
from cnnkit.cli.transfer.inputs import extract_features_of, load_without_overlap, model_reference
from cnnkit.errors import unknown_name

if TYPE_CHECKING:
    from cnnkit.data.sources.voc import MultiLabelDataset
    from cnnkit.transfer import LayerFeatures, MultiLabelScore


def transfer_to_labels(args: argparse.Namespace) -> None:
    """Fit on the training split, measure on the test split, and print a table.

    Raises:
        UsageError: If there is no such metric or split.
    """
    from cnnkit.transfer import score_multilabel
    from cnnkit.transfer.average_precision import METRIC, METRICS

    metric = METRIC if args.metric is None else args.metric
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    source, left_out = load_without_overlap(args)
    train, test = _split_names(args, source)
    networks = load_networks(args.models, **builder_arguments(args))
    train_features, test_features = extract_features_of(
        args, networks, source.splits[train], source.splits[test]
    )
    scores = []
    layers = zip(args.layer, train_features.values, test_features.values, strict=True)
    with progress_bar(len(args.layer) * len(args.classifier), unit="classifiers") as progress:
        for (layer, train_values, test_values), classifier in product(layers, args.classifier):
            score = score_multilabel(
                train_values,
                source.voc_labels[train],
                test_values,
                source.voc_labels[test],
                layer,
                source.class_names,
                classifier=classifier,
                metric=metric,
                l2=train_features.spec.l2,
                seed=args.seed,
            )
            scores.append(score)
            progress()
    if args.save is not None:
        _save(args, source, train, train_features, scores[0])
    if args.json:
        print_json(
            {
                "dataset": source.spec,
                "train": train,
                "test": test,
                "metric": metric,
                "left_out": left_out,
                "scores": [_facts(score, source.class_names) for score in scores],
            }
        )
        return
    print_table([_row(score, metric) for score in scores])
    if args.save is not None:
        print_line(str(Path(args.save)))


def _split_names(args: argparse.Namespace, source: MultiLabelDataset) -> tuple[str, str]:
    """Return the names of the training and the test split."""
    usual = ("trainval", "test") if "test" in source.splits else ("train", "val")
    train, test = args.train_split or usual[0], args.test_split or usual[1]
    for name in (train, test):
        if name not in source.splits:
            raise unknown_name("split", name, source.splits)
    return train, test


def _save(
    args: argparse.Namespace,
    source: MultiLabelDataset,
    train: str,
    features: LayerFeatures,
    score: MultiLabelScore,
) -> None:
    from cnnkit.transfer import LinearProbe

    LinearProbe.from_features(
        features,
        score.pipeline,
        score.c,
        classes=source.class_names,
        classifier=score.classifier,
        multilabel=True,
        dataset=f"{source.spec}, {train}",
        fingerprint=source.fingerprint,
        images=score.training_images,
        estimates={f"mean_average_precision_{name}": score.mean(name) for name in score.precisions},
        model_reference=model_reference(args),
    ).save(args.save)


def _row(score: MultiLabelScore, metric: str) -> dict[str, object]:
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "trained": score.training_images,
        "tested": score.test_images,
        f"mean average precision ({metric})": f"{score.mean(metric):.1%}",
        "C": f"{score.c:g}",
    }


def _facts(score: MultiLabelScore, labels: Sequence[str]) -> dict[str, object]:
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "c": score.c,
        "training_images": score.training_images,
        "test_images": score.test_images,
        "mean_average_precision": {name: score.mean(name) for name in score.precisions},
        "average_precision": {
            name: dict(zip(labels, map(_none_if_nan, values), strict=True))
            for name, values in score.precisions.items()
        },
    }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
