"""Cost of the search for the strongest activations, speedup by crops, and memory.

Bounds: the search takes at most 1.1 times the bare forward pass to the same layer; its state for
all convolutions of VGG-16 is below 1 MB; its peak memory does not grow with the number of images;
units of block3_conv3 of VGG-16 whose receptive field touches no border are projected at least 4
times as fast through a crop.
"""

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from timing import interleaved, report

SIDE, BATCH = 224, 4


def convolutions(model):
    """Returns the names of the convolutions."""
    import keras

    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def search(rounds: int, count: int) -> None:
    """Compares the search over all convolutions of VGG-16 with the forward pass alone."""
    import tensorflow as tf

    from cnnkit import vgg16
    from cnnkit.models.graph import build_graph
    from cnnkit.visualize import find_top_activations
    from cnnkit.visualize.forward import forward_pass

    model = vgg16(include_top=False, input_shape=(SIDE, SIDE, 3))
    images = np.random.default_rng(0).uniform(0, 255, (count, SIDE, SIDE, 3)).astype("float32")
    names = convolutions(model)
    graph = build_graph(model)
    nodes = graph.ancestors(graph.node(names[-1]))
    bare = tf.function(lambda batch: forward_pass(nodes, batch))

    def pass_alone():
        for start in range(0, len(images), BATCH):
            bare(tf.constant(images[start : start + BATCH])).numpy()

    # Compilation and the check of the weights are shared by all images, so the cost of an image is
    # computed from a search of twice as many. CPU time: the machine may run other work.
    twice = np.concatenate([images, images])
    seconds = interleaved(
        {
            "the forward pass": pass_alone,
            "the search, every map of 13 layers": lambda: find_top_activations(
                model, images, names, batch_size=BATCH
            ),
            "the search of twice as many": lambda: find_top_activations(
                model, twice, names, batch_size=BATCH
            ),
        },
        rounds,
        time.process_time,
    )
    report("Nine strongest of VGG-16 to block5_conv3, CPU time", seconds, len(images))
    bare_pass, once, both = seconds.values()
    print(f"  each further image costs {(both - once) / bare_pass:.2f} times its forward pass,")
    print(f"  and the start costs {1e3 * (2 * once - both):.0f} ms")
    found = find_top_activations(model, images[:2], names, batch_size=2)
    size = sum(
        one.values.nbytes + one.images.nbytes + one.flat_positions.nbytes for one in found.values()
    )
    print(f"  state of {sum(len(one.values) for one in found.values())} maps: {size / 1e6:.2f} MB")


def crop(rounds: int) -> None:
    """Compares projections of units of VGG-16 that touch no border, with and without the crop."""
    from cnnkit import vgg16
    from cnnkit.visualize import project

    model = vgg16(include_top=False, input_shape=(SIDE, SIDE, 3))
    module = importlib.import_module("cnnkit.visualize.deconvnet.project")
    images = np.random.default_rng(0).uniform(0, 255, (4, SIDE, SIDE, 3)).astype("float32")
    for layer, side in (("block2_conv2", 112), ("block3_conv3", 56), ("block4_conv3", 28)):
        middle = side // 2
        indices = [(i, middle + i, middle - i, 7 * i) for i in range(4)]
        whole, cut = (lambda *_: None), module.crop_for_unit

        def projected(crop_function, layer=layer, indices=indices):
            module.crop_for_unit = crop_function
            return project(model, images, layer, indices, batch_size=4)

        seconds = interleaved(
            {
                "the crop": lambda projected=projected, cut=cut: projected(cut),
                "the whole image": lambda projected=projected, whole=whole: projected(whole),
            },
            rounds,
            time.process_time,
        )
        module.crop_for_unit = cut
        one, other = projected(cut), projected(whole)
        module.crop_for_unit = cut
        pairs = [(a.projection, b.projection) for a, b in zip(one, other, strict=True)]
        most = max(np.abs(a - b).max() for a, b in pairs)
        scale = max(np.abs(b).max() for _, b in pairs)
        report(f"Projections of {layer}, CPU time", seconds, len(indices))
        print(f"  largest difference: {most / scale:.1e} of the largest value")


class Many:
    """`count` images, created when they are read."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> np.ndarray:
        numbers = np.arange(part.start, part.stop)[:, None, None, None]
        return (numbers + np.arange(64 * 64 * 3).reshape(64, 64, 3)) % 256


def memory() -> None:
    """Compares the peak memory of a search over few and over many images."""
    print("\nPeak memory of the search, AlexNet's convolutions at 64 pixels, batches of 16")
    for count in (160, 1600):
        command = [sys.executable, __file__, "--child", str(count)]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
        print(f"  {count:6d} images {int(done.stdout.split()[-1]) / 1e6:8.1f} MB")


def child(count: int) -> None:
    """Runs a search, and prints the peak memory of the process in bytes."""
    from cnnkit import alexnet
    from cnnkit.visualize import find_top_activations

    model = alexnet(include_top=False, input_shape=(64, 64, 3))
    find_top_activations(model, Many(count), convolutions(model), batch_size=16)
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("search", "crop", "memory"))
    parser.add_argument("--images", type=int, default=16, help="of the search (default 16)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
    else:
        if args.only in (None, "search"):
            search(args.rounds, args.images)
        if args.only in (None, "crop"):
            crop(args.rounds)
        if args.only in (None, "memory"):
            memory()
