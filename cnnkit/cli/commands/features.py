"""Write what a layer answers to a dataset's images as feature vectors.

`cnnkit features MODEL --dataset SPEC --output DIR` writes .npy files and a JSON index, and goes on
where it was stopped. Several machines may each take `--shard I/N`; with folders of their own,
`cnnkit features merge DIR DIR --output DIR` puts them together.
"""

from __future__ import annotations

import argparse
import json

from cnnkit.cli.console import print_json, progress_bar
from cnnkit.cli.feature_arguments import add_spec_arguments, spec_from_arguments
from cnnkit.cli.load_network import NETWORK_HELP, add_network_arguments, load_from_arguments
from cnnkit.errors import UsageError

MERGE = "merge"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    add_network_arguments(parser, help=f"{NETWORK_HELP}; or `{MERGE}`")
    parser.add_argument("folders", nargs="*", metavar="DIR", help=f"for `{MERGE}`")
    parser.add_argument("--dataset", metavar="SPEC", help="digits, folder:PATH, tfds:NAME ...")
    parser.add_argument("--split", default="all", help="train, test or all (default)")
    parser.add_argument("--seed", type=int, default=0, help="of a dataset's own split")
    add_spec_arguments(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the features")
    parser.add_argument(
        "--shard", type=parse_shard, default=(0, 1), metavar="I/N", help="every N-th file from I on"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="IMAGES")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Writes or merges, and prints what is there."""
    merges = args.network == MERGE
    if merges and not args.folders:
        raise UsageError("Nothing to merge", expected="cnnkit features merge DIR ... --output DIR")
    if args.folders and not merges:
        raise UsageError("One network makes the features", received=" ".join(args.folders))
    if not merges and args.dataset is None:
        raise UsageError("Features are made of images", expected="--dataset SPEC")

    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.features import merge_features, missing_parts

    index = merge_features(args.folders, args.output) if merges else _write(args)
    missing = missing_parts(args.output, index)
    if args.json:
        facts = {"folder": args.output, "missing": missing, **json.loads(index.as_json())}
        print_json(facts)
        return 0
    state = f"{missing} of {index.parts} files still missing" if missing else "complete"
    print(
        f"{args.output}: {index.images:,} images of {index.dataset} ({index.split}), layer"
        f" {index.protocol.layer} of {index.network}, {index.dimension:,} values each; {state}"
    )
    return 0


def _write(args: argparse.Namespace):
    from cnnkit.data import load_dataset
    from cnnkit.features import select_features_split, write_features

    protocol = spec_from_arguments(args, args.layer)
    source = load_dataset(args.dataset, seed=args.seed)
    model = load_from_arguments(args).model
    total = len(select_features_split(source, args.split)) // args.shard[1]
    with progress_bar(total, args.layer) as progress:
        return write_features(
            model,
            source,
            protocol,
            args.output,
            split=args.split,
            shard=args.shard,
            batch_size=args.batch_size,
            progress=progress,
        )


def parse_shard(text: str) -> tuple[int, int]:
    """Reads I/N, counted from 0."""
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"I/N with I from 0 to N - 1, not {text!r}")
    return int(first), int(second)
