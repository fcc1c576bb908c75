"""Classify image files with a trained network, and explain its answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

from cnnkit._file_tree import find_image_files, printable_name
from cnnkit._untrusted.images import check_image_file
from cnnkit.data import Augmentation, Decoding
from cnnkit.data.decode import read_image_file, traced_augment_bytes
from cnnkit.data.pipeline import BATCHES_AHEAD, parallel_map
from cnnkit.errors import CnnkitError, DataError, UsageError, unknown_name
from cnnkit.evaluation.image_classifier import ImageClassifier, check_scores, open_classifier
from cnnkit.evaluation.predictions import TOP
from cnnkit.visualize import Attribution

ERRORS = ("raise", "keep")
# The name of an image and its file or bytes.
NamedImage = tuple[str, Path | bytes]


class FileResult(Protocol):
    """What was found in an image file, or why it could not be read."""

    @property
    def error(self) -> str | None:
        """The reason; None if it was read."""


_ResultT = TypeVar("_ResultT", bound=FileResult)


@dataclass(frozen=True)
class FilePrediction:
    """The answer of a network for one image file.

    Attributes:
        name: Name of the file, as it was given or found.
        top: The most probable classes with their probabilities, 0..1, in order.
        indices: Their numbers.
        probabilities: (classes,) float64, of all classes; None if the file could not be read.
        image: (h, w, 3) uint8 RGB, or (h, w, 1) gray, what the network saw, if an explanation was
            asked for.
        explanation: How much each pixel of the crop contributes to the class, if asked for.
        error: Why the file could not be read; None if it was.
    """

    name: str
    top: tuple[tuple[str, float], ...] = ()
    indices: tuple[int, ...] = ()
    probabilities: np.ndarray | None = field(default=None, repr=False)
    image: np.ndarray | None = field(default=None, repr=False)
    explanation: Attribution | None = field(default=None, repr=False)
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class; None if the file could not be read."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """Its probability, 0..1; None if the file could not be read."""
        return self.top[0][1] if self.top else None


def predict(
    model: keras.Model | ImageClassifier | str | Path,
    paths: str | Path | Sequence[str | Path],
    *,
    top: int = TOP,
    explain: str | None = None,
    target: int | str | None = None,
    class_names: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    image_size: int | None = None,
    batch_size: int = 32,
    errors: str = "raise",
    progress: Callable[[int], object] = lambda images: None,
) -> list[FilePrediction]:
    """Classify image files.

    The network sees one crop of each image: that of its run's held-out images, that of an exported
    network's encoded images, or else the center. `cnnkit evaluate --protocol center` measures the
    same crop.

    Args:
        model: A classifier of images, (n, h, w, 3) RGB 0..255 -> (n, classes); or the path of a run
            folder, of a `.keras` or `.h5` file, or of a folder that `cnnkit export` wrote. An
            exported folder is a program, which runs with your rights: open no stranger's.
        paths: Image files (JPEG, PNG, GIF, BMP, WebP), and folders, which stand for the image files
            below them in the order of their names.
        top: Number of classes of each image, at most all.
        explain: Name of a method of `cnnkit.visualize.explain_class`, such as `"gradcam"`. It takes
            the crop and a map of every image into memory, 1 MB for 224 x 224 pixels. An exported
            network has `"deconvnet"` only.
        target: Class to explain, by name or number; None takes the most probable of each image.
        class_names: Names of the classes in place of the network's own. A network without names has
            numbers.
        decoding: Background of transparent pixels and EXIF orientation; None for the run's.
        image_size: Side of the crops in pixels for a network of no fixed size.
        batch_size: Images at a time.
        errors: What becomes of a file that cannot be read: `"raise"` raises its error, `"keep"`
            returns a result with `error`.
        progress: Called with the number of images that were classified since the last call.

    Returns:
        A result for every image, in order.

    Raises:
        UsageError: If a path does not exist, the network is not a classifier of images, or an
            argument is out of its range.
        DataError: If a file is not an image.
        RunError: If the network cannot be loaded, or its scores are not finite.

    Example:
        >>> import cnnkit
        >>> cnnkit.predict("runs/pets", "photos")[0].top  # doctest: +SKIP
        (('cat', 0.93), ('dog', 0.07))
    """
    if errors not in ERRORS:
        raise unknown_name("value of `errors`", errors, ERRORS)
    if explain is None and target is not None:
        raise UsageError("`target` requires `explain`", received=target)
    images = find_named_images([paths] if isinstance(paths, str | Path) else paths)
    options: dict[str, Any] = {
        "class_names": class_names,
        "decoding": decoding,
        "image_size": image_size,
    }
    if isinstance(model, ImageClassifier):
        classifier = model
    elif isinstance(model, str | Path):
        classifier = open_classifier(model, **options)
    else:
        classifier = ImageClassifier(model, **options)
    found = iter_predictions(
        classifier,
        images,
        top=top,
        batch_size=batch_size,
        kept=0 if explain is None else len(images),
        explain=explain,
        target=target,
    )
    return collect_results(found, errors, progress)


def collect_results(
    found: Iterable[_ResultT], errors: str, progress: Callable[[int], object]
) -> list[_ResultT]:
    """Return the results for image files, or raise the error of a file that cannot be read.

    Args:
        found: The results.
        errors: `"raise"` or `"keep"`, as for `predict`.
        progress: Called with 1 after each of them.

    Raises:
        DataError: If a file cannot be read, and `errors` is `"raise"`.
    """
    results = []
    for one in found:
        if one.error is not None and errors == "raise":
            raise DataError(one.error)
        results.append(one)
        progress(1)
    return results


def iter_predictions(
    classifier: ImageClassifier,
    images: Sequence[NamedImage],
    *,
    top: int = TOP,
    batch_size: int = 32,
    kept: int = 0,
    explain: str | None = None,
    target: int | str | None = None,
) -> Iterator[FilePrediction]:
    """Classify images one batch after the other.

    Args:
        classifier: The network.
        images: Names and files, or encoded images.
        top: Number of classes of each image, at most all.
        batch_size: Images at a time.
        kept: Number of images whose crops are kept and explained, the first ones that can be read.
        explain: Method that explains them; None for none.
        target: Class to explain; None takes the most probable of each image.

    Yields:
        A result for every image, in order.

    Raises:
        UsageError: If an argument is out of its range, at the first step.
        RunError: If the scores of the network are not finite.
    """
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"`{name}` must be at least 1", received=value)
    index = None if explain is None else classifier.check_explanation(explain, target)
    refused = {
        i: error
        for i, (_, image) in enumerate(images)
        if not isinstance(image, bytes) and (error := _refusal(image))
    }
    readable = [i for i in range(len(images)) if i not in refused]
    next_one = classified = 0

    def skipped(end: int) -> Iterator[FilePrediction]:
        """Yield the results for the images before `end` that are not classified."""
        for i in range(next_one, end):
            name, image = images[i]
            error = refused.get(i) or _decoding_error(name, image, classifier.decoding)
            yield FilePrediction(name, error=error)

    for rows, crops in _iter_crops(
        [images[i][1] for i in readable], classifier.augmentation, classifier.decoding, batch_size
    ):
        numbers = [readable[row] for row in rows]
        wanted = [classified + row < kept for row in range(len(numbers))]
        classified += len(numbers)
        named = [images[i] for i in numbers]
        batch = _predict_batch(classifier, named, crops, top, wanted, explain, index)
        for i, one in zip(numbers, batch, strict=True):
            yield from skipped(i)
            yield one
            next_one = i + 1
    yield from skipped(len(images))


def _predict_batch(
    classifier: ImageClassifier,
    images: Sequence[NamedImage],
    crops: np.ndarray,
    top: int,
    wanted: Sequence[bool],
    explain: str | None,
    target: int | None,
) -> Iterator[FilePrediction]:
    """Classify the crops of a batch, and explain those that are wanted."""
    probabilities = classifier.probabilities(crops)
    check_scores(probabilities, [name for name, _ in images])
    chosen = np.flatnonzero(wanted).tolist()
    seen = dict(zip(chosen, classifier.fit(crops[chosen]), strict=True)) if chosen else {}
    explained: dict[int, Attribution] = {}
    if explain is not None and chosen:
        files = [images[i][1] for i in chosen]
        found = classifier.explain(crops[chosen], files, explain, target)
        explained = dict(zip(chosen, found, strict=True))
    for i, row in enumerate(probabilities):
        order = np.argsort(-row, kind="stable")[:top].tolist()
        yield FilePrediction(
            images[i][0],
            tuple((classifier.class_names[c], float(row[c])) for c in order),
            tuple(order),
            row,
            seen[i].round().clip(0, 255).astype(np.uint8) if i in seen else None,
            explained.get(i),
        )


def find_named_images(paths: Sequence[str | Path]) -> list[NamedImage]:
    """Return the names and files of images and folders.

    Raises:
        UsageError: If a path does not exist.
    """
    images: list[NamedImage] = []
    for path in paths:
        if not isinstance(path, str | Path):
            raise UsageError("`paths` must be paths", received=type(path).__name__)
        if Path(path).is_dir():
            images += ((printable_name(str(file)), file) for file in find_image_files(path)[0])
        elif Path(path).is_file():
            images.append((printable_name(str(path)), Path(path)))
        else:
            raise UsageError("`paths` must be existing image files or folders", received=path)
    return images


def _refusal(file: Path) -> str | None:
    """Return why a file is not opened: it is too large, or not a regular one."""
    try:
        check_image_file(file)
    except CnnkitError as error:
        return str(error)
    return None


def _decoding_error(name: str, image: Path | bytes, decoding: Decoding) -> str:
    """Return why an image cannot be decoded."""
    try:
        read_image_file(image, decoding, name=name)
    except CnnkitError as error:
        return str(error)
    # It can be now: another process was writing it.
    return f"{name} changed while it was read. Try it again."


def _iter_crops(
    images: Sequence[Path | bytes], augmentation: Augmentation, decoding: Decoding, batch_size: int
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield the crops of the images that can be decoded, (n, side, side, 3), and their indices."""
    in_memory = [isinstance(image, bytes) for image in images]
    texts = [image if isinstance(image, bytes) else os.fsencode(image) for image in images]
    table = tf.data.Dataset.from_tensor_slices(
        (np.arange(len(images)), tf.constant(texts, tf.string), tf.constant(in_memory, tf.bool))
    )

    def load(
        index: tf.Tensor, text: tf.Tensor, is_content: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        data = tf.cond(is_content, lambda: text, lambda: tf.io.read_file(text))
        return index, traced_augment_bytes(data, augmentation, {}, decoding)[0]

    # Files that cannot be decoded are left out: the gap in the indices shows them.
    dataset = parallel_map(table, load).ignore_errors()
    for indices, crops in dataset.batch(batch_size).prefetch(BATCHES_AHEAD).as_numpy_iterator():
        yield indices.tolist(), crops
