"""Requests that arrive close together run as one batch."""

import asyncio
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest

from cnnkit.client import Client, InvalidRequest
from cnnkit.server.batching import BatchScheduler, run_batch
from cnnkit.server.predict import PreparedCall
from cnnkit.server.status_error import STOPPED, StatusError
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


def test_a_batch_has_no_more_rows_than_a_request_may_have(colors_folder):
    """It is full, and runs, with as many; 1000 s would be longer than the call may take."""
    with served(colors_folder, batch_timeout_seconds=1000, max_request_rows=2) as (_, channel):
        assert probabilities_of(send(channel, gray_image(0, rows=2))).shape == (2, 4)


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


class Doubling:
    """A version that doubles x and records the rows of its runs; it refuses a negative x."""

    name = "m"

    def __init__(self, batchable=True):
        self.runs = []
        self._batchable = batchable

    def is_batchable(self, signature):
        return self._batchable

    def run(self, signature, inputs, outputs):
        self.runs.append(inputs["x"][:, 0].tolist())
        if (inputs["x"] < 0).any():
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "negative")
        found = {"y": 2 * inputs["x"], "n": np.array([len(inputs["x"])] * 2)}
        return {name: found[name] for name in outputs}

    def call(self, *values, outputs=("y",), rows=None, dtype=np.float32):
        x = np.array([[value] for value in values], dtype).reshape(len(values), 1)
        return PreparedCall(self, "s", {"x": x}, outputs, len(values) if rows is None else rows)


def results(found):
    return [one.details if isinstance(one, StatusError) else one["y"].tolist() for one in found]


def test_a_batch_is_taken_apart_by_the_rows_of_its_calls():
    model = Doubling()
    calls = [model.call(1), model.call(2, 3, 4), model.call(5, 6)]
    assert results(run_batch(calls)) == [[[2]], [[4], [6], [8]], [[10], [12]]]
    assert model.runs == [[1, 2, 3, 4, 5, 6]]


def test_the_calls_of_a_batch_that_fails_run_alone():
    model = Doubling()
    calls = [model.call(1), model.call(-2), model.call(3)]
    assert results(run_batch(calls)) == [[[2]], "negative", [[6]]]
    assert model.runs == [[1, -2, 3], [1], [-2], [3]]
    # So do those whose outputs are not rows, and a single one has no second try.
    model = Doubling()
    calls = [model.call(value, outputs=("y", "n")) for value in (1, 2, 3)]
    assert results(run_batch(calls)) == [[[2]], [[4]], [[6]]]
    assert model.runs == [[1, 2, 3], [1], [2], [3]]
    model = Doubling()
    assert results(run_batch([model.call(-1)])) == ["negative"]
    assert model.runs == [[-1]]


class Counts:
    """What a scheduler counts."""

    def __init__(self):
        self.runs, self.waiting = [], []

    def run_batch(self, model, rows):
        self.runs.append((model, rows))

    def set_waiting(self, batches):
        self.waiting.append(batches)


def scheduled(work, **options):
    """Runs `work(scheduler, counts)` in an event loop, with one thread."""
    with futures.ThreadPoolExecutor(1) as threads:

        async def run():
            counts = Counts()
            await work(BatchScheduler(threads, 1, metrics=counts, **options), counts)

        asyncio.run(asyncio.wait_for(run(), 30))


def test_a_batch_runs_as_soon_as_it_is_full():
    model = Doubling()

    async def work(scheduler, counts):
        found = await asyncio.gather(*(scheduler.run(model.call(n, n)) for n in (1, 2, 3, 4)))
        assert results(found) == [[[2 * n]] * 2 for n in (1, 2, 3, 4)]
        assert model.runs == [[1, 1, 2, 2], [3, 3, 4, 4]]
        assert counts.runs == [("m", 4)] * 2
        assert (max(counts.waiting), counts.waiting[-1]) == (2, 0)
        # A call that does not fit closes the batch before it.
        found = await asyncio.gather(
            *(scheduler.run(model.call(*values)) for values in ((1, 2, 3), (4, 5), (6, 7)))
        )
        assert model.runs[2:] == [[1, 2, 3], [4, 5, 6, 7]]

    scheduled(work, timeout=1000, max_rows=4)


def test_what_is_merged_and_what_runs_alone():
    model, other, alone = Doubling(), Doubling(), Doubling(batchable=False)

    async def work(scheduler, counts):
        calls = [
            model.call(1),
            model.call(2, outputs=("n",)),
            model.call(3, dtype=np.float64),
            other.call(4),
            alone.call(5),
            alone.call(6),
            model.call(),
            model.call(7, rows=0),
            model.call(8),
        ]
        await asyncio.gather(*(scheduler.run(call) for call in calls))
        assert sorted(model.runs) == [[], [1, 8], [2], [3], [7]]
        assert (other.runs, sorted(alone.runs)) == ([[4]], [[5], [6]])
        # A call without rows counts as one row.
        assert sorted(rows for _, rows in counts.runs) == [1] * 7 + [2]

    scheduled(work, timeout=0.05)


def test_a_call_that_leaves_a_running_batch_takes_no_other_with_it():
    begun, release = threading.Event(), threading.Event()

    class Slow(Doubling):
        def run(self, signature, inputs, outputs):
            begun.set()
            assert release.wait(30)
            return super().run(signature, inputs, outputs)

    model = Slow()

    async def work(scheduler, counts):
        calls = [asyncio.create_task(scheduler.run(model.call(n))) for n in (1, 2, 3)]
        await asyncio.to_thread(begun.wait, 30)
        calls[1].cancel()
        await asyncio.sleep(0)
        release.set()
        assert results([await calls[0], await calls[2]]) == [[[2]], [[6]]]
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        assert model.runs == [[1, 2, 3]]

    scheduled(work, timeout=1000, max_rows=3)


def test_without_a_window_nothing_is_merged():
    model = Doubling()

    async def work(scheduler, counts):
        await asyncio.gather(*(scheduler.run(model.call(n, n)) for n in (1, 2)))
        assert sorted(model.runs) == [[1, 1], [2, 2]]
        assert (counts.runs, counts.waiting) == ([("m", 2)] * 2, [])

    scheduled(work)


def test_batches_that_wait_are_limited_and_end_with_the_server():
    model = Doubling()

    async def work(scheduler, counts):
        first = asyncio.create_task(scheduler.run(model.call(1)))
        second = asyncio.create_task(scheduler.run(model.call(2, dtype=np.float64)))
        await asyncio.sleep(0)
        with pytest.raises(
            StatusError, match="currently 2 batches enqueued and max_enqueued_batch"
        ):
            await scheduler.run(model.call(3, dtype=np.int32))
        # One that joins a batch is no further one.
        third = asyncio.create_task(scheduler.run(model.call(3)))
        await asyncio.sleep(0)
        assert len(scheduler._tasks) == 2
        for task in scheduler._tasks:
            task.cancel()
        for call in (first, second, third):
            with pytest.raises(StatusError, match=STOPPED) as caught:
                await call
            assert caught.value.code.name == "UNAVAILABLE"
        assert (model.runs, counts.waiting) == ([], [1, 2, 1, 0])
        assert scheduler._open == {} and not scheduler._tasks

    scheduled(work, timeout=1000, max_batches=2)
