"""A trained network with what it needs to classify files: its crop, its decoding, its class names.

The network is a Keras model, or a SavedModel of `cnnkit export`. A SavedModel is a program, which
runs with the rights of the process that loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit._file_tree import is_exported
from cnnkit._files import read_lines
from cnnkit._network_names import (
    EXPORTED_FROM,
    check_class_names,
    check_crop_side,
    check_exported_explanation,
    find_class,
)
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit.data import Augmentation, Decoding
from cnnkit.data.crops import fit_images
from cnnkit.errors import RunError, UsageError, unknown_name
from cnnkit.evaluation.ensemble import evaluated_model, score_function
from cnnkit.evaluation.predictions import log_softmax
from cnnkit.models import load_model
from cnnkit.models.class_names import class_captions, class_count, is_localizer
from cnnkit.models.loading import holds_model
from cnnkit.models.localizer import class_part
from cnnkit.models.logits import output_activation
from cnnkit.run_folder import RunFolder
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.version_folders import check_version, newest_version
from cnnkit.training.inputs import held_out_augmentation
from cnnkit.visualize import EXPLANATION_METHODS, Attribution, explain_class
from cnnkit.visualize.classifier import as_classifier

EXPLAIN = "explain_bytes"


class ImageClassifier:
    """A Keras model that classifies crops of images.

    Args:
        model: The model: (n, h, w, 3) RGB 0..255, or (n, h, w, 1) gray -> (n, classes).
        class_names: Names of the classes; None takes those of the model, else their numbers.
        augmentation: Rescaling and crop; None takes the center crop of the model's input size.
        decoding: Background and orientation; None for `Decoding()`.
        image_size: Side of the crops for a model of no fixed size.

    Attributes:
        name: Name of the model.
        class_names: Names of the classes.
        augmentation: Rescaling and crop of the images.
        decoding: How files become pixels.
        localizer: The model, if it also returns boxes: it was trained with `task="localize"`.

    Raises:
        UsageError: If the model is not a classifier of images, has no fixed size, or has another
            number of classes.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        class_names: Sequence[str] | None = None,
        augmentation: Augmentation | None = None,
        decoding: Decoding | None = None,
        image_size: int | None = None,
    ) -> None:
        self.localizer = model if is_localizer(model) else None
        self.model = class_part(model)
        self.name = model.name
        self.class_names = _names_of_classes(self.model, class_names)
        self.augmentation = augmentation or Augmentation(_crop_side(self.model, image_size))
        check_crop_side(self.augmentation.image_size, image_size)
        self.decoding = decoding or Decoding()

    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """Return the probabilities of the classes, (n, classes) float64.

        Args:
            crops: (n, side, side, 3) RGB in 0..255.
        """
        scores = self._scores(tf.constant(crops, tf.float32)).numpy()[:, 0]
        # The scores of sigmoids are the logarithms of their probabilities, which do not share 1.
        apart = output_activation(self.model) == "sigmoid" and self.model.output_shape[-1] > 1
        return np.exp(np.asarray(scores, np.float64) if apart else log_softmax(scores))

    def fit(self, crops: np.ndarray) -> np.ndarray:
        """Return what the network sees of crops: gray, or the center, if its input is so.

        Args:
            crops: (n, side, side, 3) RGB in 0..255.
        """
        return np.asarray(fit_images(tf.constant(crops), self.model.input_shape[1:]))

    def explain(
        self, crops: np.ndarray, files: Sequence[Path | bytes], method: str, target: int | None
    ) -> list[Attribution]:
        """Explain the score of a class of each image by its pixels.

        Args:
            crops: (n, side, side, 3) RGB in 0..255.
            files: The image files, or their bytes.
            method: A method that `check_explanation` accepts.
            target: Number of the class; None takes the most probable class of each image.
        """
        return explain_class(self.model, self.fit(crops), target, method)

    def check_explanation(self, method: str, target: int | str | None) -> int | None:
        """Check that a class can be explained, and return its number; None if there is no target.

        Raises:
            UsageError: If there is no such method or class.
        """
        if method not in EXPLANATION_METHODS:
            raise unknown_name("method", method, EXPLANATION_METHODS)
        return None if target is None else self.class_index(target)

    def class_index(self, target: int | str) -> int:
        """Return the number of a class that is given by name or number.

        Raises:
            UsageError: If there is no such class.
        """
        return find_class(target, self.class_names, len(self.class_names), self.name)

    @cached_property
    def _scores(self) -> Callable[[tf.Tensor], tf.Tensor]:
        function = score_function(self.model, flip=False, average="scores")
        return tf.function(function, autograph=False, reduce_retracing=True)


