"""The forward pass is that of the model; images that it refuses."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit import visualize
from cnnkit.errors import DataError, UsageError
from cnnkit.models.graph import build_graph
from cnnkit.visualize import Box
from cnnkit.visualize.forward import check_weights, forward_to, require_windows

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


class TwoOutputs(keras.layers.Layer):
    """A layer of a user with a constant argument and a dict of outputs."""

    def call(self, x, scale=1.0, training=None):
        return {"b": x * scale, "a": keras.ops.relu(x) + (1 if training else 0)}


def two_views_of_one_inner_model(inputs):
    inside = keras.Input((12, 12, 3))
    inner = keras.Model(inside, layers.Conv2D(4, 3, activation="tanh")(inside))
    flipped = inputs[:, ::-1]
    return layers.Concatenate(name="end")([inner(inputs), inner(flipped)])


def outputs_of_a_dict(inputs):
    made = TwoOutputs(name="two")(layers.Conv2D(4, 3)(inputs), scale=3.0)
    return layers.Subtract(name="end")([made["a"], made["b"]])


def attention(inputs):
    x = layers.Reshape((-1, 8))(layers.Conv2D(8, 4, strides=4)(inputs))
    x, scores = layers.MultiHeadAttention(2, 4)(x, x, return_attention_scores=True)
    x = layers.LayerNormalization()(x) * keras.ops.mean(scores)
    return layers.Reshape((3, 3, 8), name="end")(x)


def training_in_the_graph(inputs):
    x = layers.BatchNormalization()(layers.GaussianNoise(0.9)(inputs, training=True), training=True)
    return layers.Dropout(0.5, name="end")(x, training=True)


def another_dtype(inputs):
    x = layers.Conv2D(4, 3, dtype="mixed_float16")(inputs)
    return layers.Activation(lambda x: x * 2, dtype="float32", name="end")(x)


@pytest.mark.parametrize(
    "build",
    [two_views_of_one_inner_model, outputs_of_a_dict, attention, training_in_the_graph,
     another_dtype],
)  # fmt: skip
def test_the_forward_pass_is_that_of_predict(build, rng):
    """The layers are called one by one as the graph says, with its constants and structures."""
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, build(inputs))
    images = rng.uniform(-1, 1, (3, 12, 12, 3)).astype(np.float32)
    graph = build_graph(model)
    [found] = forward_to(graph.nodes, images, [graph.node("end")])
    np.testing.assert_allclose(found, model(images, training=False).numpy(), atol=1e-6)
    found = visualize.find_top_activations(model, images, ["end"], 1)["end"].values[:, 0]
    expected = model(images, training=False).numpy().max(axis=(0, 1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_of_several_outputs_is_named():
    inputs = keras.Input((12, 12, 3))
    graph = build_graph(keras.Model(inputs, outputs_of_a_dict(inputs)))
    with pytest.raises(UsageError, match="'two' has 2 outputs. Expected: one of two:0 to two:1"):
        graph.node("two")
    assert graph.node("two:1").inputs == (graph.node("end").inputs[0] - 1,)


def test_weights_behind_integers_are_checked_too():
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", name="n")
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

        def call(self, x):
            return self.scale * x

    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, Counting(name="counting")(inputs))
    nodes = build_graph(model).nodes
    check_weights(nodes)
    model.get_layer("counting").scale.assign(np.nan)
    with pytest.raises(DataError, match="Layer 'counting' has weights that are not finite"):
        check_weights(nodes)


def test_the_windows_of_a_layer_of_a_user_are_unknown():
    inputs = keras.Input((12, 12, 3))
    graph = build_graph(keras.Model(inputs, layers.Lambda(lambda x: x, name="own")(inputs)))
    with pytest.raises(UsageError, match="The windows of layer 'own' are unknown"):
        require_windows(graph.node("own"))


def test_branches_have_no_layerwise_deconvnet():
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(3, 3, padding="same", name="c")
    model = keras.Model(inputs, layers.Add(name="end")([x(inputs), x(inputs / 2.0)]))
    with pytest.raises(UsageError, match="'end' has no step in the layer-by-layer deconvnet"):
        visualize.forward_steps(model, np.ones((1, 12, 12, 3)), "end")
