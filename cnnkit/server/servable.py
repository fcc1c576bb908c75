"""One loaded version of a model.

`tf.saved_model.load` does not return the signature definitions that servers publish, and weights of
models with custom gradients are never freed. This file, and no other, reads and rewrites
saved_model.pb with `tensorflow.core.protobuf`, which TensorFlow does not document.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from cnnkit._untrusted.json_documents import JsonFields, read_json
from cnnkit.errors import DataError, RunError
from cnnkit.server.free_memory import MemoryShortageError
from cnnkit.server.status_error import StatusError, invalid_argument, redact_paths
from cnnkit.wire import cnnkit_serving_pb2 as pb

# File of an export of cnnkit that describes its inputs.
_PREPROCESSING = Path("assets", "preprocessing.json")

# Attribute of an operation that names its custom gradient.
_GRADIENT = "_gradient_op_type"

# Beginning of the name of a temporary folder, and its path in TensorFlow's errors.
_LINKS = "cnnkit-serve-"
_LINKS_PATH = re.compile(rf"[^\s:]*{_LINKS}\w+")

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
        shared: The servable of another name that this one is a copy of, if any.

    Raises:
        MemoryShortageError: If memory is full.
        RunError: If the folder holds no SavedModel that can be loaded and served.

    Example:
        >>> SavedModelServable("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """

    def __init__(self, name: str, version: int, folder: Path) -> None:
        self.name = name
        self.version = version
        self.shared: SavedModelServable | None = None
        try:
            self.definitions = read_signature_definitions(folder)
            self.takes_pixels = _takes_pixels(folder)
            # This object keeps the graph's variables alive.
            self._model = self._load_graph(folder)
        except RunError:
            raise
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise MemoryShortageError(
                f"Version {version} of model {name!r} cannot be loaded: memory is full"
            ) from error
        # Errors of a broken SavedModel have no common base class.
        except Exception as error:
            raise RunError(
                f"Version {version} of model {name!r} cannot be loaded",
                received=_LINKS_PATH.sub(
                    lambda _: str(folder), f"{folder}: {type(error).__name__}: {error}"
                ),
                hint="Export the model again",
            ) from error

    def _load_graph(self, folder: Path) -> Any:
        links = Path(tempfile.mkdtemp(prefix=_LINKS))
        # The links stay as long as the model: a graph may read its assets at any time.
        weakref.finalize(self, shutil.rmtree, links, ignore_errors=True)
        link_without_gradients(folder, links)
        return tf.saved_model.load(str(links), tags=["serve"])

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
    for graph in _read_saved_model(folder).meta_graphs:
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


def link_without_gradients(folder: Path, links: Path) -> None:
    """Writes the graph of a SavedModel without its custom gradients, and links to the other files.

    `tf.saved_model.load` adds every custom gradient to a registry of the process. The entries are
    never removed, and keep the functions and weights of unloaded versions in memory. A server needs
    none of them: it computes no gradients of a graph, and those inside a graph are operations.

    Args:
        folder: The SavedModel.
        links: The folder to write to.

    Raises:
        google.protobuf.message.DecodeError: If saved_model.pb is corrupt.
        OSError: If a file cannot be read or written.

    Example:
        >>> link_without_gradients(Path("models/digits/1"), Path("/tmp/links"))  # doctest: +SKIP
    """
    model = _read_saved_model(folder)
    for graph in model.meta_graphs:
        library = graph.graph_def.library
        library.ClearField("registered_gradients")
        for nodes in (graph.graph_def.node, *(function.node_def for function in library.function)):
            for node in nodes:
                node.attr.pop(_GRADIENT, None)
    (links / "saved_model.pb").write_bytes(model.SerializeToString())
    for file in folder.iterdir():
        if file.name != "saved_model.pb":
            (links / file.name).symlink_to(file.resolve())


def _read_saved_model(folder: Path) -> Any:
    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def _takes_pixels(folder: Path) -> bool:
    file = folder / _PREPROCESSING
    try:
        facts = JsonFields(read_json(file), file)
        return "limits" in facts and "0..255" in facts.text("images")
    # Other programs may write a file of this name that holds anything.
    except DataError:
        return False
