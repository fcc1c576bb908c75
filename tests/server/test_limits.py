"""What is refused when too much is asked for at once, and requests joined to batches."""

import contextlib
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from cnnkit.client import Client
from cnnkit.errors import UsageError
from cnnkit.server import EmbeddedServer, ServerLimits
from cnnkit.server.servable import SavedModelServable
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE, expected_probabilities


class Gate:
    """Servables that wait at a gate, and remember what passed it."""

    def __init__(self):
        self.open = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.shapes = []

    def load(self, name, version, folder):
        gate = self

        class Held(SavedModelServable):
            def run(self, signature, inputs, outputs):
                gate.shapes.append(next(iter(inputs.values())).shape)
                gate.arrived.release()
                assert gate.open.wait(30)
                return super().run(signature, inputs, outputs)

        return Held(name, version, folder)


@pytest.fixture
def gate():
    held = Gate()
    yield held
    held.open.set()


@contextlib.contextmanager
def served(folder, gate=None, **limits):
    options = {} if gate is None else {"load": gate.load}
    with (
        EmbeddedServer(
            {"colors": folder}, versions="all", limits=ServerLimits(**limits), **options
        ) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield server, channel


def request(images, signature="", version=None, outputs=()):
    message = pb.PredictRequest(
        model_spec=pb.ModelSpec(name="colors", signature_name=signature), output_filter=outputs
    )
    if version is not None:
        message.model_spec.version.value = version
    name = "image_bytes" if isinstance(images, list) else "images"
    message.inputs[name].CopyFrom(to_tensor_proto(images))
    return message.SerializeToString()


def send(channel, *args, **fields):
    return channel.unary_unary(methods.PREDICT).future(request(*args, **fields), timeout=60)


def probabilities(call):
    return decode_tensor(pb.PredictResponse.FromString(call.result()).outputs["probabilities"])


def refusal(call):
    error = call.exception(timeout=30)
    return error.code().name, error.details()


def image(value, rows=1):
    return np.full((rows, SIZE, SIZE, 3), value, np.float32) + np.float32([0, 9, 5])


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_too_many_requests_are_refused_and_the_others_answered(colors_folder, gate):
    with served(colors_folder, gate, threads=1, max_concurrent_requests=3) as (_, channel):
        taken = [send(channel, image(1))]
        assert gate.arrived.acquire(timeout=30)
        taken += [send(channel, image(value)) for value in (2, 3)]
        time.sleep(0.2)
        for _ in range(20):
            assert refusal(send(channel, image(4))) == (
                "RESOURCE_EXHAUSTED",
                "Server Threadpool Exhausted",
            )
        gate.open.set()
        for value, call in zip((1, 2, 3), taken, strict=True):
            np.testing.assert_allclose(
                probabilities(call), expected_probabilities(image(value), 64), atol=1e-6
            )
        assert probabilities(send(channel, image(4))).shape == (1, 4)


def test_a_request_that_is_too_large_is_refused(colors_folder):
    with served(colors_folder, max_request_bytes=10_000) as (_, channel):
        code, text = refusal(send(channel, image(0, rows=20)))
        assert code == "RESOURCE_EXHAUSTED"
        assert "larger than max" in text
        # A few bytes that stand for many.
        message = pb.PredictRequest.FromString(request(image(0)))
        tensor = message.inputs["images"]
        tensor.ClearField("tensor_content")
        tensor.float_val.append(1)
        tensor.tensor_shape.dim[0].size = 20
        call = channel.unary_unary(methods.PREDICT).future(message.SerializeToString(), timeout=30)
        code, text = refusal(call)
        assert code == "INVALID_ARGUMENT"
        assert text.splitlines()[0] == "tensor parsing error: images"
        assert probabilities(send(channel, image(0, rows=5))).shape == (5, 4)


def test_a_batch_that_is_too_large_is_refused(colors_folder):
    text = "Task size 9 is larger than maximum input batch size 8"
    for window in (0, 0.01):
        with served(colors_folder, max_request_rows=8, batch_timeout_seconds=window) as (
            _,
            channel,
        ):
            assert refusal(send(channel, image(0, rows=9))) == ("INVALID_ARGUMENT", text)
            assert probabilities(send(channel, image(0, rows=8))).shape == (8, 4)


def test_requests_within_the_window_run_as_one_batch(colors_folder, gate):
    gate.open.set()
    with served(colors_folder, gate, batch_timeout_seconds=30, max_batch_rows=6) as (_, channel):
        images = [image(10, 1), image(20, 3), image(30, 2)]
        calls = [send(channel, given) for given in images]
        for given, call in zip(images, calls, strict=True):
            np.testing.assert_allclose(
                probabilities(call), expected_probabilities(given, 64), atol=1e-6
            )
    assert gate.shapes == [(6, SIZE, SIZE, 3)]


def test_what_does_not_fit_together_is_never_joined(colors_folder, gate, png):
    """Versions, signatures, outputs; and strings with floats least of all."""
    gate.open.set()
    with served(colors_folder, gate, batch_timeout_seconds=0.3) as (_, channel):
        calls = {
            "newest": send(channel, image(40)),
            "older": send(channel, image(40), version=1),
            "bytes": send(channel, [png(40, 49, 45)], "serving_bytes"),
            "filtered": send(channel, image(40), outputs=["probabilities"]),
        }
        for name, call in calls.items():
            expected = expected_probabilities(image(40), 32 if name == "older" else 64)
            np.testing.assert_allclose(probabilities(call), expected, atol=1e-5)
    assert len(gate.shapes) == 4


def test_shapes_are_never_mixed(tmp_path, gate):
    """A network for images of any size: each size is a batch of its own."""
    import tensorflow as tf

    class Means(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, "images")])
        def means(self, images):
            return {"probabilities": tf.reduce_mean(images, (1, 2))}

    model = Means()
    tf.saved_model.save(model, str(tmp_path / "m" / "1"), {"serving_default": model.means})
    gate.open.set()
    shapes = [(1, 4, 6, 3), (2, 4, 6, 3), (1, 6, 4, 3), (1, 5, 5, 3), (3, 4, 6, 3)]
    with served(tmp_path / "m", gate, batch_timeout_seconds=0.5) as (_, channel):
        calls = [send(channel, np.full(shape, i, np.float32)) for i, shape in enumerate(shapes)]
        for i, (shape, call) in enumerate(zip(shapes, calls, strict=True)):
            assert probabilities(call).tolist() == [[i] * 3] * shape[0]
    assert sorted(gate.shapes) == [(1, 5, 5, 3), (1, 6, 4, 3), (6, 4, 6, 3)]


