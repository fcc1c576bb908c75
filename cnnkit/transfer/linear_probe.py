"""Linear probe: a classifier on the features of trained networks, saved to a folder and loaded.

    SAVED/pipeline.skops    the scikit-learn pipeline, from features to class indices
    SAVED/transfer.json     networks, layer and spec of the features; names of the classes

The format is skops, not pickle or joblib: loading a third-party file does not run code in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import skops.io
from sklearn.pipeline import Pipeline

from cnnkit._file_tree import CLASSIFIER_FILE
from cnnkit._files import json_text, write_text
from cnnkit._staging import machine_identity, staged_folder
from cnnkit._untrusted.damage import damage_as_error
from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit._untrusted.limits import MAX_FEATURE_DIMENSION
from cnnkit.data import Decoding, Split
from cnnkit.data.formats import DEFAULT_DECODING
from cnnkit.errors import DataError, UsageError
from cnnkit.features import FeatureSpec
from cnnkit.features.extract import BATCH_SIZE, LayerFeatures, extract_layers
from cnnkit.transfer.linear_classifier import CLASSIFIERS, check_features
from cnnkit.transfer.pipeline_file import load_pipeline

PIPELINE = "pipeline.skops"
FORMAT = 1
# Keys in the file whose attribute has another name.
ORIGIN = "origin"
KEYS = {"spec": "protocol", "multilabel": "several", "model_reference": "opened"}


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on the features of trained networks.

    Attributes:
        pipeline: Fitted scikit-learn pipeline from features (n, dimension) to class indices, or,
            if `multilabel`, to a column for each class.
        classes: Names of the classes.
        spec: How an image becomes a vector.
        networks: Name of each network; the vectors of several are concatenated.
        identities: Digest of each network up to the layer.
        dimension: Length of a vector.
        classifier: `"svm"` or `"softmax"`.
        c: The inverse regularization strength C.
        multilabel: Whether an image may have any number of classes.
        dataset: Specification of the dataset that it was fitted on.
        fingerprint: Fingerprint of that dataset.
        images: Number of images that it was fitted on.
        estimates: Scores that were measured on held-out images, by name.
        model_reference: Command-line arguments that named the networks, to load them again.
        decoding: How the files of the images became pixels; `predict` does the same.
    """

    pipeline: Pipeline
    classes: tuple[str, ...]
    spec: FeatureSpec
    networks: tuple[str, ...]
    identities: tuple[str, ...]
    dimension: int
    classifier: str
    c: float
    multilabel: bool
    dataset: str
    fingerprint: str
    images: int
    estimates: Mapping[str, Any] = field(default_factory=dict)
    model_reference: Mapping[str, Any] = field(default_factory=dict)
    decoding: Decoding = DEFAULT_DECODING

    @classmethod
    def from_features(
        cls, features: LayerFeatures, pipeline: Pipeline, c: float, **fields: Any
    ) -> LinearProbe:
        """Create a probe from a pipeline that was fitted on the first layer of `features`.

        Args:
            features: Features of the images that the pipeline was fitted on.
            pipeline: The fitted pipeline.
            c: The inverse regularization strength C.
            fields: The other attributes of `LinearProbe`.
        """
        return cls(
            pipeline=pipeline,
            spec=features.spec,
            networks=features.networks,
            identities=features.identities,
            dimension=features.values[0].shape[1],
            c=c,
            **fields,
        )

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return a score for each image and class, (n, classes), from features (n, dimension).

        The scores of softmax are probabilities. The scores of an SVM are the signed distance times
        the norm of the weights: above 0 on the side of the class.

        Raises:
            UsageError: If the features have another dimension.
        """
        values = check_features(values)
        if values.shape[1] != self.dimension:
            raise UsageError(
                f"`values` must have the dimension of the classifier, {self.dimension}",
                received=values.shape[1],
            )
        if self.classifier == "softmax" and not self.multilabel:
            return self.pipeline.predict_proba(values)
        scores = self.pipeline.decision_function(values)
        return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores

    def check_networks(self, networks: Sequence[str], identities: Sequence[str]) -> None:
        """Check that features are of the networks that the probe was fitted on.

        Raises:
            UsageError: If they are not.
        """
        if tuple(identities) != self.identities:
            raise UsageError(
                "`models` must be the networks that the classifier was fitted on: it was fitted on"
                " features of another network",
                expected=_networks_text(self.networks, self.identities),
                received=_networks_text(networks, identities),
                hint="Name the network that made the features",
            )

    def predict(
        self,
        models: keras.Model | Sequence[keras.Model],
        images: Split,
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], object] = lambda count: None,
    ) -> np.ndarray:
        """Return the `scores` of images, (n, classes).

        Args:
            models: The networks that it was fitted on, in the same order.
            images: A split of a dataset, or `cnnkit.features.split_from_files` of files.
            batch_size: Number of 224 x 224 images in a batch; a batch of larger images has fewer.
            progress: Called with the number of images done since the last call, for every model.

        Raises:
            UsageError: If the features are of other networks.
            DataError: If an image cannot be decoded.
        """
        features = extract_layers(
            models,
            images.decoded(self.decoding),
            [self.spec.layer],
            spec=self.spec,
            batch_size=batch_size,
            progress=progress,
        )
        self.check_networks(features.networks, features.identities)
        return self.scores(features.values[0])

    def save(self, path: str | Path) -> None:
        """Write the probe into a new folder, whole or not at all.

        Raises:
            UsageError: If `path` exists, or the pipeline has other than linear estimators.
            RunError: If it cannot be written.
        """
        path = Path(path)
        check_no_overwrite(path)
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        del values["pipeline"]
        values["spec"], values["decoding"] = asdict(self.spec), self.decoding.to_dict()
        stored = {KEYS.get(name, name): value for name, value in values.items()}
        with staged_folder(path) as staging:
            stored[ORIGIN] = _origin(staging, self.model_reference)
            skops.io.dump(self.pipeline, staging / PIPELINE)
            # What cannot be read again is not written.
            try:
                load_pipeline(staging / PIPELINE)
            except DataError as error:
                raise UsageError(
                    "`pipeline` must be one of linear estimators, which can be read again",
                    received=error.received,
                ) from error
            write_text(
                staging / CLASSIFIER_FILE, json_text({"format": FORMAT, **stored}, indent=2) + "\n"
            )


def check_no_overwrite(path: Path) -> None:
    """Check that a classifier can be saved at `path`, before the features are extracted.

    Raises:
        UsageError: If `path` exists.
    """
    if path.exists():
        raise UsageError(f"{path} exists", expected="a new folder for the classifier")


def names_own_networks(path: str | Path) -> bool:
    """Return True if this machine wrote the `model_reference` of a probe, into this very folder.

    A folder that was copied, moved to another disk or received names files that somebody else
    chose.

    Raises:
        DataError: If it is damaged.
    """
    stored = JsonFields(read_json(Path(path) / CLASSIFIER_FILE), Path(path) / CLASSIFIER_FILE)
    reference = stored.fields(KEYS["model_reference"]).document
    return stored.text(ORIGIN, default=None) == _origin(Path(path), reference)


def _origin(folder: Path, reference: Mapping[str, Any]) -> str:
    """Return a digest that others cannot make: they do not know the number of the folder."""
    number = folder.stat().st_ino
    text = json.dumps([machine_identity(), number, reference], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_linear_probe(path: str | Path) -> LinearProbe:
    """Load a probe that `LinearProbe.save` wrote. No code in the files is run.

    Raises:
        UsageError: If there is no saved probe at `path`.
        DataError: If it is damaged, of another version, or holds types from outside scikit-learn.

    Example:
        >>> from cnnkit.transfer import load_linear_probe
        >>> probe = load_linear_probe("caltech.transfer")  # doctest: +SKIP
        >>> probe.pipeline, probe.classes  # doctest: +SKIP
        (Pipeline(steps=[('normalizer', Normalizer()), ('linearsvc', LinearSVC(...))]), ('airplanes', ...))
    """  # noqa: E501
    folder = Path(path)
    if not (folder / CLASSIFIER_FILE).is_file():
        raise UsageError(
            f"No saved classifier in {path}",
            expected=f"a folder with {CLASSIFIER_FILE}, from `cnnkit transfer --save`",
        )
    file = folder / CLASSIFIER_FILE
    stored = JsonFields(read_json(file), file)
    if stored.integer("format") != FORMAT:
        raise DataError(
            f"{file} was written by another version of cnnkit", expected=f"format {FORMAT}"
        )
    known = {"format", ORIGIN, *(KEYS.get(one.name, one.name) for one in fields(LinearProbe))}
    if unknown := sorted(set(stored) - known):
        raise DataError(f"{file} does not describe a classifier", received=f"field {unknown[0]!r}")
    classifier = stored.text("classifier")
    if classifier not in CLASSIFIERS:
        raise stored.wrong("classifier", " or ".join(CLASSIFIERS))
    probe = LinearProbe(
        pipeline=load_pipeline(folder / PIPELINE),
        classes=stored.texts("classes"),
        spec=FeatureSpec.from_dict(
            stored.fields(KEYS["spec"]).document, f"`{KEYS['spec']}` in {file}"
        ),
        networks=stored.texts("networks"),
        identities=stored.texts("identities"),
        dimension=stored.integer("dimension", minimum=1, maximum=MAX_FEATURE_DIMENSION),
        classifier=classifier,
        c=stored.number("c", minimum=0),
        multilabel=stored.boolean(KEYS["multilabel"]),
        dataset=stored.text("dataset"),
        fingerprint=stored.text("fingerprint"),
        images=stored.integer("images"),
        estimates=stored.fields("estimates").document,
        model_reference=stored.fields(KEYS["model_reference"]).document,
        decoding=Decoding.from_dict(stored.document.get("decoding"), f"`decoding` in {file}"),
    )
    if not len(probe.networks) == len(probe.identities) > 0:
        raise stored.wrong("identities", "one for each of `networks`")
    _check_pipeline(probe, folder)
    return probe


def _check_pipeline(probe: LinearProbe, folder: Path) -> None:
    """Check that a pipeline gives a finite score for each class, by a vector of zeros.

    Raises:
        DataError: If it does not.
    """
    file = folder / PIPELINE
    described = f"is not the classifier that {CLASSIFIER_FILE} describes"
    with damage_as_error(file, problem=described), np.errstate(all="ignore"):
        last = probe.pipeline[-1]
        dimension = getattr(last, "n_features_in_", None)
        # Each feature has a coefficient in the file, so that the zeros are not larger than it.
        is_large = 4 * probe.dimension > file.stat().st_size
        if dimension != probe.dimension or is_large or not hasattr(last, "decision_function"):
            raise DataError(
                f"{file} {described}",
                expected=f"a linear classifier over {probe.dimension} features",
                received=f"{type(last).__name__} over {dimension}",
            )
        for estimator in (last, *getattr(last, "estimators_", ())):
            # A column would be added to each score, for an array of all pairs.
            if np.ndim(getattr(estimator, "intercept_", 0)) > 1:
                raise DataError(f"{file} {described}", received="an intercept of two axes")
        scores = np.asarray(probe.scores(np.zeros((1, probe.dimension), np.float32)))
        shape, is_finite = scores.shape, bool(np.isfinite(scores).all())
    if shape != (1, len(probe.classes)) or not is_finite:
        raise DataError(
            f"{file} {described}",
            expected=f"a finite score for each of {len(probe.classes)} classes",
            received=f"shape {shape}" if is_finite else "NaN or infinity",
        )


def _networks_text(names: Sequence[str], identities: Sequence[str]) -> str:
    pairs = zip(names, identities, strict=True)
    return " and ".join(f"{name}, {identity[:12]}" for name, identity in pairs)
