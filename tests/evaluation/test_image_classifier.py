"""What a path holds: a run, a model, an exported folder; and what is none of these."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit._file_tree import is_exported
from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.evaluation import ImageClassifier, open_classifier, predict
from cnnkit.evaluation.image_classifier import ExportedClassifier
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.models import to_fully_convolutional
from tests.helpers.evaluation_networks import LABELS, SIZE, network, write_run

pytestmark = pytest.mark.usefixtures("unoptimized")

SAVED = Path(__file__).resolve().parents[1] / "data" / "saved_by_0_1_0"


@pytest.fixture(scope="module")
def model():
    return network(3)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    file = tmp_path_factory.mktemp("photos") / "photo.png"
    pixels = np.random.default_rng(2).integers(0, 256, (20, 26, 3), np.uint8)
    file.write_bytes(tf.io.encode_png(pixels).numpy())
    return file


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export of digits that version 0.1.0 wrote."""
    folder = tmp_path_factory.mktemp("models")
    with zipfile.ZipFile(SAVED / "export.zip") as archive:
        archive.extractall(folder)
    return folder / "digits"


def test_an_exported_folder_answers_as_its_signatures_did(exported, tmp_path):
    references = ReferenceOutputs.read(exported / "1")
    files = []
    for i, data in enumerate(references.inputs("serving_bytes")["image_bytes"]):
        files.append(tmp_path / f"{i}.jpg")
        files[i].write_bytes(data)
    with np.load(SAVED / "expected.npz") as arrays:
        expected = {
            name.removeprefix("export/"): arrays[name] for name in arrays if "export/" in name
        }
    assert is_exported(exported)
    for folder in (exported, exported / "1"):
        found = predict(folder, files, explain="deconvnet")
    for i, one in enumerate(found):
        np.testing.assert_allclose(
            one.probabilities, expected["serving_bytes/probabilities"][i], rtol=1e-3, atol=1e-4
        )
        assert one.label == str(expected["explain_bytes/labels"][i])
        np.testing.assert_array_equal(one.image, expected["explain_bytes/image"][i])
        projection = expected["explain_bytes/projection"][i]
        np.testing.assert_allclose(one.explanation.gradient, projection, rtol=1e-3, atol=1e-4)
        assert one.explanation.target == one.indices[0]
        assert np.isnan(one.explanation.score)
    for options in ({"explain": "deconvnet", "target": "3"}, {"explain": "gradcam"}):
        with pytest.raises(UsageError, match="deconvnet"):
            predict(exported, files, **options)


def test_an_exported_folder_decodes_as_it_says_and_has_no_links(exported, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(exported, folder)
    classifier = ExportedClassifier(folder)
    assert classifier.decoding == Decoding(background=None, exif_orientation=False)
    del classifier._servable.definitions.signature_def["explain_bytes"]
    with pytest.raises(UsageError, match="has no signature explain_bytes"):
        classifier.check_explanation("deconvnet", None)
    file = folder / "1" / "assets" / "preprocessing.json"
    said = {"background": [0, 0, 9], "exif_orientation": True}
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))
    assert ExportedClassifier(folder).decoding == Decoding(background=(0, 0, 9))
    (folder / "1" / "notes").symlink_to(SAVED / "expected.npz")
    with pytest.raises(UsageError, match="link to a file outside of the model folder"):
        ExportedClassifier(folder)


def test_names_given_replace_those_of_the_file(exported, photo, tmp_path):
    run = write_run(tmp_path / "run", 3, tmp_path)
    for path in (run, run / "model.keras", exported):
        names = [f"class {i}" for i in range(10 if path == exported else len(LABELS))]
        assert predict(path, photo, class_names=names)[0].label.startswith("class ")
        with pytest.raises(UsageError, match="must hold a name for each class"):
            open_classifier(path, class_names=names[1:])
    assert predict(run, photo)[0].label in LABELS
    assert predict(run / "model.keras", photo)[0].label in map(str, range(7))


def test_what_is_no_classifier(model, tmp_path):
    features = keras.Model(model.inputs[0], model.get_layer("conv2").output)
    with pytest.raises(UsageError, match="is not a classifier"):
        ImageClassifier(features)
    vectors = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    with pytest.raises(UsageError, match="must take images"):
        ImageClassifier(vectors)
    model.save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(UsageError, match=r"Received: weights alone. Build the network"):
        open_classifier(tmp_path / "net.weights.h5")
    run = write_run(tmp_path / "run", 3, tmp_path)
    (run / "model.keras").unlink()
    with pytest.raises(RunError, match="has no model yet"):
        open_classifier(run)
    (tmp_path / "foreign" / "1").mkdir(parents=True)
    (tmp_path / "foreign" / "1" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UsageError, match="a SavedModel that cnnkit did not write"):
        open_classifier(tmp_path / "foreign")


def test_a_network_of_any_size_needs_one(model, photo):
    free = to_fully_convolutional(model)
    with pytest.raises(UsageError, match="`image_size` must be given"):
        ImageClassifier(free)
    [found] = predict(free, photo, image_size=SIZE)
    [expected] = predict(model, photo, image_size=SIZE)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    with pytest.raises(UsageError, match="`image_size` must be left out.*Expected: "):
        predict(model, photo, image_size=SIZE + 1)


def test_the_size_and_the_decoding_are_those_of_what_is_opened(exported, model, tmp_path):
    run = write_run(tmp_path / "run", 3, tmp_path)
    side = json.loads((exported / "1" / "assets" / "preprocessing.json").read_text())["side"]
    for path, own in ((run, SIZE), (run / "model.keras", SIZE), (exported, side)):
        assert open_classifier(path, image_size=own).augmentation.image_size == own
        with pytest.raises(UsageError, match=f"`image_size` must be left out.*Expected: {own}"):
            open_classifier(path, image_size=own + 1)
    blue = Decoding(background=(0, 0, 9))
    for path in (run, run / "model.keras"):
        assert open_classifier(path, decoding=blue).decoding == blue
    free = tmp_path / "free.keras"
    to_fully_convolutional(model).save(free)
    assert open_classifier(free, image_size=14).augmentation.image_size == 14


def test_damaged_facts_of_an_exported_folder(exported, tmp_path):
    folder = tmp_path / "digits"
    shutil.copytree(exported, folder)
    file = folder / "1" / "assets" / "preprocessing.json"
    facts = json.loads(file.read_text())
    side = facts["side"]
    for change in ({"side": 0}, {"shorter_side_before_crop": side - 1}, {"resize": 5}):
        file.write_text(json.dumps({**facts, **change}))
        with pytest.raises(DataError, match=next(iter(change))):
            ExportedClassifier(folder)
    for resize, fast in (("bilinear", True), ("area", False)):
        file.write_text(
            json.dumps({**facts, "shorter_side_before_crop": side + 2, "resize": resize})
        )
        found = ExportedClassifier(folder).augmentation
        assert found == Augmentation(side, scale=(side + 2, side + 2), fast_decode=fast)


def test_scores_that_are_not_finite(photo):
    model = network(4)
    model.get_layer("fc8").bias.assign(np.full(7, np.nan))
    with pytest.raises(RunError, match=r"no finite scores for .*photo\.png"):
        predict(model, photo)
