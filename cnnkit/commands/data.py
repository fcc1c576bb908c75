"""Look at a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the actions and their arguments."""
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    sample = actions.add_parser(
        "sample",
        help="write some of its images as PNG files",
        description="Write images of a dataset as PNG files, named after their labels.",
    )
    sample.add_argument("dataset", metavar="SPEC", help="digits, folder:PATH or tfds:NAME")
    sample.add_argument("--split", choices=("train", "test"), default="test")
    sample.add_argument("--count", type=int, default=1, metavar="N", help="images (default: 1)")
    sample.add_argument("--seed", type=int, default=0, help="seed of the split, as in training")
    sample.add_argument("--output", required=True, metavar="DIR", help="folder for the files")


def run(args: argparse.Namespace) -> int:
    """Writes the samples and prints their paths."""
    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    from cnnkit.data import load_source
    from cnnkit.runs import written_aside

    source = load_source(args.dataset, seed=args.seed)
    split = source.splits[args.split]
    if not 1 <= args.count <= len(split):
        raise UsageError(
            f"The split {args.split} of {args.dataset} has {len(split)} images",
            expected=f"--count of 1 to {len(split)}",
            received=args.count,
        )
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    for index in range(args.count):
        label = source.labels[split.labels[index]]
        path = output / f"{Path(split.names[index]).stem}-label-{label}.png"
        if path.exists():
            raise UsageError(f"{path} exists", hint="Remove it or use another --output")
        with written_aside(path) as aside:
            aside.write_bytes(tf.io.encode_png(split.read(tf.constant(index, tf.int64))).numpy())
        print(path)
    return 0
