"""Runs exports as their users do, without cnnkit."""

import pytest


def run(format, folder, images, *outputs):
    """Returns outputs of an exported network for (n, h, w, 3) float32 images."""
    if format == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(str(folder / "model.onnx"))
        return session.run(list(outputs), {"images": images})
    if format == "litert":
        runtime = pytest.importorskip("ai_edge_litert.interpreter")
        found = runtime.Interpreter(str(folder / "model.tflite")).get_signature_runner()(
            images=images
        )
    else:
        runtime = pytest.importorskip("openvino")
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        found = runtime.Core().compile_model(str(folder / "model.xml"), "CPU", exact)(images)
    return [found[name] for name in outputs]
