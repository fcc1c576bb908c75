"""The size of a model from its configuration alone: no memory is allocated for its weights.

A configuration of a few bytes can ask for any number of weights, and a layer for any number of
activations. A file that is whole holds the weights, so they are compared before a model is built.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from cnnkit._untrusted.limits import (
    MAX_MODEL_LAYERS,
    MAX_MODEL_OBJECTS,
    MAX_OUTPUT_NUMBERS,
    UNSTORED_NUMBERS,
)
from cnnkit.errors import UsageError
from cnnkit.models.graph import layer_calls

# Keys of layers and of what Keras itself serializes.
OWN_PACKAGES = ("keras", "cnnkit", "builtins")
# Side of the image by which outputs are measured where the model takes any.
FREE_SIDE = 224


@dataclass(frozen=True)
class ModelSize:
    """Numbers of a model's weights, and of its largest activation for one image.

    Attributes:
        weights: Number of all weights.
        largest_output: Number of elements of the largest output of a layer, for one image; a side
            that depends on the image counts as one.
    """

    weights: int
    largest_output: int


def outline(build: Callable[[], keras.Model]) -> ModelSize:
    """Return the size of the model that a function builds, without memory for its weights.

    Keras keeps names, seeds and scopes for each thread, so that a thread of its own leaves those of
    the caller as they are.

    Args:
        build: Builds the model.
    """
    state = random.getstate()  # Keras draws seeds from it.
    try:
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(_outline, build).result()
    finally:
        random.setstate(state)


def _outline(build: Callable[[], keras.Model]) -> ModelSize:
    with keras.StatelessScope(initialize_variables=False):
        model = build()
        weights = sum(math.prod(variable.shape) for variable in model.variables)
        return ModelSize(weights, max(largest_output(model), _largest_inside(model)))


def _largest_inside(model: keras.Model) -> int:
    """Return the largest output inside of inner models that take images of any size.

    Their own outputs have free sides, so that they are built again for the images that they take.
    """
    from cnnkit.models.weights.keras_config import build_from_config

    largest = 0
    for one in getattr(model, "operations", model.layers):
        if not isinstance(one, keras.Model):
            continue
        shapes = [inputs[0].shape for inputs, _ in layer_calls(one) if inputs]
        for sides in {tuple(shape[1:3]) for shape in shapes if len(shape) == 4}:
            # A class of the user need not have a configuration.
            with contextlib.suppress(Exception):
                sized = build_from_config(with_sides(one.get_config(), sides))
                largest = max(largest, largest_output(sized), _largest_inside(sized))
    return largest


def largest_output(model: keras.Model, image: tuple[int, ...] = ()) -> int:
    """Return the number of elements of a model's largest output of a layer, for one image.

    Args:
        model: The model; inner models included.
        image: (h, w) of the image, by which free sides are replaced: no map that is not enlarged is
            larger.
    """
    free = max(image, default=1)
    operations = getattr(model, "operations", model.layers)
    shapes = [
        tensor.shape[1:]
        for operation in operations
        for _, outputs in layer_calls(operation)
        for tensor in outputs
    ]
    inner = [largest_output(one, image) for one in operations if isinstance(one, keras.Model)]
    outer = [math.prod(side or free for side in shape) for shape in shapes]
    return max([*inner, *outer], default=0)


def with_sides(config: Mapping[str, Any], sides: Sequence[int | None]) -> dict[str, Any]:
    """Return a copy of a model's own configuration with `sides`, (h, w), in place of free ones."""
    changed = copy.deepcopy({**config})
    for entry in changed.get("layers", ()):
        for key in ("batch_shape", "batch_input_shape"):
            shape = entry["config"].get(key)
            if isinstance(shape, (list, tuple)) and len(shape) == 4:
                height, width = (one or side for one, side in zip(shape[1:3], sides, strict=True))
                entry["config"][key] = [shape[0], height, width, shape[3]]
    return changed


def check_model_size(model: Mapping[str, Any], stored: int, path: Path) -> None:
    """Check that a model can be built and run: before it is, no memory is needed for this.

    Its file holds about as many numbers as it needs, and no layer's output is absurdly large.

    Args:
        model: {`class_name`, `config`, ...} of the model.
        stored: Number of numbers in the file.
        path: The file.

    Raises:
        UsageError: If the model needs more, an output for one image has more than
            `MAX_OUTPUT_NUMBERS` elements, or it cannot be built. A model with classes of other
            packages, which are programs of the user, is not checked if it cannot be built so.
    """
    entries = list(_entries(model))
    counts = (
        ("layers", sum(map(_layer_count, entries)), MAX_MODEL_LAYERS),
        ("objects in its configuration", len(entries), MAX_MODEL_OBJECTS),
    )
    for what, count, limit in counts:
        if count > limit:
            raise UsageError(
                f"{path} has too many {what}", expected=f"at most {limit:,}", received=f"{count:,}"
            )
    try:
        size = outline(functools.partial(_build, model))
    except Exception:
        if all(_is_own(entry) for entry in entries):
            raise
        return
    if size.weights > stored + UNSTORED_NUMBERS:
        raise UsageError(
            f"{path} describes a model that is larger than its weights",
            expected=f"about {stored:,} numbers, which the file holds",
            received=f"a model of {size.weights:,}",
        )
    largest = size.largest_output
    # Not every model can take images of this size.
    with contextlib.suppress(Exception):
        sized = {**model, "config": with_sides(model["config"], (FREE_SIDE, FREE_SIDE))}
        if sized["config"] != model["config"]:
            largest = max(largest, outline(functools.partial(_build, sized)).largest_output)
    if largest > MAX_OUTPUT_NUMBERS:
        raise UsageError(
            f"{path} describes a model with an absurdly large output of a layer",
            expected=f"at most {MAX_OUTPUT_NUMBERS:,} numbers for one image",
            received=f"{largest:,}",
        )


def _build(model: Mapping[str, Any]) -> Any:
    from cnnkit.models.weights.keras_config import build_from_config, with_single_tensors

    # Keras takes a configuration apart while it builds a model.
    described = copy.deepcopy({**with_single_tensors(model), "compile_config": None})
    if "module" in described:
        return keras.saving.deserialize_keras_object(described)
    return build_from_config(described["config"])


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every serialized object in a configuration."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            if "class_name" in one and "config" in one:
                yield one
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one


def _layer_count(entry: Mapping[str, Any]) -> int:
    config = entry["config"]
    layers = config.get("layers") if isinstance(config, Mapping) else None
    return len(layers) if isinstance(layers, (list, tuple)) else 0


def _is_own(entry: Mapping[str, Any]) -> bool:
    package = str(entry.get("registered_name") or entry["class_name"]).rpartition(">")[0]
    module = str(entry.get("module") or "keras").split(".")[0]
    return package in ("", *OWN_PACKAGES) and module in OWN_PACKAGES
