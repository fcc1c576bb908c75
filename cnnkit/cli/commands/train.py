"""Train a network and leave a run folder behind.

Without other options this trains the recipe `demo`. Every option changes one field of the recipe;
`cnnkit recipes` lists the recipes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from cnnkit.cli.arguments import add_config_arguments, apply_overrides
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.recipes import DEFAULT, RECIPES, Recipe, find_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("--recipe", help=f"one of {', '.join(RECIPES)} (default: {DEFAULT})")
    parser.add_argument("--output", help="run folder (default: a free name in runs/)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument(
        "--overwrite", action="store_true", help="start afresh where --output is a run already"
    )
    parser.add_argument("--download", action="store_true", help="let TFDS download the dataset")
    parser.add_argument(
        "--workers",
        metavar="HOST:PORT,...",
        help="every process of --strategy multiworker, the same list in each (or TF_CONFIG)",
    )
    parser.add_argument("--index", type=int, help="which of the workers this is, from 0")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write the metrics for TensorBoard too"
    )
    parser.add_argument(
        "--profile", action="store_true", help="profile a few steps, and tell where the time went"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Trains, with progress on the terminal."""
    if args.resume and not args.output:
        raise UsageError("Which run is to be resumed?", expected="--resume with --output RUN")
    if args.resume and args.overwrite:
        raise UsageError("A run is either resumed or overwritten", received="both")
    output = Path(args.output) if args.output else _free_folder(args.recipe or DEFAULT)
    recipe = None if args.resume and not args.recipe else find_recipe(args.recipe or DEFAULT)

    from cnnkit.cli.train_stages import has_stages

    if has_stages(output) or (recipe and recipe.stages):
        return _run_parts(args, output, recipe)
    if recipe is None:
        from cnnkit.run_folder import RunFolder

        base = RunFolder.open(output).config
    else:
        base = recipe.config
    config = apply_overrides(base, args)
    about = {}
    if recipe is not None:
        _check_needs(recipe, args.recipe or DEFAULT, config)
        about = _about(recipe, args.recipe or DEFAULT, base, config)
    return _reported(args, output, lambda train: [train(config, output, args.resume, about)])


def _run_parts(args: argparse.Namespace, output: Path, recipe: Recipe | None) -> int:
    from cnnkit.cli.train_stages import has_stages, read_stages, train_stages, write_stages

    if args.workers or args.index is not None:
        raise UsageError("A recipe of several parts is trained by one process")
    if args.resume and has_stages(output):
        parts = read_stages(output)
    elif args.resume or recipe is None:
        raise UsageError(f"No run folder {output}", expected="a folder that `cnnkit train` wrote")
    else:
        parts = [
            dataclasses.replace(part, config=apply_overrides(part.config, args))
            for part in recipe.stages
        ]
        write_stages(output, parts)
    about = {"recipe": args.recipe, "deviations": list(recipe.deviations)} if recipe else {}
    out = sys.stderr if args.json else sys.stdout
    return _reported(
        args,
        output,
        lambda train: train_stages(
            output,
            parts,
            lambda config, folder, resume: train(config, folder, resume, about),
            lambda text: print(text, file=out, flush=True),
        ),
    )


def _reported(args: argparse.Namespace, output: Path, work) -> int:
    """Does the work with progress on the terminal, and tells how it ended."""
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.cli.training_progress import TerminalProgress
    from cnnkit.training import Callback, Interrupted, train

    out = sys.stderr if args.json else sys.stdout
    terminal = TerminalProgress(out, show_times=args.profile)
    callbacks: list[Callback] = [terminal]
    if args.tensorboard:
        from cnnkit.training.callbacks import TensorBoardCallback

        callbacks.append(TensorBoardCallback())
    if args.profile:
        from cnnkit.training.callbacks import ProfilerCallback

        callbacks.append(ProfilerCallback())

    def trained(config: TrainingConfig, folder: Path, resume: bool, about: dict[str, Any]):
        return train(
            config,
            folder,
            resume=resume,
            overwrite=args.overwrite,
            download=args.download,
            callbacks=callbacks,
            metadata=about,
            workers=args.workers.split(",") if args.workers else (),
            worker_index=args.index,
        )

    try:
        runs = work(trained)
    except Interrupted as stopped:
        print(f"cnnkit: {stopped.with_folder(output)}", file=sys.stderr)
        return stopped.exit_code
    finally:
        terminal.close()
    if args.index:
        return 0  # The first worker reports.
    if args.json:
        lines = [{"run": str(run.path), **run.metrics[-1]} for run in runs]
        print(json.dumps(lines[0] if len(lines) == 1 else lines))
        return 0
    for run in runs:
        last = run.metrics[-1]
        print(
            f"done: {run.path}, {1 - last['val_accuracy']:.1%} error on the held-out images"
            + (f" after {last['epoch']} epochs" if len(runs) > 1 else "")
        )
    return 0


def _check_needs(recipe: Recipe, name: str, config: TrainingConfig) -> None:
    for need, reason in recipe.needs.items():
        if need not in config.model_options and getattr(config, need, None) is None:
            flag = f"--{need.replace('_', '-')}"
            if not hasattr(config, need):
                flag = f"--model-option {need}=VALUE"
            raise UsageError(f"Recipe {name} leaves {need} to you: {reason}", expected=flag)


def _about(
    recipe: Recipe, name: str, base: TrainingConfig, config: TrainingConfig
) -> dict[str, Any]:
    """Returns what a run keeps of its recipe: the deviations from the paper, and those from it."""
    changes = [
        f"{field} is {now!r} instead of the recipe's {was!r}"
        for field, (was, now) in base.differences(config).items()
    ]
    return {"recipe": name, "source": recipe.source, "deviations": [*recipe.deviations, *changes]}


def _free_folder(name: str) -> Path:
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
