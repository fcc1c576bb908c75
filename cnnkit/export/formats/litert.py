"""LiteRT, formerly TensorFlow Lite: written by Keras, run by ai-edge-litert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._export_formats import FORMATS
from cnnkit.export.formats.runtime import Run


def write_litert(
    model: keras.Model, folder: Path, quantize: str | None, calibration: np.ndarray | None
) -> None:
    """Writes a network as model.tflite.

    Weights in int8 are LiteRT's dynamic range quantization: inputs of convolutions and dense layers
    are rounded to 8 bits while it runs. Inputs and outputs stay float32.

    Args:
        model: Model from `images` to outputs by name.
        folder: An existing folder.
        quantize: One of `cnnkit._export_formats.QUANTIZATIONS`, or None.
        calibration: (n, h, w, 3) uint8 photographs for int8-static; else None.
    """
    options: dict[str, Any] = {}
    if quantize is not None:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if calibration is not None:
        images = calibration

        def photographs() -> Iterator[list[np.ndarray]]:
            for image in images:
                yield [image[None].astype(np.float32)]

        options["representative_dataset"] = photographs
    file = folder / FORMATS["litert"].files[0]
    model.export(str(file), format="litert", verbose=False, **options)


def litert_runner(folder: Path, outputs: Sequence[str]) -> Run:
    """Returns the function that runs the network of a folder by LiteRT.

    Args:
        folder: What `write_litert` has written to.
        outputs: Names of the outputs.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / FORMATS["litert"].files[0]))
    runner = interpreter.get_signature_runner("serving_default")

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = runner(images=images)
        return {name: np.array(found[name]) for name in outputs}

    return run