def test_an_empty_batch_is_answered_at_once(colors_folder):
    """TensorFlow Serving, when it batches, never answers it."""
    with served(colors_folder, batch_timeout_seconds=60) as (_, channel):
        assert probabilities(send(channel, image(0, rows=0))).shape == (0, 4)


def test_one_broken_image_does_not_fail_the_others_of_its_batch(colors_folder, png):
    with served(colors_folder, batch_timeout_seconds=30, max_batch_rows=3) as (_, channel):
        files = [png(200, 0, 0), b"no image", png(0, 0, 200)]
        calls = [send(channel, [file], "serving_bytes") for file in files]
        code, text = refusal(calls[1])
        assert code == "INVALID_ARGUMENT"
        assert "Unknown image file format" in text
        assert [int(probabilities(calls[i]).argmax()) for i in (0, 2)] == [0, 2]


def test_signatures_whose_inputs_have_no_rows_together_run_alone(colors_folder):
    """Two inputs of different lengths are nobody's batch; the graph says what is wrong."""
    message = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors", signature_name="two_inputs"))
    message.inputs["a"].CopyFrom(to_tensor_proto(np.zeros(2, np.float32)))
    message.inputs["b"].CopyFrom(to_tensor_proto(np.zeros(3, np.int64)))
    with served(colors_folder, batch_timeout_seconds=60) as (_, channel):
        call = channel.unary_unary(methods.PREDICT).future(message.SerializeToString(), timeout=30)
        assert refusal(call)[0] == "INVALID_ARGUMENT"


