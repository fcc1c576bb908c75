"""The network of a user, whatever its structure, is explained as it answers itself.

The truth is the user's own model: its outputs, and their gradients by a tape.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit.errors import UsageError
from cnnkit.models.class_names import class_count
from cnnkit.visualize import (
    activation_maximization,
    compare_attributions,
    gradcam,
    invariance,
    occlusion,
    saliency,
)
from tests.visualize.attribution.networks import SHAPE, body

CLASSES = 3


def body_model():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layers.Flatten()(body(inputs)), name="body")


def functional():
    inputs = keras.Input(SHAPE)
    x = layers.Flatten()(body(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax", name="top")(x))


def sequential():
    return keras.Sequential([
        keras.Input(SHAPE), layers.Rescaling(1 / 64), layers.Conv2D(5, 3, activation="relu"),
        layers.MaxPooling2D(2), layers.Conv2D(6, 3, activation="relu", name="conv2"),
        layers.Flatten(), layers.Dense(CLASSES, name="top"), layers.Softmax(),
    ])  # fmt: skip


def nested():
    return keras.Sequential([
        keras.Input(SHAPE), layers.Rescaling(0.5), functional(),
    ])  # fmt: skip


def softmax_below():
    """A pretrained classifier below a head of its own: its softmax is a layer as any other."""
    inputs = keras.Input(SHAPE)
    x = layers.Dense(10, name="below")(layers.Flatten()(body(inputs)))
    # Several classes are possible, so that the softmax passes a gradient.
    x = layers.Softmax()(layers.Rescaling(0.02)(x))
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax", name="top")(x))


def fused_softmax_below():
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(0.02)(layers.Flatten()(body(inputs)))
    x = layers.Dense(10, "softmax", name="below")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, "softmax", name="top")(x))


def softmax_twice():
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(0.02)(layers.Flatten()(body(inputs)))
    return keras.Model(inputs, layers.Softmax()(layers.Dense(CLASSES, "softmax", name="top")(x)))


def spatial_softmax():
    """A softmax over the channels of the maps."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, name="maps")(layers.Rescaling(1 / 64)(inputs))
    x = layers.Softmax(name="attention")(x)
    x = layers.Dense(CLASSES, name="top")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Activation("softmax")(x))


def second_head(activation="softmax"):
    """An inner model with two outputs, of which the first one is not used."""
    inner = keras.Input(SHAPE)
    features = body_model()(inner)
    unused = layers.Dense(CLASSES, "softmax", name="head0")(features)
    used = layers.Dense(CLASSES, activation, name="head1")(features)
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, keras.Model(inner, [unused, used], name="two")(inputs)[1])


def first_head():
    """As before, but the second one is not used."""
    inner = keras.Input(SHAPE)
    features = body_model()(inner)
    heads = [layers.Dense(CLASSES, "softmax", name=f"head{n}")(features) for n in range(2)]
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, keras.Model(inner, heads, name="two")(inputs)[0])


def multi_label():
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(0.1)(layers.Flatten()(body(inputs)))
    return keras.Model(inputs, layers.Dense(CLASSES, "sigmoid", name="top")(x))


def one_sigmoid():
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(0.1)(layers.Flatten()(body(inputs)))
    return keras.Model(inputs, layers.Activation("sigmoid")(layers.Dense(1, name="top")(x)))


NETWORKS = {
    "functional": functional,
    "sequential": sequential,
    "nested": nested,
    "softmax below": softmax_below,
    "fused softmax below": fused_softmax_below,
    "softmax twice": softmax_twice,
    "softmax of maps": spatial_softmax,
    "first head": first_head,
    "second head": second_head,
    "sigmoids of a head": lambda: second_head("sigmoid"),
    "sigmoids": multi_label,
    "one sigmoid": one_sigmoid,
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    keras.utils.set_random_seed(6)
    return NETWORKS[request.param]()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(0, 255, (4, *SHAPE)).astype("float32")


def answers(model, images):
    """Probabilities of the classes by the model itself, and whether they add up to 1."""
    outputs = tf.convert_to_tensor(model(images))
    if outputs.shape[-1] == 1:
        return tf.concat([1 - outputs, outputs], axis=-1), False
    return outputs, bool(np.allclose(tf.reduce_sum(outputs, axis=-1), 1, atol=1e-4))


def contrast(model, x):
    """What a model says for class 1 against class 0, or against not being of class 1."""
    probabilities, exclusive = answers(model, x)
    one = probabilities[:, 1]
    return tf.math.log(one) - tf.math.log(probabilities[:, 0] if exclusive else 1 - one), exclusive


def test_the_gradient_is_that_of_the_model(network, images):
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values, exclusive = contrast(network, x)
    expected = tape.gradient(values, x).numpy()
    ours, others = saliency(network, images, 1), saliency(network, images, 0)
    got = np.stack([one.gradient for one in ours])
    scores = np.array([one.score for one in ours])
    if exclusive:
        got = got - [one.gradient for one in others]
        scores = scores - [one.score for one in others]
    assert np.abs(expected).max() > 1e-7
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got / scale, expected / scale, atol=2e-3)
    np.testing.assert_allclose(scores, values, rtol=1e-3, atol=1e-3)


