"""Load the network that a command works on: a run folder, a model file or a weights file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._file_tree import is_exported
from cnnkit._network_options import check_imagenet_network
from cnnkit._networks import IMAGENET
from cnnkit.cli.arguments import (
    MODEL_OPTION_HELP,
    PREPROCESSINGS,
    add_preprocessing_arguments,
    parse_model_options,
    preprocessing_arguments,
)
from cnnkit.cli.console import read_labels
from cnnkit.cli.network_words import check_network_words, network_outline
from cnnkit.cli.values import RANDOM, Whole, network_names, network_path
from cnnkit.errors import UsageError
from cnnkit.run_folder import MODEL, RunFolder

if TYPE_CHECKING:
    import keras

    from cnnkit._network_outline import NetworkOutline
    from cnnkit.data import Augmentation
    from cnnkit.export import Origin
    from cnnkit.models.preprocessing import Preprocessing

NETWORK_HELP = (
    "run folder, .keras file, or weights file of others; or `random` or `imagenet` with --model"
)


@dataclass(frozen=True)
class LoadedModel:
    """A network and its origin.

    Attributes:
        model: The network.
        path: The path or word that named it.
        run: The run folder that it was loaded from, or None.
        given_labels: Class names in place of the network's own, or None.
        localizer: The network with its boxes, of which `model` is the classifier; or None.
    """

    model: keras.Model
    path: str
    run: RunFolder | None = None
    given_labels: tuple[str, ...] | None = None
    localizer: keras.Model | None = None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class names; numbers where they are not known."""
        from cnnkit.models import class_names

        if self.given_labels is not None:
            return self.given_labels
        if self.run is not None:
            return self.run.class_names
        return class_names(self.model) or tuple(map(str, range(self.model.output_shape[-1])))

    @cached_property
    def augmentation(self) -> Augmentation | None:
        """The crop of the run's held-out images; None without a run."""
        from cnnkit.training.inputs import held_out_augmentation

        return None if self.run is None else held_out_augmentation(self.run.config)

    @cached_property
    def origin(self) -> Origin:
        """The source, dataset, epochs and error for a model card."""
        from cnnkit.export import Origin

        if self.run is None:
            return Origin(Path(self.path).name)
        progress = self.run.progress
        metrics, result = progress.lines, progress.result
        accuracy = None if result is None else result["val_accuracy"]
        return Origin(
            f"the run {self.run.path.resolve().name}",
            _without_folders(self.run.config.dataset),
            len(metrics),
            None if accuracy is None else 1 - accuracy,
        )


def add_network_arguments(
    parser: argparse.ArgumentParser, dest: str = "network", **options: Any
) -> None:
    """Declare the positional argument of a network, and the options of `add_builder_arguments`.

    Args:
        parser: The command's parser.
        dest: Attribute of the parsed arguments that holds the path, or the paths.
        **options: Further arguments of `add_argument`, such as `nargs="+"` or another `help`.
    """
    parser.add_argument(
        dest, **{"metavar": "MODEL", "help": NETWORK_HELP, "type": network_path, **options}
    )
    add_builder_arguments(parser)


def add_builder_arguments(parser: argparse._ActionsContainer, *, seed: bool = True) -> None:
    """Declare the options that say what a weights file does not: its network, its preprocessing.

    Args:
        parser: A parser or an argument group.
        seed: Whether to declare `--model-seed`.
    """
    parser.add_argument(
        "--model",
        type=network_names,
        metavar="NAME",
        help="the architecture of a weights file, one that `cnnkit models` lists",
    )
    parser.add_argument(
        "--model-option", action="append", default=[], metavar="NAME=VALUE", help=MODEL_OPTION_HELP
    )
    add_preprocessing_arguments(parser, scale=False)
    if seed:
        parser.add_argument(
            "--model-seed", type=Whole(minimum=0), default=0, help="of `random` weights"
        )


