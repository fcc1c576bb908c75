"""Dense heads as convolutions and back, against the classifier on every window."""

import keras
import numpy as np
import pytest

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.layers import ReLU
from cnnkit.models.surgery import (
    to_classifier,
    to_fully_convolutional,
)
from tests.helpers.surgery_networks import (
    SIDE,
    STRIDE,
    assert_same_weights,
    assert_untouched,
    chain,
    frozen_copy,
    headless,
    images,
    small_alexnet,
    tiny,
)


def test_alexnet_says_the_same_as_convolutions(rng):
    model = small_alexnet()
    before = frozen_copy(model)
    network = to_fully_convolutional(model)
    assert network.input_shape == (None, None, None, 3)
    names = [layer.name for layer in model.layers if layer.name != "flatten"]
    assert [layer.name for layer in network.layers] == names
    assert {type(network.get_layer(name)) for name in ("fc6", "fc7", "fc8")} == {
        keras.layers.Conv2D
    }
    pixels = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    scores = np.asarray(network(pixels))
    assert scores.shape == (2, 1, 1, 5)
    assert np.ptp(scores) > 0.01
    np.testing.assert_allclose(scores[:, 0, 0], model(pixels), rtol=1e-5, atol=1e-6)
    # A sum of one at every position: the softmax is over the channels.
    larger = np.asarray(network(rng.uniform(0, 255, (1, 160, 96, 3)).astype("float32")))
    assert larger.shape == (1, 4, 2, 5)
    np.testing.assert_allclose(larger.sum(-1), 1, rtol=1e-5)
    assert_untouched(model, before)


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5), (7, 6, 5)])
@pytest.mark.parametrize("softmax", [True, False])
def test_a_map_of_scores_is_the_classifier_on_every_window(rng, hidden, softmax):
    model = tiny(hidden, softmax=softmax)
    network = to_fully_convolutional(model)
    image = images(rng, 24, 19)
    scores = np.asarray(network(image))
    assert scores.shape == (2, 6, 3, 4)
    for row in range(6):
        for column in range(3):
            top, left = row * STRIDE, column * STRIDE
            window = image[:, top : top + SIDE, left : left + SIDE]
            np.testing.assert_allclose(
                scores[:, row, column],
                model(window),
                rtol=1e-4,
                atol=1e-5,
                err_msg=f"{row, column}",
            )
    assert np.ptp(scores[0, :, :, 0]) > 1e-3


def test_maps_of_vgg_have_the_sides_of_the_paper():
    """Five padded blocks, each of which halves the sides; their widths do not matter."""
    layers = []
    for block in range(1, 6):
        layers.append(keras.layers.Conv2D(2, 3, padding="same", name=f"block{block}_conv1"))
        layers.append(keras.layers.MaxPooling2D(2, 2, name=f"block{block}_pool"))
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(n, name=k) for k, n in (("fc1", 3), ("fc2", 3), ("p", 4))]
    network = to_fully_convolutional(chain(*layers, side=224))
    assert network.get_layer("fc1").kernel_size == (7, 7)
    sides = {224: 1, 256: 2, 288: 3, 352: 5, 384: 6, 416: 7, 512: 10, 640: 14, 768: 18}
    for size, side in sides.items():
        assert network.compute_output_shape((1, size, 224, 3)) == (1, side, 1, 4)


def test_a_map_that_is_not_square_keeps_its_order(rng):
    """A map of 3 x 5 positions: swapped rows and columns would change the output."""
    model = chain(
        keras.layers.Conv2D(2, 3, name="conv1"), keras.layers.Flatten(), keras.layers.Dense(4),
        side=5, columns=7,
    )  # fmt: skip
    image = images(rng, 5, 7)
    network = to_fully_convolutional(model)
    np.testing.assert_allclose(network(image)[:, 0, 0], model(image), rtol=1e-5, atol=1e-6)
    back = to_classifier(network, (5, 7, 3))
    np.testing.assert_array_equal(back(image), model(image))


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_there_and_back_is_bit_exact(rng, hidden):
    model = tiny(hidden)
    network = to_fully_convolutional(model)
    before = frozen_copy(network)
    back = to_classifier(network, (SIDE, SIDE, 3))
    assert back.input_shape == model.input_shape
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert_same_weights(model, back)
    image = images(rng, SIDE, SIDE)
    np.testing.assert_array_equal(back(image), model(image))
    assert_untouched(network, before)


