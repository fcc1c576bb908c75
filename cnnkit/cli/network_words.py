"""Check names of layers, units and classes against the networks, before TensorFlow starts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnkit._dataset_spec import missing_boxes
from cnnkit._files import read_lines
from cnnkit._network_names import (
    check_class_names,
    check_crop_side,
    check_exported_explanation,
    check_multipliers,
    check_square,
    match_frozen,
)
from cnnkit._network_options import (
    check_builder_options,
    check_image_sides,
    check_imagenet_network,
    check_trained_options,
)
from cnnkit._network_outline import NetworkOutline, outline_of_builder, outline_of_file
from cnnkit._networks import IMAGENET
from cnnkit.cli.arguments import PREPROCESSINGS
from cnnkit.cli.console import read_labels
from cnnkit.cli.values import RANDOM
from cnnkit.config import TrainingConfig
from cnnkit.errors import unknown_name
from cnnkit.run_folder import MODEL, RunFolder, names_imagenet
from cnnkit.server.version_folders import newest_version

# Attributes of parsed arguments that name layers; the first one is that of `--unit`.
_LAYER = "layer"
_LAYERS = (_LAYER, "down_to", "explain_layers", "features_layer")
# Prefix of the signatures that explain the units of a layer.
_EXPLAIN = "explain_bytes_"


def network_outline(
    path: str, model: str | None = None, options: dict[str, Any] | None = None
) -> NetworkOutline | None:
    """Return the outline of the network that a command names; None if it is not known yet.

    Args:
        path: The network, as `load_network` takes it.
        model: Name of the architecture of a weights file.
        options: Arguments of its builder.
    """
    place = Path(path)
    if place.is_dir():
        return outline_of_file(place / MODEL)
    if model is None:
        return outline_of_file(place) if place.is_file() else None
    check_builder_options(model, options or {})
    # The configuration in a .keras file may count, or that of the architecture.
    if place.suffix == ".keras":
        return None
    outline = outline_of_builder(model, options or {})
    if path in (RANDOM, IMAGENET) or outline is None:
        return outline
    # A weights file decides whether there are dense layers, and how many classes.
    return NetworkOutline(outline.name, outline.units)


def check_network_words(
    args: argparse.Namespace, outline: NetworkOutline, class_names: Sequence[str] | None = None
) -> None:
    """Check the options of a command that name layers, units and classes of a network, and sizes.

    Args:
        args: The parsed arguments. Those that a command does not have are not checked.
        outline: The network.
        class_names: Names of its classes that the command uses in place of those in its file.

    Raises:
        UsageError: If the network has no such layer, unit or class, or takes images of another
            size.
    """
    layers = list(_words(args, _LAYER))
    for dest in _LAYERS:
        for name in _words(args, dest):
            outline.find_layer(name)
    for name in _words(args, "signatures"):
        if name.startswith(_EXPLAIN):
            outline.find_layer(name.removeprefix(_EXPLAIN))
    for unit in _words(args, "unit"):
        for layer in layers:
            outline.check_unit(layer, unit)
        # Without a layer, words are classes, and numbers are units of a layer found later.
        if not layers and isinstance(unit, str):
            outline.check_class(unit)
    file = getattr(args, "labels", None)
    names = read_labels(file) if file is not None else class_names
    if names is not None and outline.classes is not None:
        check_class_names(names, outline.classes)
    for label in _words(args, "target"):
        outline.check_class(label, names)
    if outline.sides is not None:
        check_crop_side(max(outline.sides), getattr(args, "image_size", None))
        for square in _words(args, "square"):
            check_square((square, square), outline.sides)


def check_finetune_words(weights: str, dataset: str, fields: Mapping[str, Any]) -> None:
    """Check the network that fine-tuning begins with, and names in its options.

    Args:
        weights: Run folder, model or weights file.
        dataset: The dataset to train on.
        fields: Fields of `TrainingConfig` that are given.

    Raises:
        UsageError: As `check_training_words`.
        RunError: If `weights` is a run that is not finished.
    """
    run = RunFolder(Path(weights))
    options = {**fields.get("model_options", {})}
    model = fields.get("model")
    if names_imagenet(weights):
        check_imagenet_network(model)
    elif run.exists():
        run.finished_model()
        model = model or run.config.model
        options = {**run.config.model_options, **options}
    _check_trained(model, options, fields.get("image_size"), begins_trained=True)
    _check_inputs(fields.get("init_options", {}), fields.get("task", ""), dataset)
    if model is not None:
        outline = outline_of_builder(model, options)
        if outline is not None and outline.weighted:
            match_frozen(outline.weighted, fields.get("freeze", ()), model)


def check_training_words(config: TrainingConfig) -> None:
    """Check the names of layers in a configuration of a training, and the run it begins with.

    Raises:
        UsageError: If a pattern of `freeze`, or of a multiplier, fits no layer with weights, or the
            network has no such option.
        RunError: If `init_from` is a run that is not finished.
    """
    _check_trained(
        config.model,
        config.model_options,
        config.image_size,
        begins_trained=config.init_from is not None,
    )
    _check_inputs(config.init_options, config.task, config.dataset)
    if names_imagenet(config.init_from):
        check_imagenet_network(config.model)
    elif config.init_from is not None and RunFolder(Path(config.init_from)).exists():
        RunFolder(Path(config.init_from)).finished_model()
    outline = outline_of_builder(config.model, config.model_options)
    if outline is not None and outline.weighted:
        match_frozen(outline.weighted, config.freeze, config.model)
        names = [f"{name}/{kind}" for name in outline.weighted for kind in ("kernel", "bias")]
        for field in ("lr_multipliers", "weight_decay_multipliers"):
            check_multipliers(field, getattr(config, field), names)


def _check_trained(
    model: str | None, options: Mapping[str, Any], image_size: int | None, *, begins_trained: bool
) -> None:
    """Check the arguments of the builder of a network that is trained, and its images."""
    check_trained_options(options, begins_trained=begins_trained)
    if model is None:
        return
    check_builder_options(model, options)
    if image_size is not None:
        check_image_sides(model, (image_size, image_size), "image_size", options)


def _check_inputs(init_options: Mapping[str, Any], task: str, dataset: str) -> None:
    """Check what is known of the pixels that weights expect, and of the images of a training."""
    preset = init_options.get("preprocessing")
    if preset is not None and preset not in PREPROCESSINGS:
        raise unknown_name("preprocessing", preset, PREPROCESSINGS)
    if task == "localize" and not dataset.startswith("boxes:"):
        raise missing_boxes(dataset)


def _words(args: argparse.Namespace, dest: str) -> Iterator[Any]:
    """Yield the values of an option that takes one or several."""
    value = getattr(args, dest, None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        yield from value
    elif value is not None:
        yield value


def check_exported_words(args: argparse.Namespace, folder: Path) -> None:
    """Check the options of `cnnkit predict` for a folder that `cnnkit export` wrote.

    Args:
        args: The parsed arguments.
        folder: A version folder, NAME/<integer>/, or NAME/, whose newest version is taken.

    Raises:
        UsageError: If the folder holds no version, `--explain` is not what it can, or `--labels`
            has another number of names.
    """
    version = newest_version(folder)
    if args.explain is not None:
        check_exported_explanation(args.explain, args.target)
    own = version / "assets" / "labels.txt"
    if args.labels is not None and own.is_file():
        check_class_names(read_labels(args.labels), len(read_lines(own)))
