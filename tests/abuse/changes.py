"""Changes of valid requests: of their bytes, of the fields of messages, of the values of JSON."""

import json

from google.protobuf.descriptor import FieldDescriptor

# Texts that JSON readers and converters of numbers have fallen over.
WORDS = [
    b"1e400", b"-1e400", b"NaN", b"Infinity", b"-0", b"1" * 5000, b"0." + b"9" * 999, b"true",
    b"null", b'"\\ud800"', b'"\\u0000"', b"{}", b"[]", b"[[]]", b"[" * 500, b'{"b64": "!"}',
    b'{"a":' * 200, b'"\xff"', b"9007199254740993", b"1e-400", b"18446744073709551616", b"-1",
]  # fmt: skip
_INTEGERS = [0, 1, -1, 2, 255, 256, 65_536, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63)]
_TEXTS = ["", "colors", "images", "serving_bytes", "\0", "\u202e", "x" * 5000, "colors:none", "2"]
# A text that no document has.
_MARK = "\x7f"
# By protobuf's type of a field, the bits of its numbers and whether they have a sign.
_INTEGER_TYPES = {
    FieldDescriptor.CPPTYPE_INT32: (32, True), FieldDescriptor.CPPTYPE_INT64: (64, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False), FieldDescriptor.CPPTYPE_UINT64: (64, False),
    FieldDescriptor.CPPTYPE_ENUM: (32, True),
}  # fmt: skip


def change(raw, random):
    """Returns bytes with a few changes: flips, cuts, copies, words of `WORDS`."""
    changed = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(changed) + 1)
        end = min(len(changed), place + random.randint(1, 40))
        match random.randrange(5):
            case 0 if place < len(changed):
                changed[place] ^= 1 << random.randrange(8)
            case 1:
                del changed[place:end]
            case 2:
                changed[place:place] = changed[place:end]
            case 3:
                changed[place:end] = random.choice(WORDS)
            case _:
                changed[place:place] = random.randbytes(random.randint(1, 8))
    return bytes(changed)


def change_fields(message, random):
    """Returns the bytes of a message of which a few fields have other values."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(random.randint(1, 3)):
        owner = random.choice(list(_messages(changed)))
        field = random.choice(list(owner.DESCRIPTOR.fields))
        if field.message_type is not None:
            owner.ClearField(field.name)
        elif field.is_repeated:
            listed = getattr(owner, field.name)
            values = [*listed][: random.choice([0, 1, len(listed)])]
            values += [_value(field, random)] * random.choice([0, 1, 3, 100])
            owner.ClearField(field.name)
            getattr(owner, field.name).extend(values)
        else:
            setattr(owner, field.name, _value(field, random))
    return changed.SerializeToString()


def _messages(message):
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            parts = value.values()
        else:
            parts = value if field.is_repeated else [value]
        for part in parts:
            if hasattr(part, "DESCRIPTOR"):
                yield from _messages(part)


def _value(field, random):
    if field.cpp_type in _INTEGER_TYPES:
        bits, signed = _INTEGER_TYPES[field.cpp_type]
        value = random.choice([*_INTEGERS, random.randrange(64)]) % 2**bits
        return value - 2**bits if signed and value >= 2 ** (bits - 1) else value
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return random.randbytes(random.choice([0, 1, 767, 768, 3072, 5000]))
        return random.choice(_TEXTS)
    return random.choice([0.0, -1.0, 1e30, float("inf"), float("nan")])


def change_json(document, random):
    """Returns the text of a JSON document of which one value is another one."""

    def marked(value, depth=0):
        if not (isinstance(value, (dict, list)) and value and random.random() < 0.9**depth):
            return _MARK
        changed = value.copy()
        key = random.choice([*value] if isinstance(value, dict) else range(len(value)))
        changed[key] = marked(value[key], depth + 1)
        return changed

    text = json.dumps(marked(document)).encode()
    return text.replace(json.dumps(_MARK).encode(), random.choice(WORDS))
