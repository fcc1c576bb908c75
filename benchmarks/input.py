"""Compare the input pipeline with a bare decode of the same files and with a PIL + NumPy loop.

All use as many threads as there are cores. The photographs of 500 x 375 pixels are synthetic:
colored noise with the spectrum and the file size of real ones. The time is CPU time summed over
all cores, so the rates are those of one core.
"""

from timing import interleaved, report  # isort: skip  (quiets TensorFlow before it is imported)

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from PIL import Image

from cnnkit.data import Augmentation, ColorComponents, PCAColorNoise, Split, batches
from cnnkit.data.pipeline import WORKERS, parallel_map

# The preparation of an epoch, a tenth of a second, is a small part of the time of so many.
IMAGES = 2048
DISTINCT_IMAGES = 64
BATCH = 32
ROUNDS = 7
# Variances of the colors of photographs along their principal components, in squared levels.
COLORS = ColorComponents(
    eigenvalues=(14000.0, 1200.0, 290.0),
    eigenvectors=((0.57, 0.71, 0.41), (0.58, 0.0, -0.82), (0.58, -0.71, 0.41)),
)
AUGMENTATION = {
    "image_size": 224,
    "scale": (256, 256),
    "crop": "random",
    "flip": True,
    "color": PCAColorNoise(COLORS),
}


def photograph(random: np.random.Generator, height: int = 375, width: int = 500) -> bytes:
    """Return a JPEG file of noise whose amplitude falls with frequency, as in photographs."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.maximum(np.hypot(down, across), 1 / width)
    spectrum = np.fft.rfft2(random.normal(size=(3, height, width))) / frequency**1.1
    waves = np.fft.irfft2(spectrum, s=(height, width))
    waves /= waves.std(axis=(1, 2), keepdims=True)
    colors = np.asarray(COLORS.eigenvectors) * np.sqrt(COLORS.eigenvalues) * 0.5
    image = np.clip(120 + np.einsum("ck,khw->hwc", colors, waves), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=93)
    return file.getvalue()


def cnnkit_pipeline(files: list[bytes], **options: bool) -> Callable[[], int]:
    """Return a function that runs the pipeline over the files."""
    table = tf.constant(files)
    labels = np.zeros(IMAGES, np.int32)
    split = Split.from_files(labels, [""] * IMAGES, lambda index: table[index % DISTINCT_IMAGES])
    dataset = batches(split, augmentation=Augmentation(**AUGMENTATION, **options), batch_size=BATCH)
    return lambda: sum(len(batch["images"]) for batch in dataset)


def bare_decode(files: list[bytes]) -> Callable[[], int]:
    """Return a function that decodes the files and discards the pixels."""
    table = tf.constant(files)

    def decode(index):
        return tf.io.decode_jpeg(table[index % DISTINCT_IMAGES], channels=3)[0, 0]

    dataset = parallel_map(tf.data.Dataset.range(IMAGES), decode).batch(BATCH)
    return lambda: sum(len(batch) for batch in dataset)


def pillow_loop(files: list[bytes]) -> Callable[[], None]:
    """Return a function that does the same work with Pillow and NumPy."""
    vectors = np.asarray(COLORS.eigenvectors)
    deviations = AUGMENTATION["color"].deviations

    def load(i):
        random = np.random.default_rng(i)
        image = Image.open(io.BytesIO(files[i % DISTINCT_IMAGES])).convert("RGB")
        ratio = 256 / min(image.size)
        width, height = (round(side * ratio) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = random.integers(width - 224 + 1), random.integers(height - 224 + 1)
        crop = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        if random.random() < 0.5:
            crop = crop[:, ::-1]
        return crop + (vectors @ (random.normal(size=3) * deviations)).astype(np.float32)

    def run():
        with ThreadPoolExecutor(WORKERS) as pool:
            images = pool.map(load, range(IMAGES))
            for _ in range(IMAGES // BATCH):
                np.stack([next(images) for _ in range(BATCH)])

    return run


def main() -> None:
    """Measure and print the rates."""
    random = np.random.default_rng(0)
    files = [photograph(random) for _ in range(DISTINCT_IMAGES)]
    size = np.mean([len(file) for file in files]) / 1000
    candidates = {
        "cnnkit, fast_decode": cnnkit_pipeline(files, fast_decode=True),
        "cnnkit": cnnkit_pipeline(files),
        "bare decode": bare_decode(files),
        "PIL + NumPy": pillow_loop(files),
    }
    title = f"rescale, crop, flip, color noise: JPEG files of {size:.0f} kB, {WORKERS} threads"
    report(title, interleaved(candidates, ROUNDS, time.process_time), IMAGES)


if __name__ == "__main__":
    main()
