"""Classes of image files: their numbers are those of the network, in the order of the files."""

import dataclasses
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.special import expit, softmax

import cnnkit
from cnnkit._untrusted.images import max_image_bytes
from cnnkit.data import Decoding, image_path
from cnnkit.errors import DataError, UsageError
from cnnkit.evaluation import ImageClassifier, evaluate
from cnnkit.evaluation.ensemble import align_classes, evaluated_run, held_out_images
from cnnkit.evaluation.predict import iter_predictions
from cnnkit.run_folder import RunFolder
from cnnkit.visualize import explain_class
from tests.helpers.evaluation_networks import (
    CLASSES,
    LABELS,
    SIZE,
    logits,
    network,
    write_folder,
    write_run,
)

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def model():
    return network(3)


@pytest.fixture(scope="module")
def classifier(model):
    return ImageClassifier(model, class_names=LABELS)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(2).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    """Five images of the network's size: 0.png ... 4.png."""
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(pixels):
        (folder / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
    return folder


def test_probabilities_are_those_of_the_formula(classifier, model, photos, pixels):
    counted = []
    found = cnnkit.predict(classifier, photos, batch_size=2, top=3, progress=counted.append)
    assert counted == [1] * 5
    expected = softmax(logits(model, pixels.astype(np.float32)), axis=1)
    assert [one.name for one in found] == [str(photos / f"{i}.png") for i in range(5)]
    for one, row in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, row, atol=1e-5)
        order = np.argsort(-row)[:3]
        assert one.indices == tuple(order)
        assert [label for label, _ in one.top] == [LABELS[i] for i in order]
        assert (one.label, one.probability) == one.top[0]
        assert one.image is one.explanation is one.error is None


def test_a_run_sees_the_crops_of_its_evaluation(tmp_path):
    run = RunFolder(write_run(tmp_path / "run", 3, write_folder(tmp_path / "data", LABELS, each=1)))
    source, _ = held_out_images([run], None)
    member = evaluated_run(run, None, LABELS)
    result = evaluate(member, align_classes(source, LABELS), LABELS)
    found = {one.name: one for one in cnnkit.predict(run.path, tmp_path / "data" / "test")}
    assert len(result.examples) == len(found) == CLASSES
    for expected in result.examples:
        own = found[image_path(source.spec, expected.name)]
        assert [label for label, _ in own.top] == [label for label, _ in expected.top]
        np.testing.assert_allclose([p for _, p in own.top], [p for _, p in expected.top], rtol=1e-4)


@pytest.mark.filterwarnings("error::cnnkit.errors.AssumptionWarning")
def test_a_run_decodes_as_its_configuration_says(tmp_path):
    """Unless another decoding is given. A run without preprocessing gives no warning."""
    run = RunFolder(write_run(tmp_path / "run", 3, tmp_path))
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs))
    keras.Model(inputs, keras.layers.Dense(CLASSES, "softmax")(x)).save(run.model_file)
    run.write_config(dataclasses.replace(run.config, background="#008000"))
    photo = tmp_path / "glass.png"
    Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 0)).save(photo)
    assert evaluated_run(run, None, LABELS).size == SIZE
    for decoding, color in ((None, (0, 128, 0)), (Decoding(background=(0, 0, 9)), (0, 0, 9))):
        [one] = cnnkit.predict(run.path, photo, decoding=decoding, explain="gradient")
        np.testing.assert_array_equal(one.image, np.full((SIZE, SIZE, 3), color))


def test_files_that_are_no_images_keep_their_places(classifier, photos, tmp_path, monkeypatch):
    (tmp_path / "no.png").write_bytes(b"no image")
    (tmp_path / "empty.jpg").touch()
    # A file that is not even opened.
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(max_image_bytes() + 1)
    paths = [tmp_path / "no.png", photos / "0.png", tmp_path / "large.png", photos / "1.png"]
    paths += [photos / "2.png", tmp_path / "empty.jpg", photos / "3.png"]
    module, opened = sys.modules["cnnkit.evaluation.predict"], []
    iter_crops = module._iter_crops
    with monkeypatch.context() as patch:
        patch.setattr(
            module,
            "_iter_crops",
            lambda files, *args: opened.extend(files) or iter_crops(files, *args),
        )
        found = cnnkit.predict(classifier, paths, errors="keep", batch_size=2)
    assert opened == [path for path in paths if path.name != "large.png"]
    assert [one.name for one in found] == list(map(str, paths))
    assert [one.error is None for one in found] == [False, True, False, True, True, False, True]
    assert found[0].error.startswith(f"{tmp_path / 'no.png'} must be an image. Expected: a JPEG")
    assert found[0].label is found[0].probability is None
    assert "large.png is too large" in found[2].error
    whole = cnnkit.predict(classifier, photos)
    for one, place in zip(whole, (1, 3, 4, 6), strict=False):
        np.testing.assert_allclose(one.probabilities, found[place].probabilities, rtol=1e-5)
    with pytest.raises(DataError, match=r"no\.png must be an image"):
        cnnkit.predict(classifier, paths)
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "100")
    [large] = cnnkit.predict(classifier, photos / "0.png", errors="keep")
    assert "0.png is too large. Expected: images of at most 100 pixels" in large.error


