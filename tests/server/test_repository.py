"""Versions are exchanged while requests run, and their memory is freed."""

import threading
from concurrent import futures

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf

from cnnkit import alexnet
from cnnkit.export import export
from tests.helpers.polled_server import IMAGE, predict, scale_of, serve, version_states, wait_for
from tests.helpers.serving import expected_probabilities


def test_versions_are_exchanged_without_a_failed_request(model_folder, add_version):
    answers, over = [], threading.Event()

    def ask(channel):
        while not over.is_set():
            answers.append(predict(channel))

    with (
        serve({"colors": model_folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
        futures.ThreadPoolExecutor(4) as pool,
    ):
        asking = [pool.submit(ask, channel) for _ in range(4)]
        try:
            for version in (2, 3, 4):
                add_version(version)
                wait_for(lambda version=version: version_states(client).get(version) == "AVAILABLE")
                wait_for(lambda version=version: version_states(client)[version - 1] == "END")
                with pytest.raises(grpc.RpcError) as caught:
                    predict(channel, version - 1)
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        finally:
            over.set()
        for task in asking:
            task.result()
    assert {version for version, _ in answers} == {1, 2, 3, 4}
    expected = {value: expected_probabilities(IMAGE, value) for value in (32, 64)}
    for version, probabilities in answers:
        np.testing.assert_allclose(probabilities, expected[scale_of(version)], atol=1e-6)


def test_the_memory_of_unloaded_versions_is_freed(tmp_path):
    class Heavy(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(tf.ones(2**23))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "images")])
        def serving_default(self, images):
            @tf.custom_gradient
            def add(x):
                return x + self.weights[0], lambda upstream, variables=None: (upstream, [None])

            return {"sum": add(images)}

    model_folder = tmp_path / "heavy"
    heavy = Heavy()
    tf.saved_model.save(heavy, str(model_folder / "1"), {"serving_default": heavy.serving_default})
    del heavy
    process = psutil.Process()

    def exchange(client, numbers):
        for version in numbers:
            (model_folder / str(version - 1)).rename(model_folder / str(version))
            wait_for(
                lambda version=version: version_states(client, "heavy").get(version) == "AVAILABLE"
            )
            wait_for(lambda version=version: version_states(client, "heavy")[version - 1] == "END")
            client.predict(np.ones(3), model="heavy")
        return process.memory_info().rss

    with serve({"heavy": model_folder}) as (_, client):
        before = exchange(client, range(2, 5))
        after = exchange(client, range(5, 10))
    # One version is 32 MiB.
    assert after - before < 48 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_versions_take_no_more_memory_than_one(tmp_path):
    """Each exchange of a small AlexNet kept 60 to 350 MB, so that 951 MiB grew to 2034 in 12."""
    model = alexnet(input_shape=(64, 64, 3), classes=2)
    folder = tmp_path / "alex"
    export(model, ["cat", "dog"], folder, signatures=["serving_default"])
    process = psutil.Process()
    taken = []
    with serve({"alex": folder}) as (_, client):
        for version in range(2, 52):
            (folder / str(version - 1)).rename(folder / str(version))
            wait_for(
                lambda version=version: version_states(client, "alex").get(version) == "AVAILABLE",
                seconds=300,
            )
            wait_for(lambda version=version: version_states(client, "alex")[version - 1] == "END")
            client.predict(np.zeros((1, 64, 64, 3)), model="alex")
            taken.append(process.memory_info().rss)
    assert taken[-1] < 1.05 * taken[0], [size >> 20 for size in taken]