def builder_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_builder_arguments` as keyword arguments of `load_network`.

    Raises:
        UsageError: If a `--model-option` has no value, or `--mean` or `--std` is not a color.
    """
    return {
        "model": args.model,
        "options": parse_model_options(args.model_option),
        "preprocessing": preprocessing_arguments(args, scale=False),
        "seed": getattr(args, "model_seed", 0),
    }


def check_networks(
    args: argparse.Namespace, paths: Sequence[str], *, class_names: Sequence[str] | None = None
) -> list[NetworkOutline | None]:
    """Check before TensorFlow starts that networks can be named so, and have what is asked of them.

    Args:
        args: The arguments of `add_builder_arguments`.
        paths: The networks, as `load_networks` takes them.
        class_names: Names of the classes that the command uses in place of the networks' own.

    Returns:
        The outline of each network; None where TensorFlow is needed to know it.

    Raises:
        UsageError: If new weights are asked for without an architecture, the numbers of networks
            and architectures differ, a `--model-option` has no value or stands beside a folder
            with its own network, or a network has no such layer, unit or class.
        RunError: If a run is not finished.
    """
    options = builder_arguments(args)["options"]
    outlines = []
    for path, name in zip(paths, _names_of_networks(args.model, len(paths)), strict=True):
        if Path(path).is_dir():
            _refuse_model_options(path, options)
            if not is_exported(Path(path)) and not (Path(path) / MODEL).is_file():
                RunFolder.open(path).finished_model()
        if path == RANDOM and name is None and not Path(path).exists():
            raise _unnamed_network()
        if path == IMAGENET and (name is not None or not Path(path).exists()):
            head = {key: options[key] for key in ("include_top", "classes") if key in options}
            check_imagenet_network(name, **head)
        outline = network_outline(path, name, options)
        if outline is not None:
            check_network_words(args, outline, class_names)
        outlines.append(outline)
    return outlines


def load_network(
    path: str,
    *,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    seed: int = 0,
    labels_file: str | None = None,
    classifier: bool = False,
) -> LoadedModel:
    """Load a run folder, a `.keras` file, a weights file of others, or fresh weights.

    Args:
        path: The folder or file, or `random` or `imagenet` for a network without a file.
        model: Architecture of a weights file; None takes the only one that fits.
        options: Arguments of the architecture's builder.
        preprocessing: What the file does not say about its preprocessing, as arguments of
            `open_weights`.
        seed: Seed of `random` weights.
        labels_file: File of the class names, one a line, in place of the network's own.
        classifier: Whether to refuse weights without dense layers, and to take a `.keras` file as
            the weights of `model` where that is given.

    Returns:
        The network; of one with boxes, the classifier in it.

    Raises:
        UsageError: If there is no such file, `model` is missing, the file does not fit it, or
            neither the file nor `preprocessing` says what pixels the network expects.
        RunError: If a converted model does not give the outputs that it gave when converted.
    """
    from cnnkit import models
    from cnnkit.models.loading import options_for_weights
    from cnnkit.models.localizer import class_part
    from cnnkit.models.preprocessing import IMAGENET_MEAN, Preprocessing, override_preprocessing

    options = options or {}
    given = {name: value for name, value in (preprocessing or {}).items() if value is not None}
    labels = None if labels_file is None else read_labels(labels_file)
    place = Path(path)
    if path in (RANDOM, IMAGENET) and (model is not None or not place.exists()):
        if given:
            stated = override_preprocessing(Preprocessing(IMAGENET_MEAN), **_preset(given))
            options = {**options, "preprocessing": stated}
        network = _fresh_network(path, model, options, seed)
        return LoadedModel(network, path, given_labels=labels)
    if not place.exists() or place.is_dir() or _is_model(place, model, classifier):
        if place.exists():
            _refuse_model_options(path, options)
        run = RunFolder(place)
        whole = _load_model(path, given, is_run=run.exists())
        network, of_run = class_part(whole), run if run.exists() else None
        return LoadedModel(network, path, of_run, labels, None if whole is network else whole)
    from cnnkit.models.weights.compatible import only_compatible

    weights = models.open_weights(path, **given)
    _check_pixels_are_known(path, weights.preprocessing)
    if classifier and weights.classes is None:
        raise UsageError(f"{path} has no dense layers", expected="weights of a classifier")
    network = models.build(
        model or only_compatible(weights),
        weights=weights,
        **options_for_weights(weights, options),
    )
    return LoadedModel(network, path, given_labels=labels)


def _refuse_model_options(path: str, options: Mapping[str, Any]) -> None:
    """Refuse options of a builder for a run folder or a model."""
    if options:
        raise UsageError(
            f"{path} holds its own network, which --model-option does not change",
            expected="a weights file with --model-option",
            received=", ".join(options),
        )


def _is_model(file: Path, model: str | None, classifier: bool) -> bool:
    """Return True for a file of a model that is not to be read as the weights of another."""
    if file.suffix == ".keras":
        return not (classifier and model is not None)
    from cnnkit.models.loading import holds_model

    return model is None and holds_model(file)


def _load_model(path: str, given: Mapping[str, Any], *, is_run: bool) -> keras.Model:
    """Load a run folder or a file of a model; ask what it expects if nothing says it."""
    from cnnkit import models
    from cnnkit.models.loading import expected_of_file
    from cnnkit.models.preprocessing import override_preprocessing

    if is_run or not Path(path).exists():
        return models.load_model(path, preprocessing=given.get("preprocessing"))
    expected = expected_of_file(path)
    if not given:
        _check_pixels_are_known(path, expected)
        return models.load_model(path)
    stated = override_preprocessing(expected, **_preset(given))
    return models.load_model(path, preprocessing=stated)


def _check_pixels_are_known(path: str, preprocessing: Preprocessing) -> None:
    if preprocessing.origin == "unknown":
        raise UsageError(
            f"--preprocessing must say what pixels {path} expects",
            expected=f"--preprocessing {', '.join(PREPROCESSINGS[:-1])} or {PREPROCESSINGS[-1]}",
            received=preprocessing.reason or "nothing in the file",
            hint="`unit` is for images divided by 255, `raw` for 0..255",
        )


def _preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `open_weights` as those of `override_preprocessing`."""
    return {{"preprocessing": "preset"}.get(name, name): value for name, value in given.items()}


def load_from_arguments(args: argparse.Namespace) -> LoadedModel:
    """Load the network that the options of `add_network_arguments` name.

    Raises:
        UsageError: As `load_network`.
    """
    return load_network(args.network, **builder_arguments(args))


def load_networks(
    paths: Sequence[str],
    *,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[keras.Model]:
    """Load several networks; `model` names one architecture for all, or one each, with commas.

    Raises:
        UsageError: As `load_network`, or if `model` has another number of names.
    """
    named = _names_of_networks(model, len(paths))
    return [
        load_network(
            path, model=name, options=options, preprocessing=preprocessing, seed=seed
        ).model
        for path, name in zip(paths, named, strict=True)
    ]


def _names_of_networks(model: str | None, count: int) -> list[str | None]:
    """Return the architecture of each of some networks."""
    names: list[str | None] = [None] if model is None else [*model.split(",")]
    if len(names) not in (1, count):
        raise UsageError(
            "--model must name one network, or one for each file",
            expected=f"one name, or {count} with commas",
            received=model,
        )
    return names * count if len(names) == 1 else names


def _unnamed_network() -> UsageError:
    return UsageError(
        f"--model must name the network that gets {RANDOM} weights",
        expected="--model NAME, one that `cnnkit models` lists",
    )


def _fresh_network(
    word: str, model: str | None, options: Mapping[str, Any], seed: int
) -> keras.Model:
    import keras

    from cnnkit import models

    if model is None and word == RANDOM:
        raise _unnamed_network()
    if word == IMAGENET:
        check_imagenet_network(model)
    keras.utils.set_random_seed(seed)
    return models.build(str(model), weights=IMAGENET if word == IMAGENET else None, **options)


def _without_folders(spec: str) -> str:
    """Return a dataset's name without the folders of the machine that it was trained on."""
    kind, colon, place = spec.partition(":")
    return kind + colon + Path(place).name
