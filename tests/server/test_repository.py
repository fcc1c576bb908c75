"""Versions that come, go and are broken; labels; the file of models and its reload."""

import contextlib
import os
import shutil
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import tensorflow as tf

from cnnkit.client import Client, ModelNotFound
from cnnkit.errors import UsageError
from cnnkit.server import EmbeddedServer
from cnnkit.server.model_config import VersionPolicy, parse_version_policy, read_models_config
from cnnkit.wire import cnnkit_serving_pb2 as pb
from cnnkit.wire import methods
from cnnkit.wire.tensors import decode_tensor, to_tensor_proto
from tests.helpers.serving import SIZE, expected_probabilities

POLL = 0.05
IMAGE = np.full((1, SIZE, SIZE, 3), 40, np.float32)
STATES = pb.ModelVersionStatus


@pytest.fixture
def folder(tmp_path, colors_folder):
    """A model folder with version 1."""
    shutil.copytree(colors_folder / "1", tmp_path / "colors" / "1")
    return tmp_path / "colors"


@pytest.fixture
def add(folder, colors_folder):
    """Adds whole versions: odd ones are colors/1 (scale 32), even ones colors/2 (scale 64)."""

    def copy(version):
        aside = folder / f"aside-{version}"
        shutil.copytree(colors_folder / str(2 - version % 2), aside)
        aside.rename(folder / str(version))

    return copy


def scale(version):
    return 32 if version % 2 else 64


def states(client, model="colors"):
    return {status.version: status.state for status in client.status(model)}


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(POLL)


@contextlib.contextmanager
def served(models, **options):
    with (
        EmbeddedServer(models, **{"poll_seconds": POLL, **options}) as server,
        Client(server.address, timeout=30) as client,
    ):
        yield server, client


def predict(channel, version=None):
    request = pb.PredictRequest(model_spec=pb.ModelSpec(name="colors"))
    if version is not None:
        request.model_spec.version.value = version
    request.inputs["images"].CopyFrom(to_tensor_proto(IMAGE))
    raw = channel.unary_unary(methods.PREDICT)(request.SerializeToString(), timeout=30)
    response = pb.PredictResponse.FromString(raw)
    return response.model_spec.version.value, decode_tensor(response.outputs["probabilities"])


