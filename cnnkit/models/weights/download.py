"""`weights="imagenet"`: the one name that downloads something."""

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
HOST = "https://storage.googleapis.com/"
WEIGHTS = HOST + "tensorflow/keras-applications/"


@dataclass(frozen=True)
class Download:
    """A file on the web, with its MD5 checksum."""

    address: str
    checksum: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]


# What keras.applications hands out: the authors' own weights, with and without the dense layers.
WITH_TOP = "{0}/{0}_weights_tf_dim_ordering_tf_kernels.h5"
WITHOUT_TOP = "{0}/{0}_weights_tf_dim_ordering_tf_kernels_notop.h5"
FILES = {
    ("vgg16", True): Download(
        WEIGHTS + WITH_TOP.format("vgg16"), "64373286793e3c8b2b4e3219cbf3544b"
    ),
    ("vgg16", False): Download(
        WEIGHTS + WITHOUT_TOP.format("vgg16"), "6d6bbae143d832006294945121d1f1fc"
    ),
    ("vgg19", True): Download(
        WEIGHTS + WITH_TOP.format("vgg19"), "cbe5617147190e668d6c5d5026f83318"
    ),
    ("vgg19", False): Download(
        WEIGHTS + WITHOUT_TOP.format("vgg19"), "253f8cb515780f3b799900260a226db6"
    ),
}
CLASS_NAMES = Download(
    HOST + "download.tensorflow.org/data/imagenet_class_index.json",
    "c2c37ea517e94d9795004a39431a14cb",
)


def imagenet_weights(network: str | None, *, include_top: bool, classes: int) -> WeightsFile:
    """Downloads the ImageNet weights of a network, once, and the names of the classes.

    Args:
        network: `"vgg16"` or `"vgg19"`; None or another name has no such weights.
        include_top: Whether the dense layers are wanted.
        classes: Classes of the network that is being built.

    Raises:
        UsageError: If there are none for this network, or it has other than 1,000 classes.
        RunError: If they cannot be downloaded; where they come from and belong is named.
    """
    if (network, include_top) not in FILES:
        known = sorted({name for name, _ in FILES})
        raise UsageError(
            f"There are no ImageNet weights to download for {network or 'this network'}",
            expected=f"{' or '.join(known)}, or a weights file",
        )
    if include_top and classes != CLASSES:
        raise UsageError(
            "The ImageNet weights have 1,000 classes",
            expected=f"classes={CLASSES}, or include_top=False",
            received=f"classes={classes}",
            hint="replace_head gives a trained network other classes",
        )
    file = download_file(FILES[network, include_top])
    if not include_top:
        return open_weights(file)
    index = json.loads(download_file(CLASS_NAMES).read_text())
    return open_weights(file, class_names=[index[str(i)][1] for i in range(CLASSES)])


def download_file(download: Download) -> Path:
    """Returns the file from Keras's folder of models, after a download where it is not there yet.

    Raises:
        RunError: If it cannot be downloaded.
    """
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    # Keras tells its progress on standard output, which belongs to a command's own result.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            path = keras.utils.get_file(
                download.name,
                download.address,
                cache_dir=str(folder),
                cache_subdir="models",
                file_hash=download.checksum,
                hash_algorithm="md5",
            )
        except Exception as error:
            raise RunError(
                f"{download.address} could not be downloaded",
                received=error,
                hint=f"Fetch it where there is a network and put it there as"
                f" {folder / 'models' / download.name}",
            ) from error
    return Path(path)
