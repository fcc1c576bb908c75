"""Classify images with a classifier that `cnnkit transfer --save` kept.

The network is loaded from where it was then; `--network MODEL` names it where it has moved, and for
a classifier that was copied or received. Another network than the one that the classifier was
fitted on is refused.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cnnkit._files import json_text
from cnnkit._untrusted.damage import shorten
from cnnkit.cli.console import add_json_argument, print_json, print_line, progress_bar
from cnnkit.cli.load_network import (
    NETWORK_HELP,
    add_builder_arguments,
    builder_arguments,
    load_networks,
)
from cnnkit.cli.transfer.inputs import load_referenced_networks, load_source
from cnnkit.cli.values import COUNT, DatasetSpec, image_file, network_path
from cnnkit.cli.written_folders import saved_classifier
from cnnkit.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import keras
    import numpy as np

    from cnnkit.data import Dataset, Split
    from cnnkit.data.sources.voc import MultiLabelDataset
    from cnnkit.transfer import LinearProbe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "saved",
        metavar="SAVED",
        type=saved_classifier,
        help="folder that `cnnkit transfer --save` wrote",
    )
    parser.add_argument("images", nargs="*", type=image_file, metavar="IMAGE", help="image files")
    parser.add_argument(
        "--dataset",
        metavar="SPEC",
        type=DatasetSpec(voc=True),
        help="or the images of a dataset: folder:PATH, voc:PATH ...",
    )
    parser.add_argument(
        "--split", help="of the dataset: train, test or all (default); of voc:PATH test (default)"
    )
    parser.add_argument(
        "--network", nargs="+", type=network_path, metavar="MODEL", help=NETWORK_HELP
    )
    add_builder_arguments(parser)
    parser.add_argument("--batch-size", type=COUNT, default=32, metavar="IMAGES")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line for every image, and the accuracy where the classes are known."""
    if bool(args.images) == (args.dataset is not None):
        raise UsageError(
            "`IMAGE` or --dataset must name the images", expected="image files, or --dataset SPEC"
        )
    if args.split is not None and args.dataset is None:
        raise UsageError("--split requires --dataset SPEC")

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.features import split_from_files
    from cnnkit.transfer import load_linear_probe

    probe = load_linear_probe(args.saved)
    if args.dataset is None:
        images, source, truth = split_from_files(args.images), None, None
    else:
        source = load_source(args.dataset)
        images, truth = _labeled_images(source, args)
    networks = _load_networks(args, probe)
    with progress_bar(len(images) * len(networks), "images") as progress:
        scores = probe.predict(networks, images, batch_size=args.batch_size, progress=progress)
    measured = {}
    if source is not None and truth is not None:
        measured = _measure(probe, scores, source, truth)
    rows = [_facts(probe, name, row) for name, row in zip(images.names, scores, strict=True)]
    if args.json:
        print_json({"classifier": args.saved, **measured, "images": rows})
        return 0
    for row in rows:
        words = "  ".join(f"{label} {row['scores'][label]:.3f}" for label in row["labels"])
        print_line(f"{row['image']}  {words or '-'}")
    if measured:
        print_line(_summary(measured))
    return 0


def _load_networks(args: argparse.Namespace, probe: LinearProbe) -> list[keras.Model]:
    from cnnkit.transfer.linear_probe import names_own_networks

    if args.network is not None:
        return load_networks(args.network, **builder_arguments(args))
    if not probe.model_reference:
        raise UsageError(
            f"{args.saved} does not tell where its network is",
            hint=f"Name it, {' and '.join(probe.networks)}: --network MODEL",
        )
    if not names_own_networks(args.saved):
        raise UsageError(
            f"{args.saved} was not written here, so that the files that it names are not opened",
            received=shorten(json_text(probe.model_reference.get("models"))),
            hint=f"Name the network, {' and '.join(probe.networks)}: --network MODEL",
        )
    return load_referenced_networks(probe.model_reference)


def _labeled_images(
    source: Dataset | MultiLabelDataset, args: argparse.Namespace
) -> tuple[Split, np.ndarray]:
    """Return the images, and their labels (n,) or a column of labels for each class (n, k)."""
    from cnnkit.data.sources.voc import MultiLabelDataset

    if isinstance(source, MultiLabelDataset):
        split = args.split or "test"
        if split not in source.splits:
            raise unknown_name("split", split, source.splits)
        return source.splits[split], source.voc_labels[split]
    from cnnkit.features import select_features_split

    images = select_features_split(source, args.split or "all")
    return images, images.labels


def _facts(probe: LinearProbe, name: str, scores: np.ndarray) -> dict[str, Any]:
    by_class = dict(zip(probe.classes, map(float, scores), strict=True))
    order = sorted(by_class, key=by_class.__getitem__, reverse=True)
    labels = [label for label in order if by_class[label] > 0] if probe.multilabel else order[:1]
    return {"image": name, "labels": labels, "scores": by_class}


def _measure(
    probe: LinearProbe,
    scores: np.ndarray,
    source: Dataset | MultiLabelDataset,
    truth: np.ndarray,
) -> dict[str, object]:
    """Return the accuracy or mean average precision over the classes that the classifier knows.

    Empty where the dataset and the classifier have no class in common, or where only one of them
    has several classes per image.
    """
    import numpy as np

    from cnnkit.transfer import average_precisions

    fitted_here = {"fitted_on_this_dataset": source.fingerprint == probe.fingerprint}
    if probe.multilabel != (truth.ndim == 2):
        return {}
    columns = {label: column for column, label in enumerate(probe.classes)}
    if probe.multilabel:
        shared = [label for label in source.class_names if label in columns]
        true = truth[:, [source.class_names.index(label) for label in shared]]
        if not shared or not (true > 0).any():
            return {}
        found = average_precisions(scores[:, [columns[label] for label in shared]], true)
        means = {name: float(np.nanmean(values)) for name, values in found.items()}
        return {"mean_average_precision": means, **fitted_here}
    expected = np.array([columns.get(label, -1) for label in source.class_names])[truth]
    known = expected >= 0
    if not known.any():
        return {}
    accuracy = (scores.argmax(axis=1) == expected)[known].mean()
    return {"accuracy": float(accuracy), "of_images": int(known.sum()), **fitted_here}


def _summary(measured: dict[str, Any]) -> str:
    if "accuracy" in measured:
        text = f"accuracy {measured['accuracy']:.1%} of {measured['of_images']:,} images"
    else:
        means = measured["mean_average_precision"].items()
        text = "mean average precision " + ", ".join(
            f"{value:.1%} ({name})" for name, value in means
        )
    seen = " (it was fitted on this dataset)" if measured["fitted_on_this_dataset"] else ""
    return text + seen
