"""One loaded version: its signature definitions, and no code outside of its graph."""

import gc
import json
import pickle
import shutil
import tempfile
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from cnnkit.errors import RunError
from cnnkit.server import EmbeddedServer
from cnnkit.server.free_memory import MemoryShortageError
from cnnkit.server.servable import SavedModelServable, read_signature_definitions
from cnnkit.server.status_error import StatusError
from cnnkit.wire import cnnkit_serving_pb2 as pb
from tests.helpers.busy_server import served


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self):
        return Path.write_text, (self._file, "unpickled")


def test_nothing_is_unpickled(tmp_path, colors_folder):
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    folder = tmp_path / "colors"
    shutil.copytree(colors_folder / "2", folder / "2")
    for name in (
        "model.pkl",
        "keras_metadata.pb",
        "assets/labels.pkl",
        "assets.extra/model.pickle",
        "variables/weights.npy",
    ):
        (folder / "2" / name).parent.mkdir(exist_ok=True)
        (folder / "2" / name).write_bytes(trap)
    with served(folder):
        pass
    (folder / "2" / "fingerprint.pb").write_bytes(trap)
    for name in ("assets.extra/tf_serving_warmup_requests", "saved_model.pb"):
        (folder / "2" / name).write_bytes(trap)
        with pytest.raises(RunError):
            EmbeddedServer({"colors": folder})
    assert not sprung.exists()
    pickle.loads(trap)
    assert sprung.read_text() == "unpickled"


def test_signature_definitions_are_those_of_the_loaded_model(colors_folder):
    """tensorflow.core.protobuf is not documented: this fails if it moves or changes."""
    definitions = read_signature_definitions(colors_folder / "2").signature_def
    loaded = tf.saved_model.load(str(colors_folder / "2"))
    assert set(loaded.signatures) == {
        "serving_default",
        "serving_bytes",
        "classify_bytes",
        "two_inputs",
    }
    for name, function in loaded.signatures.items():
        definition = definitions[name]
        assert definition.method_name == "tensorflow/serving/predict"
        assert sorted(definition.inputs) == sorted(function.structured_input_signature[1])
        for key, info in definition.inputs.items():
            spec = function.structured_input_signature[1][key]
            assert info.dtype == spec.dtype.as_datatype_enum
            assert [dim.size for dim in info.tensor_shape.dim] == [
                -1 if size is None else size for size in spec.shape
            ]
        assert sorted(definition.outputs) == sorted(function.structured_outputs)


@pytest.mark.parametrize("signature", ["serving_default", "classify_bytes", "two_inputs"])
def test_signatures_with_rows_are_batchable(colors_folder, signature):
    assert SavedModelServable("colors", 2, colors_folder / "2").is_batchable(signature)


def test_a_scalar_input_is_not_batchable(tmp_path):
    class Scalar(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((), tf.float32, "x")])
        def double(self, x):
            return {"y": 2 * x}

    model = Scalar()
    tf.saved_model.save(model, str(tmp_path / "1"), {"serving_default": model.double})
    assert not SavedModelServable("m", 1, tmp_path / "1").is_batchable("serving_default")


class Scaled(tf.Module):
    """x -> x times the number in a file, with a gradient that uses a variable."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.ones(4))
        self.file = tf.saved_model.Asset(str(file))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
    def serving_default(self, x):
        @tf.custom_gradient
        def scale(x):
            def gradient(upstream, variables=None):
                return upstream * self.weights[0], [None]

            factor = tf.strings.to_number(tf.io.read_file(self.file.asset_path))
            return x * self.weights[0] * factor, gradient

        return {"y": scale(x)}


@pytest.fixture
def scaled_folder(tmp_path):
    file = tmp_path / "factor.txt"
    file.write_text("3")
    model = Scaled(file)
    tf.saved_model.save(model, str(tmp_path / "1"), {"serving_default": model.serving_default})
    return tmp_path / "1"


def test_an_unloaded_version_leaves_nothing_in_memory_or_on_disk(
    scaled_folder, tmp_path, monkeypatch
):
    """TensorFlow keeps the functions of custom gradients for ever: this fails if one is loaded."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    servable = SavedModelServable("m", 1, scaled_folder)
    outputs = servable.run("serving_default", {"x": np.float32([1, 2])}, ["y"])
    np.testing.assert_array_equal(outputs["y"], [3, 6])
    # The resource, not the object of Python around it.
    weights = weakref.ref(servable._model.weights.handle)
    assert weights() is not None
    del servable
    gc.collect()
    assert weights() is None
    assert not list((tmp_path / "temporary").iterdir())