def test_the_default_class_is_that_of_the_model(network, images):
    expected = answers(network, images)[0].numpy().argmax(axis=1)
    assert [one.target for one in saliency(network, images)] == expected.tolist()
    assert [one.target for one in gradcam(network, images)] == expected.tolist()
    found = invariance(network, images, "translation", amounts=[0, 3], layers=[])
    assert found.labels.tolist() == expected.tolist()


def test_the_probabilities_are_those_of_the_model(network, images):
    """Brute force: every covered, and every translated image passes through the model."""
    image = images[0]
    for method in ("plain", "incremental"):
        maps = occlusion(network, image, square=9, stride=7, fill=100, method=method, target=1)
        covered = []
        for row in maps.rows:
            for column in maps.columns:
                one = image.copy()
                one[row : row + 9, column : column + 9] = 100
                covered.append(one)
        expected = answers(network, np.stack(covered))[0].numpy()
        np.testing.assert_allclose(maps.probability.ravel(), expected[:, 1], atol=2e-5)
        assert maps.label.ravel().tolist() == expected.argmax(axis=1).tolist()
    moved = np.full_like(image, 128)
    moved[3:] = image[:-3]
    found = invariance(network, image, "translation", amounts=[0, 3], layers=[], labels=[1])
    expected = answers(network, np.stack([image, moved]))[0].numpy()
    np.testing.assert_allclose(found.probabilities[0], expected[:, 1], atol=2e-5)


def test_the_comparison_is_of_the_model(network, images):
    x = tf.constant(images[:1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        values, exclusive = contrast(network, x)
    expected = tape.gradient(values, x).numpy()[0]
    maps = [
        compare_attributions(network, images[0], ["gradient"], target, down_to=[]).maps[0]
        for target in (1, 0)
    ]
    got = maps[0] - maps[1] if exclusive else maps[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got / scale, expected / scale, atol=2e-3)


def test_maps_below_a_softmax_of_maps(images):
    """The maps of a softmax are its outputs, and the classes are computed from them."""
    keras.utils.set_random_seed(6)
    model = spatial_softmax()
    part = keras.Model(model.input, model.get_layer("attention").output)
    maps = part(images)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        score = (model.get_layer("top")(tf.reshape(maps, (len(images), -1))))[:, 2]
    weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
    expected = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()
    results = gradcam(model, images, 2, layer="attention")
    np.testing.assert_allclose([one.grid for one in results], expected, rtol=1e-3, atol=1e-7)
    occluded = occlusion(model, images[0], 9, 9, layer="attention", unit=1)
    assert occluded.clean_activity == pytest.approx(float(maps.numpy()[0, ..., 1].sum()), rel=1e-4)


def test_maximization_is_of_the_logits_of_the_model():
    keras.utils.set_random_seed(6)
    model = softmax_below()
    top = model.get_layer("top")
    [result] = activation_maximization(model, unit=2, steps=2)
    below = keras.Model(model.input, top.input)(result.image[None])
    assert result.activation == pytest.approx(float((below @ top.kernel + top.bias)[0, 2]), 1e-4)


def test_one_output_is_two_classes(images):
    keras.utils.set_random_seed(6)
    model = one_sigmoid()
    assert class_count(model) == 2
    for no, yes in zip(saliency(model, images, 0), saliency(model, images, "1"), strict=True):
        assert no.score == -yes.score
        np.testing.assert_array_equal(no.gradient, -yes.gradient)
    with pytest.raises(UsageError, match="has no class 2. Expected: 0 to 1"):
        saliency(model, images, 2)


def test_several_outputs_are_refused(images):
    inputs = keras.Input(SHAPE)
    x = layers.Flatten()(body(inputs))
    heads = {name: layers.Dense(2, "softmax", name=name)(x) for name in ("cat", "dog")}
    for outputs in (heads, list(heads.values())):
        model = keras.Model(inputs, outputs)
        for ask in (
            lambda: saliency(model, images),  # noqa: B023
            lambda: saliency(model, images, 1),  # noqa: B023
            lambda: occlusion(model, images[0]),  # noqa: B023
            lambda: invariance(model, images, "scale", labels=[0] * 4),  # noqa: B023
            lambda: activation_maximization(model, unit=1),  # noqa: B023
            lambda: compare_attributions(model, images[0]),  # noqa: B023
        ):
            with pytest.raises(UsageError, match="must have one output.*Choose one: keras.Model"):
                ask()


def test_an_activation_inside_of_a_layer_is_refused(images):
    """It cannot be left out, so there are no logits; it is not taken for them."""

    class Own(layers.Dense):
        def call(self, inputs):
            return keras.ops.softmax(inputs @ self.kernel + self.bias)

    inputs = keras.Input(SHAPE)
    x = layers.Flatten()(body(inputs))
    model = keras.Model(inputs, Own(CLASSES, "softmax", name="own")(x))
    for ask in (lambda: saliency(model, images), lambda: occlusion(model, images[0], 9)):
        with pytest.raises(UsageError, match="activation of layer 'own' cannot be separated"):
            ask()
