"""Load models, and open the `weights` argument of the builders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

import cnnkit.layers  # noqa: F401  registers our layers for keras.saving
from cnnkit._file_tree import MODEL, stages_hint
from cnnkit._model_config import image_shape, read_layers
from cnnkit._networks import IMAGENET
from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit.errors import CnnkitError, DataError, UsageError
from cnnkit.layers import SubtractMean
from cnnkit.models.model_input import first_layers
from cnnkit.models.preprocessing import (
    FILE,
    UNKNOWN,
    Preprocessing,
    contradiction,
    find_preset,
    override_preprocessing,
    warn_if_assumed,
)
from cnnkit.models.weights.assign import (
    HOW_TO_STATE,
    assign_weights,
    defer_initializers,
    restore_initializers,
)
from cnnkit.models.weights.download import download_imagenet_weights
from cnnkit.models.weights.keras_config import (
    build_from_config,
    with_first_layer,
    with_single_tensors,
)
from cnnkit.models.weights.keras_groups import KerasFile, count_numbers, open_keras
from cnnkit.models.weights.model_size import check_model_size
from cnnkit.models.weights.open import open_weights
from cnnkit.models.weights.output_fingerprint import check_fingerprint
from cnnkit.models.weights.read_keras import keras_input
from cnnkit.models.weights.weights_file import WeightsFile

Weights = str | os.PathLike[str] | WeightsFile | None


def load_model(
    path: str | Path, *, preprocessing: str | Preprocessing | None = None
) -> keras.Model:
    """Load a model that cnnkit or Keras saved, as a model of RGB images in 0..255.

    A model whose preprocessing lies outside of it, such as a network of keras.applications, gets it
    as its first layer: a `SubtractMean`, and a first kernel in RGB order where it expects BGR. What
    the file itself contains (a `SubtractMean`, `Rescaling` or `Normalization`, arithmetic) stays. A
    warning tells when a convention, not the file, decides.

    A file from `cnnkit weights convert` holds outputs of its network, with which the outputs of the
    loaded model are compared.

    Args:
        path: A `.keras` file, an `.h5` file with a whole model, or a run folder that holds
            `model.keras`.
        preprocessing: What the model in the file expects of its images, where the file does not say
            it: `"caffe"` (BGR minus VGG's mean), `"torch"` (torchvision's mean and deviation),
            `"tf"` (-1..1), `"unit"` (0..1), `"raw"` (0..255), or a `Preprocessing`.

    Raises:
        UsageError: If there is no such file, it is not a model of Keras 3, or `preprocessing`
            contradicts it.
        RunError: If the outputs differ from those at conversion.

    Example:
        >>> from cnnkit import load_model
        >>> load_model("runs/demo").name  # doctest: +SKIP
        'alexnet'
    """
    path = Path(path)
    file = model_file(path)
    given = find_preset(preprocessing) if isinstance(preprocessing, str) else preprocessing
    opened, expected = _open_model(file)
    if path.is_dir() and expected.origin == UNKNOWN:
        expected = Preprocessing().said_by_file("a run of cnnkit")
    expected = _resolve(expected, given, file)
    outside = Preprocessing() if expected.origin == UNKNOWN else expected
    try:
        check_model_size(opened.model or {}, count_numbers(opened), file)
        if outside.is_identity and not _has_lists_of_tensors(opened):
            model = keras.saving.load_model(file, compile=False)
        else:
            model = _load_with(opened, outside)
    except UsageError:
        raise
    except Exception as error:
        # Layers that are not registered, and files of other versions, fail in many ways.
        raise _not_loadable(file, error) from error
    warn_if_assumed(expected, file, HOW_TO_STATE)
    check_fingerprint(model, file)
    return model


def model_file(path: Path) -> Path:
    """Return the file of a model: `path`, or `model.keras` in a run folder.

    Raises:
        UsageError: If there is no such file.
    """
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise UsageError(
            f"No model at {path}",
            expected="a .keras file or a run folder",
            hint=stages_hint(path),
        )
    return file


def holds_model(file: Path) -> bool:
    """Return True if a file holds a whole model of Keras, not weights alone."""
    try:
        with damage_as_error(file):
            return open_keras(file).model is not None
    except CnnkitError:
        return False


def expected_of_file(path: str | Path) -> Preprocessing:
    """Return what has to be done to RGB images in 0..255 for the model in a file.

    Args:
        path: A `.keras` file, an `.h5` file with a whole model, or a run folder.

    Raises:
        UsageError: If there is no such file, or it is not a model of Keras 3.
    """
    return _open_model(model_file(Path(path)))[1]


def _open_model(file: Path) -> tuple[KerasFile, Preprocessing]:
    """Return a file of Keras, and what it says about the images that its model expects."""
    try:
        with damage_as_error(file):
            opened = open_keras(file)
            if opened.model is None:
                raise UsageError(
                    f"{file} holds weights without a model",
                    expected="a .keras file, or an .h5 file of model.save",
                    hint="Name its network, `model=NAME`, or build it: vgg16(weights=FILE)",
                )
            if opened.root is None and opened.version.startswith("2."):
                raise UsageError(
                    f"{file} was written by Keras {opened.version}, whose .keras files Keras 3"
                    " cannot load",
                    expected="a .keras file of Keras 3",
                    hint="Save it as .h5 with Keras 2; or give the file as weights to a builder:"
                    " `weights=FILE`, or `cnnkit weights convert`",
                )
            return opened, keras_input(opened)
    except DataError as error:
        raise _not_loadable(file, error) from error


def _resolve(expected: Preprocessing, given: Preprocessing | None, file: Path) -> Preprocessing:
    if given is None:
        return expected
    if expected.contradicts(given):
        raise contradiction(expected, given, file)
    return given if expected.is_assumed else expected


def _load_with(file: KerasFile, outside: Preprocessing) -> keras.Model:
    """Load a model from its configuration, with a preprocessing as its first layer."""
    described = with_single_tensors(file.model or {})
    if not outside.is_identity:
        described = _with_preprocessing(described, outside, file.path)
    model = build_from_config(described["config"])
    model.load_weights(file.path)
    if outside.channels == "BGR":
        _reorder_first_kernels(model, file.path)
    return model


def _with_preprocessing(
    described: Mapping[str, Any], outside: Preprocessing, path: Path
) -> Mapping[str, Any]:
    names = {layer.name for layer in read_layers(described)}
    name = next(n for n in ("preprocessing", "given_preprocessing") if n not in names)
    layer = _preprocessing_layer(outside, image_shape(described), name, path)
    return with_first_layer(described, keras.saving.serialize_keras_object(layer))


def _has_lists_of_tensors(file: KerasFile) -> bool:
    """Return True if a file of Keras up to 3.5 has a model used as a layer."""
    return any(
        isinstance(layer.config.get("output_layers", [""])[0], list)
        for layer in read_layers(file.model or {})
        if layer.layers
    )


def _preprocessing_layer(
    outside: Preprocessing, shape: tuple[int | None, ...], name: str, path: Path
) -> keras.layers.Layer:
    if shape[-1:] == (3,):
        return SubtractMean(outside.mean, outside.std, name=name)
    mean, std = np.asarray(outside.mean), outside.std
    divisor = np.ones(1) if std is None else np.asarray(std)
    if outside.channels == "BGR" or np.ptp(mean) or np.ptp(divisor):
        raise UsageError(
            f"`preprocessing` is for RGB images, which {path} does not take",
            expected="tf, unit or raw",
            received=f"images of shape {shape}",
        )
    scale = 1 / divisor.flat[0]
    return keras.layers.Rescaling(scale, offset=-mean.flat[0] * scale, name=name)


def _reorder_first_kernels(model: keras.Model, path: Path) -> None:
    """Reorder the first kernels from BGR to RGB."""
    layers = first_layers(model)
    for layer in layers:
        if not isinstance(layer, keras.layers.Conv2D) or layer.groups != 1:
            raise UsageError(
                f"`preprocessing` has BGR images, which needs a convolution as the first layer of"
                f" {path}",
                received=f"{type(layer).__name__} {layer.name!r}",
                hint="Save the model with its own preprocessing inside",
            )
    for layer in layers:
        layer.kernel.assign(keras.ops.flip(layer.kernel, axis=2))


def _not_loadable(file: Path, error: Exception) -> UsageError:
    text = str(error).strip() or type(error).__name__
    return UsageError(
        f"{file} is not a model that Keras can load",
        expected="a .keras file of Keras 3, whose own classes are imported and registered",
        received=shorten(text.splitlines()[0]),
        hint="Register your layers by keras.saving.register_keras_serializable",
    )


def find_weights(
    weights: Weights,
    network: str | None = None,
    *,
    include_top: bool = True,
    classes: int = 1000,
    mean: Sequence[float] | np.ndarray | None = None,
    preprocessing: str | Preprocessing | None = None,
) -> WeightsFile | None:
    """Open the `weights` argument of a builder: None, a file, or `"imagenet"`.

    A warning tells when a convention, not the file or an argument, decides about the preprocessing.

    Args:
        weights: The argument.
        network: Name of the network in keras.applications, for `"imagenet"`.
        include_top: Whether the network has its dense head.
        classes: Number of classes.
        mean: Mean of the builder, in place of that of the file.
        preprocessing: Preprocessing of the builder, in place of that of the file.

    Raises:
        UsageError: If there is no such file, or its kind is unknown.
        RunError: If the ImageNet weights cannot be downloaded.
    """
    if weights is None:
        return None
    if not isinstance(weights, (str, os.PathLike, WeightsFile)) or not weights:
        raise UsageError(
            "`weights` must be None, a file or what `open_weights` returned", received=repr(weights)
        )
    # Checked before a file is opened.
    override_preprocessing(Preprocessing(), preprocessing, mean=mean)
    if isinstance(weights, WeightsFile):
        found = weights
    elif weights == IMAGENET:
        found = download_imagenet_weights(
            network or "this network", include_top=include_top, classes=classes
        )
    else:
        found = open_weights(Path(weights))
    changed = override_preprocessing(found.preprocessing, preprocessing, mean=mean)
    return replace(found, preprocessing=changed)


def options_for_weights(file: WeightsFile, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a builder with the number of classes of a weights file.

    Args:
        file: The weights. A file without dense layers is of a network without them.
        options: Options of the builder.

    Raises:
        UsageError: If an option contradicts the file.
    """
    head = {"include_top": False} if file.classes is None else {"classes": file.classes}
    for name, value in head.items():
        if options.get(name, value) != value:
            raise UsageError(
                f"`{name}` must be that of {file.path}, {value}", received=options[name]
            )
    return {**options, **head}


def initializer_arguments(options: dict[str, Any], file: WeightsFile | None) -> dict[str, Any]:
    """Return the initializer arguments of a layer, without random numbers if a file fills it."""
    return options if file is None else defer_initializers(options)


def with_weights(model: keras.Model, file: WeightsFile | None) -> keras.Model:
    """Assign the weights of a file to a model built with `initializer_arguments`, and return it.

    Raises:
        UsageError: If the file does not fit the model.
        RunError: If the outputs differ from those at conversion.
    """
    if file is None:
        return model
    assign_weights(model, file)
    restore_initializers(model)
    if file.preprocessing.origin == FILE:
        check_fingerprint(model, file.path)
    return model
