"""Procedures that give results of the papers: what they compute, and the files that they need."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit._networks import conv_stack_cost
from cnnkit.errors import RunError, UsageError
from cnnkit.papers import PaperResult
from cnnkit.recipes import find_recipe
from cnnkit.run_folder import RunFolder

if TYPE_CHECKING:
    from cnnkit.data import Dataset
    from cnnkit.models.summary import LayerSummary
    from cnnkit.training import Callback

Settings = Mapping[str, Any]
MILLION = 10**6


@dataclass(frozen=True)
class Inputs:
    """Files that a procedure works on.

    Attributes:
        data: Name of the dataset, as `cnnkit.data.load_dataset` takes it, or None.
        weights: Weights file, or None.
        batch_size: Number of images in a batch.
        progress: Called with the number of images done since the last call.
        runs: What the paths of run folders begin with; `-seedN` follows.
        callbacks: Callbacks of trainings.
    """

    data: str | None = None
    weights: Path | None = None
    batch_size: int = 64
    progress: Callable[[int], object] = lambda count: None
    runs: Path = Path("run")
    callbacks: Sequence[Callback] = ()


@dataclass(frozen=True)
class Procedure:
    """What gives a result.

    Attributes:
        measure: Function of the settings, the inputs and the seeds that yields a value for each
            seed, in the unit of the paper.
        needs: Names of the inputs that it needs.
        is_random: Whether seeds change the value; without chance there is one value.
    """

    measure: Callable[[Settings, Inputs, Sequence[int]], Iterator[float]]
    needs: tuple[str, ...] = ()
    is_random: bool = False


def _count(compute: Callable[[Settings], float]) -> Procedure:
    """Return the procedure of a value without chance."""

    def measure(settings: Settings, inputs: Inputs, seeds: Sequence[int]) -> Iterator[float]:
        yield compute(settings)

    return Procedure(measure)


def _summaries(settings: Settings) -> dict[str, LayerSummary]:
    """Return the summaries of the layers of a network by name."""
    from cnnkit.models.summary import build_without_weights, summarize_network

    with build_without_weights(settings["network"]) as model:
        return {layer.name: layer for layer in summarize_network(model)}


def _parameters(settings: Settings) -> float:
    return sum(layer.parameters for layer in _summaries(settings).values()) / MILLION


def _outputs(settings: Settings) -> float:
    layers = _summaries(settings)
    return sum(
        math.prod(side or 0 for side in layers[name].output_shape) for name in settings["layers"]
    )


def _map_side(settings: Settings) -> float:
    return _summaries(settings)[settings["layer"]].output_shape[0] or 0


def _stack_field(settings: Settings) -> float:
    return conv_stack_cost(settings["kernels"]).receptive_field


def _stack_weights(settings: Settings) -> float:
    """Return the weights of a stack, or the percentage by which they exceed those of another."""
    weights = conv_stack_cost(settings["kernels"]).weights_per_channel_squared
    if "than" not in settings:
        return weights
    return 100 * (weights / conv_stack_cost(settings["than"]).weights_per_channel_squared - 1)


def _crop_positions(settings: Settings) -> float:
    return float(2 * (settings["image_size"] - settings["crop_size"] + 1) ** 2)


def _crops(settings: Settings) -> float:
    from cnnkit.evaluation.protocols import find_protocol

    protocol = find_protocol(settings["protocol"])
    return len(protocol.positions) * (1 + protocol.flip) * len(settings["scales"])


def _transfer(settings: Settings, inputs: Inputs, seeds: Sequence[int]) -> Iterator[float]:
    """Yield the mean class recall in % on the random split of each seed."""
    from cnnkit import models
    from cnnkit.features import FeatureBatch, FeatureSpec, extract_layers, select_features_split
    from cnnkit.models.loading import options_for_weights
    from cnnkit.transfer import score_features
    from cnnkit.transfer.benchmark import check_splits

    dataset = open_data(inputs)
    layer, per_class = settings["layer"], settings["per_class"]
    check_splits(dataset, [per_class], settings["test_per_class"], seeds[0])
    weights = models.open_weights(str(inputs.weights))
    if weights.preprocessing.origin == "unknown":
        raise UsageError(
            "`weights` must say what pixels the network expects",
            received=inputs.weights,
            hint="`cnnkit weights convert` writes a file that does",
        )
    network = models.build(settings["network"], weights=weights, **options_for_weights(weights, {}))
    images = select_features_split(dataset)
    spec = FeatureSpec.with_defaults(
        layer, image_size=settings.get("image_size"), scales=tuple(settings.get("scales", ()))
    )
    found = extract_layers(
        network, images, [layer], spec=spec, batch_size=inputs.batch_size, progress=inputs.progress
    )
    features = FeatureBatch(found.values[0], images.names, images.labels, dataset.class_names)
    for seed in seeds:
        score = score_features(
            features,
            layer,
            classifier=settings["classifier"],
            per_class=per_class,
            test_per_class=settings["test_per_class"],
            splits=1,
            seed=seed,
        )
        yield 100 * score.mean


def _train(settings: Settings, inputs: Inputs, seeds: Sequence[int]) -> Iterator[float]:
    """Yield the error or the accuracy in % on held-out images of a training with each seed.

    A training that was interrupted goes on.
    """
    from cnnkit.training import train

    recipe = find_recipe(settings["recipe"]).config
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings.get("fields", {}).items()
    }
    options = {**recipe.model_options, **settings.get("options", {})}
    config = replace(recipe, dataset=str(inputs.data), model_options=options, **fields)
    for seed in seeds:
        of_seed = replace(config, seed=seed)
        run = RunFolder(inputs.runs.with_name(f"{inputs.runs.name}-seed{seed}"))
        if run.exists() and run.config != of_seed:
            raise UsageError(
                "`output` must not hold a run of another configuration",
                received=run.path,
                hint="Choose another folder",
            )
        if not run.model_file.is_file():
            run = train(of_seed, run.path, resume=run.exists(), callbacks=inputs.callbacks)
        if run.result is None:
            raise RunError(
                f"The run {run.path} has no result", hint="Remove it, and run the command again"
            )
        accuracy = 100 * run.result["val_accuracy"]
        yield accuracy if settings["value"] == "accuracy" else 100 - accuracy


def open_data(inputs: Inputs) -> Dataset:
    """Open the dataset of the inputs."""
    from cnnkit.data import load_dataset

    return load_dataset(str(inputs.data))


PROCEDURES = {
    "crop-positions": _count(_crop_positions),
    "crops": _count(_crops),
    "map-side": _count(_map_side),
    "outputs": _count(_outputs),
    "parameters": _count(_parameters),
    "stack-field": _count(_stack_field),
    "stack-weights": _count(_stack_weights),
    "train": Procedure(_train, needs=("data",), is_random=True),
    "transfer": Procedure(_transfer, needs=("data", "weights"), is_random=True),
}


def find_procedure(result: PaperResult) -> Procedure:
    """Return the procedure of a result.

    Raises:
        UsageError: If it has none.
    """
    if result.procedure:
        return PROCEDURES[result.procedure["name"]]
    if result.ours is not None:
        hint = f"Its command is: {result.ours.command}"
    elif result.command:
        hint = f"Where its data are: {result.command}"
    else:
        hint = result.why
    raise UsageError(
        "`id` must be a result that has a procedure",
        received=f"{result.id}, which is {result.state}",
        hint=hint,
    )


def check_reproducible(result: PaperResult, data: str | None, weights: str | Path | None) -> None:
    """Check, before anything slow, that a result can be run and has the inputs that it needs.

    Args:
        result: The result.
        data: Name of the dataset, or None.
        weights: Weights file, or None.

    Raises:
        UsageError: If the result has no procedure, or an input is missing or too many.
    """
    needs = find_procedure(result).needs
    settings = result.procedure
    wanted = {
        "data": "folder:DIR, one subfolder a class"
        + (f" of at least {settings['per_class'] + 1} images" if "per_class" in settings else ""),
        "weights": f"a weights file of {settings.get('network')}",
    }
    for name, value in (("data", data), ("weights", weights)):
        if (value is not None) == (name in needs):
            continue
        if name in needs:
            raise UsageError(
                f"`{name}` must be given, because {result.id} needs it", expected=wanted[name]
            )
        raise UsageError(
            f"`{name}` must not be given: {result.id} needs no such file", received=value
        )
