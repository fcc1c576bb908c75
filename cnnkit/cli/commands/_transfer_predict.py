"""Tell the classes of images with a classifier that `cnnkit transfer --save` kept.

The network is opened as it was named then; `--network MODEL` names it where it has moved. Another
network than the one that the classifier was fitted on is refused.
"""

from __future__ import annotations

import argparse
import json

from cnnkit.cli.load_network import MODEL_HELP, add_network_arguments, open_networks, progress_bar
from cnnkit.errors import UsageError

VOC = "voc:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the action's arguments."""
    parser.add_argument("saved", metavar="SAVED", help="folder that `cnnkit transfer --save` wrote")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument(
        "--dataset", metavar="SPEC", help="or the images of a dataset: folder:PATH, voc:PATH ..."
    )
    parser.add_argument(
        "--split", help="of the dataset: train, test or all (default); of voc:PATH test (default)"
    )
    parser.add_argument("--network", nargs="+", metavar="MODEL", help=MODEL_HELP)
    add_network_arguments(parser)
    parser.add_argument("--batch-size", type=int, default=32, metavar="IMAGES")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Prints a line for every image, and the accuracy where the dataset tells the classes."""
    if bool(args.images) == (args.dataset is not None):
        raise UsageError("Which images?", expected="image files, or --dataset SPEC")
    if args.split is not None and args.dataset is None:
        raise UsageError("A split is of a dataset", hint="Add --dataset SPEC")

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.features import split_from_files
    from cnnkit.transfer import load_linear_probe

    saved = load_linear_probe(args.saved)
    truth = None if args.dataset is None else _dataset(args)
    images = split_from_files(args.images) if truth is None else truth[0]
    networks = _networks(args, saved)
    with progress_bar(len(images) * len(networks), "images") as bar:
        scores = saved.predict(
            networks, images, batch_size=args.batch_size, progress=bar.update
        )  # fmt: skip
    measured = {} if truth is None else _measured(saved, scores, *truth)
    rows = [
        _facts(saved, name, of_image) for name, of_image in zip(images.names, scores, strict=True)
    ]
    if args.json:
        print(json.dumps({"classifier": args.saved, **measured, "images": rows}))
        return 0
    for row in rows:
        said = "  ".join(f"{label} {row['scores'][label]:.3f}" for label in row["labels"])
        print(f"{row['image']}  {said or '-'}")
    if measured:
        print(_told(measured))
    return 0


def _networks(args: argparse.Namespace, saved) -> list:
    if args.network is not None:
        return open_networks(args.network, args)
    if not saved.opened:
        raise UsageError(
            f"{args.saved} does not tell where its network is",
            hint=f"Name it, {' and '.join(saved.networks)}: --network MODEL",
        )
    paths = saved.opened["models"]
    return open_networks(paths, argparse.Namespace(**{**vars(args), **saved.opened}))


def _dataset(args: argparse.Namespace):
    """Returns the images, the classes, and what is known of each: a label, or marks."""
    if args.dataset.startswith(VOC):
        from cnnkit.data.sources.voc import load_voc
        from cnnkit.errors import unknown_name

        voc = load_voc(args.dataset.removeprefix(VOC))
        split = args.split or "test"
        if split not in voc.splits:
            raise unknown_name("split", split, voc.splits)
        return voc.splits[split], voc, voc.marks[split]
    from cnnkit.data import load_dataset
    from cnnkit.features import select_features_split

    source = load_dataset(args.dataset)
    images = select_features_split(source, args.split or "all")
    return images, source, images.labels


def _facts(saved, name: str, scores) -> dict[str, object]:
    by_class = dict(zip(saved.classes, map(float, scores), strict=True))
    order = sorted(by_class, key=by_class.__getitem__, reverse=True)
    labels = [label for label in order if by_class[label] > 0] if saved.several else order[:1]
    return {"image": name, "labels": labels, "scores": by_class}


def _measured(saved, scores, images, source, truth) -> dict[str, object]:
    """Returns how right the classifier is about images whose classes it knows."""
    import numpy as np

    from cnnkit.transfer import average_precisions

    seen = {"fitted_on_this_dataset": source.fingerprint == saved.fingerprint}
    if saved.several != (truth.ndim == 2):
        return {}
    places = {label: i for i, label in enumerate(saved.classes)}
    if saved.several:
        shared = [label for label in source.labels if label in places]
        columns = [source.labels.index(label) for label in shared]
        if not shared or not (truth[:, columns] > 0).any():
            return {}
        found = average_precisions(
            scores[:, [places[label] for label in shared]], truth[:, columns]
        )
        means = {name: float(np.nanmean(values)) for name, values in found.items()}
        return {"mean_average_precision": means, **seen}
    right = np.array([places.get(label, -1) for label in source.labels])[truth]
    known = right >= 0
    if not known.any():
        return {}
    accuracy = (scores.argmax(axis=1) == right)[known].mean()
    return {"accuracy": float(accuracy), "of_images": int(known.sum()), **seen}


def _told(measured: dict) -> str:
    if "accuracy" in measured:
        said = f"accuracy {measured['accuracy']:.1%} of {measured['of_images']:,} images"
    else:
        means = measured["mean_average_precision"].items()
        said = "mean average precision " + ", ".join(
            f"{value:.1%} ({name})" for name, value in means
        )
    trained = " (it was fitted on this dataset)" if measured["fitted_on_this_dataset"] else ""
    return said + trained
