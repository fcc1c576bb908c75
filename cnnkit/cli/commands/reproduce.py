"""Run a result of the papers again, and print it beside the paper's value and the ledger's.

`cnnkit papers` lists the results. `cnnkit reproduce ID --output DIR` appends each seed to
`DIR/ID.jsonl` when it is done; the same command continues after an interruption, and more `--seeds`
run only those that are missing. A result that needs a training trains into `DIR/ID-seedN`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnkit.cli.console import (
    add_json_argument,
    print_json,
    print_line,
    print_table,
    progress_bar,
)
from cnnkit.cli.values import COUNT, DatasetSpec, input_file, output_folder
from cnnkit.papers import OwnResult, find_paper_result
from cnnkit.papers.text import own_value, paper_value

if TYPE_CHECKING:
    from cnnkit.reproduction import Reproduction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("id", metavar="ID", help="a result that `cnnkit papers` lists")
    parser.add_argument("--output", required=True, type=output_folder, metavar="DIR")
    parser.add_argument(
        "--seeds",
        type=COUNT,
        default=3,
        metavar="N",
        help="seeds or splits where the result depends on chance (default: 3)",
    )
    parser.add_argument(
        "--data", type=DatasetSpec(), metavar="SPEC", help="images, where the result needs some"
    )
    parser.add_argument(
        "--weights", type=input_file, metavar="FILE", help="weights, where the result needs some"
    )
    parser.add_argument("--batch-size", type=COUNT, default=64, metavar="IMAGES")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the result, and print a table."""
    from cnnkit.reproduction.procedures import check_reproducible

    result = find_paper_result(args.id)
    check_reproducible(result, args.data, args.weights)
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.reproduction.reproduce import summary

    found = _train(args) if result.procedure["name"] == "train" else _measure(args)
    if args.json:
        print_json({**summary(found), "ran": found.ran, "file": str(found.file)}, indent=2)
    else:
        _print(found)
    return 0


def _measure(args: argparse.Namespace) -> Reproduction:
    """Run a result without training, with a progress bar."""
    from cnnkit.data import load_dataset
    from cnnkit.data.load import open_datasets_once
    from cnnkit.reproduction import reproduce

    with open_datasets_once():
        total = 0 if args.data is None else sum(map(len, load_dataset(args.data).splits.values()))
        with progress_bar(total, "features") as progress:
            return reproduce(
                args.id,
                args.output,
                seeds=args.seeds,
                data=args.data,
                weights=args.weights,
                batch_size=args.batch_size,
                progress=progress,
            )


def _train(args: argparse.Namespace) -> Reproduction:
    """Run a result by training, with a line for each epoch."""
    from cnnkit.cli.train_runs import progress_stream
    from cnnkit.cli.training_progress import TerminalProgress
    from cnnkit.reproduction import reproduce

    terminal = TerminalProgress(progress_stream(args))
    try:
        return reproduce(
            args.id, args.output, seeds=args.seeds, data=args.data, callbacks=[terminal]
        )
    finally:
        terminal.close()


def _print(found: Reproduction) -> None:
    result = found.result
    print_line(f"{result.id}: {result.source}, {result.what}")
    here = OwnResult(found.value, "", found.seeds, found.interval, "seeds")
    rows = [("paper", paper_value(result), "")]
    if result.ours is not None:
        rows.append(("ledger", own_value(result.ours, result.unit), _list(result.ours.seeds)))
    rows.append(("here", own_value(here, result.unit), _list(found.seeds)))
    print_table([{"": name, "value": value, "seeds": seeds} for name, value, seeds in rows])
    if result.ours is not None and result.ours.differs:
        print_line(f"differs from the paper, in the ledger: {result.ours.differs}")
    if result.note not in ("", "about", "more than"):
        print_line(f"the paper: {result.note}")
    if not found.ran:
        print_line("all seeds were in the file, and none ran")
    print_line(str(found.file))


def _list(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
