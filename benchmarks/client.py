"""The overhead of the client over raw gRPC, the gain of each optimization, and the import time.

The server runs in a process of its own and responds immediately, so nothing hides the cost of a
call. A real network takes milliseconds more, and the ratio falls. Calls are measured as wall time
and as CPU time of the calling process.

Raw gRPC is measured twice: with a request serialized in advance and a response that is not parsed,
which is a lower bound; and by hand from array to array, with one copy in each direction, between a
prefix and an offset known in advance. The client is measured with and without its caches of request
templates and of response layouts, and the serialization of tensors beside protobuf's Python API.

Each kind of call is made several times in a row, as a program makes it, before the next one takes
its turn: a processor repeats faster what it has just done.
"""

from timing import in_a_row, interleaved  # isort: skip

import contextlib
import functools
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np

from cnnkit.client import Client
from cnnkit.client.decode import LayoutCache, decode_predict_response
from cnnkit.client.encode import RequestTarget, TemplateCache, encode_predict_request
from cnnkit.client.expected import ExpectedOutputs
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import MAX_TENSOR_BYTES, encode_values

ROUNDS = 30
IN_A_ROW = 20
IMPORT_ROUNDS = 15
READY, BY_HAND, CLIENT = "ready bytes", "by hand", "client"
NO_TEMPLATES, NO_LAYOUTS = "no templates", "no layouts"
# Which candidates are compared: the first costs so much more than the second.
RATIOS = (
    (CLIENT, READY),
    (CLIENT, BY_HAND),
    (NO_TEMPLATES, CLIENT),
    (NO_LAYOUTS, CLIENT),
)

# One and eight images of AlexNet's and VGG's input size, and a 100 kB photo; responses of 1000
# classes, of 4096 features and of a projection.
CASES = {
    "1 image, 1000 classes": ((1, 224, 224, 3), "probabilities", (1, 1000)),
    "8 images, 1000 classes": ((8, 224, 224, 3), "probabilities", (8, 1000)),
    "8 images, 4096 features": ((8, 224, 224, 3), "features", (8, 4096)),
    "1 photo of 100 kB, 1000 classes": (None, "probabilities", (1, 1000)),
    "1 photo of 100 kB, a projection": (None, "projection", (1, 224, 224, 3)),
}

SERVER = """
    import sys, time
    from concurrent import futures
    import grpc
    answers = {}
    for line in sys.stdin.buffer:
        if line == b"\\n":
            break
        method, answer = line.split()
        answers[method.decode()] = bytes.fromhex(answer.decode())
    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            answer = answers[details.method]
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(2), options=options)
    server.add_generic_rpc_handlers([Handler()])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
"""


@contextlib.contextmanager
def answering(answers: dict[str, bytes]) -> Iterator[str]:
    """Start a server in another process that has one response for each method."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    for method, answer in answers.items():
        process.stdin.write(f"{method} {answer.hex()}\n".encode())
    process.stdin.write(b"\n")
    process.stdin.flush()
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def signature(shape: tuple[int, ...] | None, output: str, answer: tuple[int, ...]) -> bytes:
    """Return the metadata of a model with one signature."""

    def info(dtype: int, sizes: tuple[int, ...]) -> pb.TensorInfo:
        made = pb.TensorInfo(dtype=dtype, name="t:0")
        for size in (-1, *sizes[1:]):
            made.tensor_shape.dim.add(size=size)
        return made

    taken = info(pb.DT_STRING, (1,)) if shape is None else info(pb.DT_FLOAT, shape)
    definition = pb.SignatureDef(
        inputs={"images": taken}, outputs={output: info(pb.DT_FLOAT, answer)}
    )
    response = pb.GetModelMetadataResponse()
    response.metadata["signature_def"].value = pb.SignatureDefMap(
        signature_def={"serving_default": definition}
    ).SerializeToString()
    return response.SerializeToString()


class NoTemplates(TemplateCache):
    """A cache that stores nothing."""

    def put(self, *_: object) -> None:
        """Store nothing."""

    def get(self, *_: object) -> None:
        """Return nothing."""


class NoLayouts(LayoutCache):
    """A cache that stores nothing."""

    def decode(
        self,
        raw: bytes,
        expected: ExpectedOutputs | None = None,
        *,
        max_bytes: int = MAX_TENSOR_BYTES,
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Parse each response."""
        return decode_predict_response(raw, expected, max_bytes=max_bytes)


