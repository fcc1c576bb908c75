"""How well other classes are told apart by the features of a trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from sklearn.pipeline import Pipeline

from cnnkit.data import Dataset
from cnnkit.errors import DataError, UsageError
from cnnkit.features import FeatureBatch, FeatureSpec, select_features_split
from cnnkit.features.extract import BATCH_SIZE, LayerFeatures, extract_layers
from cnnkit.transfer.linear_classifier import class_recalls, fit_linear_classifier

# Fei-Fei et al. 2004, as Zeiler & Fergus 2013, section 4.3: 15 or 30 images a class to train on,
# at most 50 a class to test on.
PER_CLASS = 30
TEST_PER_CLASS = 50


def random_split(
    labels: np.ndarray,
    classes: Sequence[str],
    per_class: int,
    test_per_class: int | None,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the training and the test images of every class.

    The images of a class come in an order that depends on the seed and the class alone: its first
    ones are trained on, so that more training images contain the fewer.

    Args:
        labels: (n,) int, indices into `classes`.
        classes: Names of the classes.
        per_class: Training images of each class.
        test_per_class: At most so many of the others are tested; None tests all.
        seed: Of this split.

    Returns:
        The indices of the training and of the test images.

    Raises:
        UsageError: If a number is below one.
        DataError: If a label does not fit the classes, or a class has too few images.

    Example:
        >>> import numpy as np
        >>> train, test = random_split(np.repeat([0, 1], 10), ["cat", "dog"], 3, 5, seed=0)
        >>> len(train), len(test)
        (6, 10)
    """
    for name, value in (("training", per_class), ("test", test_per_class)):
        if value is not None and value < 1:
            raise UsageError(f"Every class has {name} images", expected="1 or more", received=value)
    check_split_labels(labels, classes)
    train, test = [], []
    for label, name in enumerate(classes):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) <= per_class:
            raise DataError(
                f"The class {name} has too few images",
                expected=f"{per_class} to train on and at least one to test on",
                received=len(of_class),
                hint="Ask for fewer images per class, or leave the class out",
            )
        order = of_class[np.random.default_rng((seed, label)).permutation(len(of_class))]
        train.append(order[:per_class])
        test.append(order[per_class:][:test_per_class])
    return np.concatenate(train), np.concatenate(test)


def check_split_labels(labels: np.ndarray, classes: Sequence[str]) -> None:
    """Makes sure that every label names a class.

    Raises:
        DataError: If one does not.
    """
    outside = labels[(labels < 0) | (labels >= len(classes))]
    if len(outside):
        raise DataError(
            "Labels do not fit the classes",
            expected=f"0 to {len(classes) - 1}",
            received=", ".join(map(str, np.unique(outside)[:5])),
        )


SPLITS = 3


@dataclass(frozen=True)
class SplitScore:
    """One random split.

    Attributes:
        seed: Of the split.
        c: The chosen regularization.
        recall: Mean over the classes of the part of its test images that are found, 0..1.
        recalls: That part for each class.
        training_images: How many.
        test_images: How many.
        pipeline: The fitted scikit-learn pipeline, from features to class numbers.
    """

    seed: int
    c: float
    recall: float
    recalls: tuple[float, ...]
    training_images: int
    test_images: int
    pipeline: Pipeline


