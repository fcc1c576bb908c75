"""Transfer benchmark: linear classifiers on features, by the protocols of Caltech-101 and 256."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from sklearn.pipeline import Pipeline

from cnnkit.data import Dataset
from cnnkit.errors import UsageError, unknown_name
from cnnkit.features import FeatureBatch, FeatureSpec, select_features_split
from cnnkit.features.extract import BATCH_SIZE, LayerFeatures, extract_layers
from cnnkit.features.mapped_rows import iter_rows, take_rows
from cnnkit.transfer.linear_classifier import (
    CLASSIFIERS,
    check_features,
    check_labels,
    class_recalls,
    fit_linear_classifier,
)
from cnnkit.transfer.random_splits import check_number, label_indices, random_split

# Fei-Fei et al. 2004, as in Zeiler & Fergus 2013, section 5.2: 15 or 30 training images and at
# most 50 test images of each class.
PER_CLASS = 30
TEST_PER_CLASS = 50
SPLITS = 3


@dataclass(frozen=True)
class SplitScore:
    """Score of one random split.

    Attributes:
        seed: Seed of the split.
        c: The chosen inverse regularization strength C.
        recall: Mean class recall, 0..1.
        recalls: Recall of each class, the fraction of its test images that are predicted right.
        training_images: Number of training images.
        test_images: Number of test images.
        pipeline: The fitted scikit-learn pipeline, from features to class indices.
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
    """Score of a layer's features over random splits.

    Attributes:
        layer: Name of the layer.
        classifier: `"svm"` or `"softmax"`.
        per_class: Number of training images of each class.
        splits: Score of each random split.
    """

    layer: str
    classifier: str
    per_class: int
    splits: tuple[SplitScore, ...]

    @property
    def mean(self) -> float:
        """Mean over the splits of the mean class recall, 0..1."""
        return float(np.mean([split.recall for split in self.splits]))

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the splits (ddof=1); None of a single split."""
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
    progress: Callable[[], object] = lambda: None,
) -> TransferScore:
    """Score features by the protocol of Caltech-101 and Caltech-256.

    Args:
        features: Features of all images of a dataset.
        layer: Name of the layer, for the record.
        classifier: `"svm"` or `"softmax"`.
        per_class: Number of training images of each class.
        test_per_class: Largest number of test images of each class; None takes all the others.
        splits: Number of random splits; split number i is drawn from seed + i.
        l2: Whether vectors are divided by their Euclidean length.
        seed: Seed of the first split.
        progress: Called after every split.

    Raises:
        UsageError: If a number is below 1, or the classifier does not exist.
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
    check_number("splits", splits)
    labels = label_indices(features.labels, features.classes)
    values = np.asanyarray(features.values)
    if values.ndim != 2 or not len(values):
        check_features(values)
    for _, block in iter_rows(values, np.arange(len(values))):
        check_features(block)
    check_labels(labels, len(values))
    scores = []
    for split_seed in range(seed, seed + splits):
        train, test = random_split(labels, features.classes, per_class, test_per_class, split_seed)
        pipeline, c = fit_linear_classifier(
            take_rows(values, train), labels[train], classifier, l2=l2, seed=split_seed
        )
        predicted = [pipeline.predict(block) for _, block in iter_rows(values, test)]
        recalls = class_recalls(labels[test], np.concatenate(predicted))
        scores.append(
            SplitScore(
                split_seed, c, float(recalls.mean()), tuple(map(float, recalls)),
                len(train), len(test), pipeline,
            )
        )  # fmt: skip
        progress()
    return TransferScore(layer, classifier, per_class, tuple(scores))


