"""Unpack compressed messages within the memory of a request.

gRPC would unpack a message of 250 kB to 250 MB before anything can count it.
"""

from __future__ import annotations

import zlib

import grpc

from cnnkit.server.memory_budget import MemoryAccount
from cnnkit.server.status_error import StatusError, too_large

# Option of a gRPC server that hands over messages as they were sent.
NO_DECOMPRESSION = ("grpc.per_message_decompression", 0)

# gRPC tells a handler neither that a message is compressed nor how. No message of the API begins
# with these bytes: 1f would be a field of a type that does not exist, 78 a field 15 of no message.
_GZIP, _DEFLATE = b"\x1f\x8b", b"\x78"
# Detects gzip and zlib, with the largest window.
_WINDOW_BITS = 32 + zlib.MAX_WBITS
_PIECE_BYTES = 2**20


def unpack_message(raw: bytes, memory: MemoryAccount, max_bytes: int) -> bytes | bytearray:
    """Returns a message without its compression.

    Args:
        raw: The message, compressed by gzip or deflate, or not compressed.
        memory: The account of the request.
        max_bytes: Largest number of bytes of the message.

    Raises:
        StatusError: RESOURCE_EXHAUSTED if it is larger than `max_bytes` or the memory, INTERNAL if
            it is damaged.

    Example:
        >>> from cnnkit.server.memory_budget import MemoryBudget
        >>> with MemoryBudget(2**30).open() as memory:
        ...     len(unpack_message(zlib.compress(bytes(50_000)), memory, 2**20))
        50000
    """
    if not (raw.startswith(_GZIP) or (raw.startswith(_DEFLATE) and _is_zlib(raw))):
        return raw
    unpacked, packed = bytearray(), raw
    unpacker = zlib.decompressobj(_WINDOW_BITS)
    try:
        while not unpacker.eof:
            piece = unpacker.decompress(packed, _PIECE_BYTES)
            if not (piece or unpacker.eof or unpacker.unconsumed_tail):
                raise zlib.error("the message is truncated")
            memory.add(len(piece))
            unpacked += piece
            if len(unpacked) > max_bytes:
                raise too_large(f"Decompressed message larger than max ({max_bytes})")
            packed = unpacker.unconsumed_tail
    except zlib.error as error:
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            f"The message cannot be decompressed: {error}",
            http_status=400,
        ) from error
    return unpacked


def _is_zlib(raw: bytes) -> bool:
    return int.from_bytes(raw[:2]) % 31 == 0
