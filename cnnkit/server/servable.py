"""One loaded version of a model.

`tf.saved_model.load` does not return the signature definitions that servers publish. This file, and
no other, reads them with `tensorflow.core.protobuf`, which TensorFlow does not document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from cnnkit.errors import RunError
from cnnkit.server.status_error import StatusError, invalid_argument, redact_paths
from cnnkit.wire import cnnkit_serving_pb2 as pb

# File of an export of cnnkit that describes its inputs.
_PREPROCESSING = Path("assets", "preprocessing.json")

_CODES = {code.value[0]: code for code in grpc.StatusCode}

# TensorFlow writes the location of an operation before the error.
_LOCATION = re.compile(
    r"\AGraph execution error:\s+"
    r"(?:Detected at node .*\n(?:[ \t]+.*\n|<stack traces unavailable>\n|\n)*)*"
)


class SavedModelServable:
    """One loaded version of a model.

    Args:
        name: Name of the model.
        version: Number of the version.
        folder: The SavedModel.

    Attributes:
        definitions: The signature definitions, as servers publish them.
        takes_pixels: Whether an export of cnnkit says that its `images` are in 0..255.

    Raises:
        RunError: If the folder holds no SavedModel that can be loaded and served.

    Example:
        >>> SavedModelServable("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """

    def __init__(self, name: str, version: int, folder: Path) -> None:
        self.name = name
        self.version = version
        try:
            self.definitions = read_signature_definitions(folder)
            self.takes_pixels = _takes_pixels(folder)
            # This object keeps the graph's variables alive.
            self._model = tf.saved_model.load(str(folder), tags=["serve"])
        except RunError:
            raise
        # Errors of a broken SavedModel have no common base class.
        except Exception as error:
            raise RunError(
                f"Version {version} of model {name!r} cannot be loaded",
                received=f"{folder}: {type(error).__name__}: {error}",
                hint="Export the model again",
            ) from error

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: Name of the signature.
            inputs: Arrays of all inputs, whose types and shapes fit the signature.
            outputs: Names of the requested outputs.

        Returns:
            The outputs by name.

        Raises:
            StatusError: If the graph fails, with TensorFlow's code and text.
        """
        function = self._model.signatures.get(signature)
        if function is None:
            raise invalid_argument(f'Serving signature "{signature}" cannot be called')
        try:
            tensors = function(**{name: tf.constant(array) for name, array in inputs.items()})
            return {name: tensors[name].numpy() for name in outputs}
        except tf.errors.OpError as error:
            code = _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN)
            raise StatusError(code, redact_paths(_LOCATION.sub("", error.message))) from error

    def is_batchable(self, signature: str) -> bool:
        """Returns True if requests for a signature can run together, as rows of one batch.

        Args:
            signature: Name of the signature.
        """
        definition = self.definitions.signature_def[signature]
        infos = [*definition.inputs.values(), *definition.outputs.values()]
        return bool(definition.inputs) and all(
            not info.tensor_shape.unknown_rank
            and info.tensor_shape.dim
            and info.tensor_shape.dim[0].size == -1
            for info in infos
        )


def read_signature_definitions(folder: Path) -> pb.SignatureDefMap:
    """Returns the signature definitions of a SavedModel, as servers publish them.

    Args:
        folder: The SavedModel.

    Raises:
        RunError: If it has no graph with the tag `serve`.
        google.protobuf.message.DecodeError: If saved_model.pb is corrupt.
        OSError: If saved_model.pb cannot be read.
    """
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in model.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            definitions = pb.SignatureDefMap()
            for name, definition in graph.signature_def.items():
                definitions.signature_def[name].MergeFromString(definition.SerializeToString())
            return definitions
    raise RunError(
        "saved_model.pb must hold a graph with the tag 'serve'",
        received=folder,
        hint="Export the model again",
    )


def _takes_pixels(folder: Path) -> bool:
    try:
        facts = json.loads((folder / _PREPROCESSING).read_text(encoding="utf-8"))
        return "limits" in facts and "0..255" in facts["images"]
    # Other programs may write a file of this name that holds anything.
    except (OSError, ValueError, TypeError, LookupError):
        return False
