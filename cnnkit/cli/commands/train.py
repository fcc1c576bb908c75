"""Train a network and write a run folder.

Without other options this trains the recipe `demo`. Every option changes one field of the recipe;
`cnnkit recipes` lists the recipes.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from cnnkit.cli.arguments import add_config_arguments, apply_overrides
from cnnkit.cli.console import print_line
from cnnkit.cli.deprecated import deprecated_option
from cnnkit.cli.network_words import check_training_words
from cnnkit.cli.parser import require_packages
from cnnkit.cli.train_runs import (
    add_output_arguments,
    add_progress_arguments,
    free_folder,
    progress_stream,
    train_and_report,
)
from cnnkit.cli.training_estimate import ESTIMATE_SECONDS, estimate_and_report, stage_configs
from cnnkit.cli.values import INDEX, SECONDS
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.recipes import DEFAULT, RECIPES, Recipe, find_recipe
from cnnkit.run_folder import RunFolder
from cnnkit.stage_folder import has_stages, read_stages, train_stages, write_stages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--recipe", help=f"one of {', '.join(RECIPES)} (default: {DEFAULT})")
    add_output_arguments(parser)
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
    add_progress_arguments(parser)
    parser.add_argument(
        "--estimate",
        nargs="?",
        type=SECONDS,
        const=ESTIMATE_SECONDS,
        metavar="SECONDS",
        help="train nothing: measure some steps (default: 60 s), and print the time, memory and "
        "disk that the training takes on this machine",
    )
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train, with progress on the terminal."""
    if args.estimate is not None:
        return _estimate(args)
    if args.resume and not args.output:
        raise UsageError("--resume requires --output RUN")
    if args.resume and args.overwrite:
        raise UsageError("--resume and --overwrite must not be given together")
    if args.tensorboard:
        require_packages("tensorboard", purpose="--tensorboard")
    output = Path(args.output) if args.output else free_folder(args.recipe or DEFAULT)
    recipe = None if args.resume and not args.recipe else find_recipe(args.recipe or DEFAULT)
    if has_stages(output) or (recipe and recipe.stages):
        return _train_stages(args, output, recipe)
    base = RunFolder.open(output).config if recipe is None else recipe.config
    config = apply_overrides(base, args)
    check_training_words(config)
    metadata: dict[str, Any] = {}
    if recipe is not None:
        name = args.recipe or DEFAULT
        _check_needs(recipe, name, config)
        _check_kept_epochs(args, config)
        # The default recipe stands for no paper.
        metadata = {"recipe": name, "source": recipe.source}
        if args.recipe:
            metadata |= _deviations(recipe, base, config)
        # Of several processes, another one may have begun the run already.
        if config.strategy != "multiworker":
            RunFolder(output).check_available(overwrite=args.overwrite)
    return train_and_report(
        args, output, lambda train: [train(config, output, args.resume, metadata)]
    )


def _estimate(args: argparse.Namespace) -> int:
    """Print what the training of a recipe takes on this machine."""
    for option, value in (
        ("--resume", args.resume), ("--output", args.output), ("--workers", args.workers),
    ):  # fmt: skip
        if value:
            raise UsageError(f"{option} and --estimate must not be given together")
    recipe = find_recipe(args.recipe or DEFAULT)
    configs = [(name, apply_overrides(config, args)) for name, config in stage_configs(recipe)]
    # The time does not depend on the weights that training begins with.
    needs = {need: why for need, why in recipe.needs.items() if need != "init_from"}
    for _, config in configs:
        check_training_words(config)
        _check_needs(dataclasses.replace(recipe, needs=needs), args.recipe or DEFAULT, config)
    return estimate_and_report(args, recipe, configs)


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
        for stage in stages:
            check_training_words(stage.config)
        write_stages(output, stages, overwrite=args.overwrite)
    metadata = {"recipe": args.recipe, "deviations": list(recipe.deviations)} if recipe else {}
    out = progress_stream(args)
    return train_and_report(
        args,
        output,
        lambda train: train_stages(
            output,
            stages,
            lambda config, folder, resume: train(config, folder, resume, metadata),
            lambda text: print_line(text, out),
        ),
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


def _deviations(
    recipe: Recipe, base: TrainingConfig, config: TrainingConfig
) -> dict[str, list[str]]:
    """Return all deviations of a run from the paper, and those that the options asked for."""
    changes = [
        f"{field} is {now!r} instead of the recipe's {was!r}"
        for field, (was, now) in base.differences(config).items()
    ]
    return {"deviations": [*recipe.deviations, *changes], "changes": changes}
