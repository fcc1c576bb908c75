"""The trained network that a command is asked about, from a run, a model or a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import keras

    from cnnkit.data import Augmentation
    from cnnkit.export import Origin
import argparse
from collections.abc import Sequence

from cnnkit.cli.arguments import MODEL_OPTION_HELP, parse_model_options


@dataclass(frozen=True)
class LoadedModel:
    """A network, and what is known of it.

    Attributes:
        model: The network.
        labels: Names of its classes; numbers where they are not known.
        augmentation: How held-out images were cut, or None where that is not known.
        origin: Where it comes from.
    """

    model: keras.Model
    labels: tuple[str, ...]
    augmentation: Augmentation | None
    origin: Origin


def load_network(
    path: str, name: str | None, options: Mapping[str, Any], labels_file: str | None
) -> LoadedModel:
    """Reads RUN, MODEL.keras or WEIGHTS.

    Args:
        path: A run folder, a `.keras` file, or a weights file of others.
        name: Network that the weights are of; None where only one fits.
        options: Arguments of its builder.
        labels_file: File of the class names, one a line, in place of those that come along.

    Raises:
        UsageError: If there is no such file, or it is not told which network it is.
        RunError: If the training of the run has not come to its end.
    """
    given = _of_run(Path(path)) if Path(path).is_dir() else _of_file(path, name, options)
    if labels_file is None:
        return given
    if not Path(labels_file).is_file():
        raise UsageError(f"No file {labels_file}", expected="class names, one a line")
    labels = tuple(Path(labels_file).read_text().splitlines())
    return replace(given, labels=labels)


def _of_run(path: Path) -> LoadedModel:
    from cnnkit.export import Origin
    from cnnkit.models import load_model
    from cnnkit.run_folder import RunFolder
    from cnnkit.training.inputs import held_out_augmentation

    run = RunFolder.open(path)
    model = load_model(run.finished_model())
    config, metrics = run.config, run.metrics
    accuracy = metrics[-1].get("val_accuracy") if metrics else None
    origin = Origin(
        f"the run {path.resolve().name}",
        _dataset(config.dataset),
        len(metrics),
        None if accuracy is None else 1 - accuracy,
    )
    return LoadedModel(model, run.labels, held_out_augmentation(config), origin)


def _of_file(path: str, name: str | None, options: Mapping[str, Any]) -> LoadedModel:
    from cnnkit.export import Origin
    from cnnkit.models import build, class_names, load_model, open_weights

    origin = Origin(Path(path).name)
    if path.endswith(".keras") and name is None:
        model = load_model(path)
    else:
        file = open_weights(path)
        if file.classes is None:
            raise UsageError(f"{path} has no dense layers", expected="weights of a classifier")
        model = build(name or _only_fit(file), weights=file, classes=file.classes, **options)
    named = class_names(model)
    if named is None:
        named = tuple(map(str, range(model.output_shape[-1])))
    return LoadedModel(model, named, None, origin)


def _only_fit(file) -> str:
    from cnnkit.models import BUILDERS
    from cnnkit.models.weights.compatible import compatible_networks

    fitting = [fit.network for fit in compatible_networks(file) if fit.problem is None]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise unknown_name("network of", str(file.path), BUILDERS, hint="Name it with --model")
    raise UsageError(
        f"{file.path} fits more than one network",
        expected=f"--model {' or '.join(fitting)}",
    )


def _dataset(spec: str) -> str:
    """Returns a dataset's name without the folders of the machine that it was trained on."""
    kind, colon, place = spec.partition(":")
    return kind + colon + Path(place).name


RANDOM, IMAGENET = "random", "imagenet"
MODEL_HELP = (
    "run folder, .keras file, or weights file of others; or `random` or `imagenet` with --model"
)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares how a network is named where its file does not tell."""
    parser.add_argument("--model", metavar="NAME", help="which network a weights file is of")
    parser.add_argument(
        "--model-option", action="append", default=[], metavar="NAME=VALUE", help=MODEL_OPTION_HELP
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
    from cnnkit.training.build import load_initial_model

    options = parse_model_options(args.model_option)
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
    return load_initial_model(config)


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


def add_spec_arguments(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Declares how an image becomes a vector."""
    layers: dict[str, Any] = {"nargs": "+"} if many else {}
    parser.add_argument(
        "--layer", default=["fc7"] if many else "fc7", help="default: fc7", **layers
    )
    parser.add_argument(
        "--scales",
        type=parse_scales,
        default=(),
        metavar="SIDE,SIDE,...",
        help="see the whole image, its shorter side rescaled to each (default: the center, once)",
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


def spec_from_arguments(args: argparse.Namespace, layer: str):
    """Returns the protocol that the arguments describe."""
    from cnnkit.features import FeatureSpec

    return FeatureSpec.named(
        layer,
        scales=args.scales,
        aggregate=args.aggregate,
        flip=args.flip,
        pool=args.pool,
        l2=not args.no_l2,
        image_size=args.image_size,
    )


def parse_scales(text: str) -> tuple[int, ...]:
    """Reads whole numbers with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers with commas, not {text!r}") from None


def progress_bar(total: int, description: str):
    """Returns a progress bar over images on a terminal; `update` counts, `close` ends it."""
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=" images", leave=False, disable=None)


def _check_named(path: str, model: str | None) -> None:
    """Makes sure that a weights file of others comes with the name of a network."""
    from pathlib import Path

    file = Path(path)
    if model is None and file.is_file() and file.suffix != ".keras":
        from cnnkit.models import open_weights
        from cnnkit.models.weights.compatible import compatible_networks

        fitting = [
            fit.network for fit in compatible_networks(open_weights(file)) if fit.problem is None
        ]
        raise UsageError(
            f"{path} does not tell which network it is of",
            expected=_choices(fitting),
            hint="Name it: --model NAME",
        )


def _choices(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}" if names else "one of those that `cnnkit models` lists"
