"""`cnnkit transfer` on images of several classes each."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from cnnkit.cli.commands.transfer import VOC, drop_overlap, load_model_reference
from cnnkit.cli.console import table
from cnnkit.cli.load_network import open_networks, progress_bar, spec_from_arguments
from cnnkit.errors import unknown_name


def run_voc(args: argparse.Namespace) -> int:
    """Fits on the training images, measures on the test images, and prints a table."""
    from cnnkit.data.sources.voc import load_voc
    from cnnkit.transfer import extract_layers, score_multilabel
    from cnnkit.transfer.multilabel import METRIC, METRICS

    metric = METRIC if args.metric is None else args.metric
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    source, left_out = drop_overlap(load_voc(args.dataset.removeprefix(VOC)), args)
    usual = ("trainval", "test") if "test" in source.splits else ("train", "val")
    train, test = args.train_split or usual[0], args.test_split or usual[1]
    for name in (train, test):
        if name not in source.splits:
            raise unknown_name("split", name, source.splits)
    networks = open_networks(args.models, args)
    splits = source.splits[train], source.splits[test]
    with progress_bar(sum(map(len, splits)) * len(networks), "features") as bar:
        described, tested = (
            extract_layers(
                networks,
                split,
                args.layer,
                protocol=spec_from_arguments(args, args.layer[0]),
                batch_size=args.batch_size,
                progress=bar.update,
            )
            for split in splits
        )
    scores = [
        score_multilabel(
            values,
            source.marks[train],
            test_values,
            source.marks[test],
            layer,
            source.labels,
            classifier=classifier,
            metric=metric,
            l2=described.protocol.l2,
            seed=args.seed,
        )
        for layer, values, test_values in zip(
            args.layer, described.values, tested.values, strict=True
        )
        for classifier in args.classifier
    ]
    if args.save is not None:
        _save(args, source, train, described, scores[0])
    if args.json:
        facts = {
            "dataset": source.spec,
            "train": train,
            "test": test,
            "metric": metric,
            "left_out": left_out,
            "scores": [_facts(one, source.labels) for one in scores],
        }
        print(json.dumps(facts))
        return 0
    print(table([_row(one, metric) for one in scores]))
    if args.save is not None:
        print(Path(args.save))
    return 0


def _save(args: argparse.Namespace, source, train: str, described, score) -> None:
    from cnnkit.transfer.linear_probe import fit_linear_probe

    fit_linear_probe(
        described,
        score.pipeline,
        score.c,
        classes=source.labels,
        classifier=score.classifier,
        several=True,
        dataset=f"{source.spec}, {train}",
        fingerprint=source.fingerprint,
        images=score.training_images,
        estimates={f"mean_average_precision_{name}": score.mean(name) for name in score.precisions},
        opened=load_model_reference(args),
    ).save(args.save)


def _row(score, metric: str) -> dict[str, object]:
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "trained": score.training_images,
        "tested": score.test_images,
        f"mean average precision ({metric})": f"{score.mean(metric):.1%}",
        "C": f"{score.c:g}",
    }


def _facts(score, labels) -> dict[str, object]:
    return {
        "layer": score.layer,
        "classifier": score.classifier,
        "c": score.c,
        "training_images": score.training_images,
        "test_images": score.test_images,
        "mean_average_precision": {name: score.mean(name) for name in score.precisions},
        "average_precision": {
            name: dict(zip(labels, map(_number, values), strict=True))
            for name, values in score.precisions.items()
        },
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
