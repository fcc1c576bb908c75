"""A small model server for a laptop, speaking TensorFlow Serving's gRPC API.

It serves the same folders as TensorFlow Serving, NAME/<integer>/, answers the same calls with the
same codes, checks shapes before a graph runs, and follows the folders as versions come and go. It
does not speak REST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnkit.server.limits import ServerLimits
from cnnkit.server.tf_serving import ModelServerProcess, find_model_server

if TYPE_CHECKING:
    from cnnkit.server.server import EmbeddedServer

__all__ = ["EmbeddedServer", "ServerLimits", "ModelServerProcess", "find_model_server"]


def __getattr__(name: str) -> object:
    # Running TensorFlow Serving's own program needs no TensorFlow in this process.
    if name == "EmbeddedServer":
        from cnnkit.server.server import EmbeddedServer

        return EmbeddedServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
