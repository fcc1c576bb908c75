"""Signatures that OpenVINO runs instead of TensorFlow, where its answers are the same.

OpenVINO reads the graph that TensorFlow has loaded, with its weights. Left to TensorFlow is what
takes something else than one array of float32 of a known size, such as files of images, for which
OpenVINO has no decoder; what OpenVINO cannot read; and what it answers otherwise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from cnnkit.server import warmup
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.status_error import StatusError, without_paths

_LOG = logging.getLogger(__name__)

# The part of TensorFlow's largest value by which an answer may differ. Both compute with float32:
# networks differ by 1e-6, a wrong reading of a graph by all there is.
_DIFFERENCE = 1e-3
# Characters of a reason that are told; OpenVINO's go on for pages.
_LONGEST = 200
_SETTINGS = {
    # Else processors that know bfloat16 would compute with it.
    "INFERENCE_PRECISION_HINT": "f32",
    # All cores for each batch. The other hint gives each core a batch of its own, which was slower
    # but for many callers of a small network.
    "PERFORMANCE_HINT": "LATENCY",
}


class OpenVinoServable(SavedModelServable):
    """One loaded version of a model, run by OpenVINO where that can.

    Args:
        name: The model's name.
        version: The version's number.
        folder: The SavedModel.

    Raises:
        RunError: The folder holds no SavedModel that can be loaded and served.

    Example:
        >>> OpenVinoServable("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """

    def __init__(self, name: str, version: int, folder: Path) -> None:
        super().__init__(name, version, folder)
        self._compiled: dict[str, _Compiled] = {}
        for signature, function in sorted(self._model.signatures.items()):
            given = _example(function)
            if given is None:
                self._say(signature, "is left to TensorFlow")
                continue
            try:
                compiled = _Compiled(function)
                difference = self._difference(signature, compiled, given)
            # OpenVINO has no common base for what it cannot read.
            except Exception as error:
                reason = " ".join(without_paths(str(error)).split())[:_LONGEST]
                self._say(signature, f"is left to TensorFlow: {type(error).__name__}: {reason}")
                continue
            told = f"largest difference from TensorFlow {difference:.1e} of the largest value"
            if difference <= _DIFFERENCE:
                self._compiled[signature] = compiled
                self._say(signature, f"is run by OpenVINO: {told}")
            else:
                self._say(signature, f"is left to TensorFlow: {told}")

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature; as `Servable.run`."""
        compiled = self._compiled.get(signature)
        if compiled is None:
            return super().run(signature, inputs, outputs)
        try:
            answered = compiled(inputs)
        except RuntimeError as error:
            raise StatusError(grpc.StatusCode.INTERNAL, without_paths(str(error))) from error
        return {name: answered[name] for name in outputs}

    def _difference(
        self, signature: str, compiled: _Compiled, given: Mapping[str, np.ndarray]
    ) -> float:
        """Returns by how much the answers to one input differ, as a part of the largest value."""
        found = compiled(given)
        names = self.definitions.signature_def[signature].outputs
        expected = super().run(signature, given, names)
        differences = [
            np.abs(found[name] - values).max() / max(np.abs(values).max(), 1e-30)
            for name, values in expected.items()
        ]
        # Where one is no number, neither is the largest.
        return float(np.max(differences))

    def _say(self, signature: str, what: str) -> None:
        _LOG.info("Model %r: version %d: %s %s", self.name, self.version, signature, what)


def load_openvino(name: str, version: int, folder: Path) -> SavedModelServable:
    """As `cnnkit.server.warmup.load_and_warm_up`, with OpenVINO.

    Example:
        >>> load_openvino("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """
    return warmup.load_and_warm_up(name, version, folder, OpenVinoServable)


class _Compiled:
    """A function of TensorFlow's, compiled by OpenVINO, for any number of threads."""

    def __init__(self, function: Any) -> None:
        import openvino

        self._outputs = sorted(function.structured_outputs)
        model = openvino.convert_model(function)
        self._model = openvino.Core().compile_model(model, "CPU", _SETTINGS)
        # A request of OpenVINO's holds memory, and is for one thread at a time.
        self._own = threading.local()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        # The inputs are read where they are; the outputs are copies, the request goes on.
        answered = self._own.request.infer(dict(inputs), share_inputs=True)
        return {name: answered[name] for name in self._outputs}


def _example(function: Any) -> dict[str, np.ndarray] | None:
    """Returns a batch of noise as a signature takes it; None where it takes something else."""
    specs = function.structured_input_signature[1]
    if len(specs) != 1:
        return None
    [(name, spec)] = specs.items()
    if spec.dtype != tf.float32 or not spec.shape.rank or None in spec.shape[1:]:
        return None
    shape = [spec.shape[0] or 1, *spec.shape[1:]]
    return {name: np.float32(np.random.default_rng(0).uniform(0, 255, shape))}
