"""A server with a second client whose answers are compared all the while."""

import contextlib
import threading
import time

import grpc
import numpy as np

from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE, expected_probabilities

IMAGE = np.full((1, SIZE, SIZE, 3), 40, np.float32) + np.float32([0, 9, 5])


def predict_request(images=IMAGE, signature=""):
    """Returns a Predict request."""
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors", signature_name=signature))
    name = "image_bytes" if isinstance(images, list) else "images"
    request.inputs[name].CopyFrom(to_tensor_proto(images))
    return request


def send(channel, raw, method=methods.PREDICT):
    """Sends the bytes of a request and returns the future."""
    return channel.unary_unary(method).future(raw, timeout=30)


def code_of(call):
    """Returns the name of the status code; OK if there is no error."""
    error = call.exception(timeout=60)
    return "OK" if error is None else error.code().name


def check_answer(raw, scale=64):
    """Compares the probabilities of a response."""
    np.testing.assert_allclose(
        decode_tensor(pb.PredictResponse.FromString(raw).outputs["probabilities"]),
        expected_probabilities(IMAGE, scale),
        atol=1e-6,
    )


@contextlib.contextmanager
def served(folder, **limits):
    """Yields a server's address and a channel to it, while another client predicts."""
    over, answered, failed = threading.Event(), [], []

    def ask(address):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            while not over.is_set():
                try:
                    check_answer(send(channel, predict_request().SerializeToString()).result())
                    answered.append(time.monotonic())
                except (grpc.RpcError, AssertionError) as error:
                    failed.append(error)
                time.sleep(0.005)

    with (
        EmbeddedServer(
            {"colors": folder}, poll_seconds=0, limits=ServerLimits(**limits), allow_reload=True
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        neighbor = threading.Thread(target=ask, args=(server.address,))
        neighbor.start()
        try:
            yield server.address, channel
            end = time.monotonic() + 30
            enough = len(answered) + 3
            while len(answered) < enough and not failed and time.monotonic() < end:
                time.sleep(0.01)
        finally:
            over.set()
            neighbor.join()
        assert not failed, failed[0]
        assert len(answered) >= enough
