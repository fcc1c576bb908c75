"""The size of a model is known before its weights are allocated."""

import json
import random
import zipfile

import keras
import pytest

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.models.weights.model_size import check_model_size, largest_output, outline
from cnnkit.models.weights.open import open_weights


def network(filters=4, kernel=3):
    return keras.Sequential(
        [keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(filters, kernel, name="conv1")]
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("size") / "model.keras"
    network().save(path)
    return path


def changed(saved, path, change):
    """Copies a `.keras` file with another configuration."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                data = json.dumps(change(json.loads(data)))
            new.writestr(name, data)
    return path


def with_convolution(**options):
    def change(config):
        config["config"]["layers"][1]["config"].update(options)
        return config

    return change


@pytest.mark.parametrize(
    ("options", "numbers"),
    [({"filters": 900_000_000}, "25,200,000,000"), ({"kernel_size": [8, 10_000_000]}, "")],
)
def test_a_model_larger_than_its_file_is_refused(saved, tmp_path, options, numbers):
    path = changed(saved, tmp_path / "x.keras", with_convolution(**options, padding="same"))
    with pytest.raises(UsageError, match=f"larger than its weights.*a model of {numbers}"):
        load_model(path)


@pytest.mark.parametrize("change", [
    lambda config: [],
    lambda config: {**config, "config": 5},
    lambda config: {**config, "config": {**config["config"], "layers": [[]]}},
    lambda config: {**config, "config": {**config["config"], "layers": {"a": 1}}},
    with_convolution(filters="many"),
    with_convolution(filters=10**400),
    with_convolution(name=["x"]),
    with_convolution(kernel_size=[-1, 1]),
])  # fmt: skip
def test_fields_of_another_type_are_refused_in_one_line(saved, tmp_path, change):
    with pytest.raises(UsageError, match=r"x\.keras"):
        load_model(changed(saved, tmp_path / "x.keras", change))


def test_the_outline_leaves_no_trace():
    keras.utils.clear_session()
    random.seed(1)
    expected = random.getstate()
    size = outline(lambda: network(1000, 5))
    assert (size.weights, size.largest_output) == (76_000, 4 * 4 * 1000)
    assert random.getstate() == expected
    assert keras.layers.Dense(1).name == "dense"


def test_free_sides_are_those_of_the_image():
    model = keras.Sequential([keras.layers.Input((None, None, 3)), keras.layers.Conv2D(4, 1)])
    assert largest_output(model, (100, 50)) == 100 * 100 * 4


def enlarged(image, inside=None):
    size = {"size": [10**6, 10**6]}
    layers = [keras.layers.UpSampling2D.from_config(size), keras.layers.Resizing(8, 8)]
    layers = [keras.Sequential([keras.layers.Input(inside), *layers])] if inside else layers
    return keras.Sequential([keras.layers.Input(image), *layers, keras.layers.Conv2D(1, 3)])


@pytest.mark.parametrize(
    ("image", "inside"),
    [
        ((8, 8, 3), None), ((8, 8, 3), (8, 8, 3)), ((None, None, 3), None),
        ((8, 8, 3), (None, None, 3)), ((None, None, 3), (None, None, 3)),
    ],
)  # fmt: skip
def test_an_absurd_output_is_refused_and_not_measured(tmp_path, monkeypatch, image, inside):
    """Measuring the preprocessing of 400 bytes of configuration took any memory there was."""
    enlarged(image, inside).save(tmp_path / "x.keras")
    # What would take the memory.
    monkeypatch.setattr("keras.layers.UpSampling2D.call", lambda self, x: pytest.fail("is run"))
    with pytest.raises(UsageError, match="absurdly large output.*at most 536,870,912 numbers"):
        load_model(tmp_path / "x.keras")
    assert len(open_weights(tmp_path / "x.keras").layers) == 1


def test_too_many_layers_are_refused_before_they_are_built(monkeypatch):
    monkeypatch.setattr("cnnkit.models.weights.model_size._build", lambda model: pytest.fail())
    flatten = keras.saving.serialize_keras_object(keras.layers.Flatten())
    inner = {**flatten, "class_name": "Sequential", "config": {"layers": [flatten] * 2000}}
    many = {**inner, "config": {"layers": [inner, *[flatten] * 500]}}
    with pytest.raises(UsageError, match="many layers. Expected: at most 2,500. Received: 2,501"):
        check_model_size(many, 0, "x.keras")
    objects = {
        **inner,
        "config": {"layers": [{**flatten, "config": {"list": [flatten] * 100_000}}]},
    }
    with pytest.raises(UsageError, match="many objects in its conf.*most 100,000"):
        check_model_size(objects, 0, "x.keras")


def test_a_class_of_another_package_is_the_users():
    described = {
        "class_name": "mine>Model",
        "config": {},
        "module": "mine",
        "registered_name": "mine>Model",
    }
    check_model_size(described, 0, "x.keras")


@pytest.mark.parametrize(
    ("entry", "is_own"),
    [
        ({"class_name": "Model"}, True),
        ({"class_name": "Model", "module": "keras.layers"}, True),
        ({"class_name": "cnnkit>ReLU", "registered_name": "cnnkit>ReLU", "module": None}, True),
        ({"class_name": "Model", "module": "mine.layers"}, False),
        ({"class_name": "mine>Model"}, False),
        ({"class_name": "Model", "module": "keras", "registered_name": "mine>Model"}, False),
    ],
)
def test_only_what_keras_or_cnnkit_knows_must_have_a_size(entry, is_own):
    """A class of another package is built by Keras, which says what is wrong with it."""
    described = {**entry, "config": {"no": "argument"}}
    if not is_own:
        check_model_size(described, 0, "x.keras")
        return
    with pytest.raises(Exception, match=r".+"):
        check_model_size(described, 0, "x.keras")
