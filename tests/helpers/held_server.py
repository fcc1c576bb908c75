"""A server whose graphs wait until the test opens a gate."""

import asyncio
import contextlib
import threading

import grpc
import numpy as np

from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.server.batching import BatchScheduler
from cnnkit.server.servable import SavedModelServable
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE


class Gate:
    """Servables that wait at a gate, and the shapes of their inputs.

    Attributes:
        open: Lets the graphs run.
        arrived: Counts the graphs that began to wait.
        scheduled: Counts the calls that came to the scheduler, where they join a batch at once.
        canceled: Counts the calls that left it because the client canceled them.
    """

    def __init__(self):
        self.open = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.scheduled = threading.Semaphore(0)
        self.canceled = threading.Semaphore(0)
        self.shapes = []

    def watch(self, monkeypatch):
        """Counts what comes to the schedulers of all servers, and what is canceled there."""
        run = BatchScheduler.run

        async def counted(scheduler, call):
            self.scheduled.release()
            try:
                return await run(scheduler, call)
            except asyncio.CancelledError:
                self.canceled.release()
                raise

        monkeypatch.setattr(BatchScheduler, "run", counted)

    def wait_until_scheduled(self, count):
        """Waits until so many calls more have come to the scheduler."""
        for _ in range(count):
            assert self.scheduled.acquire(timeout=30)

    def load(self, name, version, folder):
        gate = self

        class Held(SavedModelServable):
            def run(self, signature, inputs, outputs):
                gate.shapes.append(next(iter(inputs.values())).shape)
                gate.arrived.release()
                assert gate.open.wait(30)
                return super().run(signature, inputs, outputs)

        return Held(name, version, folder)


@contextlib.contextmanager
def served(folder, gate=None, **limits):
    """Yields a server with limits, and a channel to it."""
    options = {} if gate is None else {"load": gate.load}
    with (
        EmbeddedServer(
            {"colors": folder}, versions="all", limits=ServerLimits(**limits), **options
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield server, channel


def request(images, signature="", version=None, outputs=()):
    """Returns the bytes of a Predict request."""
    message = pb.PredictRequest(
        model_spec=pb.ModelSpec(name="colors", signature_name=signature), output_filter=outputs
    )
    if version is not None:
        message.model_spec.version.value = version
    name = "image_bytes" if isinstance(images, list) else "images"
    message.inputs[name].CopyFrom(to_tensor_proto(images))
    return message.SerializeToString()


def send(channel, *args, **fields):
    """Sends a Predict request and returns its future."""
    return channel.unary_unary(methods.PREDICT).future(request(*args, **fields), timeout=60)


def probabilities_of(call):
    """Waits for the probabilities of a call."""
    return decode_tensor(pb.PredictResponse.FromString(call.result()).outputs["probabilities"])


def error_of(call):
    """Waits for the status code and details of a call that fails."""
    error = call.exception(timeout=30)
    return error.code().name, error.details()


def gray_image(value, rows=1):
    """Returns images of one color, nearly gray."""
    return np.full((rows, SIZE, SIZE, 3), value, np.float32) + np.float32([0, 9, 5])
