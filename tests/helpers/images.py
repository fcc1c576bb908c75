"""Images, image files and folders of them, for the tests of datasets."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from cnnkit.data import ColorComponents, Split, batches

# The colors of ImageNet as they are usually quoted: variances of pixels in 0..1.
QUOTED = np.array([0.2175, 0.0188, 0.0045])
USUAL = ColorComponents(
    tuple(QUOTED * 255**2),
    ((0.5675, 0.7192, 0.4009), (0.5808, -0.0045, -0.8140), (0.5836, -0.6948, 0.4203)),
)


def smooth(rng, height, width, grain=8):
    """Returns an image without sharp edges, (height, width, 3) uint8."""
    small = rng.integers(0, 256, (height // grain, width // grain, 3), np.uint8)
    small = Image.fromarray(small)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(array, kind, mode=None):
    """Returns the bytes of an image file that Pillow wrote."""
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(
        file, kind, **({"quality": 95} if kind == "JPEG" else {})
    )
    return file.getvalue()


def jpeg(image, **options):
    """Returns the bytes of a JPEG file with Pillow's options."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def noise_jpeg(value, seed=0):
    """Returns a JPEG file of 12 x 16 pixels with noise above `value`."""
    pixels = np.random.default_rng(seed).integers(0, 30, (12, 16, 3), np.uint8) + np.uint8(value)
    return tf.io.encode_jpeg(pixels, quality=95).numpy()


def png(value=0, side=4):
    """Returns a PNG file of one gray."""
    return encoded(np.full((side, side, 3), value, np.uint8), "PNG")


def write_files(root, names, data=None):
    """Writes files with their folders; without `data` each is an image of another gray."""
    for value, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(value) if data is None else data)
    return root


def load_file(split, index):
    return split.load_bytes(tf.constant(index, tf.int64)).numpy()


def split_of(images, encode=None):
    """Returns a split of images of any sizes, encoded if `encode` is given."""
    labels = np.arange(len(images), dtype=np.int32)
    names = [str(i) for i in labels]
    if encode:
        table = tf.constant([encode(image) for image in images])
        return Split.from_files(labels, names, lambda i: table[i])
    table = tf.ragged.constant([image.tobytes() for image in images])
    sides = tf.constant([image.shape for image in images])
    return Split(
        labels, tuple(names), lambda i: tf.reshape(tf.io.decode_raw(table[i], tf.uint8), sides[i])
    )


def augmented(split, augmentation, **options):
    """Returns the augmented images by index, whatever the order."""
    order = options.pop("order", np.arange(len(split)))
    found = {}
    for batch in batches(split, augmentation=augmentation, order=order, **options):
        rows = batch["weights"].numpy() == 1
        found |= dict(
            zip(batch["labels"][rows].numpy(), batch["images"][rows].numpy(), strict=True)
        )
    return found


def resize_with_pillow(image, scale, top, left, size):
    """Rescales the shorter side with Pillow and crops."""
    height, width = image.shape[:2]
    ratio = scale / min(height, width)
    sides = max(scale, round(width * ratio)), max(scale, round(height * ratio))
    scaled = Image.fromarray(image).resize(sides, Image.Resampling.BILINEAR)
    return np.asarray(scaled, np.float32)[top : top + size, left : left + size]


def write_flawed_folder(root):
    """Writes a dataset with a file that is no image, one that cannot be decoded, and a test image
    that is a training image in another format."""
    for part, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("dark", "light")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.jpg").write_bytes(noise_jpeg(100 * label, seed=i + 10 * count))
    (root / "train" / "dark" / "notes.txt").write_text("no image")
    (root / "train" / "dark" / "torn.jpg").write_bytes(noise_jpeg(0)[:100])
    broken = noise_jpeg(0)
    (root / "train" / "dark" / "6.jpg").write_bytes(broken[:100] + b"\xff\xd9")
    pixels = tf.io.decode_jpeg((root / "train" / "light" / "4.jpg").read_bytes())
    same = tf.io.encode_png(pixels).numpy()
    (root / "test" / "light" / "same.png").write_bytes(same)
    return root
