"""The graph of an ONNX export, read by ONNX's own package."""

import keras
import numpy as np
import pytest

from cnnkit import models
from cnnkit.export import export_for_runtime
from cnnkit.export.formats.onnx import quantize_kernel
from tests.helpers.exported_network import LABELS

onnx = pytest.importorskip("onnx")


def test_no_operator_of_a_domain_of_its_own(model, tmp_path):
    found = export_for_runtime(model, LABELS, tmp_path / "animals", "onnx")
    loaded = onnx.load(found.file)
    onnx.checker.check_model(loaded, full_check=True)
    assert {node.domain for node in loaded.graph.node} == {""}
    assert "LRN" not in {node.op_type for node in loaded.graph.node}
    [given], [returned] = loaded.graph.input, loaded.graph.output
    shapes = [
        [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (given, returned)
    ]
    assert (given.name, returned.name) == ("images", "probabilities")
    assert shapes == [["batch", 64, 64, 3], ["batch", 6]]


def test_int8_rounds_each_filter_to_its_largest_weight(tmp_path):
    keras.utils.set_random_seed(0)
    small = models.build("cifar10_quick", input_shape=(8, 8, 3), classes=3, initializer="glorot")
    found = export_for_runtime(small, list("abc"), tmp_path / "net", "onnx", quantize="int8")
    graph = onnx.load(found.file).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "DequantizeLinear")
    rounded, scales = (arrays[name] for name in first.input)
    kernel = small.get_layer("conv1").get_weights()[0].transpose(3, 2, 0, 1)
    largest = np.abs(kernel).max(axis=(1, 2, 3))
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-6)
    assert rounded.dtype == np.int8 and rounded.shape == kernel.shape
    # No weight is moved by more than half a step.
    moved = np.abs(rounded * scales[:, None, None, None] - kernel).max(axis=(1, 2, 3))
    assert (moved <= 0.501 * scales).all()
    in_float32 = [array for array in arrays.values() if array.dtype == np.float32]
    assert max(map(np.size, in_float32)) <= 8 * 8 * 3  # the mean, biases and scales


def test_a_filter_of_zeros_stays_zeros():
    rounded, scales = quantize_kernel(np.zeros((2, 3), np.float32), 0)
    assert rounded.tolist() == [[0] * 3] * 2 and np.isfinite(scales).all()
