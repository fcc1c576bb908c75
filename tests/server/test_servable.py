"""One loaded version: its signature definitions, and no code outside of its graph."""

import pickle
import shutil
from pathlib import Path

import pytest
import tensorflow as tf

from cnnkit.errors import RunError
from cnnkit.server import EmbeddedServer
from cnnkit.server.servable import SavedModelServable, read_signature_definitions
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