def test_bytes_have_the_name_that_they_are_given(classifier, photos):
    data = (photos / "3.png").read_bytes()
    [one, other, broken] = iter_predictions(
        classifier, [("-", data), ("file", photos / "3.png"), ("x", data[:40])]
    )
    assert (one.name, other.name) == ("-", "file")
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert broken.error.startswith("x is damaged or incomplete")


def test_sigmoids_have_probabilities_of_their_own(photos, pixels):
    inputs = keras.Input((SIZE, SIZE, 3))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    for units in (3, 1):
        dense = keras.layers.Dense(units, activation="sigmoid")
        net = keras.Model(inputs, dense(flat))
        values = (pixels.reshape(5, -1) / 255) @ np.asarray(dense.kernel)
        expected = expit(values) if units == 3 else np.hstack([expit(-values), expit(values)])
        found = cnnkit.predict(net, photos)
        np.testing.assert_allclose([one.probabilities for one in found], expected, atol=1e-5)
    assert found[0].label in ("class 0 (no)", "class 1 (yes)")


def test_equal_classes_are_in_their_order(photos):
    """NumPy's usual sort changes the order of equal values from 17 of them on."""
    inputs = keras.Input((SIZE, SIZE, 3))
    dense = keras.layers.Dense(50, activation="softmax", kernel_initializer="zeros")
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    classifier = ImageClassifier(model, class_names=list(map(str, range(50))))
    [one] = cnnkit.predict(classifier, photos / "0.png")
    assert one.indices == (0, 1, 2, 3, 4)


def test_an_explanation_is_of_the_crop_and_the_class(classifier, model, photos, pixels):
    found = cnnkit.predict(classifier, photos, explain="deconvnet", target="c", batch_size=3)
    expected = explain_class(model, pixels.astype(np.float32), 2, "deconvnet")
    for one, other, image in zip(found, expected, pixels, strict=True):
        np.testing.assert_array_equal(one.image, image)
        assert one.explanation.target == 2
        np.testing.assert_allclose(one.explanation.map, other.map, rtol=1e-4, atol=1e-8)
    [one] = cnnkit.predict(classifier, photos / "4.png", explain="gradcam")
    assert classifier.class_names[one.explanation.target] == one.label


def test_a_gray_network_that_is_not_square_sees_the_center(photos):
    inputs = keras.Input((8, 12, 1))
    x = keras.layers.Conv2D(3, 3, activation="relu", name="conv1")(inputs)
    x = keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    [one] = cnnkit.predict(model, photos / "0.png", explain="gradcam")
    assert one.image.shape == (8, 12, 1)
    assert one.explanation.map.shape == (8, 12)
    with Image.open(photos / "0.png") as file:
        gray = np.asarray(file.convert("L"), np.float32)[2:10]
    assert np.abs(one.image[..., 0] - gray).max() <= 1
    answer = model(one.image[None].astype(np.float32), training=False).numpy()[0]
    np.testing.assert_allclose(one.probabilities, answer, atol=0.05)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top": 0}, "`top` must be at least 1. Received: 0."),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"errors": "ignore"}, "Unknown value of `errors` 'ignore'"),
        ({"explain": "gradcan"}, "Did you mean gradcam"),
        ({"target": "a"}, "`target` requires `explain`"),
        ({"explain": "gradcam", "target": "h"}, "Unknown class 'h'"),
        ({"explain": "gradcam", "target": 7}, "no class 7. Expected: 0 to 6"),
    ],
)
def test_wrong_arguments(classifier, photos, options, text):
    with pytest.raises(UsageError, match=text.replace("(", r"\(")):
        cnnkit.predict(classifier, photos, **options)


def test_a_method_is_checked_before_an_image_is_read(classifier):
    with pytest.raises(UsageError, match="Unknown method 'gradcan'"):
        next(iter_predictions(classifier, [], explain="gradcan"))


def test_paths_that_are_not_there(classifier, tmp_path):
    with pytest.raises(UsageError, match="has no image files"):
        cnnkit.predict(classifier, tmp_path)
    with pytest.raises(UsageError, match="`paths` must be existing image files or folders"):
        cnnkit.predict(classifier, tmp_path / "x.png")
    with pytest.raises(UsageError, match="`paths` must be paths. Received: int"):
        cnnkit.predict(classifier, [3])
