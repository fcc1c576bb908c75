"""The requests that a version brings along to be run before the first client's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from cnnkit.errors import CnnkitError, RunError
from cnnkit.server.predict import prepare_predict
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb

FILE = Path("assets.extra", "tf_serving_warmup_requests")

# As TensorFlow Serving's limit.
MAX_WARMUP_RECORDS = 1000


def load_and_warm_up(
    name: str,
    version: int,
    folder: Path,
    make: Callable[[str, int, Path], SavedModelServable] = SavedModelServable,
) -> SavedModelServable:
    """Loads a version and runs its warm-up requests, so that no client waits for that.

    Args:
        name: The model's name.
        version: The version's number.
        folder: The SavedModel; its requests are in `assets.extra/tf_serving_warmup_requests`.
        make: Loads it; the kind of servable is the engine that runs the graphs.

    Raises:
        RunError: It cannot be loaded, or a request of its own fails.

    Example:
        >>> load_and_warm_up("digits", 1, Path("models/digits/1")).version  # doctest: +SKIP
        1
    """
    servable = make(name, version, folder)
    file = folder / FILE
    if not file.is_file():
        return servable
    try:
        for record in (
            tf.data.TFRecordDataset(str(file)).take(MAX_WARMUP_RECORDS).as_numpy_iterator()
        ):
            request = pb.PredictionLog.FromString(record).predict_log.request
            prepare_predict(request, lambda spec: servable).run()
    # Whatever the file holds instead of requests.
    except (StatusError, CnnkitError, tf.errors.OpError, ValueError) as error:
        raise RunError(
            f"A warm-up request of version {version} of model {name!r} fails",
            received=f"{type(error).__name__}: {error}",
            hint=f"Export the model again, or remove {file}",
        ) from error
    return servable