@dataclass(frozen=True)
class TransferScore:
    """What a layer is worth to a classifier, over random splits.

    Attributes:
        layer: Name of the layer.
        classifier: `"svm"` or `"softmax"`.
        per_class: Training images of each class.
        splits: One for each random split.
    """

    layer: str
    classifier: str
    per_class: int
    splits: tuple[SplitScore, ...]

    @property
    def mean(self) -> float:
        """Mean class recall over the splits."""
        return float(np.mean([split.recall for split in self.splits]))

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the splits, of a sample; None of a single one."""
        recalls = [split.recall for split in self.splits]
        return float(np.std(recalls, ddof=1)) if len(recalls) > 1 else None


def score_features(
    features: FeatureBatch,
    layer: str,
    *,
    classifier: str = "svm",
    per_class: int = PER_CLASS,
    test_per_class: int | None = TEST_PER_CLASS,
    splits: int = SPLITS,
    l2: bool = True,
    seed: int = 0,
) -> TransferScore:
    """Scores features by the protocol of Caltech-101 and Caltech-256.

    Args:
        features: Of all images of a dataset.
        layer: What they are features of, for the record.
        classifier: `"svm"` or `"softmax"`.
        per_class: Training images of each class.
        test_per_class: At most so many of a class's other images are tested; None tests all.
        splits: Random splits; split number i is drawn from seed + i.
        l2: Whether vectors get the length 1.
        seed: Of the first split.

    Raises:
        UsageError: If a number is below one.
        DataError: If a class has too few images, or labels do not fit the classes.

    Example:
        >>> import numpy as np
        >>> from cnnkit.features import FeatureBatch
        >>> labels = np.repeat([0, 1], 10)
        >>> values = np.eye(2)[labels] + np.random.default_rng(0).normal(0, 0.1, (20, 2))
        >>> features = FeatureBatch(values, ("",) * 20, labels, ("cat", "dog"))
        >>> score_features(features, "fc7", per_class=5).mean
        1.0
    """
    if splits < 1:
        raise UsageError("A score takes splits", expected="at least 1", received=splits)
    found = []
    for number in range(seed, seed + splits):
        train, test = random_split(
            features.labels, features.classes, per_class, test_per_class, number
        )
        pipeline, c = fit_linear_classifier(
            features.values[train], features.labels[train], classifier, l2=l2, seed=number
        )
        recalls = class_recalls(features.labels[test], pipeline.predict(features.values[test]))
        found.append(
            SplitScore(
                number, c, float(recalls.mean()), tuple(map(float, recalls)),
                len(train), len(test), pipeline,
            )
        )  # fmt: skip
    return TransferScore(layer, classifier, per_class, tuple(found))


def evaluate_transfer(
    models: keras.Model | Sequence[keras.Model],
    source: Dataset,
    layers: Sequence[str],
    *,
    protocol: FeatureSpec | None = None,
    classifiers: Sequence[str] = ("svm",),
    per_class: Sequence[int] = (PER_CLASS,),
    test_per_class: int | None = TEST_PER_CLASS,
    splits: int = SPLITS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> list[TransferScore]:
    """Scores layers of trained networks on the classes of a dataset.

    One pass over the images describes all layers; while it works their vectors are in a file
    without a name, which is gone however the work ends. With one layer this is Zeiler & Fergus
    2013, Tables 4 and 5, with several Table 7, with several numbers per class Fig. 9; two networks
    are stacked as in Simonyan & Zisserman 2014, Table 11.

    Args:
        models: A Keras model over RGB images in 0..255, or several whose vectors are stacked.
        source: The dataset; the splits that it comes with are put together and drawn anew.
        layers: Names of layers, which every model has.
        protocol: How an image becomes a vector, for the first of the layers; None sees the center
            of the image.
        classifiers: Of `"svm"` and `"softmax"`.
        per_class: Numbers of training images of each class.
        test_per_class: At most so many of a class's other images are tested; None tests all.
        splits: Random splits of each.
        seed: Of the first split.
        batch_size: Images of 224 x 224 at a time.
        progress: Called with the number of images done since the last call, for every model.

    Returns:
        A score for each layer, classifier and number of training images, in this order.

    Raises:
        UsageError: If a layer or a classifier does not exist, or an option is out of range.
        DataError: If a class has too few images, or an image cannot be used.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.transfer import evaluate_transfer
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> scores = evaluate_transfer(model, load_dataset("digits"), ["pool1", "pool2"])  # doctest: +SKIP
        >>> [(score.layer, round(score.mean, 2)) for score in scores]  # doctest: +SKIP
        [('pool1', 0.97), ('pool2', 0.96)]
    """
    images = select_features_split(source)
    check_splits(source, per_class, test_per_class, seed)
    described = extract_layers(
        models, images, layers, protocol=protocol, batch_size=batch_size, progress=progress
    )
    return score_layers(
        described,
        source,
        classifiers=classifiers,
        per_class=per_class,
        test_per_class=test_per_class,
        splits=splits,
        seed=seed,
    )


def check_splits(
    source: Dataset, per_class: Sequence[int], test_per_class: int | None, seed: int
) -> None:
    """Makes sure that every class has enough images, before an hour of work is done.

    Raises:
        UsageError: If a number is below one.
        DataError: If a class has too few.
    """
    labels = select_features_split(source).labels
    for number in per_class:
        random_split(labels, source.class_names, number, test_per_class, seed)


def score_layers(
    described: LayerFeatures,
    source: Dataset,
    *,
    classifiers: Sequence[str] = ("svm",),
    per_class: Sequence[int] = (PER_CLASS,),
    test_per_class: int | None = TEST_PER_CLASS,
    splits: int = SPLITS,
    seed: int = 0,
) -> list[TransferScore]:
    """Scores every layer of a description of all images of `source`: see `transfer`."""
    images = select_features_split(source)
    return [
        score_features(
            FeatureBatch(values, images.names, images.labels, source.class_names),
            layer,
            classifier=classifier,
            per_class=number,
            test_per_class=test_per_class,
            splits=splits,
            l2=described.protocol.l2,
            seed=seed,
        )
        for layer, values in zip(described.layers, described.values, strict=True)
        for classifier in classifiers
        for number in per_class
    ]
