"""One version of a model in memory: its signatures, and running them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from cnnkit.errors import RunError
from cnnkit.server.status_error import StatusError, invalid_argument, without_paths
from cnnkit.wire import cnnkit_serving_pb2 as pb

_CODES = {code.value[0]: code for code in grpc.StatusCode}

# TensorFlow puts the place of an operation before what went wrong there.
_PREFACE = re.compile(
    r"\AGraph execution error:\s+"
    r"(?:Detected at node .*\n(?:[ \t]+.*\n|<stack traces unavailable>\n|\n)*)*"
)


class SavedModelServable:
    """One loaded version of a model.

    Args:
        name: The model's name.
        version: The version's number.
        folder: The SavedModel.

    Raises:
        RunError: The folder holds no SavedModel that can be loaded and served.

    Example:
        >>> SavedModelServable("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """

    def __init__(self, name: str, version: int, folder: Path) -> None:
        self.name = name
        self.version = version
        try:
            self.definitions = _signature_definitions(folder)
            # The graph's variables live as long as this object does.
            self._model = tf.saved_model.load(str(folder), tags=["serve"])
        except RunError:
            raise
        # TensorFlow has no common base for what a broken SavedModel raises.
        except Exception as error:
            raise RunError(
                f"Version {version} of model {name!r} cannot be loaded from {folder}",
                received=f"{type(error).__name__}: {error}",
                hint="Export the model again",
            ) from error

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: Its name.
            inputs: Every input of it, of its type and a shape that it allows.
            outputs: The names of the outputs wanted.

        Returns:
            The outputs by name.

        Raises:
            Refusal: The graph could not digest the values; with TensorFlow's own code and text.
        """
        function = self._model.signatures.get(signature)
        if function is None:
            raise invalid_argument(f'Serving signature "{signature}" cannot be called')
        try:
            answered = function(**{name: tf.constant(array) for name, array in inputs.items()})
            return {name: answered[name].numpy() for name in outputs}
        except tf.errors.OpError as error:
            code = _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN)
            raise StatusError(code, without_paths(_PREFACE.sub("", error.message))) from error

    def joins(self, signature: str) -> bool:
        """Whether requests for a signature can be run together, as rows of one batch.

        Args:
            signature: Its name.
        """
        definition = self.definitions.signature_def[signature]
        infos = [*definition.inputs.values(), *definition.outputs.values()]
        return bool(definition.inputs) and all(
            not info.tensor_shape.unknown_rank
            and info.tensor_shape.dim
            and info.tensor_shape.dim[0].size == -1
            for info in infos
        )


def _signature_definitions(folder: Path) -> pb.SignatureDefMap:
    """Reads what `tf.saved_model.load` keeps to itself: the signatures as servers publish them."""
    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in model.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            definitions = pb.SignatureDefMap()
            for name, definition in graph.signature_def.items():
                definitions.signature_def[name].MergeFromString(definition.SerializeToString())
            return definitions
    raise RunError(
        "This SavedModel was not made for serving", expected="the tag 'serve'", received=folder
    )
