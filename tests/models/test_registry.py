"""Builders by name: their arguments, and the way from building to export."""

import importlib
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit import alexnet, load_model, vgg11, vgg13, vgg16, vgg19
from cnnkit.errors import UsageError
from cnnkit.export import export
from cnnkit.export.isolated_model import Response
from cnnkit.models import (
    BUILDERS,
    build,
    vgg,
)
from cnnkit.training import SGD
from cnnkit.training.step import StepRunner

pytestmark = pytest.mark.usefixtures("narrow", "unoptimized")


@pytest.mark.parametrize("builder", [alexnet, vgg11, vgg13, vgg16, vgg19])
def test_arguments_follow_keras_applications(builder):
    parameters = inspect.signature(builder).parameters
    wanted = {
        "include_top": True, "weights": None, "input_shape": None, "pooling": None, "classes": 1000,
        "classifier_activation": "softmax", "include_preprocessing": True,
    }  # fmt: skip
    for name, default in wanted.items():
        assert parameters[name].default == default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert "name" in parameters
    assert isinstance(builder(include_top=False), keras.Model)


@pytest.mark.parametrize(
    ("general", "fixed", "builders"),
    [
        (alexnet, "preset",
         ["alexnet_caffe", "caffenet", "alexnet_one_weird_trick", "alexnet_torchvision"]),
        (vgg, "config", ["vgg11", "vgg11_lrn", "vgg13", "vgg16_c", "vgg16", "vgg19"]),
    ],
)  # fmt: skip
def test_builders_of_one_variant_take_all_other_arguments(general, fixed, builders):
    """Order, kind, annotation and default are equal, except for the name of the model."""
    expected = dict(inspect.signature(general).parameters)
    del expected[fixed]
    for name in builders:
        signature = inspect.signature(BUILDERS[name])
        assert signature.return_annotation == inspect.signature(general).return_annotation
        found = dict(signature.parameters)
        assert found["name"].default == name
        found["name"] = expected["name"]
        assert list(found.items()) == list(expected.items())
        assert BUILDERS[name](include_top=False, input_shape=(96, 96, 3)).name == name


def run_in_process(folder, requests, progress):
    """Run the requests of a verification in this process."""
    signatures = tf.saved_model.load(str(folder)).signatures
    responses = []
    for request in requests:
        inputs = {name: tf.constant(value) for name, value in request.inputs.items()}
        outputs = signatures[request.signature](**inputs)
        responses.append(
            Response("OK", "", {name: value.numpy() for name, value in outputs.items()})
        )
    return responses


CAFFE_NETWORKS = ("alexnet_caffe", "caffenet")  # need three more pixels than the others


ALL_NETWORKS = [
    (name, {"input_shape": (67, 67, 3)} if name in CAFFE_NETWORKS else {}) for name in BUILDERS
] + [
    ("alexnet", {"sixth_conv": 32, "activation": "tanh", "lrn": False, "omit_layers": ["fc7"]}),
    ("zfnet", {"filters": (64, 128, 64), "omit_layers": ["conv4"]}),
]


@pytest.mark.parametrize(
    ("name", "options"),
    ALL_NETWORKS,
    ids=[f"{name}{len(o) and list(o.values())}" for name, o in ALL_NETWORKS],
)
def test_the_whole_way(name, options, tmp_path, rng, monkeypatch):
    """Build, train one step, save, load, export."""
    # In a process of their own, as in test_export.py, the responses of all networks take minutes.
    export_module = importlib.import_module("cnnkit.export.export")
    monkeypatch.setattr(export_module, "run_isolated", run_in_process)
    small = name.startswith(("vgg", "cifar10"))
    side = 32 if small else 64
    options = {"input_shape": (side, side, 3), "classes": 3, **options}
    if not small:
        options = {"hidden_units": 32, "initializer": "glorot", **options}
    model = build(name, **options)
    side = model.input_shape[1]
    images = rng.uniform(0, 255, (4, side, side, 3)).astype("float32")
    first = model.layers[3].get_weights() or model.layers[2].get_weights()
    steps = StepRunner(model, SGD(1e-4, momentum=0.9, decay=5e-4), tf.distribute.get_strategy())
    batch = {"images": images, "labels": np.int32([0, 1, 2, 0]), "weights": np.ones(4, "f4")}
    loss, _ = steps.train(batch, 4, 1e-4).numpy()
    assert np.isfinite(loss)
    after = model.layers[3].get_weights() or model.layers[2].get_weights()
    assert any((a != b).any() for a, b in zip(first, after, strict=True))

    model.save(tmp_path / "model.keras")
    outputs = model(images)
    np.testing.assert_allclose(np.sum(outputs, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(images), outputs)
    # Decoding is the same for all networks, and its graph is slow to prepare.
    served = export(model, ["a", "b", "c"], tmp_path / "served", signatures=["features"])
    assert served.name == "1"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: build("alexnett"), "Did you mean alexnet"),
        (lambda: build("vgg16", group=2), "Unknown option of vgg16 'group'"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
