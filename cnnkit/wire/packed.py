"""Lists of floats moved in one piece: on the wire a packed list is an array's bytes.

Element by element, as protobuf's Python offers them, the 150,000 floats of one image cost
milliseconds; their bytes cost microseconds.
"""

from __future__ import annotations

from cnnkit.wire import cnnkit_serving_pb2 as pb

# A field of this wire type is a length and that many bytes.
_SIZED = 2


def put(proto: pb.TensorProto, number: int, content: bytes) -> None:
    """Fills the list of a field with the little-endian bytes of its values.

    Args:
        proto: The message.
        number: The field's number; its values have a fixed width.
        content: The bytes.

    Example:
        >>> proto = pb.TensorProto()
        >>> put(proto, 5, bytes.fromhex("0000803f"))
        >>> list(proto.float_val)
        [1.0]
    """
    proto.MergeFromString(head(number, len(content)) + content)


def get(proto: pb.TensorProto, number: int) -> bytearray:
    """Returns the little-endian bytes of the values in the list of a field, to keep and to change.

    Args:
        proto: The message.
        number: The field's number; its values have a fixed width.

    Example:
        >>> get(pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[1.0]), 5).hex()
        '0000803f'
    """
    copy = pb.TensorProto()
    copy.CopyFrom(proto)
    copy.DiscardUnknownFields()
    # However the message arrived, it is written again with one packed piece for each list, and
    # every other field of it is a number or has a size too.
    raw = copy.SerializeToString()
    place = 0
    while place < len(raw):
        tag, place = _varint(raw, place)
        size, place = _varint(raw, place)
        if tag & 7 == _SIZED:
            if tag >> 3 == number:
                return bytearray(memoryview(raw)[place : place + size])
            place += size
    return bytearray()


def head(number: int, size: int) -> bytes:
    """Returns what stands before the bytes of a field: its tag and their count.

    Example:
        >>> head(4, 300).hex()
        '22ac02'
    """
    return varint(number << 3 | _SIZED) + varint(size)


def varint(value: int) -> bytes:
    """Returns a number as protobuf writes it, seven bits a byte, the lowest first.

    Example:
        >>> varint(300).hex()
        'ac02'
    """
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while raw[place] & 0x80:
        value |= (raw[place] & 0x7F) << shift
        shift += 7
        place += 1
    return value | raw[place] << shift, place + 1