def test_versions_are_exchanged_without_a_failed_request(folder, add):
    answers, over = [], threading.Event()

    def ask(channel):
        while not over.is_set():
            answers.append(predict(channel))

    with (
        served({"colors": folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
        futures.ThreadPoolExecutor(4) as pool,
    ):
        asking = [pool.submit(ask, channel) for _ in range(4)]
        try:
            for version in (2, 3, 4):
                add(version)
                wait_for(lambda version=version: states(client).get(version) == "AVAILABLE")
                wait_for(lambda version=version: states(client)[version - 1] == "END")
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
        np.testing.assert_allclose(probabilities, expected[scale(version)], atol=1e-6)


def test_a_version_is_left_alone_while_it_is_written(folder, colors_folder, caplog):
    source = colors_folder / "2"
    with served({"colors": folder}) as (_, client):
        (folder / "2" / "variables").mkdir(parents=True)
        # The graph comes first, the weights bit by bit: an upload.
        shutil.copy(source / "saved_model.pb", folder / "2")
        for name in ("variables.index", "variables.data-00000-of-00001"):
            data = (source / "variables" / name).read_bytes()
            with (folder / "2" / "variables" / name).open("wb", buffering=0) as file:
                for start in range(0, len(data), 1 + len(data) // 20):
                    file.write(data[start : start + 1 + len(data) // 20])
                    assert states(client)[1] == "AVAILABLE"
                    time.sleep(POLL / 5)
        wait_for(lambda: states(client).get(2) == "AVAILABLE")
        wait_for(lambda: states(client)[1] == "END")
    assert "is not refreshed" not in caplog.text


@pytest.mark.parametrize(
    "fault", ["no graph", "no graph at all", "half a graph", "no weights", "half the weights"]
)
def test_a_broken_version_is_refused_and_the_old_one_answers(folder, add, fault, caplog):
    with (
        served({"colors": folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
    ):
        aside = folder / "aside"
        shutil.copytree(folder / "1", aside)
        graph, weights = aside / "saved_model.pb", aside / "variables/variables.data-00000-of-00001"
        match fault:
            case "no graph":
                graph.write_bytes(b"")
            case "no graph at all":
                graph.unlink()
            case "half a graph":
                graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
            case "no weights":
                shutil.rmtree(aside / "variables")
            case "half the weights":
                weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        aside.rename(folder / "2")
        wait_for(lambda: states(client).get(2) == "END")
        [status] = [status for status in client.status("colors") if status.version == 2]
        told = {
            "no graph": "saved_model.pb must hold a graph with the tag 'serve'",
            "no graph at all": "Version folder '2' is incomplete",
        }
        assert told.get(fault, "Version 2 of model 'colors' cannot be loaded") in str(status)
        assert str(folder) not in str(status)
        time.sleep(4 * POLL)
        assert predict(channel)[0] == 1
        # Told once, not at every look.
        assert caplog.text.count("version 2 is not served") == 1
        # Mended in its place, it is taken; a later version need not wait for that.
        add(3)
        wait_for(lambda: states(client).get(3) == "AVAILABLE")
        shutil.rmtree(folder / "3")
        shutil.rmtree(folder / "2")
        add(2)
        wait_for(lambda: states(client).get(2) == "AVAILABLE")
        assert predict(channel)[0] == 2


def test_removing_the_newest_version_returns_to_the_one_before(folder, add):
    add(2)
    with (
        served({"colors": folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
    ):
        assert states(client) == {2: "AVAILABLE"}
        shutil.rmtree(folder / "2")
        wait_for(lambda: states(client).get(1) == "AVAILABLE")
        assert predict(channel)[0] == 1


def test_the_last_version_stays_when_its_folder_goes(folder, caplog):
    with (
        served({"colors": folder}) as (server, client),
        grpc.insecure_channel(server.address) as channel,
    ):
        folder.rename(folder.with_name("elsewhere"))
        wait_for(lambda: "is not refreshed" in caplog.text)
        time.sleep(4 * POLL)
        assert caplog.text.count("is not refreshed") == 1
        assert predict(channel)[0] == 1
        assert states(client) == {1: "AVAILABLE"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("latest", [4]), ("latest:2", [4, 3]), ("all", [4, 3, 2, 1]), ("1,3", [3, 1])],
)
def test_version_policies(folder, add, choice, expected):
    for version in (2, 3, 4):
        add(version)
    with served({"colors": folder}, versions=choice) as (server, _):
        assert server.repository.versions("colors") == expected


@pytest.mark.parametrize("text", ["", "newest", "latest:", "latest:x", "latest:-1", "1,,2", "1.5"])
def test_choices_that_are_none(text):
    with pytest.raises(UsageError, match="`versions` must be latest, all, latest:N, or numbers"):
        parse_version_policy(text)


def test_a_server_starts_with_the_newest_version_that_can_be_loaded(folder, caplog):
    (folder / "2").mkdir()
    with served({"colors": folder}) as (_, client):
        assert states(client) == {2: "END", 1: "AVAILABLE"}
    assert "version 2 is not served" in caplog.text


def test_the_memory_of_versions_that_have_left_is_freed(tmp_path):
    class Heavy(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(tf.ones(2**23))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "images")])
        def serving_default(self, images):
            return {"sum": images + self.weights[0]}

    folder = tmp_path / "heavy"
    heavy = Heavy()
    tf.saved_model.save(heavy, str(folder / "1"), {"serving_default": heavy.serving_default})
    del heavy
    process = psutil.Process()

    def exchange(client, numbers):
        for version in numbers:
            (folder / str(version - 1)).rename(folder / str(version))
            wait_for(lambda version=version: states(client, "heavy").get(version) == "AVAILABLE")
            wait_for(lambda version=version: states(client, "heavy")[version - 1] == "END")
            client.predict(np.ones(3), model="heavy")
        return process.memory_info().rss

    with served({"heavy": folder}) as (_, client):
        before = exchange(client, range(2, 5))
        after = exchange(client, range(5, 10))
    # One version is 32 MiB.
    assert after - before < 48 * 2**20


def test_a_link_out_of_the_models_folder_is_not_followed(tmp_path, folder, colors_folder):
    (folder / "2").symlink_to(colors_folder / "2")
    shutil.copytree(folder / "1", folder / "3")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (folder / "3" / "assets").mkdir(exist_ok=True)
    (folder / "3" / "assets" / "labels.txt").symlink_to(secret)
    with served({"colors": folder}) as (_, client):
        assert states(client) == {3: "END", 2: "END", 1: "AVAILABLE"}
        for status in client.status("colors"):
            assert str(tmp_path) not in str(status)
        for name in ("../colors", "colors/1", "../../etc/passwd", str(colors_folder), "."):
            with pytest.raises(ModelNotFound):
                client.predict(IMAGE, model=name)


def test_links_inside_the_folder_and_to_it_are_followed(tmp_path, folder):
    """As releases are often laid out: a store beside the numbers, the folder itself a link."""
    (folder / "1").rename(folder / "store")
    (folder / "1").symlink_to("store")
    (tmp_path / "current").symlink_to(folder)
    with served({"colors": tmp_path / "current"}) as (_, client):
        assert states(client) == {1: "AVAILABLE"}


CONFIG = """
# As for TensorFlow Serving.
model_config_list {{
  config {{
    name: "colors" base_path: "{colors}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 2 }}
  }}
  config {{ name: "tints" base_path: "colors" model_version_policy {{ latest {{ }} }} }}
}}
"""


@pytest.fixture
def models_config(tmp_path, folder, add):
    add(2)
    add(3)
    file = tmp_path / "models.config"
    file.write_text(CONFIG.format(colors=folder))
    return file


def test_a_file_of_models(models_config, folder):
    assert [(c.name, c.folder, c.versions) for c in read_models_config(models_config)] == [
        ("colors", folder, VersionPolicy(None, (1, 2))),
        ("tints", folder, VersionPolicy(1)),
    ]
    with served(models_config) as (server, client):
        assert states(client) == {2: "AVAILABLE", 1: "AVAILABLE"}
        assert states(client, "tints") == {3: "AVAILABLE"}
        for label, version in (("stable", 1), ("canary", 2)):
            answered = client.predict(IMAGE, model="colors", label=label)["probabilities"]
            np.testing.assert_allclose(
                answered, expected_probabilities(IMAGE, scale(version)), atol=1e-6
            )
        # It is read again when it changes; what it says wrong changes nothing.
        models_config.write_text(
            models_config.read_text().replace('key: "canary" value: 2', 'key: "next" value: 2')
        )
        os.utime(models_config, (1, 1))
        wait_for(lambda: "next" in server.repository.configs[0].version_labels)
        models_config.write_text("model_config_list {")
        os.utime(models_config, (2, 2))
        time.sleep(4 * POLL)
        assert states(client, "tints") == {3: "AVAILABLE"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "model_config_list { config { name: 'a' } }",
            "`config` must have a `name` and a `base_path`",
        ),
        (
            "model_config_list { config { base_path: 'a' } }",
            "`config` must have a `name` and a `base_path`",
        ),
        ("model_config_list { config { nane: 'a' } }", "is not a valid models.config"),
        ("model_config_list {", "is not a valid models.config"),
        ("", "`model_config_list` must hold one config"),
        (
            "model_config_list { config { name: 'a' base_path: 'a' } "
            "config { name: 'a' base_path: 'b' } }",
            "`name` must be different for every model",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'a' model_platform: 'onnx' } }",
            "`model_platform` of model 'a' must be tensorflow",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'a' "
            "model_version_policy { specific { } } } }",
            "`specific` of model 'a' must name a version",
        ),
        (
            "model_config_list { config { name: 'a' base_path: 'a' } }",
            "Model folder 'a' does not exist",
        ),
    ],
)
def test_files_of_models_that_cannot_be(tmp_path, text, problem):
    file = tmp_path / "models.config"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        EmbeddedServer(file)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def reload():
    def call(server, *configs):
        request = pb.ReloadConfigRequest()
        request.config.model_config_list.config.extend(configs)
        with grpc.insecure_channel(server.address) as channel:
            raw = channel.unary_unary(methods.RELOAD_CONFIG)(
                request.SerializeToString(), timeout=30
            )
        status = pb.ReloadConfigResponse.FromString(raw).status
        return pb.Code.Name(status.error_code), status.error_message

    return call


def model_config(name, path, **fields):
    return pb.ModelConfigList.ModelConfig(name=name, base_path=str(path), **fields)


def test_reload_serves_what_is_asked_for(models_config, folder, reload):
    with served(models_config) as (server, client):
        both = pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy(
            latest={"num_versions": 2}
        )
        answered = reload(
            server,
            model_config("colors", folder, model_version_policy=both, version_labels={"stable": 3}),
            model_config("shades", "colors"),
        )
        assert answered == ("OK", "")
        assert states(client)[3] == states(client)[2] == "AVAILABLE"
        assert states(client)[1] == "END"
        assert states(client, "shades") == {3: "AVAILABLE"}
        assert client.predict(IMAGE, model="colors", label="stable")
        with pytest.raises(ModelNotFound):
            client.status("tints")


def test_reload_that_cannot_be_changes_nothing(tmp_path, models_config, folder, reload):
    outside = tmp_path.parent
    with served(models_config) as (server, client):
        before = server.repository.configs
        assert reload(server, model_config("colors", folder, version_labels={"stable": 7})) == (
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model colors, which is not currently "
            "available for inference",
        )
        for path in (outside, "../..", "/", str(folder / ".." / ".."), "/etc"):
            code, text = reload(server, model_config("x", path))
            assert code == "INVALID_ARGUMENT"
            assert text == "The base_path of model 'x' is outside of the server's model folders"
        code, text = reload(server, model_config("x", folder.with_name("none")))
        assert (code, text) == ("INVALID_ARGUMENT", "Model folder 'none' does not exist")
        assert server.repository.configs == before
        assert states(client) == {2: "AVAILABLE", 1: "AVAILABLE"}


def test_warm_up_requests_run_before_a_version_is_served(folder, add):
    def write(version, signature):
        request = pb.PredictRequest(
            model_spec=pb.ModelSpec(name="colors", signature_name=signature)
        )
        request.inputs["images"].CopyFrom(to_tensor_proto(IMAGE))
        log = pb.PredictionLog(predict_log=pb.PredictLog(request=request))
        extra = folder / str(version) / "assets.extra"
        extra.mkdir()
        with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
            writer.write(log.SerializeToString())

    write(1, "serving_default")
    with served({"colors": folder}) as (server, client):
        assert server.repository.versions("colors") == [1]
        shutil.copytree(folder / "1", folder / "aside")
        shutil.rmtree(folder / "aside" / "assets.extra")
        (folder / "aside").rename(folder / "6")
        write(6, "bogus")
        wait_for(lambda: states(client).get(6) == "END")
        [status] = [status for status in client.status("colors") if status.version == 6]
        assert "Warm-up request of version 6" in str(status)
        assert states(client)[1] == "AVAILABLE"


def test_numbers_that_no_request_can_ask_for_are_no_versions(folder):
    for name in ("9" * 20, "9" * 200, "-2", "2.0", "²", "0x3"):
        (folder / name).mkdir()
    with served({"colors": Path(folder)}) as (server, _):
        assert server.repository.versions("colors") == [1]
