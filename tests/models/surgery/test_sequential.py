"""Chains of layers: which models are one, and that a rebuilt one keeps weights and settings."""

import keras
import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models.surgery import (
    replace_head,
    resize_input,
    to_classifier,
    to_dense_convolutions,
    to_fully_convolutional,
    to_grouped_convolutions,
)
from tests.helpers.surgery_networks import (
    SIDE,
    assert_untouched,
    frozen_copy,
    images,
    small_alexnet,
    tiny,
)


def test_a_layer_that_another_model_uses_as_well_is_no_obstacle(rng):
    model = tiny()
    other = keras.Input((SIDE, SIDE, 3))
    model.get_layer("flatten")(model.get_layer("conv2")(keras.Input((10, 10, 5))))
    model.get_layer("conv1")(other)
    image = images(rng, SIDE, SIDE)
    np.testing.assert_allclose(
        to_fully_convolutional(model)(image)[:, 0, 0], model(image), rtol=1e-5, atol=1e-6
    )
    assert resize_input(model, 14).reinitialized == ()


def test_a_sequential_model_is_a_chain(rng):
    model = tiny()
    sequential = keras.Sequential([model.inputs[0], *model.layers[1:]])
    image = images(rng, SIDE, SIDE)
    found = to_fully_convolutional(sequential)(image)[:, 0, 0]
    np.testing.assert_allclose(found, model(image), rtol=1e-5, atol=1e-6)


def test_policies_and_frozen_layers_stay(rng):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = small_alexnet()
    finally:
        keras.config.set_dtype_policy(before)
    for name in ("conv1", "conv3", "fc6"):
        model.get_layer(name).trainable = False
    network = to_fully_convolutional(model)
    for new in (
        network,
        to_classifier(network, (64, 64, 3)),
        resize_input(model, 72).model,
        replace_head(model, 3).model,
        to_dense_convolutions(model),
        to_grouped_convolutions(to_dense_convolutions(model)),
    ):
        for layer in new.layers:
            if layer.name == "images":
                continue
            old = model.get_layer(layer.name) if layer.name != "flatten" else layer
            assert layer.dtype_policy.name == old.dtype_policy.name, layer.name
            assert layer.trainable == old.trainable, layer.name
        assert new.get_layer("conv3").compute_dtype == "bfloat16"
        assert new.get_layer("fc8").compute_dtype == "float32"
    assert not network.get_layer("fc6").trainable_weights


@pytest.mark.parametrize(
    "change",
    [
        to_fully_convolutional,
        lambda model: to_classifier(to_fully_convolutional(model), (SIDE, SIDE, 3)),
        lambda model: resize_input(model, 15).model,
        lambda model: replace_head(model, 4).model,
        to_dense_convolutions,
        lambda model: to_grouped_convolutions(model, 1, ["conv1"]),
    ],
)
def test_the_new_network_has_weights_of_its_own(change):
    model = tiny()
    before = frozen_copy(model)
    new = change(model)
    new.set_weights([np.zeros(weight.shape) for weight in new.weights])
    assert_untouched(model, before)


def branched():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1, name="a")(inputs)
    x = keras.layers.Add(name="sum")([x, inputs])
    return keras.Model(inputs, keras.layers.Flatten()(x), name="branched")


def twice():
    inputs, layer = keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="again")
    return keras.Model(inputs, layer(layer(inputs)), name="twice")


def dropping():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dropout(0.5, name="d")(inputs, training=True))


def nested():
    inputs = keras.Input((SIDE, SIDE, 3))
    return keras.Model(inputs, tiny(name="inner")(inputs), name="nested")


def two_outputs():
    model = tiny()
    return keras.Model(model.inputs, [model.output, model.get_layer("fc7").output], name="two")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: to_fully_convolutional(branched()), "2 tensors into 'sum'"),
        (lambda: to_fully_convolutional(twice()), "layer 'again' twice"),
        (lambda: to_fully_convolutional(dropping()), "'d' called with arguments of its own"),
        (lambda: replace_head(nested(), 2), "Received: 'inner', a Functional"),
        (lambda: to_dense_convolutions(two_outputs()), "1 inputs and 2 outputs"),
        (
            lambda: to_dense_convolutions(keras.Sequential([keras.layers.Dense(2)])),
            "has no known graph",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
