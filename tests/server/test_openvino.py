"""OpenVINO: the signatures that it runs, and their outputs.

Most tests use a fake engine; the last ones need OpenVINO itself.
"""

import logging
import sys
import threading
import types
from concurrent import futures
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.client import Client
from cnnkit.server import EmbeddedServer, openvino
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from tests.helpers.serving import SIZE, expected_probabilities

SCALE = 64
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)


class Engine(types.ModuleType):
    """A fake OpenVINO that runs TensorFlow's functions and multiplies the outputs by a factor."""

    def __init__(self, factor=1.0):
        super().__init__("openvino")
        self.factor = factor
        # Factors of single outputs.
        self.factors = {}
        self.broken = None
        self.rows = []

    def convert_model(self, function):
        return function

    def Core(self):
        return self

    def compile_model(self, function, device, settings):
        assert (device, settings["INFERENCE_PRECISION_HINT"]) == ("CPU", "f32")
        return types.SimpleNamespace(create_infer_request=lambda: InferRequest(self, function))


class InferRequest:
    def __init__(self, engine, function):
        self.engine, self.function = engine, function
        self.thread = threading.get_ident()

    def infer(self, inputs, share_inputs):
        assert self.thread == threading.get_ident(), "the infer request belongs to another thread"
        if self.engine.broken is not None:
            raise self.engine.broken
        [(name, images)] = inputs.items()
        self.engine.rows.append(len(images))
        answered = self.function(**{name: tf.constant(images)})
        factors = dict.fromkeys(answered, self.engine.factor) | self.engine.factors
        return {name: values.numpy() * factors[name] for name, values in answered.items()}


@pytest.fixture
def engine(monkeypatch):
    made = Engine()
    monkeypatch.setitem(sys.modules, "openvino", made)
    return made


@pytest.fixture
def load(colors_folder, caplog):
    """Returns a loader of version 2, which has all signatures; it also returns the log of each."""
    caplog.set_level(logging.INFO, "cnnkit.server")

    def loaded():
        servable = openvino.load_openvino("colors", 2, colors_folder / "2")
        words = [record.getMessage().split("version 2: ")[1] for record in caplog.records]
        return servable, dict(line.split(" is ", 1) for line in words)

    return loaded


def test_openvino_runs_signatures_of_one_array(engine, load):
    engine.factor = np.float32(1 + 1e-5)
    servable, said = load()
    assert sorted(said) == ["classify_bytes", "serving_bytes", "serving_default", "two_inputs"]
    assert said["serving_default"].startswith("run by OpenVINO: largest difference from TensorFlow")
    assert said["serving_default"].endswith("1.0e-05 of the largest value")
    for name in ("classify_bytes", "serving_bytes", "two_inputs"):
        assert said[name] == "left to TensorFlow"
    engine.rows.clear()
    answered = servable.run("serving_default", {"images": IMAGES}, ["probabilities"])
    assert list(answered) == ["probabilities"]
    np.testing.assert_allclose(
        answered["probabilities"], expected_probabilities(IMAGES, SCALE), rtol=1e-4
    )
    assert engine.rows == [3]
    answered = servable.run("two_inputs", {"a": np.float32([1]), "b": np.int64([2])}, ["sum"])
    assert answered["sum"].tolist() == [3]
    assert engine.rows == [3]


def test_an_empty_batch_is_left_to_the_checks_of_the_graph(engine, load):
    """OpenVINO drops them, and fails with a text of its own."""
    servable, _ = load()
    engine.rows.clear()
    answered = servable.run("serving_default", {"images": IMAGES[:0]}, ["probabilities"])
    assert answered["probabilities"].shape == (0, 4)
    assert engine.rows == []


@pytest.mark.parametrize("name", ["means", "probabilities"])
@pytest.mark.parametrize("factor", [1.1, 0.9, np.nan])
def test_tensorflow_keeps_signatures_whose_outputs_differ(engine, load, name, factor):
    engine.factors[name] = factor
    servable, said = load()
    assert said["serving_default"].startswith("left to TensorFlow: largest difference")
    answered = servable.run("serving_default", {"images": IMAGES}, ["probabilities"])
    np.testing.assert_allclose(
        answered["probabilities"], expected_probabilities(IMAGES, SCALE), rtol=1e-5
    )


def test_tensorflow_keeps_graphs_that_openvino_cannot_read(engine, load):
    engine.broken = RuntimeError("No rule for Foo\nin /srv/models/colors/2")
    servable, said = load()
    assert said["serving_default"] == (
        "left to TensorFlow: RuntimeError: No rule for Foo in <path>"
    )
    assert servable.run("serving_default", {"images": IMAGES}, ["means"])["means"].shape == (3, 3)


