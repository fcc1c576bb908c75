"""A fitted pipeline with all that is needed to use it on images, on disk and back.

    SAVED/pipeline.skops    the scikit-learn pipeline, from features to classes
    SAVED/transfer.json     which network, layer and protocol make the features; the classes

skops and not pickle or joblib: a file of somebody else's is read without running what is in it.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import skops.io
from sklearn.pipeline import Pipeline

from cnnkit._files import STAGING_PREFIX, write_error, write_text
from cnnkit.data import Split
from cnnkit.errors import DataError, UsageError
from cnnkit.features import FeatureSpec
from cnnkit.features.extract import BATCH_SIZE, LayerFeatures, extract_layers

PIPELINE, ABOUT = "pipeline.skops", "transfer.json"
FORMAT = 1


@dataclass(frozen=True)
class LinearProbe:
    """A classifier on the features of trained networks.

    Attributes:
        pipeline: Fitted scikit-learn pipeline, (n, dimension) to classes by number, or, where an
            image has several classes, to a column for each.
        classes: Their names.
        protocol: How an image becomes a vector.
        networks: Name of each network; the vectors of several are stacked.
        identities: Digest of each network up to the layer.
        dimension: Length of a vector.
        classifier: `"svm"` or `"softmax"`.
        c: Its regularization.
        several: Whether an image has any number of classes.
        dataset: What it was fitted on.
        fingerprint: Of that dataset.
        images: How many images it was fitted on.
        estimates: What was measured beforehand on other images, by name.
        opened: How the networks were named on the command line, for opening them again.
    """

    pipeline: Pipeline
    classes: tuple[str, ...]
    protocol: FeatureSpec
    networks: tuple[str, ...]
    identities: tuple[str, ...]
    dimension: int
    classifier: str
    c: float
    several: bool
    dataset: str
    fingerprint: str
    images: int
    estimates: Mapping[str, Any] = field(default_factory=dict)
    opened: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Returns a score for each image and class, (n, classes), from features (n, dimension).

        Of softmax probabilities, of SVMs the signed distance times the length of the weights:
        above 0 on the side of the class.
        """
        if values.shape[1] != self.dimension:
            raise UsageError(
                "These are features of another length",
                expected=f"{self.dimension} values",
                received=values.shape[1],
            )
        if self.classifier == "softmax" and not self.several:
            return self.pipeline.predict_proba(values)
        found = self.pipeline.decision_function(values)
        return np.stack([-found, found], axis=1) if found.ndim == 1 else found

    def check_networks(self, networks: Sequence[str], identities: Sequence[str]) -> None:
        """Makes sure that features are of the networks that it was fitted on.

        Raises:
            UsageError: If they are not.
        """
        if tuple(identities) != self.identities:
            raise UsageError(
                "The classifier was fitted on features of another network",
                expected=_networks(self.networks, self.identities),
                received=_networks(networks, identities),
                hint="Name the network that made them",
            )

    def predict(
        self,
        models: keras.Model | Sequence[keras.Model],
        images: Split,
        *,
        batch_size: int = BATCH_SIZE,
        progress=lambda count: None,
    ) -> np.ndarray:
        """Returns the `scores` of images.

        Args:
            models: The networks that it was fitted on, in their order.
            images: A split of a dataset, or `cnnkit.features.split_from_files` of files.
            batch_size: Images of 224 x 224 at a time.
            progress: Called with the number of images done since the last call, for every model.

        Raises:
            UsageError: If the features are of other networks.
            DataError: If an image cannot be used.
        """
        described = extract_layers(
            models,
            images,
            [self.protocol.layer],
            protocol=self.protocol,
            batch_size=batch_size,
            progress=progress,
        )
        self.check_networks(described.networks, described.identities)
        return self.scores(described.values[0])

    def save(self, path: str | Path) -> None:
        """Writes it into a new folder, whole or not at all.

        Raises:
            UsageError: If `path` exists.
            RunError: If it cannot be written.
        """
        path = Path(path)
        check_no_overwrite(path)
        about = {one.name: getattr(self, one.name) for one in fields(self)}
        del about["pipeline"]
        about["protocol"] = asdict(self.protocol)
        aside = path.with_name(f"{STAGING_PREFIX}{path.name}")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            skops.io.dump(self.pipeline, aside / PIPELINE)
            write_text(aside / ABOUT, json.dumps({"format": FORMAT, **about}, indent=2) + "\n")
            aside.rename(path)
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def fit_linear_probe(
    description: LayerFeatures,
    pipeline: Pipeline,
    c: float,
    **about: Any,
) -> LinearProbe:
    """Returns the classifier that was fitted on the first layer of a description.

    Args:
        description: Of the images that it was fitted on.
        pipeline: What was fitted.
        c: Its regularization.
        about: The other attributes of `LinearProbe`.
    """
    return LinearProbe(
        pipeline=pipeline,
        protocol=description.protocol,
        networks=description.networks,
        identities=description.identities,
        dimension=description.values[0].shape[1],
        c=c,
        **about,
    )


