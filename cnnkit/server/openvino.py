"""OpenVINO as an engine: it runs the signatures whose outputs agree with TensorFlow's.

OpenVINO reads the graph that TensorFlow has loaded, with its weights. TensorFlow keeps the
signatures that do not take one float32 array of a known size, for example image files, for which
OpenVINO has no decoder; those that OpenVINO cannot read; and those whose outputs differ.
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

from cnnkit._openvino_reports import without_reports
from cnnkit.server import warmup
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.status_error import StatusError, redact_paths

_LOG = logging.getLogger(__name__)

# Largest difference of the outputs, relative to TensorFlow's largest value. Both engines compute
# in float32: networks differ by 1e-6; a graph that is read wrongly differs by about 1.
_MAX_DIFFERENCE = 1e-3
# Characters of a logged error; OpenVINO's texts fill pages.
_MAX_REASON = 200
_SETTINGS = {
    # Otherwise processors that support bfloat16 would compute with it.
    "INFERENCE_PRECISION_HINT": "f32",
    # All cores for each batch. The throughput hint gives each core a batch of its own, which was
    # slower except for many callers of a small network.
    "PERFORMANCE_HINT": "LATENCY",
}


class OpenVinoServable(SavedModelServable):
    """One loaded version of a model whose signatures OpenVINO runs if it can.

    Args:
        name: Name of the model.
        version: Number of the version.
        folder: The SavedModel.

    Raises:
        RunError: If the folder holds no SavedModel that can be loaded and served.

    Example:
        >>> OpenVinoServable("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """

    def __init__(self, name: str, version: int, folder: Path) -> None:
        super().__init__(name, version, folder)
        self._compiled: dict[str, _CompiledSignature] = {}
        for signature, function in sorted(self._model.signatures.items()):
            inputs = _random_inputs(function)
            if inputs is None:
                self._log_engine(signature, "is left to TensorFlow")
                continue
            try:
                compiled = _CompiledSignature(function)
                difference = self._largest_difference(signature, compiled, inputs)
            # OpenVINO's errors have no common base class.
            except Exception as error:
                reason = " ".join(redact_paths(str(error)).split())[:_MAX_REASON]
                kind = type(error).__name__
                self._log_engine(signature, f"is left to TensorFlow: {kind}: {reason}")
                continue
            detail = f"largest difference from TensorFlow {difference:.1e} of the largest value"
            if difference <= _MAX_DIFFERENCE:
                self._compiled[signature] = compiled
                self._log_engine(signature, f"is run by OpenVINO: {detail}")
            else:
                self._log_engine(signature, f"is left to TensorFlow: {detail}")

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Iterable[str]
    ) -> dict[str, np.ndarray]:
        """Runs a signature; see `SavedModelServable.run`."""
        compiled = self._compiled.get(signature)
        # The graph refuses an empty batch by its own text; OpenVINO drops the check and fails.
        if compiled is None or not all(map(len, inputs.values())):
            return super().run(signature, inputs, outputs)
        try:
            arrays = compiled(inputs)
        except RuntimeError as error:
            raise StatusError(grpc.StatusCode.INTERNAL, redact_paths(str(error))) from error
        return {name: arrays[name] for name in outputs}

    def _largest_difference(
        self, signature: str, compiled: _CompiledSignature, inputs: Mapping[str, np.ndarray]
    ) -> float:
        """Returns the largest difference of the outputs, relative to TensorFlow's largest value."""
        found = compiled(inputs)
        names = self.definitions.signature_def[signature].outputs
        expected = super().run(signature, inputs, names)
        differences = [
            np.abs(found[name] - values).max() / max(np.abs(values).max(), 1e-30)
            for name, values in expected.items()
        ]
        # np.max propagates NaN; Python's max does not.
        return float(np.max(differences))

    def _log_engine(self, signature: str, text: str) -> None:
        _LOG.info("Model %r: version %d: %s %s", self.name, self.version, signature, text)


def load_openvino(name: str, version: int, folder: Path) -> SavedModelServable:
    """Loads a version into OpenVINO and runs its warm-up requests.

    Args:
        name: Name of the model.
        version: Number of the version.
        folder: The SavedModel.

    Returns:
        The servable.

    Raises:
        RunError: If the version cannot be loaded, or a warm-up request fails.

    Example:
        >>> load_openvino("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """
    return warmup.load_and_warm_up(name, version, folder, OpenVinoServable)


class _CompiledSignature:
    """A TensorFlow function compiled by OpenVINO; any number of threads may call it."""

    def __init__(self, function: Any) -> None:
        import openvino

        self._outputs = sorted(function.structured_outputs)
        with without_reports():
            model = openvino.convert_model(function)
        self._model = openvino.Core().compile_model(model, "CPU", _SETTINGS)
        # An infer request holds memory of its own and must not be shared between threads.
        self._thread_local = threading.local()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not hasattr(self._thread_local, "request"):
            self._thread_local.request = self._model.create_infer_request()
        # Inputs are not copied. Outputs are, because the next call overwrites the request's memory.
        arrays = self._thread_local.request.infer(dict(inputs), share_inputs=True)
        return {name: arrays[name] for name in self._outputs}


def _random_inputs(function: Any) -> dict[str, np.ndarray] | None:
    """Returns random inputs for a signature of one float32 array; None for other signatures."""
    specs = function.structured_input_signature[1]
    if len(specs) != 1:
        return None
    [(name, spec)] = specs.items()
    if spec.dtype != tf.float32 or not spec.shape.rank or None in spec.shape[1:]:
        return None
    shape = [spec.shape[0] or 1, *spec.shape[1:]]
    return {name: np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)}
