"""Train runs with progress on the terminal, for the commands `train` and `finetune`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cnnkit.cli.console import add_json_argument, print_error, print_json, print_line
from cnnkit.cli.values import output_folder
from cnnkit.config import TrainingConfig
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    from cnnkit.training import Callback

# A function that trains a configuration into a folder. The third argument is True to resume; the
# last one is stored with the run.
TrainFunction = Callable[[TrainingConfig, Path, bool, Mapping[str, Any]], RunFolder]


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options about the run folder."""
    parser.add_argument(
        "--output", type=output_folder, help="run folder (default: a free name in runs/)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument(
        "--overwrite", action="store_true", help="start afresh where --output is a run already"
    )


def add_progress_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options about what a training shows and stores beside its results."""
    parser.add_argument("--download", action="store_true", help="let TFDS download the dataset")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="record checksums of all images, not only of some; with --resume, compare them",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the metrics for TensorBoard too"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="profile a few steps, and print the time of each part of the training",
    )
    add_json_argument(parser, "print one JSON document at the end")


def train_and_report(
    args: argparse.Namespace, output: Path, work: Callable[[TrainFunction], list[RunFolder]]
) -> int:
    """Do the work with progress on the terminal, and print its results.

    Args:
        args: The parsed arguments.
        output: The folder that a stopped training goes on from.
        work: A function that trains one or more runs with the function that it gets.
    """
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.cli.training_progress import TerminalProgress
    from cnnkit.training import Interrupted

    terminal = TerminalProgress(progress_stream(args), show_times=args.profile)
    try:
        runs = work(_train_function(args, [terminal, *_further_callbacks(args)]))
    except Interrupted as stopped:
        print_error(f"cnnkit: {stopped.with_folder(output)}")
        return stopped.exit_code
    finally:
        terminal.close()
    if terminal.process == 0:  # Of several processes, the first one reports.
        _report(runs, as_json=args.json)
    return 0


def progress_stream(args: argparse.Namespace) -> TextIO:
    """Return standard error with --json, whose document is alone on standard output."""
    return sys.stderr if args.json else sys.stdout


def _further_callbacks(args: argparse.Namespace) -> list[Callback]:
    from cnnkit.training.callbacks import ProfilerCallback, TensorBoardCallback

    callbacks: list[Callback] = []
    if args.tensorboard:
        callbacks.append(TensorBoardCallback())
    if args.profile:
        callbacks.append(ProfilerCallback())
    return callbacks


def _train_function(args: argparse.Namespace, callbacks: list[Callback]) -> TrainFunction:
    from cnnkit.training import train
    from cnnkit.training.rendezvous import WORKER_TIMEOUT

    workers, timeout = getattr(args, "workers", None), getattr(args, "worker_timeout", None)

    def train_config(
        config: TrainingConfig, folder: Path, resume: bool, metadata: Mapping[str, Any]
    ) -> RunFolder:
        return train(
            config,
            folder,
            resume=resume,
            overwrite=args.overwrite,
            download=args.download,
            verify=args.verify,
            callbacks=callbacks,
            metadata=metadata,
            workers=workers.split(",") if workers else (),
            worker_index=getattr(args, "worker_index", None),
            worker_timeout=WORKER_TIMEOUT if timeout is None else timeout,
        )

    return train_config


def _report(runs: Sequence[RunFolder], *, as_json: bool) -> None:
    if as_json:
        lines = [{"run": str(run.path), **(run.result or {})} for run in runs]
        print_json(lines[0] if len(lines) == 1 else lines)
        return
    for run in runs:
        progress = run.progress
        result = progress.result
        if result is None:  # Version 0.1.0 did not write it for a network without an epoch.
            print_line(f"done: {run.path}, the network before training")
            continue
        when = ""
        if result["epoch"] == 0:
            when = ", that of the network before training"
        elif progress.restores_best:
            when = f", the lowest of {len(progress.lines)} epochs"
        elif len(runs) > 1:
            when = f" after {result['epoch']} epochs"
        print_line(
            f"done: {run.path}, {1 - result['val_accuracy']:.1%} error on the held-out images{when}"
        )


def free_folder(name: str) -> Path:
    """Return a path in runs/ that does not exist yet."""
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
