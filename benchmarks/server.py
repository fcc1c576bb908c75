"""Compare the embedded server with the SavedModel in process, the client with raw gRPC, and memory.

python benchmarks/server.py [NETWORK ...] [--rounds N] [--engine openvino]: alexnet and vgg16 by
default. The SavedModel in process is run by TensorFlow, the server by the engine. "operation" among
the networks measures what REST, metrics and the access log cost the calls of gRPC, of a network
that takes no time and of AlexNet.
"""

from timing import in_a_row, interleaved  # isort: skip

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import psutil
import tensorflow as tf

from cnnkit.client import Client
from cnnkit.models import build
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import to_tensor_proto

# Callers at the same time, of the server and of the SavedModel in process: one for each core.
CALLERS = psutil.cpu_count() or 1
CALLS = 4
CLIENTS = 16
REQUESTS = 10_000
# Measurements of memory during the requests: a leak keeps growing, a cache stops.
MEASUREMENTS = 4


def save(model, folder: Path, size: int) -> None:
    """Writes a network as `NAME/1`; it checks shapes, as an export does."""

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 3), tf.float32, "images")])
    def serve(images):
        images = tf.ensure_shape(images, (None, size, size, 3))
        return {"probabilities": model(images, training=False)}

    module = tf.Module()
    module.model = model
    tf.saved_model.save(module, str(folder / "1"), {"serving_default": serve})


@contextlib.contextmanager
def served(folder: Path, engine: str = "tensorflow", *words: str):
    """Yields a process of `cnnkit serve` with more options, and its address."""
    command = [sys.executable, "-m", "cnnkit", "serve", folder, "--engine", engine, "--port", "0"]
    # The access log is written, and read by nobody.
    errors = subprocess.DEVNULL if words else None
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=errors, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            yield psutil.Process(process.pid), line.split(" at ")[1].split()[0]
        finally:
            process.terminate()


def request(name: str, images: np.ndarray) -> bytes:
    """Returns the bytes of a Predict request."""
    message = pb.PredictRequest(model_spec=pb.ModelSpec(name=name))
    message.inputs["images"].CopyFrom(to_tensor_proto(images))
    return message.SerializeToString()