def test_an_error_of_openvino_is_internal(engine, load):
    servable, _ = load()
    engine.broken = RuntimeError("no memory, see /srv/models/colors/2")
    with pytest.raises(StatusError, match="no memory, see <path>") as refused:
        servable.run("serving_default", {"images": IMAGES}, ["means"])
    assert refused.value.code == grpc.StatusCode.INTERNAL


def check_served(folder, png):
    with (
        EmbeddedServer({"colors": folder}, load=openvino.load_openvino) as server,
        Client(server.address) as client,
        futures.ThreadPoolExecutor(6) as pool,
    ):

        def ask(rows):
            images = np.random.default_rng(rows).uniform(0, 255, (rows, SIZE, SIZE, 3))
            answered = client.predict(images.astype(np.float32), model="colors")
            np.testing.assert_allclose(
                answered["probabilities"], expected_probabilities(images, SCALE), atol=1e-5
            )

        list(pool.map(ask, [1, 2, 3, 8] * 6))
        [[best, *_]] = client.classify([png(0, 255, 0)], model="colors")
        assert best.label == "green"


def test_many_threads_through_a_server(engine, colors_folder, png):
    check_served(colors_folder, png)
    assert {1, 2, 3, 8} <= set(engine.rows)


def test_openvino_itself(load):
    pytest.importorskip("openvino")
    servable, said = load()
    assert said["serving_default"].startswith("run by OpenVINO: largest difference")
    answered = servable.run("serving_default", {"images": IMAGES}, ["probabilities", "means"])
    np.testing.assert_allclose(
        answered["probabilities"], expected_probabilities(IMAGES, SCALE), atol=1e-6
    )
    np.testing.assert_allclose(answered["means"], IMAGES.mean((1, 2)), rtol=1e-5)
    kept = answered["means"].copy()
    servable.run("serving_default", {"images": IMAGES * 0}, ["means"])
    # The outputs do not share memory with those of the next call.
    np.testing.assert_array_equal(answered["means"], kept)


def test_openvino_itself_with_many_threads(colors_folder, png):
    pytest.importorskip("openvino")
    check_served(colors_folder, png)


@pytest.mark.parametrize(
    ("specs", "shape"),
    [
        ({"x": tf.TensorSpec((None, 8, 8, 3))}, (1, 8, 8, 3)),
        ({"x": tf.TensorSpec((4, 2))}, (4, 2)),
        ({"x": tf.TensorSpec((None,))}, (1,)),
        ({"x": tf.TensorSpec((2,)), "y": tf.TensorSpec((2,))}, None),
        ({}, None),
        ({"x": tf.TensorSpec((2,), tf.int64)}, None),
        ({"x": tf.TensorSpec(())}, None),
        ({"x": tf.TensorSpec(None)}, None),
        ({"x": tf.TensorSpec((1, None, 3))}, None),
    ],
)
def test_signatures_of_one_array_of_a_known_size(specs, shape):
    found = openvino._random_inputs(SimpleNamespace(structured_input_signature=((), specs)))
    if shape is None:
        assert found is None
    else:
        assert (found["x"].shape, found["x"].dtype) == (shape, np.float32)
        assert found["x"].min() >= 0 and found["x"].max() <= 255


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        ({"a": [1, -4], "b": [2, 2]}, 0),
        # Relative to the largest value of the output.
        ({"a": [1, -3], "b": [2, 2.1]}, 0.25),
        ({"a": [1, -4], "b": [2, 3]}, 0.5),
        ({"a": [np.nan, -4], "b": [2, 2]}, np.nan),
    ],
)
def test_the_largest_difference_of_the_outputs(monkeypatch, found, difference):
    expected = {"a": np.float32([1, -4]), "b": np.float32([2, 2])}
    monkeypatch.setattr(openvino.SavedModelServable, "run", lambda *given: expected)
    servable = openvino.OpenVinoServable.__new__(openvino.OpenVinoServable)
    servable.definitions = pb.SignatureDefMap()
    servable.definitions.signature_def["s"].SetInParent()
    arrays = {name: np.float32(values) for name, values in found.items()}
    result = servable._largest_difference("s", lambda inputs: arrays, {})
    assert result == pytest.approx(difference, nan_ok=True)
    # Outputs that are all zero are compared too.
    expected = {"a": np.zeros(2, np.float32)}
    assert servable._largest_difference("s", lambda inputs: {"a": np.zeros(2)}, {}) == 0
