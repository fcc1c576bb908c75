"""Fine-tune a trained network on your own images.

The command trains a new classifier on the frozen network first, then also the layers between the
last two poolings, at a lower learning rate. It keeps the network with the lowest error on the
held-out images, and ends when that no longer improves.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cnnkit.cli.arguments import add_config_arguments, given_fields
from cnnkit.cli.console import print_line, request_bar
from cnnkit.cli.network_words import check_finetune_words
from cnnkit.cli.parser import require_packages
from cnnkit.cli.train_runs import (
    add_output_arguments,
    add_progress_arguments,
    free_folder,
    progress_stream,
    train_and_report,
)
from cnnkit.cli.values import (
    DatasetSpec,
    OutputFile,
    output_folder,
    pretrained_network,
)
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.recipes import TrainingStage
from cnnkit.run_folder import RunFolder
from cnnkit.stage_folder import (
    check_stages_available,
    read_stages,
    replace_stages,
    train_stages,
    write_stages,
)

if TYPE_CHECKING:
    from cnnkit.cli.train_runs import TrainFunction

# Fields that the command sets itself, or has an option of its own for.
OWN_FIELDS = ("dataset", "init_from", "weight_mapping", "strategy", "replicas")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "weights",
        metavar="WEIGHTS",
        nargs="?",
        type=pretrained_network,
        help="run folder, .keras file, or weights file of others, of the trained network; or"
        " `imagenet` with --model vgg16 or vgg19",
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        nargs="?",
        type=DatasetSpec(),
        help="the images, for example folder:photos with a subfolder for each class",
    )
    add_output_arguments(parser)
    parser.add_argument(
        "--lr-find",
        metavar="PICTURE",
        type=OutputFile(".png", ".svg", ".pdf"),
        help="try learning rates before the second stage, draw their losses, and use the one found",
    )
    parser.add_argument(
        "--export",
        metavar="FOLDER",
        type=output_folder,
        help="export the network at the end, as `cnnkit export` does",
    )
    add_progress_arguments(parser)
    add_config_arguments(parser, without=OWN_FIELDS)


def run(args: argparse.Namespace) -> int:
    """Fine-tune, with progress on the terminal."""
    _check_arguments(args)
    if args.lr_find:
        from cnnkit.figures.canvas import check_picture, require_matplotlib

        require_matplotlib()
        check_picture(args.lr_find, option="--lr-find", overwrite=args.overwrite)
    if args.tensorboard:
        require_packages("tensorboard", purpose="--tensorboard")
    output = Path(args.output) if args.output else free_folder(_name(args.dataset))
    out = progress_stream(args)
    if not args.resume:
        check_stages_available(output, overwrite=args.overwrite)

    def work(train: TrainFunction) -> list[RunFolder]:
        if args.resume:
            stages = read_stages(output)
        else:
            from cnnkit.training.finetune import finetuning_stages

            fields = given_fields(args, without=OWN_FIELDS)
            stages = list(
                finetuning_stages(args.weights, args.dataset, download=args.download, **fields)
            )
            write_stages(output, stages, overwrite=args.overwrite)

        def train_stage(config: TrainingConfig, folder: Path, resume: bool) -> RunFolder:
            if args.lr_find and folder.name == stages[-1].name and not resume:
                config = _with_found_rate(args, config, output, stages)
            return train(config, folder, resume, {"recipe": "finetune"})

        train_stages(output, stages, train_stage, lambda text: print_line(text, out))
        return [RunFolder(output)]

    def work_on_one_dataset(train: TrainFunction) -> list[RunFolder]:
        from cnnkit.data.load import open_datasets_once

        with open_datasets_once():
            return work(train)

    code = train_and_report(args, output, work_on_one_dataset)
    if code == 0 and not args.json:
        print_line(f"ask it about a photo: cnnkit predict {output} PHOTO", out)
    if args.export and code == 0:
        _export(output, args.export, out)
    return code


def _check_arguments(args: argparse.Namespace) -> None:
    if args.resume:
        if not args.output or args.weights or args.overwrite:
            raise UsageError(
                "--resume goes on with the weights, images and settings of --output",
                expected="cnnkit finetune --resume --output RUN",
            )
        return
    if not args.weights or not args.dataset:
        raise UsageError(
            "`weights` and `dataset` must be given",
            expected="cnnkit finetune WEIGHTS folder:PHOTOS",
        )
    check_finetune_words(args.weights, args.dataset, given_fields(args, without=OWN_FIELDS))


def _name(dataset: str) -> str:
    """Return a name for the run of a dataset: the last part of its path."""
    return Path(dataset.rpartition(":")[2] or "finetuned").name or "finetuned"


def _with_found_rate(
    args: argparse.Namespace, config: TrainingConfig, output: Path, stages: list[TrainingStage]
) -> TrainingConfig:
    """Return a configuration with the learning rate of a sweep, which the stages keep."""
    from cnnkit.figures.learning_rates import draw_learning_rate_sweep
    from cnnkit.training.learning_rate_sweep import sweep_learning_rate

    # The classifier, whose rate is known, stays as it is.
    still = dict.fromkeys(config.lr_multipliers, 0.0)
    sweep = sweep_learning_rate(dataclasses.replace(config, lr_multipliers=still))
    draw_learning_rate_sweep(
        sweep.rates, sweep.losses, sweep.suggestion, args.lr_find, overwrite=args.overwrite
    )
    factor = config.learning_rate / sweep.suggestion
    changes: dict[str, Any] = {
        "learning_rate": sweep.suggestion,
        # The classifier keeps its own rate.
        "lr_multipliers": {name: one * factor for name, one in config.lr_multipliers.items()},
    }
    last = dataclasses.replace(stages[-1].config, **changes)
    replace_stages(output, [*stages[:-1], dataclasses.replace(stages[-1], config=last)])
    print_line(
        f"learning rate {sweep.suggestion:g}, of a sweep: {args.lr_find}", progress_stream(args)
    )
    return dataclasses.replace(config, **changes)


def _export(output: Path, folder: str, out: TextIO) -> None:
    from cnnkit.cli.load_network import load_network
    from cnnkit.data import Decoding
    from cnnkit.export import export

    loaded = load_network(str(output), classifier=True)
    version = export(
        loaded.model,
        loaded.labels,
        folder,
        augmentation=loaded.augmentation,
        decoding=Decoding.from_config(RunFolder(output).config),
        origin=loaded.origin,
        progress=request_bar,
    )
    print_line(f"{version}: reloaded, answers as the trained model does", out)
