"""The model card of an export for another runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnkit._export_formats import FORMATS, INT8, LABELS, PREPROCESSING
from cnnkit.export.classifier import ServedClassifier
from cnnkit.export.model_card import Origin, facts_table, plain_text, preprocessing_text

if TYPE_CHECKING:
    from cnnkit.export.formats.write import RuntimeExport

# How each runtime is asked: what a reader copies from the card.
_PROGRAMS = {
    "onnx": """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
[probabilities] = session.run(["probabilities"], {"images": images})""",
    "litert": """from ai_edge_litert.interpreter import Interpreter

network = Interpreter("model.tflite").get_signature_runner()
probabilities = network(images=images)["probabilities"]""",
    "openvino": """import openvino

network = openvino.Core().compile_model("model.xml", "CPU")
probabilities = network(images)["probabilities"]""",
}


def card_text(
    name: str,
    format: str,
    found: RuntimeExport,
    network: ServedClassifier,
    labels: Sequence[str],
    preprocessing: Mapping[str, Any],
    origin: Origin | None,
) -> str:
    """Returns the text of README.md.

    Args:
        name: Name of the folder.
        format: A key of `FORMATS`.
        found: What was measured.
        network: The classifier.
        labels: Names of the classes.
        preprocessing: Content of preprocessing.json.
        origin: Where the network comes from.
    """
    origin, spec = origin or Origin(), FORMATS[format]
    files = " and ".join(f"`{file}`" for file in spec.files)
    source = plain_text(origin.source or "memory")
    lines = [
        f"# {plain_text(name)}",
        "",
        f"{files} for {spec.title}, written by cnnkit from {source}.",
        "",
        *facts_table(network, labels, origin),
        f"| size | {found.file_bytes:,} bytes{_storage(found)} |",
        f"| largest difference from the network, on {found.compared} photographs | "
        f"{found.difference:.1e}, by {found.runtime} |",
        f"| same class as the network | on {found.agreeing} of {found.photographs} photographs |",
        "",
        "## Preprocessing",
        "",
        *preprocessing_text(network, preprocessing, served=False),
        f"`{PREPROCESSING}` says the same for programs; `{LABELS}` names the classes in order.",
        "",
        "## Use",
        "",
        "```python",
        "import numpy",
        _PROGRAMS[format].replace("\n\n", "\n\n" + _images(network), 1),
        "```",
        "",
    ]
    return "\n".join(lines)


def _images(network: ServedClassifier) -> str:
    side = network.image_size
    return f"images = numpy.zeros((1, {side}, {side}, 3), numpy.float32)  # RGB, 0..255\n"


def _storage(found: RuntimeExport) -> str:
    if found.quantize is None:
        return ""
    if found.quantize == INT8:
        return ", weights in int8"
    return ", weights and activations in int8"