def evaluate_transfer(
    models: keras.Model | Sequence[keras.Model],
    dataset: Dataset,
    layers: Sequence[str],
    *,
    spec: FeatureSpec | None = None,
    classifiers: Sequence[str] = ("svm",),
    per_class: Sequence[int] = (PER_CLASS,),
    test_per_class: int | None = TEST_PER_CLASS,
    splits: int = SPLITS,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> list[TransferScore]:
    """Score layers of trained networks on the classes of a dataset.

    One pass over the images extracts the features of all layers into unlinked temporary files,
    which the system frees however the process ends. With one layer this is Zeiler & Fergus 2013,
    Tables 4 and 5; with several layers Table 7; with several numbers of training images Fig. 9.
    Two networks are stacked as in Simonyan & Zisserman 2014, Table 11.

    Args:
        models: A Keras model over RGB images in 0..255, or several whose vectors are concatenated.
        dataset: The dataset; its training and test images are put together and drawn anew.
        layers: Names of layers, which every model has.
        spec: How an image becomes a vector, for the first of the layers; None takes the center
            crop of the image.
        classifiers: `"svm"`, `"softmax"` or both.
        per_class: Numbers of training images of each class.
        test_per_class: Largest number of test images of each class; None takes all the others.
        splits: Number of random splits.
        seed: Seed of the first split.
        batch_size: Number of 224 x 224 images in a batch; a batch of larger images has fewer.
        progress: Called with the number of images done since the last call, for every model.

    Returns:
        A score for each layer, classifier and number of training images, in this order.

    Raises:
        UsageError: If a layer or a classifier does not exist, or an option is out of range.
        DataError: If a class has too few images, or an image cannot be decoded.

    Example:
        >>> from cnnkit import alexnet
        >>> from cnnkit.data import load_dataset
        >>> from cnnkit.transfer import evaluate_transfer
        >>> model = alexnet(input_shape=(64, 64, 3), include_top=False)
        >>> digits, layers = load_dataset("digits"), ["pool1", "pool2"]
        >>> scores = evaluate_transfer(model, digits, layers)  # doctest: +SKIP
        >>> [(score.layer, round(score.mean, 2)) for score in scores]  # doctest: +SKIP
        [('pool1', 0.97), ('pool2', 0.96)]
    """
    images = select_features_split(dataset)
    check_classifiers(classifiers)
    check_splits(dataset, per_class, test_per_class, seed)
    features = extract_layers(
        models, images, layers, spec=spec, batch_size=batch_size, progress=progress
    )
    return score_layers(
        features,
        dataset,
        classifiers=classifiers,
        per_class=per_class,
        test_per_class=test_per_class,
        splits=splits,
        seed=seed,
    )


def check_classifiers(classifiers: Iterable[str]) -> None:
    """Check the names of classifiers, before the features are extracted.

    Raises:
        UsageError: If a classifier does not exist, or `classifiers` is not a list.
    """
    if isinstance(classifiers, str):
        raise UsageError("`classifiers` must be a list of names", received=repr(classifiers))
    for name in classifiers:
        if not isinstance(name, str) or name not in CLASSIFIERS:
            raise unknown_name("classifier", name, CLASSIFIERS)


def check_splits(
    dataset: Dataset, per_class: Sequence[int], test_per_class: int | None, seed: int
) -> None:
    """Check that every class has enough images, before the features are extracted.

    Raises:
        UsageError: If a number is below 1.
        DataError: If a class has too few images.
    """
    labels = select_features_split(dataset).labels
    if not isinstance(per_class, Iterable):
        raise UsageError("`per_class` must be a list of numbers", received=repr(per_class))
    for number in per_class:
        random_split(labels, dataset.class_names, number, test_per_class, seed)


def score_layers(
    features: LayerFeatures,
    dataset: Dataset,
    *,
    classifiers: Sequence[str] = ("svm",),
    per_class: Sequence[int] = (PER_CLASS,),
    test_per_class: int | None = TEST_PER_CLASS,
    splits: int = SPLITS,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> list[TransferScore]:
    """Score the features of several layers, which `extract_layers` returned.

    Args:
        features: Features of all images of the dataset.
        dataset: The dataset.
        classifiers: `"svm"`, `"softmax"` or both.
        per_class: Numbers of training images of each class.
        test_per_class: Largest number of test images of each class; None takes all the others.
        splits: Number of random splits.
        seed: Seed of the first split.
        progress: Called after every split of every score.

    Returns:
        A score for each layer, classifier and number of training images, in this order.

    Raises:
        UsageError: If a number is below 1, or a classifier does not exist.
        DataError: If a class has too few images.
    """
    images = select_features_split(dataset)
    return [
        score_features(
            FeatureBatch(values, images.names, images.labels, dataset.class_names),
            layer,
            classifier=classifier,
            per_class=number,
            test_per_class=test_per_class,
            splits=splits,
            l2=features.spec.l2,
            seed=seed,
            progress=progress,
        )
        for layer, values in zip(features.layers, features.values, strict=True)
        for classifier in classifiers
        for number in per_class
    ]
