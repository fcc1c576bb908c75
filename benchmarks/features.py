"""Measure features from JPEG files against `predict` on arrays, and a search in 100,000 vectors.

CPU seconds are measured, which do not depend on other processes; on a free core they are the time
that passes. The JPEG is a photograph of 500 x 375 pixels. The search runs in a process of its own,
so that its memory can be measured: what it allocates, besides the pages of the file, which the
system may drop. Needs 1.7 GB of disk.
"""

from timing import interleaved, report  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

IMAGES, DIMENSION, NEAREST = 100_000, 4096, 6
QUERIES = (1, 100)
MILLION = 1_000_000
BOUND = 0.9
# For each network: side of the images, images in a call, images in a batch, rounds.
NETWORKS = {"vgg16": (224, 16, 8, 3), "alexnet": (224, 128, 32, 5)}


def features(name: str) -> None:
    """Measure the fc7 features of a network and print the times."""
    import numpy as np
    import tensorflow as tf
    from sklearn.datasets import load_sample_image

    from cnnkit import models
    from cnnkit.data import Split, resize_shorter_side
    from cnnkit.features import FeatureExtractor, FeatureSpec, stream_features
    from cnnkit.features.image_batches import iter_center_crops
    from cnnkit.models.feature_extractor import feature_extractor

    side, count, batch_size, rounds = NETWORKS[name]
    model = models.build(name, input_shape=(side, side, 3))
    photograph = tf.image.resize(load_sample_image("china.jpg"), (375, 500), antialias=True)
    file = tf.io.encode_jpeg(tf.cast(photograph, tf.uint8), quality=90)
    split = Split.from_files(np.zeros(count, np.int32), ["china"] * count, lambda index: file)
    order = np.arange(count)
    arrays = np.repeat(resize_shorter_side(photograph, side).numpy()[None], count, axis=0)
    submodel = feature_extractor(model, "fc7")
    extractor = FeatureExtractor(model, FeatureSpec("fc7"))
    candidates = {
        "predict on arrays": lambda: submodel.predict(arrays, batch_size=batch_size, verbose=0),
        "features from JPEG": lambda: list(stream_features(extractor, split, order, batch_size)),
        "decoding alone": lambda: list(iter_center_crops(split, order, side, batch_size)),
    }
    seconds = interleaved(candidates, rounds, time.process_time)
    report(f"{name} fc7 at {side}, batches of {batch_size}, CPU time", seconds, count)
    ratio = seconds["predict on arrays"] / seconds["features from JPEG"]
    bound = f"   bound {BOUND:.0%}" if name == "vgg16" else ""
    print(f"  features at {ratio:.1%} of the rate of predict{bound}")


def search(path: Path) -> None:
    """Search the vectors in a file and print time and memory."""
    import numpy as np

    from cnnkit.features import memory_estimate

    values = np.load(path, mmap_mode="r")
    gigabytes = memory_estimate(IMAGES, DIMENSION).read_bytes / 1e9
    print(
        f"\nThe {NEAREST} nearest of {IMAGES:,} vectors of {DIMENSION}, {gigabytes:.1f} GB, exact"
    )
    for count in QUERIES:
        _search(values, count)


def _search(values, count: int) -> None:
    import numpy as np

    from cnnkit.features import memory_estimate, nearest_neighbors

    rows = np.linspace(0, IMAGES - 1, count).astype(int)
    queries = values[rows] + np.float32(1e-3)
    before, highest, done = _allocated(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], _allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, cpu = time.perf_counter(), time.process_time()
    found = nearest_neighbors(queries, values, NEAREST)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    done.set()
    watcher.join()
    if (found.indices[:, 0] != rows).any():
        raise RuntimeError("A vector is not its own nearest neighbor")
    estimated, million = (
        memory_estimate(images, DIMENSION, count, NEAREST) for images in (IMAGES, MILLION)
    )
    memory, more = ((one.block_bytes + one.state_bytes) / 2**20 for one in (estimated, million))
    print(
        f"  {count:3} queries: {cpu:5.1f} s CPU, {wall:5.1f} s passed; at most"
        f" {(highest[0] - before) / 2**20:.0f} MiB allocated, {memory:.0f} estimated with the block"
    )
    print(
        f"      estimated for {MILLION:,}: {million.blocks} blocks, {more:.0f} MiB,"
        f" {million.read_bytes / 1e9:.1f} GB read once"
    )


def _allocated() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon")


def _write(path: Path) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    shape = (IMAGES, DIMENSION)
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, IMAGES, 1000):
        block = random.standard_normal((1000, DIMENSION), np.float32)
        values[start : start + 1000] = block / np.linalg.norm(block, axis=1, keepdims=True)


def main() -> None:
    """Run the benchmarks that are named: networks, or `search`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*NETWORKS, "search", []])
    parser.add_argument("--vectors", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.vectors is not None:
        search(args.vectors)
        return
    for what in args.what or (*NETWORKS, "search"):
        if what in NETWORKS:
            features(what)
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vectors.npy"
            _write(path)
            command = [sys.executable, __file__, "--vectors", str(path)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
