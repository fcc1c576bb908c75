"""A client of model servers that needs neither TensorFlow nor Keras.

Example:
    >>> from cnnkit.client import Client
    >>> with Client("localhost:8500", timeout=5.0) as client:  # doctest: +SKIP
    ...     client.classify(["cat.jpg"], model="digits", top=1)
    [[Prediction(label='3', probability=0.98)]]
"""

from cnnkit.client.client import Client
from cnnkit.client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
)
from cnnkit.client.images import Prediction
from cnnkit.client.metadata import Signature, TensorSpec, VersionStatus

__all__ = [
    "Client",
    "DeadlineExceeded",
    "InvalidRequest",
    "ModelNotFound",
    "Prediction",
    "ServerError",
    "ServerUnavailable",
    "Signature",
    "TensorSpec",
    "VersionStatus",
]
