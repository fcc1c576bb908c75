"""Versions are exchanged while requests run, and their memory is freed."""

import threading
from concurrent import futures
from dataclasses import dataclass

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf

from cnnkit import alexnet
from cnnkit.errors import RunError
from cnnkit.export import export
from cnnkit.server.model_config import LabelError, ModelConfig, VersionPolicy
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
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


@dataclass
class Loaded:
    """A loaded version without a graph."""

    name: str
    version: int


@pytest.fixture
def repository(tmp_path):
    """Model "m" with versions 1 to 3, of which 1 and 3 are loaded, and "zero" with version 0."""
    for name, versions in (("m", (1, 2, 3)), ("zero", (0, 4))):
        for version in versions:
            folder = tmp_path / name / str(version)
            folder.mkdir(parents=True)
            (folder / "saved_model.pb").write_bytes(b"")

    def load(name, version, folder):
        if (name, version) == ("m", 2):
            raise RunError("It is broken")
        return Loaded(name, version)

    configs = [
        ModelConfig("m", tmp_path / "m", VersionPolicy(None), {"stable": 1}),
        ModelConfig("zero", tmp_path / "zero", VersionPolicy(None)),
    ]
    return ModelRepository(configs, load)


def spec_of(name, version=None, label=None):
    spec = pb.ModelSpec(name=name)
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    return spec


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("m",), 3),
        (("m", 1), 1),
        # No version, for some clients; unless there is a version 0.
        (("m", 0), 3),
        (("zero", 0), 0),
        (("zero",), 4),
        (("m", None, "stable"), 1),
    ],
)
def test_the_version_that_a_request_names(repository, asked, found):
    assert repository.find(spec_of(*asked)).version == found


# TensorFlow Serving's codes and texts, of a request for a graph and of one for states.
@pytest.mark.parametrize(
    ("asked", "code", "text", "of_states"),
    [
        (("",), "INVALID_ARGUMENT", "ModelSpec has no name specified.", None),
        (
            ("n\n",),
            "NOT_FOUND",
            "Servable not found for request: Latest(n\\n)",
            "Could not find any versions of model n\\n",
        ),
        (
            ("n\n", 7),
            "NOT_FOUND",
            "Servable not found for request: Specific(n\\n, 7)",
            "Could not find version 7 of model n\\n",
        ),
        (
            ("m", 9),
            "NOT_FOUND",
            "Servable not found for request: Specific(m, 9)",
            "Could not find version 9 of model m",
        ),
    ],
)
def test_models_and_versions_that_are_not_served(repository, asked, code, text, of_states):
    for ask, expected in ((repository.find, text), (repository.version_states, of_states or text)):
        with pytest.raises(StatusError) as caught:
            ask(spec_of(*asked))
        assert (caught.value.code.name, caught.value.details) == (code, expected)


def test_labels(repository):
    for asked in (("m", None, "next\n"), ("n", None, "next\n")):
        with pytest.raises(StatusError) as caught:
            repository.find(spec_of(*asked))
        assert (caught.value.code.name, caught.value.details) == (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: next\\n",
        )
    # A question for states ignores them.
    assert list(repository.version_states(spec_of("m", None, "next"))) == [3, 2, 1]


def test_states_of_versions(repository):
    states = repository.version_states(spec_of("m"))
    assert {number: known.code for number, known in states.items()} == {
        3: pb.OK,
        2: pb.FAILED_PRECONDITION,
        1: pb.OK,
    }
    assert repository.version_states(spec_of("m", 2)) == {2: states[2]}
    # A version that could not be loaded is not served, and has a state.
    with pytest.raises(StatusError, match=r"Specific\(m, 2\)"):
        repository.find(spec_of("m", 2))
    assert repository.versions("m") == [3, 1] and repository.versions("n") == []
    assert [config.name for config in repository.configs] == ["m", "zero"]


def test_a_configuration_that_fails_changes_nothing(repository, tmp_path):
    config = ModelConfig("m", tmp_path / "m", VersionPolicy(None), {"stable": 2})
    with pytest.raises(LabelError):
        repository.replace([config])
    assert repository.find(spec_of("m", None, "stable")).version == 1
    assert repository.versions("zero") == [4, 0]
    repository.replace([ModelConfig("m", tmp_path / "m", VersionPolicy(1))])
    assert (repository.versions("m"), repository.versions("zero")) == ([3], [])


def test_an_error_of_a_folder_is_logged_once_until_it_is_another(repository, tmp_path, caplog):
    def warnings():
        found = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
        caplog.clear()
        return found

    (tmp_path / "zero").rename(tmp_path / "away")
    caplog.clear()
    repository.refresh()
    [text] = warnings()
    assert text.startswith("Model 'zero' is not refreshed: Model folder 'zero' does not exist")
    repository.refresh()
    assert warnings() == []
    (tmp_path / "away").rename(tmp_path / "zero")
    repository.refresh()
    (tmp_path / "zero").rename(tmp_path / "away")
    repository.refresh()
    assert len(warnings()) == 1
