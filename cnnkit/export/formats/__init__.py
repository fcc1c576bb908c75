"""Exports for runtimes other than TensorFlow: ONNX, LiteRT and OpenVINO, verified by them."""

from cnnkit.export.formats.write import RuntimeExport as RuntimeExport
from cnnkit.export.formats.write import export_for_runtime as export_for_runtime
