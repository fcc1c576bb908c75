"""`cnnkit train --estimate`: what a training takes on this machine, beside known times."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnnkit.cli.console import print_json, print_line, print_table
from cnnkit.config import TrainingConfig
from cnnkit.recipes import Recipe
from cnnkit.recipes.recipe import IMAGENET

if TYPE_CHECKING:
    from cnnkit.training import TrainingEstimate

# Seconds of the measurement by default.
ESTIMATE_SECONDS = 60.0
# Training and validation images of ILSVRC-2012, which the recipes of the papers train on.
IMAGENET_IMAGES = 1_281_167, 50_000
_UNITS = (("days", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))


def estimate_and_report(
    args: argparse.Namespace, recipe: Recipe, configs: Sequence[tuple[str, TrainingConfig]]
) -> int:
    """Measure some steps of each stage of a recipe, and print what the whole takes.

    Args:
        args: The parsed arguments.
        recipe: The recipe.
        configs: The result of `stage_configs`, with the changes that the arguments ask for.
    """
    from cnnkit.cli.quiet_tensorflow import import_tensorflow

    import_tensorflow()
    from cnnkit.training import estimate_training

    seconds = args.estimate / len(configs)

    def report(message: str) -> None:
        print_line(f"{message}; measuring for {seconds:g} s", sys.stderr)

    estimates = [
        (name, estimate_training(config, seconds=seconds, download=args.download, report=report))
        for name, config in configs
    ]
    # Another dataset in place of ImageNet tells the time of a step.
    of_imagenet = [
        (name, one.with_images(*IMAGENET_IMAGES))
        for (name, one), (_, config) in zip(estimates, stage_configs(recipe), strict=True)
        if config.dataset == IMAGENET and configs[0][1].dataset != IMAGENET
    ]
    if args.json:
        document: dict[str, Any] = _document(estimates)
        if of_imagenet:
            document["imagenet"] = _document(of_imagenet)
        print_json({**document, "paper": recipe.cost}, indent=2)
        return 0
    for name, one in estimates:
        _print(name, one)
    if len(estimates) > 1:
        _print_total("all stages", estimates)
    if of_imagenet:
        _print_total(
            "with ImageNet's {:,} training and {:,} held-out images".format(*IMAGENET_IMAGES),
            of_imagenet,
        )
    print_line(f"known times: {recipe.cost}")
    return 0


def stage_configs(recipe: Recipe) -> list[tuple[str, TrainingConfig]]:
    """Return the name and the configuration of each stage; one without a name if there are none."""
    stages = [(stage.name, stage.config) for stage in recipe.stages]
    return stages or [("", recipe.config)]


def _document(estimates: Sequence[tuple[str, TrainingEstimate]]) -> dict[str, Any]:
    return {
        "total_seconds": sum(one.total_seconds for _, one in estimates),
        "stages": [
            {
                "name": name,
                **dataclasses.asdict(one),
                "images_per_second": one.images_per_second,
                "epoch_seconds": one.epoch_seconds,
                "total_seconds": one.total_seconds,
            }
            for name, one in estimates
        ],
    }


def _print(name: str, one: TrainingEstimate) -> None:
    low, high = one.step_spread
    print_line(
        f"{name + ': ' if name else ''}{one.training_images:,} training and "
        f"{one.held_out_images:,} held-out images, {one.classes} classes, {one.epochs} epochs of "
        f"{one.steps_per_epoch:,} steps"
    )
    rows = [
        (
            f"a step of {one.batch_size} images", duration_text(one.step_seconds),
            f"{one.images_per_second:,.1f} images/s; {one.steps} steps, "
            f"{duration_text(low)} to {duration_text(high)}",
        ),
        ("an epoch", duration_text(one.epoch_seconds), "with the held-out images and checkpoints"),
        ("all epochs", duration_text(one.total_seconds), "at most, if training may end early"),
        ("memory", f"{one.memory_bytes / 1e9:.1f} GB", "resident so far"),
        ("disk", f"{one.disk_bytes / 1e9:.2f} GB", "checkpoints and networks"),
    ]  # fmt: skip
    print_table([{"": what, "value": value, "of": of} for what, value, of in rows])


def _print_total(what: str, estimates: Sequence[tuple[str, TrainingEstimate]]) -> None:
    print_line(f"{what}: {duration_text(sum(one.total_seconds for _, one in estimates))}")


def duration_text(seconds: float) -> str:
    """Return a duration with a unit that suits it.

    Example:
        >>> duration_text(0.0123), duration_text(90), duration_text(2.7e6)
        ('12.3 ms', '1.5 min', '31.2 days')
    """
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= size), _UNITS[-1])
    return f"{seconds / size:.1f} {unit}"
