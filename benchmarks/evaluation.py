"""Measure the peak memory of `evaluate` with 500 and with 10,000 images, which should be equal.

Each size is measured in its own process, as the peak resident memory. The images are JPEG files in
memory, all with the same bytes, and are decoded one by one.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import timing  # noqa: F401  (quiets TensorFlow before it is imported)

COUNTS = (500, 10_000)
BOUND = 1.05
PROTOCOLS = ("ten-crop", "dense")


def measure(protocol: str, count: int) -> None:
    """Evaluate and print the peak memory in bytes."""
    import keras
    import numpy as np
    import tensorflow as tf

    from cnnkit import evaluate
    from cnnkit.data import Split

    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(16, 5, strides=2, activation="relu")(inputs)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(100, activation="softmax")(x))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    file = tf.io.encode_jpeg(pixels)
    labels = (np.arange(count) % 100).astype(np.int32)
    names = tuple(f"image {i}" for i in range(count))
    split = Split.from_files(labels, names, lambda index: file)
    evaluate(model, split, [str(i) for i in range(100)], protocol=protocol, scales=(36,))
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(1024 * int(line.split()[1]))


def main() -> None:
    """Run the measurements and print them."""
    print(f"\nPeak memory of evaluate at {COUNTS[0]:,} and {COUNTS[1]:,} images, the whole process")
    for protocol in PROTOCOLS:
        peaks = []
        for count in COUNTS:
            command = [sys.executable, __file__, protocol, str(count)]
            done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
            peaks.append(int(done.stdout.split()[-1]))
        small, large = (peak / 2**20 for peak in peaks)
        ratio = f"{large / small:.3f}x   bound {BOUND}x"
        print(f"  {protocol:<10} {small:7.0f} MiB {large:7.0f} MiB   {ratio}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", nargs="?", choices=PROTOCOLS)
    parser.add_argument("count", nargs="?", type=int)
    args = parser.parse_args()
    if args.protocol:
        measure(args.protocol, args.count)
    else:
        main()
