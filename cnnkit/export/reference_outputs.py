"""Reference outputs: the answers of the model in memory to two photographs, stored with a version.

The photographs come with scikit-learn, so that every export can be compared on real images without
a download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from cnnkit._untrusted.damage import damage_as_error
from cnnkit.data import Augmentation, Decoding, decode_image
from cnnkit.data.decode import augment_bytes
from cnnkit.errors import RunError
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.isolated_model import Request
from cnnkit.export.signature_context import IMAGE_BYTES
from cnnkit.export.signatures import EXPLAIN, LOCALIZE, explained_layer, get_signature
from cnnkit.visualize import deconvnet
from cnnkit.wire.pixels import IMAGES

FILE = Path("assets.extra") / "reference.npz"
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
CREDIT = (
    "The reference images are scikit-learn's `china.jpg` and `flower.jpg`, made smaller: Creative "
    "Commons BY 2.0, by danielbuechele and by vultilion on Flickr."
)
# Shorter side of the stored photographs, as a multiple of the network's image size.
MARGIN = 1.25

SignatureOutputs = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class ReferenceOutputs:
    """Reference images and the outputs of the model in memory.

    Attributes:
        files: Encoded photographs.
        images: The same images as the network takes them, (n, side, side, 3) float32, rounded.
        outputs: Arrays by signature and output. Those of `classify_bytes` hold one class more than
            the signature returns.
    """

    files: tuple[bytes, ...]
    images: np.ndarray
    outputs: Mapping[str, Mapping[str, np.ndarray]]

    def requests(self) -> list[Request]:
        """Returns a request to every signature."""
        return [Request(name, self.inputs(name), keep_outputs=True) for name in self.outputs]

    def inputs(self, signature: str, rows: slice = slice(None)) -> dict[str, np.ndarray]:
        """Returns the inputs of a signature made of the reference images, or of some rows."""
        if get_signature(signature).input_name == IMAGES:
            return {IMAGES: self.images[rows]}
        encoded = np.empty(len(self.files), object)
        encoded[:] = self.files
        return {IMAGE_BYTES: encoded[rows]}

    def write(self, folder: Path) -> None:
        """Writes the reference file into a version folder."""
        file = folder / FILE
        file.parent.mkdir(exist_ok=True)
        arrays: dict[str, Any] = {
            f"file/{i}": np.frombuffer(data, np.uint8) for i, data in enumerate(self.files)
        }
        for signature, outputs in self.outputs.items():
            arrays |= {f"answer/{signature}/{name}": array for name, array in outputs.items()}
        np.savez_compressed(file, images=self.images.astype(np.uint8), **arrays)

    @classmethod
    def read(cls, folder: Path) -> ReferenceOutputs | None:
        """Returns the contents of the reference file of a version folder; None if it has none.

        Raises:
            RunError: If the file is damaged.
        """
        file = folder / FILE
        if not file.is_file():
            return None
        outputs: SignatureOutputs = {}
        with (
            damage_as_error(file, RunError),
            # numpy leaves a file open that is no archive.
            file.open("rb") as opened,
            np.load(opened, allow_pickle=False) as arrays,
        ):
            for key in arrays.files:
                kind, _, rest = key.partition("/")
                if kind == "answer":
                    signature, _, name = rest.partition("/")
                    outputs.setdefault(signature, {})[name] = arrays[key]
            count = sum(key.startswith("file/") for key in arrays.files)
            files = tuple(arrays[f"file/{i}"].tobytes() for i in range(count))
            return cls(files, arrays["images"].astype(np.float32), outputs)


def reference_images(side: int) -> tuple[bytes, bytes]:
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
    top: int,
    decoding: Decoding,
) -> ReferenceOutputs:
    """Computes the reference outputs of signatures from the model in memory.

    They are computed as in evaluation and by `cnnkit.visualize.deconvnet`, without the functions
    that are exported, so that an error in those shows.

    Args:
        network: The classifier.
        labels: Names of the classes.
        augmentation: Rescaling and crop of encoded images.
        signatures: Names of signatures, `explain_bytes_LAYER` included.
        top: Number of classes that `classify_bytes` returns.
        decoding: Background and orientation of encoded images.
    """
    # On the CPU, as the reloaded network will be: GPUs multiply with fewer digits.
    with tf.device("CPU:0"):
        files = reference_images(network.image_size)
        decoded = np.stack([augment_bytes(data, augmentation, {}).numpy() for data in files])
        images = {IMAGES: np.round(decoded), IMAGE_BYTES: decoded}
        probabilities = {name: _probabilities(network, batch) for name, batch in images.items()}
        order = np.argsort(-probabilities[IMAGE_BYTES], axis=1, kind="stable")[:, : top + 1]
        names = np.array(list(labels))
        outputs: SignatureOutputs = {}
        for signature in signatures:
            given = get_signature(signature).input_name
            layer = explained_layer(signature)
            if layer is not None:
                outputs[signature] = _explanations(network, decoded, layer)
            elif signature == EXPLAIN:
                last = network.model.layers[-1].name
                outputs[signature] = {
                    "labels": names[order[:, 0]],
                    "scores": probabilities[given].max(axis=1),
                    "projection": _explanations(network, decoded, last)["projection"],
                }
            elif signature in ("classify_bytes", LOCALIZE):
                scores = np.take_along_axis(probabilities[given], order, axis=1)
                outputs[signature] = {"labels": names[order], "scores": scores}
                if signature == LOCALIZE:
                    boxes = _boxes(network, decoded, files, augmentation, decoding)
                    found = np.take_along_axis(boxes, order[..., None], axis=1)
                    outputs[signature]["boxes"] = found
            elif "features" in get_signature(signature).outputs:
                outputs[signature] = {"features": _features(network, images[given])}
            else:
                outputs[signature] = {"probabilities": probabilities[given]}
    return ReferenceOutputs(files, images[IMAGES], outputs)


def _probabilities(network: ServedClassifier, images: np.ndarray) -> np.ndarray:
    scores = network.model(images, training=False).numpy()
    return scores.mean(axis=(1, 2)) if network.variable_size else scores


def _boxes(
    network: ServedClassifier,
    images: np.ndarray,
    files: Sequence[bytes],
    augmentation: Augmentation,
    decoding: Decoding,
) -> np.ndarray:
    """Returns the boxes of all classes in pixels of the files, (n, classes, 4)."""
    model: Any = network.boxes
    found = np.asarray(model(images, training=False), np.float64)
    found = np.broadcast_to(found, (len(found), network.model.output_shape[-1], 4))
    shorter = augmentation.scales[0]
    boxes = []
    for data, rows in zip(files, found, strict=True):
        height, width = decode_image(tf.constant(data), decoding).shape[:2]
        sides = np.array([width, height])
        scaled = np.maximum(np.round(sides * (shorter / sides.min())), shorter)
        start = (scaled - augmentation.image_size) // 2
        half = rows[:, 2:] / 2
        corners = np.stack([rows[:, :2] - half, rows[:, :2] + half], axis=1)
        pixels = (corners * augmentation.image_size + start) * sides / scaled
        boxes.append(pixels.clip(0, sides).reshape(-1, 4))
    return np.stack(boxes).astype(np.float32)


def _features(network: ServedClassifier, images: np.ndarray) -> np.ndarray:
    up_to_layer = network.features_model()
    found = tf.cast(up_to_layer(images, training=False), tf.float32).numpy()
    if network.variable_size:
        found = found.mean(axis=(1, 2))
    flat = found.reshape(len(found), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 0, length, 1)


def _explanations(
    network: ServedClassifier, images: np.ndarray, layer: str
) -> dict[str, np.ndarray]:
    found = deconvnet(network.graph, images, layer)
    return {
        "projection": np.stack([one.projection for one in found]).astype(np.float32),
        "unit": np.array([one.unit for one in found]),
        "activation": np.array([one.activation for one in found], np.float32),
        "position": np.array([one.position for one in found], np.int64),
    }
