"""A server that polls its model folder often, and a client that predicts."""

import contextlib
import threading
import time

import numpy as np

from cnnkit.client import Client
from cnnkit.server import EmbeddedServer
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE

# Seconds between two polls.
POLL = 0.05
IMAGE = np.full((1, SIZE, SIZE, 3), 40, np.float32)


def scale_of(version):
    """Returns the scale of a version that `add_version` adds."""
    return 32 if version % 2 else 64


def version_states(client, model="colors"):
    """Returns the states of a model's versions."""
    return {status.version: status.state for status in client.status(model)}


def wait_for(condition, seconds=30):
    """Waits until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(POLL)


def wait_for_polls(server, count=3):
    """Waits until a server has looked at its folders so many times more."""
    poller, polled = server._poller, threading.Semaphore(0)
    poll = poller._poll

    def counted():
        poll()
        polled.release()

    poller._poll = counted
    for _ in range(count):
        assert polled.acquire(timeout=30)
    poller._poll = poll


@contextlib.contextmanager
def serve(models, **options):
    """Yields a server that polls its folders, and a client of it."""
    with (
        EmbeddedServer(models, **{"poll_seconds": POLL, **options}) as server,
        Client(server.address, timeout=30) as client,
    ):
        yield server, client


def predict(channel, version=None):
    """Returns the version that answered and its probabilities."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors"))
    if version is not None:
        request.model_spec.version.value = version
    request.inputs["images"].CopyFrom(to_tensor_proto(IMAGE))
    raw = channel.unary_unary(methods.PREDICT)(request.SerializeToString(), timeout=30)
    response = pb.PredictResponse.FromString(raw)
    return response.model_spec.version.value, decode_tensor(response.outputs["probabilities"])
