"""Other input sizes: the convolutions stay, a dense layer that does not fit is new."""

import dataclasses

import keras
import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models.surgery import (
    SurgeryResult,
    resize_input,
    to_fully_convolutional,
)
from tests.helpers.surgery_networks import (
    assert_same_weights,
    assert_untouched,
    chain,
    frozen_copy,
    images,
    small_alexnet,
    tiny,
)


def test_a_size_with_another_map_makes_the_first_dense_layer_new(rng):
    model = tiny()
    before = frozen_copy(model)
    result = resize_input(model, (20, 16))
    assert isinstance(result, SurgeryResult)
    assert (result.copied, result.reinitialized) == (("conv1", "conv2", "fc7", "fc8"), ("fc6",))
    assert result.model.input_shape == (None, 20, 16, 3)
    assert_same_weights(model, result.model, result.copied)
    # 7 x 5 positions of 4 channels; made by its own initializers.
    kernel, bias = result.model.get_layer("fc6").get_weights()
    assert kernel.shape == (140, 6) and np.std(kernel) > 0 and np.std(bias) > 0
    assert result.model.get_layer("fc6").trainable
    assert_untouched(model, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.reinitialized = ()


def test_a_size_with_the_same_map_keeps_the_head(rng):
    model = tiny()
    result = resize_input(model, 15)
    assert result.reinitialized == ()
    assert result.copied == ("conv1", "conv2", "fc6", "fc7", "fc8")
    image = images(rng, 15, 15)
    # The pooling leaves the last row and column out.
    np.testing.assert_allclose(result.model(image), model(image[:, :14, :14]), rtol=1e-5, atol=1e-6)


def test_as_many_numbers_in_another_layout_do_not_fit():
    wide = chain(keras.layers.Conv2D(2, 1), keras.layers.Flatten(), keras.layers.Dense(4, name="d"),
                 side=2, columns=3)  # fmt: skip
    assert resize_input(wide, (3, 2)).reinitialized == ("d",)
    assert resize_input(wide, (2, 3)).reinitialized == ()


def test_networks_without_a_dense_head_come_along_whole(rng):
    network = to_fully_convolutional(tiny())
    result = resize_input(network, 24)
    assert result.reinitialized == () and result.model.output_shape == (None, 6, 6, 4)
    image = images(rng, 24, 24)
    np.testing.assert_allclose(result.model(image), network(image), rtol=1e-6)
    pooled = chain(
        keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)
    )
    assert resize_input(pooled, 9).reinitialized == ()


def test_alexnet_at_another_size():
    result = resize_input(small_alexnet(), 96)
    assert result.reinitialized == ("fc6",)
    assert result.model.get_layer("fc6").kernel.shape[0] == 2 * 2 * 256


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: resize_input(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), 4),
            "takes no images. Expected: an input (n, h, w, c). Received: (None, 4)",
        ),
        (lambda: resize_input(tiny(), True), "Received: True"),
        (lambda: resize_input(tiny(), 7), "at least 8. Received: 7 x 7"),
        (lambda: resize_input(tiny(), (20, 5)), "at least 8. Received: 20 x 5"),
        (lambda: resize_input(tiny(), 0), "Received: 0"),
        (lambda: resize_input(tiny(), "14"), "Received: '14'"),
        (lambda: resize_input(tiny(), (14, 14, 3)), "Received: (14, 14, 3)"),
        (lambda: resize_input(tiny(), 14.0), "Received: 14.0"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
