"""Networks of keras.applications are recognized by their first layers."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras.src.utils.naming import to_snake_case

from cnnkit import load_model
from cnnkit._model_config import flatten_layers, read_layers
from cnnkit.errors import AssumptionWarning
from cnnkit.models.preprocessing import PRESETS
from cnnkit.models.weights.keras_config import keras_applications_preprocessing
from cnnkit.models.weights.keras_groups import open_keras
from cnnkit.models.weights.read_keras import keras_input

APPLICATIONS = {
    "VGG16": "vgg16", "VGG19": "vgg19", "ResNet50": "resnet", "ResNet50V2": "resnet_v2",
    "DenseNet121": "densenet", "Xception": "xception", "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2", "MobileNetV3Small": "mobilenet_v3", "NASNetMobile": "nasnet",
    "InceptionV3": "inception_v3", "InceptionResNetV2": "inception_resnet_v2",
    "EfficientNetB0": "efficientnet", "EfficientNetV2B0": "efficientnet_v2",
    "EfficientNetV2S": "efficientnet_v2", "ConvNeXtTiny": "convnext",
}  # fmt: skip
QUICK = ("VGG16", "Xception", "MobileNet", "MobileNetV2", "MobileNetV3Small")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in APPLICATIONS],
)
def test_every_network_of_keras_applications(tmp_path, rng, name):
    module = getattr(keras.applications, APPLICATIONS[name])
    side = 224 if name == "NASNetMobile" else 96
    reference = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(side, side, 3)
    )
    reference.save(tmp_path / "reference.keras")
    photos = rng.uniform(0, 255, (1, side, side, 3)).astype("float32")
    prepared = module.preprocess_input(photos.copy())
    expected = reference(prepared, training=False).numpy()
    found = keras_input(open_keras(tmp_path / "reference.keras"))
    assert found.origin == ("file" if (prepared == photos).all() else "convention")
    model = load_model(tmp_path / "reference.keras")
    np.testing.assert_allclose(model(photos), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("nested", [True, False])
def test_another_head_does_not_matter(tmp_path, rng, form, nested):
    base = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(64, 64, 3), alpha=0.25
    )
    if nested:
        model = keras.Sequential(
            [keras.Input((64, 64, 3)), keras.layers.RandomFlip(), base, keras.layers.Flatten(),
             keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        )  # fmt: skip
    else:
        x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(base.output))
        model = keras.Model(base.input, keras.layers.Dense(3)(x))
    model.save(tmp_path / f"m.{form}")
    photos = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    with pytest.warns(AssumptionWarning, match="RGB, minus 127.5, divided by 127.5, assumed"):
        loaded = load_model(tmp_path / f"m.{form}")
    np.testing.assert_allclose(
        loaded(photos, training=False),
        model(photos / 127.5 - 1, training=False),
        rtol=1e-4,
        atol=1e-5,
    )


def test_names_alone_are_no_proof(tmp_path):
    """A network of another structure is none of keras.applications, whatever its names."""
    inputs = keras.Input((8, 8, 3), name="vgg16")
    x = keras.layers.Conv2D(2, 3, name="block1_conv1")(inputs)
    x = keras.layers.Conv2D(2, 3, name="dropout")(x)
    keras.Model(inputs, x, name="vgg16").save(tmp_path / "m.keras")
    assert keras_input(open_keras(tmp_path / "m.keras")).origin == "unknown"


def test_groups_have_the_names_of_keras(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(2, 3), layers.Conv2D(2, 3), layers.MaxPooling2D(),
         layers.GlobalAveragePooling2D(), layers.Dense(2), layers.Dense(2), layers.ReLU()]
    )  # fmt: skip
    model.save(tmp_path / "m.keras")
    config = json.loads(zipfile.ZipFile(tmp_path / "m.keras").read("config.json"))
    found = [path for path, _ in flatten_layers(read_layers(config))]
    assert found == [
        "layers/input_layer", "layers/conv2d", "layers/conv2d_1", "layers/max_pooling2d",
        "layers/global_average_pooling2d", "layers/dense", "layers/dense_1", "layers/re_lu",
    ]  # fmt: skip
    kinds = [layer.kind for _, layer in flatten_layers(read_layers(config))]
    assert [f"layers/{to_snake_case(kind)}" for kind in kinds] == [
        path.removesuffix("_1") for path in found
    ]


@pytest.mark.parametrize(
    ("name", "family"), [("mixed0", "InceptionV3"), ("mixed_5b", "InceptionResNetV2")]
)
def test_inception_networks_are_known_by_their_first_concatenation(name, family):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(inputs))
    x = keras.layers.Concatenate(name=name)([x, x])
    described = json.loads(keras.Model(inputs, x).to_json())
    found = keras_applications_preprocessing(read_layers(described))
    assert found == PRESETS["tf"].by_convention(f"keras.applications' {family}")