def check_no_overwrite(path: Path) -> None:
    """Makes sure that a classifier can be saved there, before the work begins.

    Raises:
        UsageError: If there is something, or no folder to be in.
    """
    if path.exists():
        raise UsageError(f"{path} exists", expected="a new folder for the classifier")
    if not path.parent.is_dir():
        raise UsageError(f"No folder {path.parent} for the classifier")


def load_linear_probe(path: str | Path) -> LinearProbe:
    """Reads what `LinearProbe.save` wrote. Nothing in the files is run.

    Raises:
        UsageError: If there is none.
        DataError: If it is torn, of another version, or holds what is no part of scikit-learn.

    Example:
        >>> from cnnkit.transfer import load_linear_probe
        >>> saved = load_linear_probe("caltech.transfer")  # doctest: +SKIP
        >>> saved.pipeline, saved.classes  # doctest: +SKIP
        (Pipeline(steps=[('normalizer', Normalizer()), ('linearsvc', LinearSVC(...))]), ('airplanes', ...))
    """  # noqa: E501
    folder = Path(path)
    if not (folder / ABOUT).is_file():
        raise UsageError(
            f"No saved classifier in {path}",
            expected=f"a folder with {ABOUT}, from `cnnkit transfer --save`",
        )
    pipeline = _load_pipeline(folder / PIPELINE)
    try:
        about = json.loads((folder / ABOUT).read_text())
        if about.pop("format") != FORMAT:
            raise DataError(f"{folder / ABOUT} is of another cnnkit", expected=f"format {FORMAT}")
        about["protocol"] = FeatureSpec.from_json(about["protocol"])
        for name in ("classes", "networks", "identities"):
            about[name] = tuple(about[name])
        found = LinearProbe(pipeline=pipeline, **about)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / ABOUT} tells of no classifier", received=error) from error
    features = getattr(pipeline[-1], "n_features_in_", None)
    if features != found.dimension or not hasattr(pipeline, "decision_function"):
        raise DataError(
            f"{folder / PIPELINE} is not the classifier that {ABOUT} tells of",
            expected=f"a linear classifier over {found.dimension} features",
            received=f"{type(pipeline[-1]).__name__} over {features}",
        )
    return found


def _load_pipeline(file: Path) -> Pipeline:
    try:
        unknown = skops.io.get_untrusted_types(file=file)
        if unknown:
            raise DataError(
                f"{file} holds what no classifier of scikit-learn holds",
                received=", ".join(unknown[:3]),
                hint="It is not read: such a file may run programs",
            )
        pipeline = skops.io.load(file)
    # Whatever a file of bytes can make a reader stumble over.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is no saved pipeline", received=error) from error
    if not isinstance(pipeline, Pipeline):
        raise DataError(f"{file} is no saved pipeline", received=type(pipeline).__name__)
    return pipeline


def _networks(names: Sequence[str], identities: Sequence[str]) -> str:
    pairs = zip(names, identities, strict=True)
    return " and ".join(f"{name}, {identity[:12]}" for name, identity in pairs)
