"""A client of model servers that needs neither TensorFlow nor Keras.

Example:
    >>> from cnnkit.client import Client
    >>> with Client("localhost:8500", timeout=5.0) as client:  # doctest: +SKIP
    ...     client.classify(["cat.jpg"], model="digits", top=1)
    [[Prediction(label='3', probability=0.98)]]
"""

from cnnkit.client.async_client import AsyncClient
from cnnkit.client.channel import TLS
from cnnkit.client.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    InvalidResponse,
    MessageTooLarge,
    ModelNotFound,
    NotAuthorized,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    ServerUnreachable,
    TLSError,
)
from cnnkit.client.image_calls import Explanation, Prediction
from cnnkit.client.metadata import Signature, TensorSpec, VersionStatus
from cnnkit.client.sync_client import Client

__all__ = [
    "TLS",
    "AsyncClient",
    "Client",
    "TLSError",
    "ConnectionLost",
    "DeadlineExceeded",
    "Explanation",
    "InvalidResponse",
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
