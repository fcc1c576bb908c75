"""Formats of exports for runtimes other than TensorFlow: what they need, and where they go.

Nothing here needs TensorFlow, so that a command can check its options before it starts it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cnnkit.errors import UsageError, unknown_name

SAVED_MODEL_FORMAT = "saved_model"
# Of the weights alone, and of weights and activations.
INT8, INT8_STATIC = "int8", "int8-static"
QUANTIZATIONS = (INT8, INT8_STATIC)

PREPROCESSING, LABELS, CARD = "preprocessing.json", "labels.txt", "README.md"


@dataclass(frozen=True)
class RuntimeFormat:
    """One format.

    Attributes:
        title: Its name in texts.
        runtime: Package of the runtime that verifies an export.
        files: Names of the files of the network; the first is the one to load.
        packages: What writing and verifying needs: packages, as pip names them, by module.
        quantizers: What int8 needs besides.
    """

    title: str
    runtime: str
    files: tuple[str, ...]
    packages: Mapping[str, str]
    quantizers: Mapping[str, str] = field(default_factory=dict)


FORMATS: Mapping[str, RuntimeFormat] = {
    "onnx": RuntimeFormat(
        "ONNX",
        "onnxruntime",
        ("model.onnx",),
        {"onnx": "onnx", "onnxruntime": "onnxruntime", "tf2onnx": "tf2onnx"},
    ),
    "litert": RuntimeFormat(
        "LiteRT", "ai-edge-litert", ("model.tflite",), {"ai_edge_litert": "ai-edge-litert"}
    ),
    "openvino": RuntimeFormat(
        "OpenVINO",
        "openvino",
        ("model.xml", "model.bin"),
        {"openvino": "openvino"},
        {"nncf": "nncf"},
    ),
}


def check_format(
    format: str, output: Path, *, quantize: str | None, photos: object, overwrite: bool
) -> None:
    """Check that an export in a format can be written, without starting TensorFlow.

    Args:
        format: A key of `FORMATS`.
        output: The folder to write.
        quantize: One of `QUANTIZATIONS`, or None.
        photos: The folder of photographs, or None.
        overwrite: Whether to replace an earlier export in `output`.

    Raises:
        UsageError: If there is no such format or quantization, a package is not installed,
            static quantization has no photographs, or `output` is not free.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, (SAVED_MODEL_FORMAT, *FORMATS))
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise unknown_name("quantization", quantize, QUANTIZATIONS)
    if quantize == INT8_STATIC and photos is None:
        raise UsageError(
            "`photos` must name a folder of photographs for `quantize=int8-static`",
            hint="They show the ranges of the activations; `quantize=int8` needs none",
        )
    check_packages(format, quantize)
    check_free_folder(output, overwrite=overwrite)


def check_packages(format: str, quantize: str | None) -> None:
    """Check that the packages of a format are installed, without importing them.

    Raises:
        UsageError: If one is not; names all that are missing.
    """
    spec = FORMATS[format]
    needed = {**spec.packages, **(spec.quantizers if quantize else {})}
    missing = [name for module, name in needed.items() if not importlib.util.find_spec(module)]
    if missing:
        plural = len(missing) > 1
        raise UsageError(
            f"`format={format}`{' with `quantize`' if quantize else ''} needs "
            f"{'packages that are' if plural else 'a package that is'} not installed",
            received=f"no {', no '.join(missing)}",
            hint=f"Install {'them' if plural else 'it'}: pip install {' '.join(missing)}",
        )


def check_free_folder(output: Path, *, overwrite: bool) -> None:
    """Check that a folder does not exist, is empty, or holds an export that may be replaced.

    Args:
        output: The folder.
        overwrite: Whether it may hold an export of `FORMATS`, and nothing else.

    Raises:
        UsageError: If it is a file, or holds anything else.
    """
    if output.exists() and not output.is_dir():
        raise UsageError("`output` must be a folder, not a file", received=output)
    names = {file.name for file in output.iterdir()} if output.is_dir() else set()
    if not names:
        return
    networks = {name for spec in FORMATS.values() for name in spec.files}
    others = sorted(names - networks - {PREPROCESSING, LABELS, CARD})
    if others or PREPROCESSING not in names or not names & networks:
        raise UsageError(
            f"`output` must be a new folder, and {output} holds other files",
            received=", ".join(sorted(others or names)[:3]),
            hint="Name a folder of its own for each export",
        )
    if not overwrite:
        raise UsageError(
            f"`output` must be a new folder, and {output} holds an export",
            hint="`overwrite=True` replaces it",
        )
