"""Bytes made to break their readers, found by coverage (atheris, libFuzzer); not part of the tests.

pip install atheris; python tests/fuzz/wire.py TARGET [SECONDS] [SEED]

Targets: `tensors` and `answers` are read in the fast way and by protobuf, which must agree; of
`requests` the server's checks let through only what fits the signature. An error of another kind
than those that are meant ends the run, and leaves the bytes in a file crash-*.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

LARGEST = 2**20
SHAPE = (None, 4, 4, 3)


def seeds():
    """Messages that are right, of each target."""
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
    """Compares what was read: arrays, and the dictionaries and tuples that hold them."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, tuple):
        return all(map(same, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        # Not the bits: a NaN that goes through Python's float may lose some.
        alike = (a.dtype, a.shape) == (b.dtype, b.shape)
        return alike and repr(a.tolist()) == repr(b.tolist())
    return type(a) is type(b) and a == b


def outcome(read, raw):
    """Returns what was read, or that it was refused: of two faults either may be named."""
    from google.protobuf.message import DecodeError

    from cnnkit.wire.dtypes import TensorError

    try:
        with np.errstate(all="ignore"):
            return read(raw)
    except (TensorError, DecodeError):
        return "refused"


def tensors():
    """The reader of one tensor against protobuf's."""
    from cnnkit.wire import cnnkit_serving_pb2 as pb
    from cnnkit.wire.tensors import decode_tensor, decode_tensor_bytes

    def check(raw):
        fast = outcome(lambda raw: decode_tensor_bytes(memoryview(raw), largest=LARGEST), raw)
        slow = outcome(
            lambda raw: decode_tensor(pb.TensorProto.FromString(raw), largest=LARGEST), raw
        )
        assert same(fast, slow), (fast, slow)

    return check


def answers():
    """The client's reader of answers, with and without a form that it knows."""
    from cnnkit.client import decode as reading
    from cnnkit.wire import tensors as wire

    # What an answer may claim at most, so that no time goes into large arrays of zeros.
    wire.decode_tensor_bytes.__kwdefaults__["largest"] = wire.decode_tensor.__kwdefaults__[
        "largest"
    ] = LARGEST

    def check(raw):
        known = outcome(reading.decode_predict_response, raw)
        again = outcome(reading.decode_predict_response, raw)
        reading._forms.clear()
        alone = outcome(reading.decode_predict_response, raw)
        assert same(known, alone), (known, alone)
        assert same(again, alone), (again, alone)
        # Another answer of the same form: other values in the same places.
        form = reading._forms.get(len(raw))
        if form is not None:
            other = bytearray(raw)
            for place in form.places:
                other[place.begin : place.end] = bytes(
                    byte ^ 0x5A for byte in raw[place.begin : place.end]
                )
            known = outcome(reading.decode_predict_response, bytes(other))
            reading._forms.clear()
            assert same(known, outcome(reading.decode_predict_response, bytes(other)))

    return check


def requests():
    """The server's checks of a request."""
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
    servable = SimpleNamespace(name="m", version=1, definitions=definitions)

    def check(raw):
        try:
            request = pb.PredictRequest.FromString(raw)
            call = prepare_predict(
                request, lambda spec: servable, max_tensor_bytes=LARGEST, max_rows=8
            )
        except (StatusError, DecodeError):
            return
        [(name, array)] = call.inputs.items()
        info = definitions.signature_def[call.signature].inputs[name]
        assert array.nbytes <= LARGEST and 0 < len(array) <= 8, array.shape
        kind = wire_type(info.dtype)
        assert array.dtype == (object if kind.stored is None else kind.stored), array.dtype
        sizes = [dim.size for dim in info.tensor_shape.dim]
        assert len(sizes) == array.ndim, array.shape
        assert all(a in (-1, b) for a, b in zip(sizes, array.shape, strict=True)), array.shape

    return check


TARGETS = {"tensors": tensors, "answers": answers, "requests": requests}


def main():
    """Runs one target for some seconds."""
    import atheris

    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    target, seconds, seed = [*sys.argv[1:4], *("60", "1")[len(sys.argv[2:4]) :]]
    with atheris.instrument_imports(include=["cnnkit"]):
        check = TARGETS[target]()
    with tempfile.TemporaryDirectory() as corpus:
        for number, raw in enumerate(seeds()[target]):
            Path(corpus, str(number)).write_bytes(raw)
        # libFuzzer ends the process, without coming back.
        atheris.Setup(
            [sys.argv[0], corpus, f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=1024"],
            check,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
