"""What the network in memory answers to two photographs, kept beside the version.

The photographs come with scikit-learn, so that every export can be compared on real images, with
nothing downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnkit.data import Augmentation, decode_image
from cnnkit.data.decode import augment_bytes
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.isolated_model import Request
from cnnkit.export.signatures import DEFAULT, default_explain_layer
from cnnkit.models import get_layer
from cnnkit.visualize import deconvnet

FILE = Path("assets.extra") / "reference.npz"
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
CREDIT = (
    "The reference images are scikit-learn's `china.jpg` and `flower.jpg`, made smaller: Creative "
    "Commons BY 2.0, by danielbuechele and by vultilion on Flickr."
)
# How much larger than the network's images the photographs are kept.
MARGIN = 1.25

SignatureOutputs = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class ReferenceOutputs:
    """Inputs and what the network in memory answers to them.

    Attributes:
        files: Encoded photographs.
        images: The same as the network takes them, (n, side, side, 3) float32 of whole levels.
        answers: By signature and output. Of `classify_bytes` one class more than it answers.
    """

    files: tuple[bytes, ...]
    images: np.ndarray
    answers: Mapping[str, Mapping[str, np.ndarray]]

    def questions(self) -> list[Request]:
        """Returns a question for every signature."""
        return [Request(name, self.inputs(name), keep=True) for name in self.answers]

    def inputs(self, signature: str, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Returns what a signature takes of the references."""
        if signature in (DEFAULT, "features"):
            return {"images": self.images[rows]}
        encoded = np.empty(len(self.files), object)
        encoded[:] = self.files
        return {"image_bytes": encoded[rows]}

    def write(self, folder: Path) -> None:
        """Writes them into a version folder."""
        file = folder / FILE
        file.parent.mkdir(exist_ok=True)
        arrays = {f"file/{i}": np.frombuffer(data, np.uint8) for i, data in enumerate(self.files)}
        for signature, outputs in self.answers.items():
            arrays |= {f"answer/{signature}/{name}": array for name, array in outputs.items()}
        np.savez_compressed(file, images=self.images.astype(np.uint8), **arrays)

    @classmethod
    def read(cls, folder: Path) -> ReferenceOutputs | None:
        """Reads those of a version folder, None where it has none."""
        file = folder / FILE
        if not file.is_file():
            return None
        answers: SignatureOutputs = {}
        with np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                kind, _, rest = key.partition("/")
                if kind == "answer":
                    signature, _, name = rest.partition("/")
                    answers.setdefault(signature, {})[name] = arrays[key]
            count = sum(key.startswith("file/") for key in arrays.files)
            files = tuple(arrays[f"file/{i}"].tobytes() for i in range(count))
            return cls(files, arrays["images"].astype(np.float32), answers)


def photographs(side: int) -> tuple[bytes, ...]:
    """Returns a JPEG and a PNG file of real photographs, a little larger than `side` pixels."""
    folder = resources.files("sklearn.datasets.images")
    shorter = round(MARGIN * side)
    images = []
    for name in PHOTOGRAPHS:
        image = decode_image(tf.constant((folder / name).read_bytes())).numpy()
        longer = round(shorter * image.shape[1] / image.shape[0])
        smaller = tf.image.resize(image, (shorter, longer), antialias=True)
        images.append(tf.cast(tf.round(smaller), tf.uint8))
    return tf.io.encode_jpeg(images[0]).numpy(), tf.io.encode_png(images[1]).numpy()


def reference_outputs(
    network: ServedClassifier,
    labels: Sequence[str],
    augmentation: Augmentation,
    signatures: Sequence[str],
    explain_layers: Sequence[str],
    top: int,
) -> ReferenceOutputs:
    """Asks the network in memory, by the ways that evaluation and `deconvnet` take.

    None of what is exported has a part in it, so that a mistake there shows.
    """
    # On the CPU, as the reloaded network will be: GPUs multiply with fewer digits.
    with tf.device("CPU:0"):
        files = photographs(network.side)
        seen = np.stack([augment_bytes(data, augmentation, {}).numpy() for data in files])
        whole = np.round(seen)
        probabilities = _probabilities(network, seen)
        answers: SignatureOutputs = {DEFAULT: {"probabilities": _probabilities(network, whole)}}
        order = np.argsort(-probabilities, axis=1, kind="stable")
        names = np.array(list(labels))
        answers["serving_bytes"] = {"probabilities": probabilities}
        answers["classify_bytes"] = {
            "labels": names[order[:, : top + 1]],
            "scores": np.take_along_axis(probabilities, order[:, : top + 1], axis=1),
        }
        if network.features is not None:
            answers["features"] = {"features": _features(network, whole)}
            answers["features_bytes"] = {"features": _features(network, seen)}
        answers = {name: outputs for name, outputs in answers.items() if name in signatures}
        if "explain_bytes" in signatures:
            last = network.model.layers[-1].name
            answers["explain_bytes"] = {
                "labels": names[order[:, 0]],
                "scores": probabilities.max(axis=1),
                "projection": _explained(network, seen, last)["projection"],
            }
        for layer in explain_layers:
            answers[default_explain_layer(layer)] = _explained(network, seen, layer)
    return ReferenceOutputs(files, whole, answers)


def _probabilities(network: ServedClassifier, images: np.ndarray) -> np.ndarray:
    scores = network.model(images, training=False).numpy()
    return scores.mean(axis=(1, 2)) if network.free else scores


def _features(network: ServedClassifier, images: np.ndarray) -> np.ndarray:
    layer = get_layer(network.model, network.features)
    shortened = keras.Model(network.model.inputs[0], layer.output)
    found = tf.cast(shortened(images, training=False), tf.float32).numpy()
    if network.free:
        found = found.mean(axis=(1, 2))
    flat = found.reshape(len(found), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, 1)


def _explained(network: ServedClassifier, images: np.ndarray, layer: str) -> dict[str, np.ndarray]:
    found = deconvnet(network.graph, images, layer)
    return {
        "projection": np.stack([one.projection for one in found]).astype(np.float32),
        "unit": np.array([one.unit for one in found]),
        "activation": np.array([one.activation for one in found], np.float32),
        "position": np.array([one.position for one in found], np.int64),
    }