def test_a_full_queue_of_batches_is_said_so(colors_folder, gate):
    with served(
        colors_folder,
        gate,
        threads=1,
        batch_timeout_seconds=1e-4,
        max_batch_rows=1,
        max_enqueued_batches=1,
    ) as (_, channel):
        running = send(channel, image(1))
        assert gate.arrived.acquire(timeout=30)
        waiting = send(channel, image(2))
        time.sleep(0.2)
        assert refusal(send(channel, image(3))) == (
            "UNAVAILABLE",
            "The batch scheduling queue to which this task was submitted is full; currently 1 "
            "batches enqueued and max_enqueued_batches is 1",
        )
        gate.open.set()
        assert probabilities(running).shape == probabilities(waiting).shape == (1, 4)
        assert probabilities(send(channel, image(3))).shape == (1, 4)


def test_requests_join_a_batch_while_it_waits_for_its_turn(colors_folder, gate):
    with served(colors_folder, gate, threads=1, batch_timeout_seconds=1e-3) as (_, channel):
        first = send(channel, image(1))
        assert gate.arrived.acquire(timeout=30)
        others = [send(channel, image(value)) for value in range(2, 7)]
        time.sleep(0.3)
        gate.open.set()
        for value, call in enumerate([first, *others], start=1):
            np.testing.assert_allclose(
                probabilities(call), expected_probabilities(image(value), 64), atol=1e-6
            )
    assert [shape[0] for shape in gate.shapes] == [1, 5]


def test_a_client_that_has_gone_is_not_computed_for(colors_folder, gate):
    with served(colors_folder, gate, threads=1, batch_timeout_seconds=1e-3) as (_, channel):
        first = send(channel, image(1))
        assert gate.arrived.acquire(timeout=30)
        gone, staying = send(channel, image(2)), send(channel, image(3))
        time.sleep(0.2)
        gone.cancel()
        time.sleep(0.2)
        gate.open.set()
        assert probabilities(first).shape == probabilities(staying).shape == (1, 4)
    assert [shape[0] for shape in gate.shapes] == [1, 1]


def test_status_is_answered_while_graphs_run(colors_folder, gate):
    with (
        served(colors_folder, gate, threads=1) as (server, channel),
        Client(server.address, timeout=10) as client,
    ):
        running = send(channel, image(1))
        assert gate.arrived.acquire(timeout=30)
        assert client.status("colors")[0].state == "AVAILABLE"
        assert not running.done()
        gate.open.set()
        running.result()


def test_a_stop_waits_for_what_runs_and_takes_nothing_new(colors_folder, gate):
    with served(colors_folder, gate, threads=1, batch_timeout_seconds=1e-3) as (server, channel):
        calls = [send(channel, image(1)), send(channel, image(2))]
        assert gate.arrived.acquire(timeout=30)
        with futures.ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(server.stop, 30)
            time.sleep(0.3)
            with grpc.insecure_channel(server.address) as late:
                assert refusal(send(late, image(3)))[0] == "UNAVAILABLE"
            assert not stopped.done()
            gate.open.set()
            for call in calls:
                assert probabilities(call).shape == (1, 4)
            stopped.result(30)


def test_a_stop_does_not_wait_longer_than_it_is_told(colors_folder, gate):
    with served(colors_folder, gate, threads=1) as (server, channel):
        call = send(channel, image(1))
        assert gate.arrived.acquire(timeout=30)
        server.stop(0.2)
        assert not gate.open.is_set()
        assert refusal(call)[0] in ("UNAVAILABLE", "CANCELLED")


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"threads": 0}, "`threads` must be in 1..2147483647. Expected: >= 1. Received: 0."),
        ({"batch_timeout_seconds": -1}, "Expected: >= 0."),
        ({"batch_timeout_seconds": float("nan")}, "Expected: >= 0."),
        ({"max_request_bytes": 2**31}, "max_request_bytes"),
    ],
)
def test_limits_that_cannot_be(limits, text):
    with pytest.raises(UsageError) as caught:
        ServerLimits(**limits)
    assert text in str(caught.value)
