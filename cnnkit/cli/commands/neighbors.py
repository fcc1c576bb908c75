"""Find the images of a dataset that are most similar to image files.

The distance is the Euclidean one between feature vectors that `cnnkit features` wrote, computed
exactly (Krizhevsky et al. 2012, Fig. 4).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.cli.console import add_json_argument, print_json, print_line
from cnnkit.cli.load_network import add_network_arguments, check_networks, load_from_arguments
from cnnkit.cli.picture import (
    add_picture_arguments,
    check_picture_arguments,
    picture_options,
    refuse_picture_options,
)
from cnnkit.cli.values import COUNT, SEED, DatasetSpec, image_file
from cnnkit.cli.written_folders import feature_store
from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from cnnkit.features.nearest_neighbors import Neighbor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(parser)
    parser.add_argument(
        "--query",
        required=True,
        nargs="+",
        type=image_file,
        metavar="IMAGE",
        help="image files to look for",
    )
    parser.add_argument(
        "--index",
        required=True,
        type=feature_store,
        metavar="FEATURES",
        help="folder that `cnnkit features` wrote",
    )
    parser.add_argument("--k", type=COUNT, default=6, help="neighbors of each query (default: 6)")
    add_picture_arguments(parser, help="contact sheet of the queries and neighbors")
    parser.add_argument(
        "--dataset",
        metavar="SPEC",
        type=DatasetSpec(),
        help="dataset of the images, for --output (default: as in the index)",
    )
    parser.add_argument(
        "--seed", type=SEED, default=0, help="of the dataset's own split, as in `cnnkit features`"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the neighbors, and draw them if --output is given."""
    output = None
    if args.output is None:
        refuse_picture_options(args, "--output")
    else:
        output = check_picture_arguments(args)
    check_networks(args, [args.network])

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.data import image_path
    from cnnkit.features import find_neighbors, read_index

    # Before the network is loaded, so that a wrong folder is an error at once.
    dataset = args.dataset or read_index(args.index).dataset
    found = find_neighbors(load_from_arguments(args).model, args.query, args.index, args.k)
    if output is not None:
        _draw(found, args, output)
    if args.json:
        rows = [
            {
                "query": query,
                "neighbors": [
                    {**dataclasses.asdict(one), "file": image_path(dataset, one.name)}
                    for one in neighbors
                ],
            }
            for query, neighbors in zip(args.query, found, strict=True)
        ]
        print_json({"index": args.index, "queries": rows})
        return 0
    for query, neighbors in zip(args.query, found, strict=True):
        print_line(query)
        for one in neighbors:
            print_line(f"  {one.distance:8.4f}  {one.label}  {one.name}")
    if output is not None:
        print_line(str(output))
    return 0


def _draw(found: Sequence[Sequence[Neighbor]], args: argparse.Namespace, output: Path) -> None:
    import tensorflow as tf

    from cnnkit.cli.read_image import read_image, use_decoding
    from cnnkit.data import load_dataset
    from cnnkit.features import read_index, select_features_split
    from cnnkit.figures import draw_neighbors

    index = read_index(args.index)
    use_decoding(index.decoding)
    source = load_dataset(args.dataset or index.dataset, decoding=index.decoding, seed=args.seed)
    if source.fingerprint != index.dataset_fingerprint:
        raise UsageError(
            f"{source.spec} is not the dataset that the features were made of",
            hint="Name it with --dataset and --seed, or leave --output out",
        )
    split = select_features_split(source, index.split)
    images = [
        [split.load_image(tf.constant(one.index, tf.int64)).numpy() for one in neighbors]
        for neighbors in found
    ]
    draw_neighbors(
        [read_image(query, None) for query in args.query],
        [Path(query).name for query in args.query],
        found,
        images,
        output,
        caption=f"Euclidean distance of {index.spec.layer}, {index.network}, among"
        f" {index.images:,} images of {index.dataset}",
        **picture_options(args),
    )
