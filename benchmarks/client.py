"""What the client costs beside raw gRPC with the same bytes, and what importing it costs.

The server runs in a process of its own and answers at once, so nothing hides what a call costs; a
real network takes milliseconds more, and the ratio falls. Once as seen by a caller (wall), once as
CPU time of the calling process.

Raw gRPC comes twice: with a request whose bytes lie ready and an answer that is not looked at,
which is of no use to who has an array and wants one; and by hand from array to array, in the
shortest way there is: one copy each way, behind a head that lies ready, out of a known place.

Each kind of call is made several times in a row, as a program makes it, before it is the next one's
turn: what a processor has just done, it does faster.
"""

from timing import in_a_row, interleaved  # isort: skip

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np

from cnnkit.client import Client
from cnnkit.client.encode import RequestTarget, encode_predict_request
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import encode_values

ROUNDS = 30
IN_A_ROW = 20
IMPORT_ROUNDS = 15
READY, MADE, CLIENT = "ready bytes", "by hand", "client"

# One image and eight as AlexNet and VGG take them, and a 100 kB photo; answers of 1000 classes and
# of 4096 features.
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
    """A server in another process that knows one answer to each method."""
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
    """Returns the metadata of a model with one signature."""

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


def candidates(
    address: str, client: Client, given: np.ndarray, answer: tuple[int, ...]
) -> dict[str, Callable[[], object]]:
    """Returns the same call by gRPC, with ready bytes and with arrays, and by the client."""
    channel = grpc.insecure_channel(address, options=methods.UNLIMITED_MESSAGES)
    ask = channel.unary_unary(methods.PREDICT)
    raw = encode_predict_request(RequestTarget("m"), "serving_default", {"images": given})
    content = given[0] if given.dtype == object else given.reshape(-1).view(np.uint8).data
    head = raw[: len(raw) - len(content)]
    assert b"".join((head, content)) == raw
    [expected] = client.predict(given, model="m").values()
    begin = ask(raw).index(expected.tobytes())

    def by_hand() -> np.ndarray:
        answered = ask(b"".join((head, content)), timeout=10)
        return np.frombuffer(answered, np.float32, expected.size, begin).reshape(answer).copy()

    assert np.array_equal(by_hand(), expected)
    return {
        READY: in_a_row(lambda: ask(raw, timeout=10), IN_A_ROW),
        MADE: in_a_row(by_hand, IN_A_ROW),
        CLIENT: in_a_row(lambda: client.predict(given, model="m"), IN_A_ROW),
    }


def calls() -> None:
    """Measures calls."""
    rng = np.random.default_rng(0)
    each = 1e3 / IN_A_ROW
    print(f"{'':34}{READY:>13}{MADE:>9}{CLIENT:>10}   the client is more by (wall; CPU)")
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
        with answering(answers) as address, Client(address) as client:
            both = candidates(address, client, given, answer)
            wall = interleaved(both, ROUNDS)
            cpu = interleaved(both, ROUNDS, time.process_time)
        more = "; ".join(
            " ".join(
                f"{100 * (seconds[CLIENT] / seconds[raw] - 1):+.0f} % of {raw}"
                for raw in (READY, MADE)
            )
            for seconds in (wall, cpu)
        )
        print(
            f"  {name:32}{wall[READY] * each:10.2f} ms{wall[MADE] * each:6.2f} ms"
            f"{wall[CLIENT] * each:7.2f} ms   {more}"
        )


def imports() -> None:
    """Measures the import."""

    def start(program: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", program], check=True)

    # The builder is what every module that protobuf generates imports of protobuf.
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
    calls()
