"""Models and weights from files."""

import keras
import numpy as np
import pytest

from cnnkit import alexnet, load_model, vgg16
from cnnkit.cli.load_network import load_network
from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.errors import AssumptionWarning, UsageError
from cnnkit.models import open_weights
from cnnkit.models.preprocessing import Preprocessing
from cnnkit.training.build import initial_preprocessing, initialize_from, load_initial_model

pytestmark = pytest.mark.usefixtures("narrow")

SIDE = 32


def test_save_and_load(tmp_path, rng):
    model = alexnet(input_shape=(64, 64, 3), classes=4, initializer="glorot")
    image = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(image), model(image))
    np.testing.assert_array_equal(load_model(tmp_path)(image), model(image))
    model.save_weights(tmp_path / "a.weights.h5")
    other = alexnet(input_shape=(64, 64, 3), classes=4, weights=str(tmp_path / "a.weights.h5"))
    np.testing.assert_array_equal(other(image), model(image))
    with pytest.raises(UsageError, match="does not fit alexnet"):
        alexnet(input_shape=(64, 64, 3), classes=5, weights=str(tmp_path / "a.weights.h5"))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is not a model that Keras can load"):
        load_model(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alexnet(weights="no.weights.h5"), "No weights file no.weights.h5"),
        (lambda: alexnet(weights="imagenett"), "No weights file imagenett"),
        (lambda: load_model("no.keras"), "No model at no.keras"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)


# One file, one answer: the pixels that every way of opening a file feeds to its first kernel.

BARE = {"include_top": False}
FORMS = ("keras", "h5", "weights.h5")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """VGG16 of keras.applications with another head, flat and nested, in every form."""
    folder = tmp_path_factory.mktemp("foreign")
    applications = keras.applications

    def base():
        return applications.VGG16(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))

    flat, nested = base(), base()
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(flat.output))
    head = [keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    inputs = keras.Input((SIDE, SIDE, 3))
    prepared = nested(applications.vgg16.preprocess_input(inputs))
    models = {
        "flat": keras.Model(flat.input, keras.layers.Dense(3)(x)),
        "nested": keras.Sequential([keras.Input((SIDE, SIDE, 3)), base(), *head]),
        "inside": keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(prepared))),
        "unit": keras.Sequential(
            [keras.Input((SIDE, SIDE, 3)), keras.layers.Rescaling(1 / 255), base(), *
             [keras.layers.Flatten(), keras.layers.Dense(3)]]
        ),
    }  # fmt: skip
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        model.save_weights(folder / f"{name}.weights.h5")
    return folder, models


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["flat", "nested", "inside", "unit"])
def test_one_answer_whatever_the_door(foreign, tmp_path, form, name):
    folder, models = foreign
    file = folder / f"{name}.{form}"
    photo = np.random.default_rng(5).uniform(0, 255, (1, SIDE, SIDE, 3)).astype("float32")
    is_bare = name in ("flat", "nested")
    prepared = keras.applications.vgg16.preprocess_input(photo.copy()) if is_bare else photo
    reference = models[name]
    features = keras.Model(reference.inputs[0], reference.layers[-1].input)
    expected = np.asarray(features(prepared, training=False)).ravel()
    # Weights alone have lost what the operators and the Rescaling do, and Keras cannot read the
    # operators in its older format.
    known = is_bare or form == "keras" or (name == "unit" and form == "h5")
    given = None if known else {"inside": "caffe", "unit": "unit"}[name]

    def check(found):
        np.testing.assert_allclose(
            np.asarray(found).ravel(), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
        )

    options = {"input_shape": (SIDE, SIDE, 3), "include_top": False}
    check(vgg16(weights=open_weights(file, preprocessing=given), **options)(photo))
    convert = ["weights", "convert", str(file), "--model", "vgg16", "--output",
               str(tmp_path / "c.keras"), "--model-option", "include_top=false",
               "--model-option", f"input_shape=[{SIDE},{SIDE},3]"]  # fmt: skip
    assert main([*convert, *(["--preprocessing", given] if given else [])]) == 0
    check(load_model(tmp_path / "c.keras")(photo))
    config = TrainingConfig(
        init_from=str(file), model="vgg16", image_size=SIDE,
        init_options={"preprocessing": given} if given else {}, model_options=BARE,
    )  # fmt: skip
    initial = load_initial_model(config)
    target = vgg16(mean=(1, 2, 3), input_shape=(SIDE, SIDE, 3), include_top=False)
    statistics = initial_preprocessing(initial, SIDE)
    initialize_from(initial, config, target)
    target.get_layer("preprocessing").set_statistics(statistics.mean, statistics.std)
    check(target(photo))
    if form == "weights.h5" or (name, form) == ("inside", "h5"):
        return
    for loaded in (load_model(file), load_network(str(file)).model):
        check(keras.Model(loaded.inputs[0], loaded.layers[-1].input)(photo, training=False))


