"""Requests that arrive close together run as one batch."""

from concurrent import futures

import numpy as np
import pytest

from cnnkit.client import Client, InvalidRequest
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import to_tensor_proto
from tests.helpers.held_server import error_of, gray_image, probabilities_of, send, served
from tests.helpers.serving import COLORS, SIZE, expected_probabilities


def test_requests_within_the_window_run_as_one_batch(colors_folder, gate):
    gate.open.set()
    with served(colors_folder, gate, batch_timeout_seconds=30, max_batch_rows=6) as (_, channel):
        images = [gray_image(10, 1), gray_image(20, 3), gray_image(30, 2)]
        calls = [send(channel, given) for given in images]
        for given, call in zip(images, calls, strict=True):
            np.testing.assert_allclose(
                probabilities_of(call), expected_probabilities(given, 64), atol=1e-6
            )
    assert gate.shapes == [(6, SIZE, SIZE, 3)]


def test_requests_of_different_kinds_are_never_merged(colors_folder, gate, png):
    """Versions, signatures, outputs; and strings with floats least of all."""
    gate.open.set()
    with served(colors_folder, gate, batch_timeout_seconds=0.3) as (_, channel):
        calls = {
            "newest": send(channel, gray_image(40)),
            "older": send(channel, gray_image(40), version=1),
            "bytes": send(channel, [png(40, 49, 45)], "serving_bytes"),
            "filtered": send(channel, gray_image(40), outputs=["probabilities"]),
        }
        for name, call in calls.items():
            expected = expected_probabilities(gray_image(40), 32 if name == "older" else 64)
            np.testing.assert_allclose(probabilities_of(call), expected, atol=1e-5)
    assert len(gate.shapes) == 4


def test_shapes_are_never_mixed(tmp_path, gate):
    """A model of images of any size: each size has batches of its own."""
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
            assert probabilities_of(call).tolist() == [[i] * 3] * shape[0]
    assert sorted(gate.shapes) == [(1, 5, 5, 3), (1, 6, 4, 3), (6, 4, 6, 3)]


def test_an_empty_batch_is_answered_at_once(colors_folder):
    """TensorFlow Serving, when it batches, never answers it."""
    with served(colors_folder, batch_timeout_seconds=60) as (_, channel):
        assert probabilities_of(send(channel, gray_image(0, rows=0))).shape == (0, 4)


def test_one_broken_image_does_not_fail_the_others_of_its_batch(colors_folder, png):
    with served(colors_folder, batch_timeout_seconds=30, max_batch_rows=3) as (_, channel):
        files = [png(200, 0, 0), b"no image", png(0, 0, 200)]
        calls = [send(channel, [file], "serving_bytes") for file in files]
        code, text = error_of(calls[1])
        assert code == "INVALID_ARGUMENT"
        assert "Unknown image file format" in text
        assert [int(probabilities_of(calls[i]).argmax()) for i in (0, 2)] == [0, 2]


def test_bad_requests_among_good_ones_fail_alone_under_load(colors_folder, png):
    """Each caller gets its own answer or its own error, whatever it was merged with."""
    good = [png(200, 0, 0), png(0, 200, 0), png(0, 0, 200)]
    with (
        served(colors_folder, batch_timeout_seconds=0.005, max_batch_rows=8) as (server, _),
        Client(server.address, timeout=60) as client,
        futures.ThreadPoolExecutor(8) as pool,
    ):

        def ask(number):
            files = [good[number % 3], good[(number + 1) % 3]]
            if number % 4 == 3:
                files.insert(number % 3, b"no image")
                with pytest.raises(InvalidRequest) as caught:
                    client.classify(files, model="colors")
                assert caught.value.row == number % 3
                assert "Unknown image file format" in str(caught.value)
            else:
                found = client.classify(files, model="colors", top=1)
                assert [one.label for [one] in found] == [
                    COLORS[number % 3], COLORS[(number + 1) % 3]
                ]  # fmt: skip

        list(pool.map(ask, range(120)))


def test_signatures_whose_inputs_have_no_rows_together_run_alone(colors_folder):
    """Inputs of different lengths are not a batch; the graph refuses them."""
    message = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors", signature_name="two_inputs"))
    message.inputs["a"].CopyFrom(to_tensor_proto(np.zeros(2, np.float32)))
    message.inputs["b"].CopyFrom(to_tensor_proto(np.zeros(3, np.int64)))
    with served(colors_folder, batch_timeout_seconds=60) as (_, channel):
        call = channel.unary_unary(methods.PREDICT).future(message.SerializeToString(), timeout=30)
        assert error_of(call)[0] == "INVALID_ARGUMENT"


def test_with_a_full_queue_of_batches_requests_are_unavailable(colors_folder, gate):
    with served(
        colors_folder,
        gate,
        threads=1,
        batch_timeout_seconds=1e-4,
        max_batch_rows=1,
        max_enqueued_batches=1,
    ) as (_, channel):
        running = send(channel, gray_image(1))
        assert gate.arrived.acquire(timeout=30)
        waiting = send(channel, gray_image(2))
        gate.wait_until_scheduled(2)
        assert error_of(send(channel, gray_image(3))) == (
            "UNAVAILABLE",
            "The batch scheduling queue to which this task was submitted is full; currently 1 "
            "batches enqueued and max_enqueued_batches is 1",
        )
        gate.open.set()
        assert probabilities_of(running).shape == probabilities_of(waiting).shape == (1, 4)
        assert probabilities_of(send(channel, gray_image(3))).shape == (1, 4)


def test_requests_join_a_batch_while_it_waits_for_a_thread(colors_folder, gate):
    with served(colors_folder, gate, threads=1, batch_timeout_seconds=1e-3) as (_, channel):
        first = send(channel, gray_image(1))
        assert gate.arrived.acquire(timeout=30)
        others = [send(channel, gray_image(value)) for value in range(2, 7)]
        gate.wait_until_scheduled(6)
        gate.open.set()
        for value, call in enumerate([first, *others], start=1):
            np.testing.assert_allclose(
                probabilities_of(call), expected_probabilities(gray_image(value), 64), atol=1e-6
            )
    assert [shape[0] for shape in gate.shapes] == [1, 5]


def test_canceled_requests_are_not_computed(colors_folder, gate):
    with served(colors_folder, gate, threads=1, batch_timeout_seconds=1e-3) as (_, channel):
        first = send(channel, gray_image(1))
        assert gate.arrived.acquire(timeout=30)
        gone, staying = send(channel, gray_image(2)), send(channel, gray_image(3))
        gate.wait_until_scheduled(3)
        gone.cancel()
        assert gate.canceled.acquire(timeout=30)
        gate.open.set()
        assert probabilities_of(first).shape == probabilities_of(staying).shape == (1, 4)
    assert [shape[0] for shape in gate.shapes] == [1, 1]
