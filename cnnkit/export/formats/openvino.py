"""OpenVINO's files: written by Keras, made smaller by NNCF, run by OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._export_formats import FORMATS
from cnnkit._openvino_reports import without_reports
from cnnkit.export.formats.runtime import Run


def write_openvino(
    model: keras.Model, folder: Path, quantize: str | None, calibration: np.ndarray | None
) -> None:
    """Writes a network as model.xml and model.bin.

    Args:
        model: Model from `images` to outputs by name.
        folder: An existing folder.
        quantize: One of `cnnkit._export_formats.QUANTIZATIONS`, or None.
        calibration: (n, h, w, 3) uint8 photographs for int8-static; else None.
    """
    name = FORMATS["openvino"].files[0]
    with without_reports():
        if quantize is None:
            model.export(str(folder / name), format="openvino", verbose=False)
            return
        import openvino

        # The weights of a model that has been read stay in their file.
        with tempfile.TemporaryDirectory(dir=folder) as exported:
            file = str(Path(exported, name))
            model.export(file, format="openvino", verbose=False)
            smaller = _quantize(openvino.Core().read_model(file), calibration)
            openvino.save_model(smaller, str(folder / name), compress_to_fp16=False)


def _quantize(model: Any, calibration: np.ndarray | None) -> Any:
    import nncf

    # Not by nncf.set_log_level, which also changes the handlers of the program.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    # NNCF prints tables and progress bars.
    with contextlib.redirect_stdout(io.StringIO()):
        if calibration is None:
            # With an offset for each filter: scales in 16 bits alone cannot hold alpha of a
            # normalization.
            return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        images = [image[None].astype(np.float32) for image in calibration]
        # Its correction takes the constant of the normalization, k + ..., for a bias.
        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
        return nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            advanced_parameters=advanced,
        )


def openvino_runner(folder: Path, outputs: Sequence[str]) -> Run:
    """Returns the function that runs the network of a folder by OpenVINO, in float32.

    Args:
        folder: What `write_openvino` has written to.
        outputs: Names of the outputs.
    """
    import openvino

    compiled = openvino.Core().compile_model(
        str(folder / FORMATS["openvino"].files[0]),
        "CPU",
        # Otherwise processors that support bfloat16 would compute with it.
        {"INFERENCE_PRECISION_HINT": "f32"},
    )

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled(images)
        return {name: np.array(found[name]) for name in outputs}

    return run
