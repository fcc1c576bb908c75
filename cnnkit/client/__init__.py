"""A client of model servers that needs neither TensorFlow nor Keras.

Example:
    >>> from cnnkit.client import Client
    >>> with Client("localhost:8500", timeout=5.0) as client:  # doctest: +SKIP
    ...     client.classify(["cat.jpg"], model="digits", top=1)
    [[Prediction(label='3', probability=0.98)]]
"""

from cnnkit.client.aio import AsyncClient
from cnnkit.client.client import Client
from cnnkit.client.endpoint import TLS
from cnnkit.client.errors import (
    ConnectionInsecure,
    ConnectionLost,
    DeadlineExceeded,
    InvalidAnswer,
    InvalidRequest,
    MessageTooLarge,
    ModelNotFound,
    NotAuthorized,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    ServerUnreachable,
)
from cnnkit.client.images import Prediction
from cnnkit.client.metadata import Signature, TensorSpec, VersionStatus
from cnnkit.client.seeing import Explanation

__all__ = [
    "TLS",
    "AsyncClient",
    "Client",
    "ConnectionInsecure",
    "ConnectionLost",
    "DeadlineExceeded",
    "Explanation",
    "InvalidAnswer",
    "InvalidRequest",
    "MessageTooLarge",
    "ModelNotFound",
    "NotAuthorized",
    "Prediction",
    "ServerBusy",
    "ServerError",
    "ServerUnavailable",
    "ServerUnreachable",
    "Signature",
    "TensorSpec",
    "VersionStatus",
]
