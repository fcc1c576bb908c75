"""ONNX: written by Keras through tf2onnx, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._export_formats import FORMATS, INT8
from cnnkit.export.formats.runtime import Run

# Operators with weights, which int8 stores in 8 bits.
_WEIGHTED = ("Conv", "MatMul", "Gemm")


def write_onnx(
    model: keras.Model, folder: Path, quantize: str | None, calibration: np.ndarray | None
) -> None:
    """Writes a network as model.onnx, whose first dimension is named batch.

    Args:
        model: Model from `images` to outputs by name.
        folder: An existing folder.
        quantize: One of `cnnkit._export_formats.QUANTIZATIONS`, or None.
        calibration: (n, h, w, 3) uint8 photographs for int8-static; else None.
    """
    import onnx

    file = folder / FORMATS["onnx"].files[0]
    with warnings.catch_warnings():
        # Keras asks NumPy for np.object.
        warnings.simplefilter("ignore", FutureWarning)
        model.export(str(file), format="onnx", verbose=False)
    written = onnx.load(str(file))
    written.graph.name = model.name
    for value in (*written.graph.input, *written.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if quantize == INT8:
        _quantize_weights(written.graph)
    onnx.save(written, str(file))
    if calibration is not None:
        _quantize_static(file, calibration)


def _quantize_weights(graph: Any) -> None:
    """Stores each kernel as int8 with one scale for each filter, and a DequantizeLinear.

    ONNX Runtime itself has weights in 8 bits only together with activations.
    """
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    restored: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type not in _WEIGHTED or node.input[1] not in stored:
            continue
        name = node.input[1]
        if name not in restored:
            kernel = numpy_helper.to_array(stored[name])
            axis = 0 if node.op_type == "Conv" else kernel.ndim - 1
            rounded, scales = quantize_kernel(kernel, axis)
            restored[name] = f"{name}:float32"
            arrays = {f"{name}:int8": rounded, f"{name}:scale": scales}
            graph.initializer.extend(
                numpy_helper.from_array(array, key) for key, array in arrays.items()
            )
            nodes.append(
                helper.make_node("DequantizeLinear", [*arrays], [restored[name]], axis=axis)
            )
        node.input[1] = restored[name]
    kept = [tensor for name, tensor in stored.items() if name not in restored]
    added = list(graph.initializer)[len(stored) :]
    ordered = [*nodes, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *added])
    graph.node.extend(ordered)


def quantize_kernel(kernel: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a kernel in int8, symmetric around 0, and the scale of each filter.

    Args:
        kernel: float32 of any shape.
        axis: Axis of the filters.

    Returns:
        int8 of the kernel's shape, -127..127, and (filters,) float32: their product is the kernel.

    Example:
        >>> from cnnkit.export.formats.onnx import quantize_kernel
        >>> rounded, scales = quantize_kernel(np.array([[1.0, -0.25]], np.float32), 1)
        >>> rounded.tolist(), (rounded * scales).tolist()
        ([[127, -127]], [[1.0, -0.25]])
    """
    others = tuple(one for one in range(kernel.ndim) if one != axis)
    largest = np.abs(kernel).max(axis=others, keepdims=True)
    scales = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
    return np.rint(kernel / scales).astype(np.int8), scales.reshape(-1)


def _quantize_static(file: Path, calibration: np.ndarray) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image[None].astype(np.float32)}

    prepared = file.with_suffix(".prepared")
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(file),
        Reader(),
        # The others would round the probabilities, and the infinite border of a pooling.
        op_types_to_quantize=[*_WEIGHTED],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def onnx_runner(folder: Path, outputs: Sequence[str]) -> Run:
    """Returns the function that runs the network of a folder by ONNX Runtime.

    Args:
        folder: What `write_onnx` has written to.
        outputs: Names of the outputs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / FORMATS["onnx"].files[0]), options, providers=["CPUExecutionProvider"]
    )

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = session.run(list(outputs), {"images": images})
        return dict(zip(outputs, found, strict=True))

    return run
