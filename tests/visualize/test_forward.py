"""The forward pass is that of the model; images that it refuses."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit import visualize
from cnnkit.errors import UsageError
from cnnkit.visualize import Box


@pytest.fixture(scope="module")
def images():
    images = np.random.default_rng(0).normal(size=(2, 13, 15, 3)).astype("float32")
    images[1, 2:9, 3:10] = 0.2
    return images


# conv1 returns 4 x 17 and pool1 2 x 8, and conv2 needs three rows.
SMALL = (8, 21)


LINE = "The image is too small: the window of layer 'conv2' does not fit. Received: 8 x 21."


def network():
    """A model over images of any size of at least 10 rows."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 5, activation="relu", name="conv1")(inputs)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(5, 3, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="fc3")(x))
    # So that every unit fires.
    model.set_weights([np.abs(weight) for weight in model.get_weights()])
    return model


CALLS = {
    "deconvnet": lambda model, images: visualize.deconvnet(model, images, "conv2"),
    "project": lambda model, images: visualize.project(model, images, "conv2", [(0, 0, 0, 1)]),
    "climb": lambda model, images: visualize.forward_steps(model, images, "conv2"),
    "field": lambda model, images: visualize.receptive_field(model, "conv2", images.shape[1:3]),
    "strongest": lambda model, images: visualize.find_top_activations(
        model, images, ["conv1", "conv2"]
    ),
    "top9": lambda model, images: visualize.top9(model, images, ["conv2"]),
    "layer2": visualize.second_layer_filters,
    "invariance": lambda model, images: visualize.invariance(model, images, "rotation"),
    "correspondence": lambda model, images: visualize.correspondence(
        model, images, {"eye": [Box(1, 1, 3, 3)] * 2}, ["conv2"]
    ),
    "occlusion": lambda model, images: visualize.occlusion(model, images[0], 4),
    "plain occlusion": lambda model, images: visualize.occlusion(
        model, images[0], 4, method="plain"
    ),
    "saliency": visualize.saliency,
    "smoothgrad": lambda model, images: visualize.smoothgrad(model, images, samples=2),
    "gradcam": visualize.gradcam,
    "gradcam below": lambda model, images: visualize.gradcam(model, images, layer="conv1"),
    "gradcam++": visualize.gradcam_plus_plus,
    "scorecam": visualize.scorecam,
    "compare": lambda model, images: visualize.compare_attributions(
        model, images[0], ["guided", "gradcam"]
    ),
    "maximization": lambda model, images: visualize.activation_maximization(
        model, "conv2", image_size=images.shape[1:3], steps=2
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_image_that_is_too_small_by_a_row_is_refused(name, rng):
    model, ask = network(), CALLS[name]
    large = rng.uniform(1, 255, (2, 10, 21, 3)).astype(np.float32)
    with pytest.raises(UsageError) as refused:
        ask(model, large[:, : SMALL[0]])
    assert str(refused.value) == LINE
    ask(model, large)


def test_either_side_may_be_too_small():
    with pytest.raises(UsageError, match="Received: 21 x 8"):
        visualize.deconvnet(network(), np.ones((21, 8, 3)), "conv2")
