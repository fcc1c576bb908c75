"""A small model server for a laptop with TensorFlow Serving's gRPC and REST APIs.

It serves the same folders as TensorFlow Serving, NAME/<integer>/, implements the same calls with
the same status codes, checks shapes before a graph runs, and loads and unloads versions as their
folders appear and disappear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnkit.server.limits import ServerLimits
from cnnkit.server.metrics import ServerMetrics, serve_metrics
from cnnkit.server.tf_serving import ModelServerProcess, find_model_server
from cnnkit.server.tracing import ServerTracing, tracing_from_environment

if TYPE_CHECKING:
    from cnnkit.server.server import EmbeddedServer

__all__ = [
    "EmbeddedServer",
    "ModelServerProcess",
    "ServerLimits",
    "ServerMetrics",
    "ServerTracing",
    "find_model_server",
    "serve_metrics",
    "tracing_from_environment",
]


def __getattr__(name: str) -> object:
    # Lazy: running tensorflow_model_server needs no TensorFlow in this process.
    if name == "EmbeddedServer":
        from cnnkit.server.server import EmbeddedServer

        return EmbeddedServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
