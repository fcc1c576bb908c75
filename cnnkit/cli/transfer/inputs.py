"""Datasets and networks of `cnnkit transfer`, as its options name them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.arguments import (
    parse_model_options,
    preprocessing_arguments,
    spec_from_arguments,
)
from cnnkit.cli.console import print_error, print_left_out
from cnnkit.cli.load_network import load_networks

if TYPE_CHECKING:
    import keras

    from cnnkit.data import Dataset, Split
    from cnnkit.data.sources.voc import MultiLabelDataset
    from cnnkit.transfer import LayerFeatures

VOC = "voc:"


def is_multilabel(spec: str) -> bool:
    """Return True if a dataset has images of several classes each."""
    return spec.startswith(VOC)


def load_source(spec: str) -> Dataset | MultiLabelDataset:
    """Load a dataset; `voc:DIR` has images of several classes each.

    Raises:
        UsageError: If there is no such dataset.
    """
    if is_multilabel(spec):
        from cnnkit.data.sources.voc import load_voc

        return load_voc(spec.removeprefix(VOC))
    from cnnkit.data import load_dataset

    source = load_dataset(spec)
    print_left_out(source)
    return source


def load_without_overlap(args: argparse.Namespace) -> tuple[Any, list[dict[str, object]]]:
    """Load `--dataset` without the images that are in `--exclude-overlap` too.

    The left-out images are listed on standard error, because `--json` prints one document.

    Returns:
        The dataset, and a dictionary for each pair of near duplicates.
    """
    source = load_source(args.dataset)
    if args.exclude_overlap is None:
        return source, []
    from cnnkit import transfer
    from cnnkit.transfer.near_duplicates import THRESHOLD

    threshold = THRESHOLD if args.overlap_threshold is None else args.overlap_threshold
    others = list(load_source(args.exclude_overlap).splits.values())
    source, pairs = transfer.drop_duplicates(source, others, threshold)
    print_error(
        f"{len(pairs)} images left out that are in {args.exclude_overlap} too,"
        f" of a correlation of {threshold:g} or more"
    )
    for pair in pairs:
        print_error(f"  {pair.correlation:.3f}  {pair.name} is {pair.other}")
    return source, [dataclasses.asdict(pair) for pair in pairs]


def extract_features_of(
    args: argparse.Namespace, networks: list[keras.Model], *splits: Split
) -> list[LayerFeatures]:
    """Extract the features of `--layer` from the images of each split, with a progress bar."""
    from cnnkit.cli.console import progress_bar
    from cnnkit.transfer import extract_layers

    total = sum(map(len, splits)) * len(networks)
    with progress_bar(total, "features") as progress:
        return [
            extract_layers(
                networks,
                split,
                args.layer,
                spec=spec_from_arguments(args, args.layer[0]),
                batch_size=args.batch_size,
                progress=progress,
            )
            for split in splits
        ]


def model_reference(args: argparse.Namespace) -> dict[str, object]:
    """Return the names of the networks as JSON, with absolute paths."""
    paths = ((path, Path(path)) for path in args.models)
    is_image = args.mean is not None and Path(args.mean).is_file()
    return {
        "models": [str(file.resolve()) if file.exists() else path for path, file in paths],
        "model": args.model,
        "model_option": args.model_option,
        "preprocessing": args.preprocessing,
        "channels": args.channels,
        "mean": str(Path(args.mean).resolve()) if is_image else args.mean,
        "std": args.std,
        "model_seed": args.model_seed,
    }


def load_referenced_networks(reference: Mapping[str, Any]) -> list[keras.Model]:
    """Load the networks of a `model_reference`.

    Raises:
        UsageError: If a network is not there any more.
    """
    # References written by version 0.1.0 have no preprocessing.
    stated = dict.fromkeys(("preprocessing", "channels", "mean", "std")) | dict(reference)
    return load_networks(
        reference["models"],
        model=reference["model"],
        options=parse_model_options(reference["model_option"]),
        preprocessing=preprocessing_arguments(argparse.Namespace(**stated), scale=False),
        seed=reference["model_seed"],
    )
