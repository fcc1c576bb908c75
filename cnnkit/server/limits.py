"""How much the server takes on at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cnnkit.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """How much the server takes on at once.

    Attributes:
        threads: Graphs that run at the same time; by default one for each core.
        calls: Requests that are taken at once, waiting ones included. More are refused with
            RESOURCE_EXHAUSTED, as TensorFlow Serving does.
        open_calls: Requests whose bytes are still coming, those taken included. A slow client
            costs little; so many of them are borne.
        request_bytes: The largest message, and the largest tensor in memory.
        arrival_seconds: How long a request may take to arrive.
        batch_rows: The largest first dimension of a request.
        window_seconds: How long a request waits for others to run with; 0 joins none.
        joined_rows: The most rows of a batch of joined requests.
        queued_batches: Batches of joined requests that wait; the requests of more are refused
            with UNAVAILABLE.

    Raises:
        UsageError: One of them is negative, or is 0 and must not be.
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    calls: int = 128
    open_calls: int = 2000
    request_bytes: int = 256 * 2**20
    arrival_seconds: float = 60.0
    batch_rows: int = 256
    window_seconds: float = 0.0
    joined_rows: int = 32
    queued_batches: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "window_seconds" else 1
            if not least <= value < 2**31:
                raise UsageError(
                    f"The server's limit {name} cannot be", expected=f">= {least}", received=value
                )
