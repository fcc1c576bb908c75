"""The parsers of messages as targets of `tests.fuzz`.

For `tensors` and `answers`, the fast parser and protobuf must agree. For `requests`, the server
must accept only what fits the signature.
"""

from types import SimpleNamespace

import numpy as np

LARGEST = 2**20
SHAPE = (None, 4, 4, 3)


def seeds():
    """Return valid messages for each target."""
    from cnnkit.wire import cnnkit_serving_pb2 as pb
    from cnnkit.wire.tensors import encode_values, to_tensor_proto

    arrays = [
        np.arange(48, dtype=np.float32).reshape(1, 4, 4, 3),
        np.float64([[1, 2]]),
        np.float16([1, 2]),
        np.uint8([1, 200]),
        np.array([True, False]),
        np.complex64([1j]),
        np.array([b"a", b"bc"], object),
    ]
    tensors = [write(array) for array in arrays for write in (to_tensor_proto, encode_values)]
    found = {"tensors": [tensor.SerializeToString() for tensor in tensors]}
    for target, message in (("answers", pb.PredictResponse), ("requests", pb.PredictRequest)):
        found[target] = []
        for tensor in tensors:
            whole = message()
            whole.model_spec.name = "m"
            whole.model_spec.version.value = 1
            whole.model_spec.signature_name = "images"
            field = whole.outputs if target == "answers" else whole.inputs
            field["images"].CopyFrom(tensor)
            found[target].append(whole.SerializeToString())
    return found


def same(a, b):
    """Compare parsed values: arrays, and dicts and tuples of arrays."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, tuple):
        return all(map(same, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        # Not the bits: a NaN converted to Python's float may lose some.
        alike = (a.dtype, a.shape) == (b.dtype, b.shape)
        return alike and repr(a.tolist()) == repr(b.tolist())
    return type(a) is type(b) and a == b


def outcome(parse, raw):
    """Return the parsed values, or "refused": of two faults either may be reported."""
    from google.protobuf.message import DecodeError

    from cnnkit.wire.dtypes import TensorError

    try:
        with np.errstate(all="ignore"):
            return parse(raw)
    except (TensorError, DecodeError):
        return "refused"


def tensors():
    """The parser of one tensor against protobuf's."""
    from cnnkit.wire import cnnkit_serving_pb2 as pb
    from cnnkit.wire.tensors import decode_tensor, decode_tensor_bytes

    def check(raw):
        fast = outcome(lambda raw: decode_tensor_bytes(memoryview(raw), max_bytes=LARGEST), raw)
        slow = outcome(
            lambda raw: decode_tensor(pb.TensorProto.FromString(raw), max_bytes=LARGEST), raw
        )
        assert same(fast, slow), (fast, slow)

    return check


def answers():
    """The client's parser of responses against protobuf's."""
    from cnnkit.client import decode
    from cnnkit.wire import cnnkit_serving_pb2 as pb
    from cnnkit.wire import tensors as wire

    # Limits the size that a response may claim, so that no time goes into large arrays of zeros.
    def by_layout(cache, raw):
        return outcome(lambda raw: cache.decode(raw, max_bytes=LARGEST), raw)

    def by_protobuf(raw):
        response = pb.PredictResponse.FromString(raw)
        outputs, left = {}, LARGEST
        for name, tensor in response.outputs.items():
            outputs[name] = wire.decode_tensor(tensor, max_bytes=left)
            left -= outputs[name].nbytes
        return response.model_spec.version.value, outputs

    def check(raw):
        cache = decode.LayoutCache()
        slow = outcome(by_protobuf, raw)
        # The second time by the cached layout, if there is one.
        for _ in range(2):
            fast = by_layout(cache, raw)
            assert same(fast, slow), (fast, slow)
        layout = cache.layouts.get(len(raw))
        if layout is not None:
            # Another response with the same layout and other values.
            other = bytearray(raw)
            for place in layout.places:
                other[place.begin : place.end] = bytes(
                    byte ^ 0x5A for byte in raw[place.begin : place.end]
                )
            fast, slow = by_layout(cache, bytes(other)), outcome(by_protobuf, bytes(other))
            assert same(fast, slow), (fast, slow)

    return check


def requests():
    """The server's validation of a request."""
    from google.protobuf.message import DecodeError

    from cnnkit.server.predict import prepare_predict
    from cnnkit.server.status_error import StatusError
    from cnnkit.wire import cnnkit_serving_pb2 as pb
    from cnnkit.wire.dtypes import wire_type

    definitions = pb.SignatureDefMap()
    for name, dtype, shape in (
        ("images", pb.DT_FLOAT, SHAPE),
        ("serving_default", pb.DT_STRING, (None,)),
    ):
        taken = definitions.signature_def[name].inputs["images"]
        taken.dtype = dtype
        for size in shape:
            taken.tensor_shape.dim.add(size=-1 if size is None else size)
        definitions.signature_def[name].outputs["y"].dtype = pb.DT_FLOAT
    servable = SimpleNamespace(name="m", version=1, definitions=definitions, takes_pixels=True)

    def check(raw):
        try:
            call = prepare_predict(raw, lambda spec: servable, max_tensor_bytes=LARGEST, max_rows=8)
        except (StatusError, DecodeError):
            return
        [(name, array)] = call.inputs.items()
        info = definitions.signature_def[call.signature].inputs[name]
        # The graph refuses an empty batch, which is not the work of this check.
        assert array.nbytes <= LARGEST and len(array) <= 8, array.shape
        kind = wire_type(info.dtype)
        assert array.dtype == (object if kind.stored is None else kind.stored), array.dtype
        sizes = [dim.size for dim in info.tensor_shape.dim]
        assert len(sizes) == array.ndim, array.shape
        assert all(a in (-1, b) for a, b in zip(sizes, array.shape, strict=True)), array.shape

    return check


PARSERS = {
    name: lambda name=name, parser=parser: (seeds()[name], parser())
    for name, parser in (("tensors", tensors), ("answers", answers), ("requests", requests))
}