class ExportedClassifier(ImageClassifier):
    """A version that `cnnkit export` wrote. Its SavedModel is a program: load no stranger's.

    Args:
        folder: A version folder, NAME/<integer>/, or NAME/, whose newest version is taken.
        class_names: Names of the classes in place of its own.

    Raises:
        UsageError: If the folder holds no version of `cnnkit export`.
        RunError: If its SavedModel cannot be loaded.
    """

    def __init__(self, folder: Path, *, class_names: Sequence[str] | None = None) -> None:
        folder = newest_version(folder)
        check_version(folder)
        file = folder / "assets" / "preprocessing.json"
        if not file.is_file():
            raise UsageError(
                f"{folder} is a SavedModel that cnnkit did not write",
                expected=f"a version of `cnnkit export`, with {file.relative_to(folder)}",
            )
        facts = JsonFields(read_json(file), file)
        own = tuple(read_lines(folder / "assets" / "labels.txt"))
        self.name = folder.parent.name
        self.class_names = _check_count(class_names, len(own)) or own
        side = facts.integer("side", minimum=1)
        shorter = facts.integer("shorter_side_before_crop", minimum=side)
        fast = facts.text("resize", default="") == "bilinear"
        self.augmentation = Augmentation(side, scale=(shorter, shorter), fast_decode=fast)
        stored = facts.document if "exif_orientation" in facts else None
        self.decoding = Decoding.from_dict(stored, file)
        self.localizer = None
        number = int(folder.name) if folder.name.isdigit() else 1
        self._servable = SavedModelServable(folder.parent.name, number, folder)

    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """Return the probabilities of the classes, (n, classes) float64."""
        inputs = {"images": np.asarray(crops, np.float32)}
        found = self._servable.run("serving_default", inputs, ["probabilities"])
        return np.asarray(found["probabilities"], np.float64)

    def fit(self, crops: np.ndarray) -> np.ndarray:
        """Return the crops: the network takes them as they are."""
        return crops

    def check_explanation(self, method: str, target: int | str | None) -> None:
        """Check that the method is the deconvnet of the most probable class.

        Raises:
            UsageError: If it is not, or the version has no signature for it.
        """
        super().check_explanation(method, target)
        check_exported_explanation(method, target)
        if EXPLAIN not in self._servable.definitions.signature_def:
            raise UsageError(f"The exported network has no signature {EXPLAIN}", hint=EXPORTED_FROM)

    def explain(
        self, crops: np.ndarray, files: Sequence[Path | bytes], method: str, target: int | None
    ) -> list[Attribution]:
        """Project the most probable class of each image by the deconvnet.

        The logit, `Attribution.score`, is NaN: the SavedModel does not return it.
        """
        results = []
        for i, (crop, file) in enumerate(zip(crops, files, strict=True)):
            inputs = {"image_bytes": np.array([_encoded(file)], object)}
            found = self._servable.run(EXPLAIN, inputs, ["projection"])
            [pixels] = found["projection"]
            index = int(self.probabilities(crop[None]).argmax())
            values = np.abs(pixels).max(axis=-1)
            results.append(Attribution(method, i, index, float("nan"), values, pixels))
        return results


def open_classifier(
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    image_size: int | None = None,
) -> ImageClassifier:
    """Open a run folder, a file of a model, or an exported folder.

    Args:
        path: The folder or the file.
        class_names: Names of the classes in place of its own.
        decoding: Background and orientation in place of those of the run.
        image_size: Side of the crops for a model of no fixed size.

    Raises:
        UsageError: If it is none of these, or as `ImageClassifier`.
        RunError: If the run is not finished, or an exported network cannot be loaded.
    """
    path = Path(path)
    if is_exported(path):
        exported = ExportedClassifier(path, class_names=class_names)
        check_crop_side(exported.augmentation.image_size, image_size)
        return exported
    run = RunFolder(path)
    if run.exists():
        check_crop_side(run.config.image_size, image_size)
        model = load_model(run.finished_model(), preprocessing="raw")
        return run_classifier(run, model, class_names=class_names, decoding=decoding)
    if path.is_file() and not holds_model(path):
        raise UsageError(
            f"{path} must be a run folder, a file of a model or an exported folder",
            received="weights alone",
            hint="Build the network: cnnkit.models.build(NAME, weights=FILE), and pass the model",
        )
    return ImageClassifier(
        load_model(path), class_names=class_names, decoding=decoding, image_size=image_size
    )


def run_classifier(
    run: RunFolder,
    model: keras.Model,
    *,
    class_names: Sequence[str] | None = None,
    decoding: Decoding | None = None,
) -> ImageClassifier:
    """Return the network of a run with the crop of its held-out images.

    Args:
        run: The run folder.
        model: Its network.
        class_names: Names of the classes in place of the run's.
        decoding: Background and orientation in place of the run's.
    """
    return ImageClassifier(
        model,
        class_names=class_names or run.class_names,
        augmentation=held_out_augmentation(run.config),
        decoding=decoding or Decoding.from_config(run.config),
    )


def check_scores(probabilities: np.ndarray, names: Sequence[str]) -> None:
    """Check the probabilities of images, (n, classes).

    Raises:
        RunError: If some are not finite.
    """
    for row in np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist():
        raise RunError(
            f"The network gives no finite scores for {names[row]}",
            received="NaN or infinity",
            hint="Its weights may have diverged: look at the losses of its training",
        )


def _names_of_classes(model: keras.Model, given: Sequence[str] | None) -> tuple[str, ...]:
    if len(model.inputs) != 1 or len(model.input_shape) != 4:
        raise UsageError(
            f"Model {model.name!r} must take images",
            expected="one input (n, h, w, channels)",
            received=model.input_shape,
        )
    count = class_count(model)
    if len(model.output_shape) != 4 or output_activation(model) is None:
        as_classifier(model)
    own = class_captions(model) or tuple(map(str, range(count)))
    return _check_count(given, count) or own


def _check_count(given: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    if given is None:
        return None
    check_class_names(given, count)
    return tuple(given)


def _crop_side(model: keras.Model, image_size: int | None) -> int:
    """Return the side of the square from whose center the input of a model is cut."""
    if None not in model.input_shape[1:3]:
        return evaluated_model(model, None).size
    if image_size is None:
        raise UsageError(
            "`image_size` must be given: the network has no fixed input size",
            expected="the side of the images in pixels",
        )
    return image_size


def _encoded(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()
