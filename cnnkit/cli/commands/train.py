"""Train a network and write a run folder.

Without other options this trains the recipe `demo`. Every option changes one field of the recipe;
`cnnkit recipes` lists the recipes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cnnkit.cli.arguments import add_config_arguments, apply_overrides
from cnnkit.cli.console import add_json_argument, print_error, print_json, print_line
from cnnkit.cli.deprecated import deprecated_option
from cnnkit.cli.train_stages import has_stages, read_stages, train_stages, write_stages
from cnnkit.cli.values import INDEX, SECONDS, output_folder, require_packages
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.recipes import DEFAULT, RECIPES, Recipe, find_recipe
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    from cnnkit.training import Callback

# A function that trains a configuration into a folder. The third argument is True to resume; the
# last one is stored with the run.
TrainFunction = Callable[[TrainingConfig, Path, bool, Mapping[str, Any]], RunFolder]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--recipe", help=f"one of {', '.join(RECIPES)} (default: {DEFAULT})")
    parser.add_argument(
        "--output", type=output_folder, help="run folder (default: a free name in runs/)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument(
        "--overwrite", action="store_true", help="start afresh where --output is a run already"
    )
    parser.add_argument("--download", action="store_true", help="let TFDS download the dataset")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="record checksums of all images, not only of some; with --resume, compare them",
    )
    parser.add_argument(
        "--workers",
        metavar="HOST:PORT,...",
        help="addresses of all processes of --strategy multiworker, the same list in each "
        "(or TF_CONFIG)",
    )
    parser.add_argument(
        "--worker-index", type=INDEX, metavar="N", help="this process's place in --workers, from 0"
    )
    deprecated_option(parser, "--index", "--worker-index", type=INDEX)
    parser.add_argument(
        "--worker-timeout",
        type=SECONDS,
        metavar="SECONDS",
        help="time to wait at the start for the other workers (default: 300)",
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
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train, with progress on the terminal."""
    if args.resume and not args.output:
        raise UsageError("--resume requires --output RUN")
    if args.resume and args.overwrite:
        raise UsageError("--resume and --overwrite must not be given together")
    if args.tensorboard:
        require_packages("tensorboard", purpose="--tensorboard")
    output = Path(args.output) if args.output else _free_folder(args.recipe or DEFAULT)
    recipe = None if args.resume and not args.recipe else find_recipe(args.recipe or DEFAULT)
    if has_stages(output) or (recipe and recipe.stages):
        return _train_stages(args, output, recipe)
    base = RunFolder.open(output).config if recipe is None else recipe.config
    config = apply_overrides(base, args)
    metadata: dict[str, Any] = {}
    if recipe is not None:
        name = args.recipe or DEFAULT
        _check_needs(recipe, name, config)
        _check_kept_epochs(args, config)
        metadata = _recipe_metadata(recipe, name, base, config)
    return _train_and_report(
        args, output, lambda train: [train(config, output, args.resume, metadata)]
    )


def _train_stages(args: argparse.Namespace, output: Path, recipe: Recipe | None) -> int:
    """Train a recipe of several stages."""
    if args.workers or args.worker_index is not None:
        raise UsageError(
            "--workers and --worker-index must not be given for a recipe of several stages, which "
            "is trained by one process"
        )
    if args.resume and has_stages(output):
        stages = [
            dataclasses.replace(stage, config=apply_overrides(stage.config, args))
            for stage in read_stages(output)
        ]
    elif args.resume or recipe is None:
        raise UsageError(f"No run folder {output}", expected="a folder that `cnnkit train` wrote")
    else:
        stages = [
            dataclasses.replace(stage, config=apply_overrides(stage.config, args))
            for stage in recipe.stages
        ]
        write_stages(output, stages, overwrite=args.overwrite)
    metadata = {"recipe": args.recipe, "deviations": list(recipe.deviations)} if recipe else {}
    out = _progress_stream(args)
    return _train_and_report(
        args,
        output,
        lambda train: train_stages(
            output,
            stages,
            lambda config, folder, resume: train(config, folder, resume, metadata),
            lambda text: print_line(text, out),
        ),
    )


def _train_and_report(
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

    terminal = TerminalProgress(_progress_stream(args), show_times=args.profile)
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


def _progress_stream(args: argparse.Namespace) -> TextIO:
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
            workers=args.workers.split(",") if args.workers else (),
            worker_index=args.worker_index,
            worker_timeout=WORKER_TIMEOUT if args.worker_timeout is None else args.worker_timeout,
        )

    return train_config


def _report(runs: Sequence[RunFolder], *, as_json: bool) -> None:
    if as_json:
        lines = [{"run": str(run.path), **run.metrics[-1]} for run in runs]
        print_json(lines[0] if len(lines) == 1 else lines)
        return
    for run in runs:
        last = run.metrics[-1]
        print_line(
            f"done: {run.path}, {1 - last['val_accuracy']:.1%} error on the held-out images"
            + (f" after {last['epoch']} epochs" if len(runs) > 1 else "")
        )


def _check_needs(recipe: Recipe, name: str, config: TrainingConfig) -> None:
    """Check that the options give the values that a recipe leaves open."""
    for need, reason in recipe.needs.items():
        if need not in config.model_options and getattr(config, need, None) is None:
            flag = f"--{need.replace('_', '-')}"
            if not hasattr(config, need):
                flag = f"--model-option {need}=VALUE"
            raise UsageError(f"Recipe {name} leaves {need} to you: {reason}", expected=flag)


def _check_kept_epochs(args: argparse.Namespace, config: TrainingConfig) -> None:
    """Check that the epochs of `--keep-epochs` come; those of a recipe may be cut off."""
    late = [epoch for epoch in getattr(args, "keep_epochs", ()) if epoch > config.epochs]
    if late:
        raise UsageError(
            f"--keep-epochs must be epochs of 1 to {config.epochs}",
            received=" ".join(map(str, late)),
        )


def _recipe_metadata(
    recipe: Recipe, name: str, base: TrainingConfig, config: TrainingConfig
) -> dict[str, Any]:
    """Return the recipe's name and source, and all deviations from the paper."""
    changes = [
        f"{field} is {now!r} instead of the recipe's {was!r}"
        for field, (was, now) in base.differences(config).items()
    ]
    return {"recipe": name, "source": recipe.source, "deviations": [*recipe.deviations, *changes]}


def _free_folder(name: str) -> Path:
    """Return a path in runs/ that does not exist yet."""
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