def test_alexnet_there_and_back():
    model = small_alexnet()
    back = to_classifier(to_fully_convolutional(model), (64, 64, 3))
    assert_same_weights(model, back)
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]


def test_other_layers_of_a_head(rng):
    """Dropout first, a separate ReLU, a fused softmax, normalization, no bias, a constraint."""
    model = chain(
        keras.layers.Conv2D(2, 3, name="conv1"),
        keras.layers.MaxPooling2D(2, name="pool1"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dropout(0.5, name="drop"),
        keras.layers.Dense(
            6, use_bias=False, kernel_constraint=keras.constraints.MaxNorm(0.5), name="fc6"
        ),
        keras.layers.BatchNormalization(axis=1, name="normal"),
        ReLU(name="relu"),
        keras.layers.Dense(3, activation="softmax", name="fc7"),
        side=8,
    )
    normal = model.get_layer("normal")
    normal.set_weights([rng.uniform(0.5, 2, 6).astype("float32") for _ in range(4)])
    image = images(rng, 8, 8)
    network = to_fully_convolutional(model)
    np.testing.assert_allclose(network(image)[:, 0, 0], model(image), rtol=1e-5, atol=1e-6)
    # The norm of a unit's weights is that of all of them, wherever they stand.
    fc6 = network.get_layer("fc6")
    wanted = model.get_layer("fc6").kernel_constraint(model.get_layer("fc6").kernel)
    found = np.reshape(fc6.kernel_constraint(fc6.kernel), (18, 6))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    back = to_classifier(network, (8, 8, 3))
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert back.get_layer("fc6").kernel_constraint.axis == 0
    np.testing.assert_array_equal(back(image), model(image))


def test_an_ordinary_convolution_before_the_head_can_be_kept(rng):
    """A 3 x 3 kernel over a 3 x 3 map could be a dense layer; `first` names the first one."""
    model = chain(
        keras.layers.Conv2D(4, 3, name="conv1"), keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(5, name="fc6"), keras.layers.Dense(2, name="fc7"), side=3,
    )  # fmt: skip
    network = to_fully_convolutional(model)
    image = images(rng, 3, 3)
    back = to_classifier(network, (3, 3, 3), first="fc6")
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert_same_weights(model, back)
    greedy = to_classifier(network, (3, 3, 3))
    assert greedy.layers[1].name == "flatten"
    np.testing.assert_allclose(greedy(image), model(image), rtol=1e-5, atol=1e-6)


def test_a_converted_network_saves_and_loads(rng, tmp_path):
    network = to_fully_convolutional(tiny())
    network.save(tmp_path / "model.keras")
    image = images(rng, 16, 18)
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(image), network(image))


def channels_first():
    flatten = keras.layers.Flatten(data_format="channels_first", name="f")
    return chain(flatten, keras.layers.Dense(2), side=4)


def mixed_head():
    return chain(
        keras.layers.Flatten(), keras.layers.Softmax(name="early"), keras.layers.Dense(2), side=4
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: to_fully_convolutional(channels_first()), "'f' takes the channels first"),
        (lambda: to_fully_convolutional(headless()), "no dense head. Expected: a Flatten"),
        (
            lambda: to_fully_convolutional(to_fully_convolutional(tiny())),
            "'chain' is fully convolutional already",
        ),
        (lambda: to_fully_convolutional(mixed_head()), "'early' of the dense head has no"),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (16, 16, 3)),
            "Expected: a map of 4 x 4. Received: 5 x 5 from an image of 16 x 16",
        ),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (13, 15, 3)),
            "height and width of at least 14. Received: 13 x 15",
        ),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (14, 14, 1)),
            "input_shape=(height, width, 3). Received: (14, 14, 1)",
        ),
        (lambda: to_classifier(tiny(), (14, 14, 3)), "has no convolutional head"),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (14, 14, 3), first="conv1"),
            "Received: first='conv1'",
        ),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (14, 14, 3), first="fc66"),
            "Unknown layer 'fc66'",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
