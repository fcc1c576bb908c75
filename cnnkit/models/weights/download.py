"""Download of ImageNet weights: `weights="imagenet"`, the only name that downloads anything."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from cnnkit._network_options import check_imagenet_network
from cnnkit._networks import IMAGENET_CLASSES
from cnnkit.errors import RunError
from cnnkit.models.weights.open import open_weights
from cnnkit.models.weights.weights_file import WeightsFile

# What keras.applications' `preprocess_input` does for both networks.
PREPROCESSING = "caffe"
HOST = "https://storage.googleapis.com/"
WEIGHTS = HOST + "tensorflow/keras-applications/"


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        url: Its URL.
        md5: Its MD5 checksum, in hexadecimal.
    """

    url: str
    md5: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


# The files of keras.applications: the authors' own weights, with and without the dense layers.
WITH_TOP = "{0}/{0}_weights_tf_dim_ordering_tf_kernels.h5"
WITHOUT_TOP = "{0}/{0}_weights_tf_dim_ordering_tf_kernels_notop.h5"
FILES = {
    ("vgg16", True): RemoteFile(
        WEIGHTS + WITH_TOP.format("vgg16"), "64373286793e3c8b2b4e3219cbf3544b"
    ),
    ("vgg16", False): RemoteFile(
        WEIGHTS + WITHOUT_TOP.format("vgg16"), "6d6bbae143d832006294945121d1f1fc"
    ),
    ("vgg19", True): RemoteFile(
        WEIGHTS + WITH_TOP.format("vgg19"), "cbe5617147190e668d6c5d5026f83318"
    ),
    ("vgg19", False): RemoteFile(
        WEIGHTS + WITHOUT_TOP.format("vgg19"), "253f8cb515780f3b799900260a226db6"
    ),
}
CLASS_NAMES = RemoteFile(
    HOST + "download.tensorflow.org/data/imagenet_class_index.json",
    "c2c37ea517e94d9795004a39431a14cb",
)


def download_imagenet_weights(
    network: str,
    *,
    include_top: bool,
    classes: int = IMAGENET_CLASSES,
    **stated: Any,
) -> WeightsFile:
    """Download the ImageNet weights of a network and the names of the classes, once.

    Args:
        network: `"vgg16"` or `"vgg19"`; other networks have no such weights.
        include_top: Whether to download the dense layers too.
        classes: Number of classes of the network that is being built.
        **stated: Arguments of `open_weights` in place of those of these files.

    Raises:
        UsageError: If the network has no such weights, or other than 1,000 classes.
        RunError: If the download fails. The message contains the URL and the path of the file.
    """
    check_imagenet_network(network, include_top=include_top, classes=classes)
    file = download_file(FILES[network, include_top])
    known: dict[str, Any] = {"preprocessing": PREPROCESSING}
    if include_top:
        index = json.loads(download_file(CLASS_NAMES).read_text())
        known["class_names"] = [index[str(i)][1] for i in range(IMAGENET_CLASSES)]
    given = {name: value for name, value in stated.items() if value is not None}
    return open_weights(file, **{**known, **given})


def download_file(file: RemoteFile) -> Path:
    """Download a file into Keras's folder of models, unless it is there, and return its path.

    Raises:
        RunError: If the download fails.
    """
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    # Keras prints its progress on standard output, which is for the result of a command.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            path = keras.utils.get_file(
                file.name,
                file.url,
                cache_dir=str(folder),
                cache_subdir="models",
                file_hash=file.md5,
                hash_algorithm="md5",
            )
        except Exception as error:
            raise RunError(
                f"{file.url} could not be downloaded",
                received=error,
                hint=f"Download it on another machine and save it as"
                f" {folder / 'models' / file.name}",
            ) from error
    return Path(path)