def caller(address: str, raw: bytes):
    """Returns a function that sends a request over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    call = grpc.insecure_channel(address, options).unary_unary(methods.PREDICT)
    return lambda: call(raw, timeout=600)


def throughput(name: str, folder: Path, address: str, images: np.ndarray, rounds: int) -> None:
    """Prints the images per second of the SavedModel in process and of the server."""
    loaded = tf.saved_model.load(str(folder / "1"))
    signature = loaded.signatures["serving_default"]
    with futures.ThreadPoolExecutor(CALLERS) as pool:

        def run_all(calls):
            return lambda: list(pool.map(lambda call: [call() for _ in range(CALLS)], calls))

        def in_process():
            return signature(images=tf.constant(images))["probabilities"].numpy()

        seconds = interleaved(
            {
                "in process": run_all([in_process] * CALLERS),
                "server": run_all([caller(address, request(name, images)) for _ in range(CALLERS)]),
            },
            rounds,
        )
    speed = {kind: len(images) * CALLS * CALLERS / value for kind, value in seconds.items()}
    print(
        f"  {name}, batches of {len(images)}, {CALLERS} callers: "
        f"in process {speed['in process']:.1f} images/s, server {speed['server']:.1f} "
        f"({speed['server'] / speed['in process']:.0%})",
        flush=True,
    )


def overhead(name: str, address: str, images: np.ndarray, rounds: int) -> None:
    """Prints the time of a call by raw gRPC with ready bytes, and by the client."""
    raw = caller(address, request(name, images))
    with Client(address) as client:
        seconds = interleaved(
            {
                "raw gRPC": in_a_row(raw, CALLS),
                "client": in_a_row(lambda: client.predict(images, model=name, timeout=600), CALLS),
            },
            10 * rounds,
        )
    each = {kind: value / CALLS * 1e3 for kind, value in seconds.items()}
    print(
        f"  {name}, batches of {len(images)}, 1 caller: raw gRPC with ready bytes "
        f"{each['raw gRPC']:.2f} ms a call, the client {each['client']:.2f} "
        f"({each['client'] / each['raw gRPC'] - 1:+.1%})",
        flush=True,
    )


def save_small(folder: Path) -> None:
    """Writes a network that takes less time than the call around it."""
    model = tf.keras.Sequential(
        [tf.keras.Input((32, 32, 3)), tf.keras.layers.GlobalAveragePooling2D()]
    )
    save(model, folder, 32)


def operation(folder: Path, size: int, calls: int, rounds: int) -> None:
    """Prints the time of a gRPC call, without and with what operation needs."""
    raw = request(folder.name, np.zeros((1, size, size, 3), np.float32))
    words = ("--rest-port", "0", "--metrics-port", "0", "--access-log", "--log-format", "json")
    with (
        served(folder, "tensorflow", "--no-load-trial") as (_, plain),
        served(folder, "tensorflow", "--no-load-trial", *words) as (_, whole),
    ):
        seconds = interleaved(
            {
                "plain": in_a_row(caller(plain, raw), calls),
                "whole": in_a_row(caller(whole, raw), calls),
            },
            10 * rounds,
        )
    each = {kind: value / calls * 1e3 for kind, value in seconds.items()}
    print(
        f"  {folder.name}, 1 caller: {each['plain']:.3f} ms a call, with REST, metrics and access "
        f"log {each['whole']:.3f} ({each['whole'] / each['plain'] - 1:+.1%})",
        flush=True,
    )


def latency(name: str, address: str, images: np.ndarray, each: int) -> None:
    """Prints percentiles of the latency with many clients."""
    seconds: list[float] = []
    ready = threading.Barrier(CLIENTS)

    def client() -> None:
        call = caller(address, request(name, images))
        call()
        ready.wait()
        for _ in range(each):
            begun = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begun)

    with futures.ThreadPoolExecutor(CLIENTS) as pool:
        for task in [pool.submit(client) for _ in range(CLIENTS)]:
            task.result()
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
    print(
        f"  {name}, {CLIENTS} clients, batches of {len(images)}, {len(seconds)} calls: "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms",
        flush=True,
    )


def invalid_requests(name: str) -> list[bytes]:
    """Returns invalid requests that fail at different checks."""
    random = np.random.default_rng(0)
    images = np.zeros((1, 32, 32, 3), np.float32)
    return [
        request("other", images),
        request(name, images[0]),
        request(name, images[..., :2]),
        request(name, images[:0]),
        request(name, images.astype(np.float64)),
        request(name, images)[:-1],
        random.bytes(300),
    ]


def memory(folder: Path) -> None:
    """Prints the memory of the server's process during many valid and many invalid requests."""
    save_small(folder)
    valid = [request(folder.name, np.zeros((1, 32, 32, 3), np.float32))]
    for kind, requests in (("valid", valid), ("invalid", invalid_requests(folder.name))):
        with served(folder) as (process, address):
            calls = [caller(address, raw) for raw in requests]
            mebibytes = []
            for part in range(MEASUREMENTS + 1):
                for i in range(REQUESTS // MEASUREMENTS if part else 1000):
                    with contextlib.suppress(grpc.RpcError):
                        calls[i % len(calls)]()
                mebibytes.append(process.memory_info().rss / 2**20)
        print(
            f"  memory of a server of a small model after 1000 {kind} requests"
            f" {mebibytes[0]:.1f} MiB,"
            f" after each {REQUESTS // MEASUREMENTS} more "
            + ", ".join(f"{value:.1f}" for value in mebibytes[1:]),
            flush=True,
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "networks",
        nargs="*",
        default=["alexnet", "vgg16"],
        help='"memory" or "operation" alone measures only that',
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engine", default="tensorflow")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    if "operation" in args.networks:
        with tempfile.TemporaryDirectory() as place:
            small, alexnet = Path(place, "small"), Path(place, "alexnet")
            save_small(small)
            operation(small, 32, 200, args.rounds)
            save(build("alexnet"), alexnet, 224)
            operation(alexnet, 224, CALLS, args.rounds)
        if args.networks == ["operation"]:
            return
    for name in (name for name in args.networks if name not in ("memory", "operation")):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, name)
            model = build(name)
            size = model.input_shape[1]
            save(model, folder, size)
            del model
            with served(folder, args.engine) as (_, address):
                for batch in (1, 8):
                    images = random.uniform(0, 255, (batch, size, size, 3)).astype(np.float32)
                    throughput(name, folder, address, images, args.rounds)
                    overhead(name, address, images, args.rounds)
                latency(name, address, images[:1], args.rounds)
    with tempfile.TemporaryDirectory() as place:
        memory(Path(place, "small"))


if __name__ == "__main__":
    main()
