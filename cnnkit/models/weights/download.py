"""Download of ImageNet weights: `weights="imagenet"`, the only name that downloads anything."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import keras

from cnnkit.errors import RunError, UsageError
from cnnkit.models.weights.open import open_weights
from cnnkit.models.weights.weights_file import WeightsFile

IMAGENET = "imagenet"
CLASSES = 1000
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
    network: str | None, *, include_top: bool, classes: int
) -> WeightsFile:
    """Download the ImageNet weights of a network and the names of the classes, once.

    Args:
        network: `"vgg16"` or `"vgg19"`; None and other networks have no such weights.
        include_top: Whether to download the dense layers too.
        classes: Number of classes of the network that is being built.

    Raises:
        UsageError: If the network has no such weights, or other than 1,000 classes.
        RunError: If the download fails. The message contains the URL and the path of the file.
    """
    if network is None or (network, include_top) not in FILES:
        known = sorted({name for name, _ in FILES})
        raise UsageError(
            f"There are no ImageNet weights to download for {network or 'this network'}",
            expected=f"{' or '.join(known)}, or a weights file",
        )
    if include_top and classes != CLASSES:
        raise UsageError(
            f"weights={IMAGENET!r} with dense layers must have 1,000 classes",
            expected=f"classes={CLASSES}, or include_top=False",
            received=f"classes={classes}",
            hint="replace_head gives a trained network other classes",
        )
    file = download_file(FILES[network, include_top])
    if not include_top:
        return open_weights(file, preprocessing=PREPROCESSING)
    index = json.loads(download_file(CLASS_NAMES).read_text())
    names = [index[str(i)][1] for i in range(CLASSES)]
    return open_weights(file, preprocessing=PREPROCESSING, class_names=names)


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