def test_what_cannot_be_known_is_asked(foreign, capsys, tmp_path):
    folder, _ = foreign
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu", name="conv1")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    stranger = keras.Model(inputs, keras.layers.Dense(2)(x))
    file = str(tmp_path / "stranger.keras")
    stranger.save(file)
    image = str(tmp_path / "image.png")
    photo = np.random.default_rng(4).integers(0, 256, (1, SIDE, SIDE, 3)).astype("float32")
    keras.utils.save_img(image, photo[0], scale=False)
    command = ["visualize", "saliency", file, image, "--output", str(tmp_path / "s.png")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"--preprocessing must say what pixels {file} expects" in error
    assert main([*command, "--preprocessing", "unit"]) == 0
    with pytest.warns(AssumptionWarning, match="not stated in the file"):
        np.testing.assert_array_equal(load_model(file)(photo), stranger(photo))
    unit = load_model(file, preprocessing="unit")
    np.testing.assert_allclose(unit(photo), stranger(photo / 255), rtol=1e-5, atol=1e-6)
    caffe = load_model(file, preprocessing="caffe")
    expected = stranger(keras.applications.vgg16.preprocess_input(photo.copy()))
    np.testing.assert_allclose(caffe(photo), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="must be what .* states itself"):
        load_model(folder / "unit.keras", preprocessing="caffe")
    with pytest.raises(UsageError, match="must be what .* states itself"):
        open_weights(folder / "unit.keras", preprocessing="raw")
    config = TrainingConfig(init_from=file, image_size=SIDE)
    with pytest.raises(
        UsageError, match="`init_options` must say what pixels.*Received: not stated in the"
    ):
        load_initial_model(config)
    given = TrainingConfig(init_from=file, image_size=SIDE, init_options={"preprocessing": "unit"})
    np.testing.assert_allclose(load_initial_model(given)(photo), unit(photo), rtol=1e-5)


def test_gray_images_have_presets_too(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)])
    model.save(tmp_path / "gray.keras")
    photo = np.full((1, 8, 8, 1), 200, "float32")
    loaded = load_model(tmp_path / "gray.keras", preprocessing="tf")
    np.testing.assert_allclose(loaded(photo), model(photo / 127.5 - 1), rtol=1e-5, atol=1e-6)
    for colored in ("caffe", Preprocessing((1.0, 2.0, 3.0)), Preprocessing(std=(1.0, 2.0, 3.0))):
        with pytest.raises(UsageError, match="is for RGB images"):
            load_model(tmp_path / "gray.keras", preprocessing=colored)


def test_an_old_file_of_cnnkit_keeps_its_mean(tmp_path):
    model = alexnet(mean=(10, 20, 30), input_shape=(64, 64, 3), classes=3, hidden_units=8)
    model.save(tmp_path / "ours.h5")
    photo = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    options = {"input_shape": (64, 64, 3), "classes": 3, "hidden_units": 8}
    np.testing.assert_array_equal(
        alexnet(weights=tmp_path / "ours.h5", **options)(photo), model(photo)
    )
    np.testing.assert_array_equal(load_model(tmp_path / "ours.h5")(photo), model(photo))
