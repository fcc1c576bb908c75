"""Write a layer's outputs for the images of a dataset as feature vectors.

`cnnkit features MODEL --dataset SPEC --output DIR` writes .npy files and a JSON index, and goes on
where it was stopped. Several machines may each take `--shard I/N`; with folders of their own,
`cnnkit features merge DIR DIR --output DIR` combines them.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from cnnkit.cli.arguments import add_spec_arguments, check_spec_arguments, spec_from_arguments
from cnnkit.cli.console import (
    add_json_argument,
    print_json,
    print_left_out,
    print_line,
    progress_bar,
)
from cnnkit.cli.load_network import (
    NETWORK_HELP,
    add_network_arguments,
    check_networks,
    load_from_arguments,
)
from cnnkit.cli.read_image import add_decoding_arguments, set_decoding
from cnnkit.cli.values import COUNT, SEED, DatasetSpec, input_folder, network_path, output_folder
from cnnkit.cli.written_folders import feature_store
from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from cnnkit.features import FeatureIndex

MERGE = "merge"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(parser, type=_network_or_merge, help=f"{NETWORK_HELP}; or `{MERGE}`")
    parser.add_argument(
        "folders", nargs="*", type=input_folder, metavar="DIR", help=f"for `{MERGE}`"
    )
    parser.add_argument(
        "--dataset", metavar="SPEC", type=DatasetSpec(), help="digits, folder:PATH, tfds:NAME ..."
    )
    parser.add_argument(
        "--split", default="all", choices=("train", "test", "all"), help="default: all"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of a dataset's own split")
    add_spec_arguments(parser)
    add_decoding_arguments(parser)
    parser.add_argument(
        "--output",
        type=output_folder,
        required=True,
        metavar="DIR",
        help="folder of the features",
    )
    parser.add_argument(
        "--shard",
        type=parse_shard,
        default=(0, 1),
        metavar="I/N",
        help="every N-th file from file I on, counted from 0",
    )
    parser.add_argument("--batch-size", type=COUNT, default=32, metavar="IMAGES")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write or merge features, and print a summary."""
    merge = args.network == MERGE
    if merge and not args.folders:
        raise UsageError(
            f"{MERGE} needs at least one DIR", expected="cnnkit features merge DIR ... --output DIR"
        )
    if merge:
        for folder in args.folders:
            try:
                feature_store(folder)
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"`DIR` {error}") from error
    if args.folders and not merge:
        raise UsageError("`MODEL` must be one network", received=" ".join(args.folders))
    if not merge and args.dataset is None:
        raise UsageError("--dataset must name the images", expected="--dataset SPEC")
    if not merge:
        check_spec_arguments(args)
        check_networks(args, [args.network])

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.features import merge_features, missing_parts

    index = merge_features(args.folders, args.output) if merge else _write(args)
    missing = missing_parts(args.output, index)
    if args.json:
        print_json({"folder": args.output, "missing": missing, **json.loads(index.to_json())})
        return 0
    state = f"{missing} of {index.parts} files still missing" if missing else "complete"
    print_line(
        f"{args.output}: {index.images:,} images of {index.dataset} ({index.split}), layer"
        f" {index.spec.layer} of {index.network}, {index.dimension:,} values each; {state}"
    )
    return 0


def _write(args: argparse.Namespace) -> FeatureIndex:
    from cnnkit.data import load_dataset
    from cnnkit.features import select_features_split, write_features

    spec = spec_from_arguments(args, args.layer)
    source = load_dataset(args.dataset, seed=args.seed, decoding=set_decoding(args))
    print_left_out(source)
    model = load_from_arguments(args).model
    total = len(select_features_split(source, args.split)) // args.shard[1]
    with progress_bar(total, args.layer) as progress:
        return write_features(
            model,
            source,
            spec,
            args.output,
            split=args.split,
            shard=args.shard,
            batch_size=args.batch_size,
            progress=progress,
        )


def _network_or_merge(text: str) -> str:
    return text if text == MERGE else network_path(text)


def parse_shard(text: str) -> tuple[int, int]:
    """Parse a shard I/N, with I counted from 0, for argparse.

    Raises:
        argparse.ArgumentTypeError: If `text` is not I/N, or I is not less than N.

    Example:
        >>> parse_shard("0/4")
        (0, 4)
    """
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N - 1, received {text}")
    return int(first), int(second)
