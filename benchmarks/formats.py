"""A network in every format, in float32 and in 8 bits: size, agreement with Keras, speed.

    python benchmarks/formats.py MODEL.keras PHOTOS [--formats onnx litert] [--rounds N]

MODEL.keras is a classifier, or a run folder; PHOTOS a folder of photographs, of which at most 500
are classified. The exports of a format take turns on one photograph and on a batch of 8, with the
threads that the runtime chooses; Keras runs beside them. Without arguments: AlexNet of random
weights in ONNX, whose speed is that of a trained one.
"""

from timing import interleaved  # isort: skip  (quiets TensorFlow before it is imported)

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from cnnkit import alexnet, load_model
from cnnkit._export_formats import FORMATS, INT8, QUANTIZATIONS
from cnnkit.errors import CnnkitError
from cnnkit.export import export_for_runtime
from cnnkit.export.formats.photographs import own_photographs
from cnnkit.export.formats.write import RUNTIMES

BATCH = 8
ROW = "{:<10} {:<12} {:>9} {:>6} {:>11} {:>9} {:>9} {:>10}"


def main() -> None:
    """Prints a table of the exports of a network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a run folder or a .keras file")
    parser.add_argument("photos", nargs="?", help="folder of photographs")
    parser.add_argument("--formats", nargs="+", choices=FORMATS)
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="the median counts")
    options = parser.parse_args()
    model = alexnet(classes=1000) if options.model is None else load_model(options.model)
    formats = options.formats or ([*FORMATS] if options.model else ["onnx"])
    images = own_photographs(model.input_shape[1]).astype(np.float32)
    keras_model = tf.function(model.call).get_concrete_function(
        tf.TensorSpec((None, *images.shape[1:])), training=False
    )
    print(
        ROW.format("format", "weights", "MB", "ratio", "difference", "same", "ms of 1", "images/s")
    )
    for format in formats:
        with tempfile.TemporaryDirectory() as folder:
            table(model, keras_model, images, format, Path(folder), options)


def table(model, keras_model, images, format, folder, options) -> None:
    """Prints a row for each export of a format."""
    labels = [str(i) for i in range(model.output_shape[-1])]
    found = {}
    for quantize in (None, *QUANTIZATIONS) if options.photos else (None, INT8):
        name = quantize or "float32"
        try:
            found[name] = export_for_runtime(
                model, labels, folder / name, format, quantize=quantize, photos=options.photos
            )
        except CnnkitError as error:
            print(f"{format} {name}: {error}")
    runner = RUNTIMES[format].runner
    runs = {name: runner(one.folder, ["probabilities"]) for name, one in found.items()}
    seconds = []
    for batch in (images[:1], images[:BATCH]):
        calls = {name: lambda run=run, batch=batch: run(batch) for name, run in runs.items()}
        given = tf.constant(batch)
        calls["Keras"] = lambda given=given: keras_model(given).numpy()
        seconds.append(interleaved(calls, options.rounds))
    for name, one in found.items():
        ratio = found["float32"].file_bytes / one.file_bytes if "float32" in found else np.nan
        facts = (f"{one.file_bytes / 1e6:.2f}", f"{ratio:.2f}", f"{one.difference:.1e}")
        same = f"{one.agreeing}/{one.photographs}"
        print(ROW.format(format, name, *facts, same, *speed(seconds, name)))
    print(ROW.format("Keras", "float32", *[""] * 4, *speed(seconds, "Keras")), flush=True)


def speed(seconds, name) -> tuple[str, str]:
    """Returns milliseconds of one image, and images a second in batches."""
    return f"{1e3 * seconds[0][name]:.1f}", f"{BATCH / seconds[1][name]:.1f}"


if __name__ == "__main__":
    main()
