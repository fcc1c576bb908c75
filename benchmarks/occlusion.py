"""Compare incremental with plain occlusion, which runs the network on every covered image.

CPU milliseconds for each place of the square: images of 224 or 227 pixels, a square of 32, a stride
of 8. Plain occlusion runs with its fastest batch size, on a sample of the places. The differences
of the last maps and of the probabilities are printed too.
"""

from timing import interleaved  # isort: skip  (quiets TensorFlow before it is imported)

import sys
import time

import numpy as np

from cnnkit import alexnet, vgg16
from cnnkit.visualize import occlusion
from cnnkit.visualize.classifier import as_classifier
from cnnkit.visualize.occlusion.incremental import incremental_occlusion
from cnnkit.visualize.occlusion.occlusion import plain_occlusion

SAMPLE = 32
BATCH_SIZES = (1, 4, 8, 16, 32)
# The builder of every network, and the number of rounds.
NETWORKS = {"alexnet": (alexnet, 5), "vgg16": (vgg16, 3)}


def main() -> None:
    """Measures and prints; arguments are names of networks."""
    for name in sys.argv[1:] or NETWORKS:
        build, rounds = NETWORKS[name]
        model = build()
        size = model.input_shape[1]
        image = np.random.default_rng(0).uniform(0, 255, (size, size, 3)).astype("float32")
        classifier = as_classifier(model)
        gray = np.full_like(image, 128)
        sweep = plain_occlusion(classifier.nodes, image, gray, [(classifier.nodes[-1], None)])
        corners = np.random.default_rng(1).integers(0, size - 32, (SAMPLE, 2))
        rectangles = np.stack([corners, corners + 32], axis=-1)

        batches = {
            size: lambda sweep=sweep, rectangles=rectangles, size=size: sweep(rectangles, size)
            for size in BATCH_SIZES
        }
        seconds = interleaved(batches, 1, time.process_time)
        best = min(seconds, key=seconds.get)
        places = occlusion(model, image).probability.size
        candidates = {
            "incremental": lambda model=model, image=image: occlusion(model, image),
            "plain": batches[best],
        }
        seconds = interleaved(candidates, rounds, time.process_time)
        one, other = seconds["incremental"] / places, seconds["plain"] / SAMPLE
        print(f"\n{name}, {places} places, CPU ms a place, tracing included")
        print(f"  incremental            {one * 1e3:8.1f}")
        print(f"  plain, batches of {best:<4} {other * 1e3:8.1f}   {other / one:.2f}x")
        differences(classifier, image, gray, rectangles)


def differences(classifier, image, gray, rectangles) -> None:
    """Prints the largest differences of the last maps and of the probabilities."""
    last = [node for node in classifier.nodes if len(node.layer.output.shape) == 4][-1]
    wanted = [(last, None), (classifier.nodes[-1], None)]
    (maps, logits), (others, other_logits) = (
        sweep(classifier.nodes, image, gray, wanted)(rectangles, 8)
        for sweep in (plain_occlusion, incremental_occlusion)
    )
    one, other = (classifier.probabilities(values) for values in (logits, other_logits))
    print(f"  {last.layer.name}: {np.abs(maps - others).max():.1e} of {maps.max():.2g} at most,")
    print(f"  probabilities: {np.abs(one - other).max():.1e}")


if __name__ == "__main__":
    main()