def candidates(
    address: str, clients: dict[str, Client], given: np.ndarray, answer: tuple[int, ...]
) -> dict[str, Callable[[], object]]:
    """Return the same call by gRPC with ready bytes, by gRPC with arrays, and by each client."""
    channel = grpc.insecure_channel(address, options=methods.UNLIMITED_MESSAGES)
    rpc = channel.unary_unary(methods.PREDICT)
    raw = encode_predict_request(RequestTarget("m"), "serving_default", {"images": given})
    content = given[0] if given.dtype == object else given.reshape(-1).view(np.uint8).data
    prefix = raw[: len(raw) - len(content)]
    assert b"".join((prefix, content)) == raw
    [expected] = clients[CLIENT].predict(given, model="m").values()
    begin = rpc(raw).index(expected.tobytes())

    def by_hand() -> np.ndarray:
        response = rpc(b"".join((prefix, content)), timeout=10)
        return np.frombuffer(response, np.float32, expected.size, begin).reshape(answer).copy()

    assert np.array_equal(by_hand(), expected)
    return {
        READY: in_a_row(lambda: rpc(raw, timeout=10), IN_A_ROW),
        BY_HAND: in_a_row(by_hand, IN_A_ROW),
        **{
            name: in_a_row(functools.partial(client.predict, given, model="m"), IN_A_ROW)
            for name, client in clients.items()
        },
    }


def calls() -> None:
    """Measure calls."""
    rng = np.random.default_rng(0)
    each = 1e3 / IN_A_ROW
    for name, (shape, output, answer) in CASES.items():
        if shape is None:
            given = np.array([rng.bytes(100_000)], object)
        else:
            given = rng.uniform(0, 255, shape).astype(np.float32)
        response = pb.PredictResponse()
        response.outputs[output].CopyFrom(encode_values(np.float32(rng.uniform(size=answer))))
        answers = {
            methods.PREDICT: response.SerializeToString(),
            methods.GET_MODEL_METADATA: signature(shape, output, answer),
        }
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(answering(answers))
            clients = {
                key: stack.enter_context(Client(address))
                for key in (CLIENT, NO_TEMPLATES, NO_LAYOUTS)
            }
            clients[NO_TEMPLATES]._calls.templates = NoTemplates()
            clients[NO_LAYOUTS]._calls.layouts = NoLayouts()
            both = candidates(address, clients, given, answer)
            print(name)
            for title, clock in (("wall", time.perf_counter), ("CPU", time.process_time)):
                seconds = interleaved(both, ROUNDS, clock)
                times = ", ".join(f"{key} {value * each:.3f}" for key, value in seconds.items())
                more = ", ".join(
                    f"{one} {100 * (seconds[one] / seconds[other] - 1):+.1f} % of {other}"
                    for one, other in RATIOS
                )
                print(f"  {title:5}{times} ms: {more}")


def by_protobuf(array: np.ndarray) -> bytes:
    """Serialize a request of one float32 input with protobuf's Python API."""
    request = pb.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "serving_default"
    tensor = request.inputs["images"]
    tensor.dtype = pb.DT_FLOAT
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = array.tobytes()
    return request.SerializeToString()


def parse_by_protobuf(raw: bytes) -> dict[str, np.ndarray]:
    """Parse a response with float32 outputs with protobuf's Python API."""
    return {
        name: np.array(tensor.float_val, np.float32).reshape(
            [dim.size for dim in tensor.tensor_shape.dim]
        )
        for name, tensor in pb.PredictResponse.FromString(raw).outputs.items()
    }


def serialization() -> None:
    """Measure the serialization of requests and the parsing of responses, without a server."""
    rng = np.random.default_rng(0)
    target = RequestTarget("m")
    print("serialization against protobuf's Python API")
    for shape in ((1, 224, 224, 3), (8, 224, 224, 3), (1, 1000)):
        array = rng.uniform(0, 255, shape).astype(np.float32)
        raw = pb.PredictResponse(outputs={"y": encode_values(array)}).SerializeToString()
        assert by_protobuf(array) == encode_predict_request(
            target, "serving_default", {"images": array}
        )
        seconds = interleaved(
            {
                "request": functools.partial(
                    encode_predict_request, target, "serving_default", {"images": array}
                ),
                "request by protobuf": functools.partial(by_protobuf, array),
                "response": functools.partial(decode_predict_response, raw),
                "response by protobuf": functools.partial(parse_by_protobuf, raw),
            },
            ROUNDS,
            time.process_time,
        )
        print(
            f"  {str(shape):19}"
            + ", ".join(f"{key} {value * 1e3:.3f} ms" for key, value in seconds.items())
        )


def imports() -> None:
    """Measure the import."""

    def start(program: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", program], check=True)

    # Every module generated by protobuf imports this builder.
    needed = "import numpy, grpc; from google.protobuf.internal import builder"
    seconds = interleaved(
        {"needed": start(needed), "client": start(f"{needed}; import cnnkit.client")},
        IMPORT_ROUNDS,
        # CPU time of the processes that have ended.
        lambda: sum(os.times()[2:4]),
    )
    more = seconds["client"] - seconds["needed"]
    print(
        f"import numpy, grpc, protobuf {seconds['needed'] * 1e3:.0f} ms; "
        f"cnnkit.client {more * 1e3:.0f} ms more (CPU)"
    )


if __name__ == "__main__":
    imports()
    serialization()
    calls()
