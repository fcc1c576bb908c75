"""How far the features of a window inside an image are from those of the window cut out.

python examples/dense_windows.py IMAGE [--alexnet WEIGHTS]

A network without padding gives the same for both. AlexNet and VGG pad with zeros, so a window that
is cut out is surrounded by zeros, inside the image by its neighbors (Simonyan & Zisserman 2014,
section 3.2): dense testing is not the average over crops.
"""

import argparse

import keras
import numpy as np
from PIL import Image

import cnnkit

# Of the last pooling layer of AlexNet and VGG, in pixels.
STRIDE = 32
WINDOWS = (3, 4)


def unpadded() -> keras.Model:
    """A small network of the same stride, without padding."""
    inputs = x = keras.Input((None, None, 3))
    for _ in range(5):
        x = keras.layers.Conv2D(8, 2, strides=2, activation="relu")(x)
    return keras.Model(inputs, x)


def differences(model: keras.Model, image: Image.Image, size: int) -> np.ndarray:
    """Returns the distance of both features of each window, as a part of their length."""
    rows, columns = WINDOWS
    sides = (size + STRIDE * (columns - 1), size + STRIDE * (rows - 1))
    pixels = np.asarray(image.resize(sides), np.float32)
    whole = keras.ops.convert_to_numpy(model(pixels[None]))[0]
    found = np.empty(WINDOWS)
    for row, column in np.ndindex(*WINDOWS):
        top, left = STRIDE * row, STRIDE * column
        window = pixels[None, top : top + size, left : left + size]
        cut = keras.ops.convert_to_numpy(model(window))[0]
        inside = whole[row : row + cut.shape[0], column : column + cut.shape[1]]
        found[row, column] = np.linalg.norm(inside - cut) / np.linalg.norm(cut)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--alexnet", metavar="WEIGHTS", help="AlexNet's, in Caffe's variant")
    args = parser.parse_args()
    image = Image.open(args.image).convert("RGB")
    keras.utils.set_random_seed(0)
    options = {"include_top": False, "input_shape": (None, None, 3)}
    networks = {
        "without padding": (unpadded(), 224),
        "AlexNet, pool5": (cnnkit.alexnet(preset="caffe", weights=args.alexnet, **options), 227),
        "VGG-16, random weights, block5_pool": (cnnkit.vgg16(**options), 224),
    }
    for name, (model, size) in networks.items():
        found = differences(model, image, size)
        print(f"{name}: {found.min():.1%} to {found.max():.1%}, {found.mean():.1%} on average")


if __name__ == "__main__":
    main()
