"""Train a network and leave a run folder behind.

Without other options this trains the recipe `demo`. Every option changes one field of the recipe.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from cnnkit.config import MEANS, STRATEGIES, TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.recipes import DEFAULT, RECIPES, find_recipe

_UNSET = argparse.SUPPRESS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("--recipe", help=f"one of {', '.join(RECIPES)} (default: {DEFAULT})")
    parser.add_argument("--output", help="run folder (default: a free name in runs/)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    parser.add_argument(
        "--overwrite", action="store_true", help="start afresh where --output is a run already"
    )
    parser.add_argument("--download", action="store_true", help="let TFDS download the dataset")
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")

    fields = parser.add_argument_group("fields of the recipe")

    def field(flag: str, **options: Any) -> None:
        fields.add_argument(flag, default=_UNSET, **options)

    field("--model", help="a network that `cnnkit models` lists")
    field(
        "--model-option",
        action="append",
        metavar="NAME=VALUE",
        help="an argument of the builder, for example dropout=0 (repeatable)",
    )
    field("--dataset", help="digits, folder:PATH or tfds:NAME")
    field("--image-size", type=int, metavar="PIXELS", help="side of the images")
    field("--mean", choices=MEANS, help="colour that the model subtracts")
    field("--epochs", type=int, help="times that every image is shown")
    field("--batch-size", type=int, metavar="IMAGES", help="images in a step, over all replicas")
    field("--learning-rate", type=float, metavar="RATE", help="at the beginning")
    field(
        "--drop-epochs",
        type=int,
        nargs="*",
        metavar="EPOCH",
        help="epochs before which the learning rate drops",
    )
    field("--drop-factor", type=float, metavar="FACTOR", help="what a drop multiplies it with")
    field("--momentum", type=float, help="part of the last step that is kept")
    field("--weight-decay", type=float, metavar="DECAY", help="factor of the weights")
    field("--seed", type=int, help="decides everything random")
    field("--strategy", choices=STRATEGIES, help="one device, or replicas that share every batch")
    field("--replicas", type=int, help="replicas under --strategy mirrored")


def run(args: argparse.Namespace) -> int:
    """Trains, with progress on the terminal."""
    if args.resume and not args.output:
        raise UsageError("Which run is to be resumed?", expected="--resume with --output RUN")
    if args.resume and args.overwrite:
        raise UsageError("A run is either resumed or overwritten", received="both")
    config = _config(args)
    output = Path(args.output) if args.output else _free_folder(args.recipe or DEFAULT)

    from cnnkit.commands._tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.commands._progress import TerminalProgress
    from cnnkit.runs import Run
    from cnnkit.training import train

    out = sys.stderr if args.json else sys.stdout
    progress = TerminalProgress(out)
    try:
        finished = train(
            config,
            output,
            resume=args.resume,
            overwrite=args.overwrite,
            download=args.download,
            progress=progress,
        )
    except KeyboardInterrupt:
        if Run(output).exists():
            resume = f"cnnkit train --resume --output {output}"
            print(f"\nStopped; the last whole epoch is kept. Go on with: {resume}", file=sys.stderr)
        raise
    if args.json:
        print(json.dumps({"run": str(output), **finished.metrics[-1]}))
    else:
        error = 1 - finished.metrics[-1]["val_accuracy"]
        print(f"done: {output}, {error:.1%} error on the held-out images")
    return 0


def _config(args: argparse.Namespace) -> TrainingConfig:
    given = vars(args)
    changes = {
        item.name: given[item.name]
        for item in dataclasses.fields(TrainingConfig)
        if item.name in given
    }
    if "drop_epochs" in changes:
        changes["drop_epochs"] = tuple(changes["drop_epochs"])
    if args.resume and not args.recipe:
        from cnnkit.runs import Run

        base = Run.open(args.output).config
    else:
        base = find_recipe(args.recipe or DEFAULT).config
    # The options belong to the recipe's own network.
    same_network = changes.get("model", base.model) == base.model
    options = dict(base.model_options) if same_network else {}
    for text in given.get("model_option", ()):
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                "A model option has a value", expected="--model-option NAME=VALUE", received=text
            )
        options[name] = _value(value)
    return dataclasses.replace(base, **changes, model_options=options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _free_folder(name: str) -> Path:
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
