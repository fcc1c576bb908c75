"""Check a dataset, write it as shards, or write some of its images."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit._dataset_spec import check_shards_folder
from cnnkit.cli.console import add_json_argument, cell, print_json, print_line, progress_bar
from cnnkit.cli.option_names import in_options
from cnnkit.cli.read_image import add_decoding_arguments, set_decoding
from cnnkit.cli.values import COUNT, SEED, DatasetSpec, output_folder
from cnnkit.errors import UsageError

if TYPE_CHECKING:
    from cnnkit.data.validation import DatasetReport

SPEC_HELP = "digits, folder:PATH, imagenet:PATH, boxes:PATH, shards:PATH or tfds:NAME"
# Number of files that are listed on the terminal; --json lists all.
MAX_LISTED = 10
# The reason of `cnnkit.data.dataset`, which imports TensorFlow.
UNREADABLE = "unreadable"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    subcommands = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    check = subcommands.add_parser(
        "check",
        help="read every image once and report what is there",
        description="Read every image once: images of each class, sizes, the files that are left "
        "out and why, and test images that are training images. The exit code is 0 whatever is "
        "found, unless --strict is given.",
    )
    shard = subcommands.add_parser(
        "shard",
        help="write it as a few large files, shards:DIR",
        description="Write a dataset as TFRecord files with an index: the dataset shards:DIR. "
        "Encoded images stay as they are.",
    )
    sample = subcommands.add_parser(
        "sample",
        help="write some of its images as PNG files",
        description="Write images of a dataset as PNG files, named after their labels.",
    )
    for subcommand in (check, shard, sample):
        subcommand.add_argument("dataset", metavar="SPEC", type=DatasetSpec(), help=SPEC_HELP)
        subcommand.add_argument(
            "--seed", type=SEED, default=0, help="seed of the split, as in training"
        )
    check.add_argument(
        "--strict",
        action="store_true",
        help="exit code 1 if a file is left out or unreadable, a class folder is empty, or an "
        "image is in both splits",
    )
    for subcommand in (check, shard):
        add_json_argument(subcommand)
    for subcommand in (check, sample):
        add_decoding_arguments(subcommand)
    shard.add_argument(
        "--output", type=output_folder, required=True, metavar="DIR", help="folder for the shards"
    )
    sample.add_argument("--split", choices=("train", "test"), default="test")
    sample.add_argument("--count", type=COUNT, default=1, metavar="N", help="images (default: 1)")
    sample.add_argument(
        "--output", type=output_folder, required=True, metavar="DIR", help="folder for the files"
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if args.action == "shard":
        check_shards_folder(Path(args.output))
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    return {"check": _check, "shard": _shard, "sample": _sample}[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from cnnkit.data import check_dataset, load_dataset

    # The report lists all unreadable files, however many there are.
    source = load_dataset(
        args.dataset, seed=args.seed, max_unreadable=1.0, decoding=set_decoding(args)
    )
    with progress_bar(sum(map(len, source.splits.values()))) as progress:
        report = check_dataset(source, progress=progress)
    if args.json:
        print_json({"dataset": args.dataset, "sound": report.passed, **dataclasses.asdict(report)})
    else:
        _print_report(report)
    return 1 if args.strict and not report.passed else 0


def _print_report(report: DatasetReport) -> None:
    names = list(report.splits)
    classes = report.splits["train"].classes
    width = max(len("images"), *(len(cell(label)) for label in classes))
    print_line(f"{'':<{width}}" + "".join(f"  {name:>10}" for name in names))
    for label in classes:
        counts = (report.splits[name].classes[label] for name in names)
        print_line(f"{cell(label):<{width}}" + "".join(f"  {count:>10,}" for count in counts))
    totals = (report.splits[name].images for name in names)
    print_line(f"{'images':<{width}}" + "".join(f"  {count:>10,}" for count in totals))
    for name in names:
        for side in ("height", "width"):
            sides = getattr(report.splits[name], side)
            if sides:
                print_line(
                    f"{name}: {side} {sides.smallest} to {sides.largest} pixels, "
                    f"median {sides.median}"
                )
    _print_files(report)
    for trait in dict.fromkeys(trait for split in report.splits.values() for trait in split.traits):
        found = [name for split in report.splits.values() for name in split.traits.get(trait, ())]
        _print_list(f"{len(found):,} {trait}", found)
    same = [f"{test} is {train}" for train, test in report.duplicates]
    _print_list(f"{len(same)} test images that are training images", same)


def _print_files(report: DatasetReport) -> None:
    """Print how many of the files are used, and those that are not by reason."""
    left_out = {reason: list(names) for reason, names in report.left_out.items()}
    unreadable = left_out.pop(UNREADABLE, [])
    unreadable += [name for split in report.splits.values() for name in split.unreadable]
    images = sum(split.images for split in report.splits.values())
    labels = len(report.label_files)
    print_line(
        f"{report.files:,} files found: {images:,} images used, "
        + (f"{labels:,} read for labels, " if labels else "")
        + f"{report.files - images - labels:,} left out"
    )
    for reason, names in sorted(left_out.items()):
        _print_list(f"{len(names):,} {reason}", names)
    _print_list(f"{len(unreadable):,} {UNREADABLE}", unreadable)
    if report.empty_folders:
        _print_list(
            f"{len(report.empty_folders)} class folders without images", report.empty_folders
        )


def _print_list(title: str, lines: Sequence[str]) -> None:
    print_line(title)
    for line in lines[:MAX_LISTED]:
        print_line(f"  {line}")
    if len(lines) > MAX_LISTED:
        print_line(f"  and {len(lines) - MAX_LISTED} more: --json names all")


def _shard(args: argparse.Namespace) -> int:
    from cnnkit.data import load_dataset, write_shards

    source = load_dataset(args.dataset, seed=args.seed)
    with progress_bar(sum(map(len, source.splits.values()))) as progress:
        index = write_shards(source, args.output, progress=progress)
    files = len(list(index.parent.glob("*.tfrecord")))
    images = {name: len(split) for name, split in source.splits.items()}
    if args.json:
        print_json({"dataset": f"shards:{args.output}", "files": files, "images": images})
        return 0
    print_line(
        f"shards:{args.output}: {images['train']:,} training and {images['test']:,} test images"
    )
    if left_out := source.describe_left_out():
        print_line(in_options(left_out))
    return 0


def _sample(args: argparse.Namespace) -> int:
    import tensorflow as tf

    from cnnkit._staging import staged_file
    from cnnkit.data import load_dataset

    source = load_dataset(args.dataset, seed=args.seed, decoding=set_decoding(args))
    split = source.splits[args.split]
    if not 1 <= args.count <= len(split):
        raise UsageError(
            f"The split {args.split} of {args.dataset} has {len(split)} images",
            expected=f"--count of 1 to {len(split)}",
            received=args.count,
        )
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    names = [Path(name).with_suffix("") for name in split.names[: args.count]]
    # Files of the same name in several folders are told apart by the folders.
    unique = len({name.name for name in names}) == len(names)
    for index, name in enumerate(names):
        # Names of images and classes are no paths, whatever characters they hold.
        stem = (name.name if unique else "-".join(name.parts)).replace("/", "_")
        label = re.sub(r"[^\w .+-]", "_", source.class_names[split.labels[index]])[:100]
        path = output / f"{stem}-label-{label}.png"
        if path.exists():
            raise UsageError(f"{path} exists", hint="Remove it or use another --output")
        with staged_file(path) as aside:
            aside.write_bytes(
                tf.io.encode_png(split.load_image(tf.constant(index, tf.int64))).numpy()
            )
        print_line(str(path))
    return 0
