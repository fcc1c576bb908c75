"""The trained network that a command is asked about, and how it sees images, as arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cnnkit.commands._options import HELP, model_options
from cnnkit.errors import UsageError

RANDOM, IMAGENET = "random", "imagenet"
MODEL_HELP = (
    "run folder, .keras file, or weights file of others; or `random` or `imagenet` with --model"
)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Declares how a network is named where its file does not tell."""
    parser.add_argument("--model", metavar="NAME", help="which network a weights file is of")
    parser.add_argument(
        "--model-option", action="append", default=[], metavar="NAME=VALUE", help=HELP
    )
    parser.add_argument("--model-seed", type=int, default=0, help="of `random` weights")


def open_network(path: str, args: argparse.Namespace) -> Any:
    """Returns the Keras model that `path` names.

    Raises:
        UsageError: If there is none, or a weights file needs `--model`.
    """
    import keras

    from cnnkit import models
    from cnnkit.config import TrainingConfig
    from cnnkit.training.beginning import first_network

    options = model_options(args.model_option)
    if path in (RANDOM, IMAGENET):
        if args.model is None:
            raise UsageError(
                f"Which network has {path} weights?",
                hint="Name it: --model NAME, as in `cnnkit models`",
            )
        keras.utils.set_random_seed(args.model_seed)
        weights = IMAGENET if path == IMAGENET else None
        return models.build(args.model, weights=weights, **options)
    _check_named(path, args.model)
    config = TrainingConfig(
        model=args.model or TrainingConfig.model, model_options=options, init_from=path
    )
    return first_network(config)


def open_networks(paths: Sequence[str], args: argparse.Namespace) -> list[Any]:
    """Returns the Keras models that `paths` name; `--model` may name one for each, with commas.

    Raises:
        UsageError: As `open_network`, or if there are as many names neither as one nor as paths.
    """
    names = [None] if args.model is None else args.model.split(",")
    if len(names) not in (1, len(paths)):
        raise UsageError(
            "Which network each file is of",
            expected=f"--model with one name, or {len(paths)} with commas",
            received=args.model,
        )
    named = names * len(paths) if len(names) == 1 else names
    return [
        open_network(path, argparse.Namespace(**{**vars(args), "model": name}))
        for path, name in zip(paths, named, strict=True)
    ]


def add_protocol(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Declares how an image becomes a vector."""
    layers: dict[str, Any] = {"nargs": "+"} if many else {}
    parser.add_argument(
        "--layer", default=["fc7"] if many else "fc7", help="default: fc7", **layers
    )
    parser.add_argument(
        "--scales",
        type=sides,
        default=(),
        metavar="SIDE,SIDE,...",
        help="see the whole image, its shorter side rescaled to each (default: the centre, once)",
    )
    parser.add_argument(
        "--aggregate", default="stack", help="over the scales: stack (default), average or max"
    )
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirrored image (default: with --scales)",
    )
    parser.add_argument(
        "--pool", help="of a map: average, max or flatten (default: average with --scales)"
    )
    parser.add_argument("--no-l2", action="store_true", help="leave vectors as long as they are")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="for a network of no fixed size"
    )


def protocol_of(args: argparse.Namespace, layer: str):
    """Returns the protocol that the arguments describe."""
    from cnnkit.features import Protocol

    return Protocol.named(
        layer,
        scales=args.scales,
        aggregate=args.aggregate,
        flip=args.flip,
        pool=args.pool,
        l2=not args.no_l2,
        image_size=args.image_size,
    )


def sides(text: str) -> tuple[int, ...]:
    """Reads whole numbers with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers with commas, not {text!r}") from None


def counting(total: int, description: str):
    """Returns a progress bar over images on a terminal; `update` counts, `close` ends it."""
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=" images", leave=False, disable=None)


def _check_named(path: str, model: str | None) -> None:
    """Makes sure that a weights file of others comes with the name of a network."""
    from pathlib import Path

    file = Path(path)
    if model is None and file.is_file() and file.suffix != ".keras":
        from cnnkit.models import open_weights
        from cnnkit.models.weights.fitting import fits

        fitting = [fit.network for fit in fits(open_weights(file)) if fit.problem is None]
        raise UsageError(
            f"{path} does not tell which network it is of",
            expected=_choices(fitting),
            hint="Name it: --model NAME",
        )


def _choices(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}" if names else "one of those that `cnnkit models` lists"
