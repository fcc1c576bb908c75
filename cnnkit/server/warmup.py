"""Load a version and run its warm-up requests before it is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError

from cnnkit.errors import CnnkitError, RunError
from cnnkit.server.free_memory import MemoryShortageError
from cnnkit.server.predict import prepare_predict
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")

# TensorFlow Serving's limit.
MAX_WARMUP_RECORDS = 1000


def load_and_warm_up(
    name: str,
    version: int,
    folder: Path,
    create: Callable[[str, int, Path], SavedModelServable] = SavedModelServable,
) -> SavedModelServable:
    """Loads a version and runs its warm-up requests, so that no client waits for them.

    Args:
        name: Name of the model.
        version: Number of the version.
        folder: The SavedModel; its requests are in `assets.extra/tf_serving_warmup_requests`.
        create: Loads the SavedModel into an engine: a subclass of `SavedModelServable`.

    Returns:
        The servable.

    Raises:
        MemoryShortageError: If memory is full.
        RunError: If the version cannot be loaded, or a warm-up request fails.

    Example:
        >>> load_and_warm_up("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """
    servable = create(name, version, folder)
    file = folder / WARMUP_FILE
    if not file.is_file():
        return servable
    try:
        for record in (
            tf.data.TFRecordDataset(str(file)).take(MAX_WARMUP_RECORDS).as_numpy_iterator()
        ):
            request = pb.PredictionLog.FromString(record).predict_log.request
            prepare_predict(request.SerializeToString(), lambda spec: servable).run()
    # The file may hold anything in place of requests.
    except (StatusError, CnnkitError, DecodeError, tf.errors.OpError, ValueError) as error:
        full = isinstance(error, StatusError) and error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        raise (MemoryShortageError if full else RunError)(
            f"Warm-up request of version {version} of model {name!r} failed",
            received=f"{type(error).__name__}: {error}",
            hint=f"Export the model again, or remove {file}",
        ) from error
    return servable