def test_an_error_names_the_folder_of_the_version(scaled_folder):
    (scaled_folder / "variables" / "variables.index").unlink()
    with pytest.raises(RunError) as caught:
        SavedModelServable("m", 1, scaled_folder)
    assert str(scaled_folder) in str(caught.value)
    assert "cnnkit-serve-" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs", "batchable"),
    [
        ([(-1, 2)], [(-1,)], True),
        ([(-1,), (-1, 3)], [(-1,), (-1,)], True),
        # A fixed number of rows, no rows, and any shape: of an input or of an output.
        ([(1, 2)], [(-1,)], False),
        ([(-1, 2)], [(-1,), (3,)], False),
        ([()], [(-1,)], False),
        ([(-1,)], [()], False),
        ([None], [(-1,)], False),
        ([(-1,)], [None], False),
        ([], [(-1,)], False),
    ],
)
def test_which_signatures_have_rows(inputs, outputs, batchable):
    servable = SavedModelServable.__new__(SavedModelServable)
    servable.definitions = pb.SignatureDefMap()
    definition = servable.definitions.signature_def["s"]
    for side, shapes in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for number, shape in enumerate(shapes):
            side[str(number)].tensor_shape.unknown_rank = shape is None
            for size in shape or ():
                side[str(number)].tensor_shape.dim.add(size=size)
    assert servable.is_batchable("s") is batchable


@pytest.mark.parametrize(
    ("facts", "takes_pixels"),
    [
        ({"limits": {}, "images": "RGB, 0..255"}, True),
        ({"images": "RGB, 0..255"}, False),
        ({"limits": {}, "images": "RGB, 0..1"}, False),
        ({"limits": {}}, False),
        ({"limits": {}, "images": 255}, False),
        ([], False),
        (None, False),
    ],
)
def test_which_exports_take_pixels(tmp_path, colors_folder, monkeypatch, facts, takes_pixels):
    """Those that say so; another program's file of the name may hold anything."""
    monkeypatch.setattr(SavedModelServable, "_load_graph", lambda *given: None)
    folder = tmp_path / "1"
    shutil.copytree(colors_folder / "1", folder)
    if facts is not None:
        (folder / "assets").mkdir(exist_ok=True)
        (folder / "assets" / "preprocessing.json").write_text(json.dumps(facts))
    assert SavedModelServable("m", 1, folder).takes_pixels is takes_pixels


def test_a_graph_that_fails_has_the_code_and_the_text_of_tensorflow(colors_folder):
    servable = SavedModelServable("m", 1, colors_folder / "1")
    with pytest.raises(StatusError) as caught:
        servable.run("nope\n", {}, [])
    assert (caught.value.code.name, caught.value.details) == (
        "INVALID_ARGUMENT",
        'Serving signature "nope\n" cannot be called',
    )

    def fail(**inputs):
        raise tf.errors.NotFoundError(None, None, "Graph execution error:\n\nno /srv/models/x")

    servable._model = SimpleNamespace(signatures={"s": fail})
    with pytest.raises(StatusError) as caught:
        servable.run("s", {}, [])
    assert (caught.value.code.name, caught.value.details) == ("NOT_FOUND", "no <path>")


def test_a_saved_model_of_another_tag(tmp_path, colors_folder):
    shutil.copytree(colors_folder / "1", tmp_path / "1")
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "1/saved_model.pb").read_bytes())
    graph.meta_graphs[0].meta_info_def.tags[:] = ["train"]
    (tmp_path / "1/saved_model.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(RunError, match="must hold a graph with the tag 'serve'"):
        SavedModelServable("m", 1, tmp_path / "1")


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "")])
def test_a_version_that_does_not_fit_into_memory(colors_folder, monkeypatch, error):
    def fail(*given, **options):
        raise error

    monkeypatch.setattr(tf.saved_model, "load", fail)
    with pytest.raises(MemoryShortageError) as caught:
        SavedModelServable("m", 1, colors_folder / "1")
    assert str(caught.value) == "Version 1 of model 'm' cannot be loaded: memory is full."
