"""Shared helpers of the notebooks: real data beside the checkout, and pictures in a cell."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np

from cnnkit import alexnet
from cnnkit.data import load_dataset
from cnnkit.features import split_from_files
from cnnkit.models import set_class_names
from cnnkit.training import SGD

# A checkout is the folder that holds setup.cfg; shared/data lies beside it, if at all.
ROOT = next(one for one in Path(__file__).resolve().parents if (one / "setup.cfg").is_file())
DATA = ROOT.parent / "shared" / "data"


def find_data(*names: str) -> list[Path] | None:
    """Find real data by name, and say in one line what is used.

    Args:
        *names: Files or folders in `../shared/data`.

    Returns:
        Their paths, or None if one of them is not there.
    """
    paths = [DATA / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        print(f"Note: {', '.join(missing)} not found in ../shared/data.")
        print("This notebook uses scikit-learn's digits instead: some pictures will be less clear.")
        return None
    print(f"Real data from ../shared/data: {', '.join(names)}.")
    return paths


def center_square(image: np.ndarray, size: int) -> np.ndarray:
    """Resize the central square of an image to (size, size, 3), float32 in 0..255."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.asarray(image[top : top + side, left : left + side], "float32")
    resized = keras.ops.image.resize(square, (size, size), antialias=True)
    return np.clip(np.asarray(resized), 0, 255)


def read_photo(path: Path, size: int) -> np.ndarray:
    """Read an image file as its central square, (size, size, 3), float32 in 0..255."""
    return center_square(np.asarray(split_from_files([path]).load_image(0)), size)


def read_digits(size: int, split: str = "train", count: int | None = None) -> tuple[Any, Any]:
    """Read scikit-learn's digits: images (n, size, size, 3) in 0..255 and labels (n,)."""
    digits = load_dataset("digits").splits[split]
    pixels = np.asarray(digits.pixels[:count], "float32")
    images = np.asarray(keras.ops.image.resize(pixels, (size, size)))
    return images, np.asarray(digits.labels[:count])


def read_classes(folder: Path, size: int, per_class: int) -> tuple[Any, Any, tuple[str, ...]]:
    """Read the first photos of each class of a folder: images, labels and class names."""
    names = tuple(sorted(one.name for one in folder.iterdir() if one.is_dir()))
    files = [sorted((folder / name).glob("*.jpg"))[:per_class] for name in names]
    images = np.stack([read_photo(path, size) for paths in files for path in paths])
    labels = np.repeat(np.arange(len(names)), [len(paths) for paths in files])
    return images, labels, names


def train_on_digits(epochs: int = 3) -> keras.Model:
    """Train a small AlexNet on digits of 64 x 64 pixels, in about half a minute."""
    keras.utils.set_random_seed(0)
    model = alexnet(
        input_shape=(64, 64, 3),
        classes=10,
        hidden_units=256,
        dropout=0.0,
        initializer="glorot",
        bias_value=0.1,
    )
    set_class_names(model, [str(digit) for digit in range(10)])
    images, labels = read_digits(64)
    model.compile(SGD(0.01, decay=5e-4), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def show_images(images: Any, titles: Any = (), columns: int = 6, size: float = 2.0) -> None:
    """Show images side by side; float images with negative values around middle gray."""
    images = list(images)
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, layout="constrained", figsize=(columns * size, rows * size)
    )
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(to_screen(image), cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("lightgray")
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title, fontsize=10)
    plt.show()
    plt.close(figure)


def to_screen(image: np.ndarray) -> np.ndarray:
    """Scale an image to 0..1: 0..255 as it is, signed values with zero as middle gray."""
    image = np.asarray(image, "float64")
    if image.min() < 0:
        return 0.5 + image / (2 * np.abs(image).max())
    return image / (255 if image.max() > 1 else 1)


def show_drawing(draw: Callable[..., None], *arguments: Any, width: float = 9, **options: Any):
    """Call a function of cnnkit.figures and show the picture that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(*arguments, path, dpi=150, **options)
        picture = plt.imread(path)
    height = width * picture.shape[0] / picture.shape[1]
    figure = plt.figure(figsize=(width, height), dpi=picture.shape[1] / width)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(picture, aspect="auto")
    axis.axis("off")
    plt.show()
    plt.close(figure)
