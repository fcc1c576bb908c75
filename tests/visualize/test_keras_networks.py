"""Networks as Keras users build them, in every function: the right number, or refused in one line.

The truth is the user's own model: its answers, a gradient tape, every covered or masked image.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.special import expit, softmax

from cnnkit import visualize
from cnnkit.errors import UsageError
from cnnkit.features import FeatureExtractor, FeatureSpec
from tests.helpers.interpolation import interpolated


@dataclass(frozen=True)
class Network:
    """A user's model, and the same as functions.

    Attributes:
        model: The model.
        layer: Name of a layer of maps.
        run: Function of images to the maps of the layer and the logits of the model.
        relu: Whether a ReLU is part of the layer.
        projects: Whether the deconvnet reaches the image from the layer.
    """

    model: keras.Model
    layer: str
    run: Callable
    relu: bool = True
    projects: bool = True

    @property
    def images(self):
        shape = (2, *self.model.input_shape[1:])
        return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")

    def probabilities(self, images):
        """The answers; of one output those of no and yes."""
        answers = self.model(images, training=False).numpy()
        if answers.shape[1] == 1:
            yes = answers if self.ends_in("sigmoid") else expit(answers)
            return np.concatenate([1 - yes, yes], axis=1)
        is_final = self.ends_in("sigmoid") or self.ends_in("softmax")
        return answers if is_final else softmax(answers, axis=1)

    def ends_in(self, name):
        last = self.model.outputs[0]._keras_history.operation
        return name in (type(last).__name__.lower(), getattr(last, "name", ""))


def conv(filters, side, **options):
    """A convolution that fires for the noise of activation maximization."""
    return layers.Conv2D(filters, side, bias_initializer=keras.initializers.Constant(1), **options)


def network(inputs, x, maps, logits, **options):
    keras.utils.set_random_seed(1)
    model = keras.Model(inputs, x)
    both = keras.Model(inputs, [maps, logits])
    layer = maps._keras_history.operation.name
    return Network(model, layer, functools.partial(both, training=False), **options)


def augmented():
    """A sequential model with augmentation, resizing and batch normalization."""
    model = keras.Sequential([
        keras.Input((20, 26, 3)), layers.RandomFlip(), layers.RandomRotation(0.2),
        layers.Resizing(24, 24), layers.Rescaling(1 / 255), conv(4, 3),
        layers.BatchNormalization(), layers.Activation("relu"), layers.MaxPooling2D(),
        conv(6, 3, activation="relu", name="maps"), layers.Dropout(0.5),
        layers.GlobalAveragePooling2D(), layers.Dense(3, name="logits"), layers.Softmax(),
    ])  # fmt: skip
    ends = [model.get_layer(name).output for name in ("maps", "logits")]
    both = keras.Model(model.inputs[0], ends)
    return Network(model, "maps", functools.partial(both, training=False))


def gray():
    """Gray images, one logit."""
    inputs = keras.Input((28, 28, 1))
    x = layers.MaxPooling2D()(conv(4, 3, activation="relu", name="first")(inputs / 255.0))
    maps = conv(5, 3, activation="relu", name="maps")(x)
    logit = layers.Dense(1)(layers.Flatten()(maps))
    return network(inputs, logit, maps, logit)


def pooled_at_the_end():
    """No squares; the logits are means of maps."""
    inputs = keras.Input((18, 30, 3))
    maps = conv(5, 3, name="maps")(conv(4, 3, activation="relu", name="first")(inputs / 255.0))
    logits = layers.GlobalAveragePooling2D()(maps)
    return network(inputs, logits, maps, logits, relu=False)


def sigmoids():
    """Operations of Keras and activations of TensorFlow; dropout that is asked for in the graph."""
    inputs = keras.Input((18, 18, 3))
    x = conv(4, 3, activation=tf.nn.relu, name="first")(inputs / 127.5 - 1.0)
    maps = conv(5, 3, activation=tf.nn.relu, name="maps")(keras.ops.relu(x))
    x = layers.Dropout(0.5)(layers.GlobalMaxPooling2D()(maps), training=True)
    logits = layers.Dense(3)(x)
    return network(inputs, layers.Activation("sigmoid", name="sigmoid")(logits), maps, logits)


def nested():
    """Transfer learning: preprocessing and augmentation before an inner model, a head above it."""
    inside = keras.Input((24, 24, 3))
    x = conv(4, 3, activation="relu", name="first")(inside)
    x = conv(6, 3, activation="relu", name="maps")(layers.MaxPooling2D()(x))
    inner = keras.Model(inside, layers.MaxPooling2D()(x), name="backbone")
    inputs = keras.Input((24, 24, 3))
    x = keras.applications.vgg16.preprocess_input(layers.RandomZoom(0.2)(inputs))
    below = keras.Model(inputs, x)
    logits = layers.Dense(3, name="logits")
    top = inner(x, training=False)
    model = keras.Model(inputs, layers.Softmax()(logits(layers.Flatten()(top))))
    to_maps = keras.Model(inner.inputs[0], inner.get_layer("maps").output)
    above = keras.Model(inner.get_layer("maps").output, inner.output)

    def run(images):
        maps = to_maps(below(images, training=False))
        return maps, logits(layers.Flatten()(above(maps)))

    return Network(model, "maps", run)


def upsampling():
    """Separable and transposed convolutions, upsampling, reshaping."""
    inputs = keras.Input((16, 16, 3))
    x = layers.SeparableConv2D(6, 3, strides=2, activation="silu", name="first")(inputs / 255.0)
    maps = layers.Conv2DTranspose(5, 3, strides=2, activation="relu", name="maps")(x)
    x = layers.Reshape((-1, 5))(layers.UpSampling2D()(maps))
    logits = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    return network(inputs, logits, maps, logits, projects=False)


def gated():
    """A gate over the whole map, a split, a mean and a softmax of `keras.ops`."""
    inputs = keras.Input((16, 18, 3))
    x = conv(6, 3, activation="relu", name="first")(inputs - 128.0)
    gate = layers.Conv2D(6, 1, activation="sigmoid")(
        layers.GlobalAveragePooling2D(keepdims=True)(x)
    )
    one, other = keras.ops.split(x * gate, 2, axis=-1)
    maps = layers.Multiply(name="maps")([one, other])
    logits = layers.Dense(3)(keras.ops.mean(maps, axis=(1, 2)))
    return network(
        inputs, keras.ops.softmax(logits), maps, logits, relu=False, projects=False
    )  # fmt: skip


NETWORKS = (augmented, gray, pooled_at_the_end, sigmoids, nested, upsampling, gated)


@pytest.fixture(params=NETWORKS, ids=lambda build: build.__name__, scope="module")
def user(request):
    keras.utils.set_random_seed(1)
    return request.param()


def taped(user, images):
    """A tape, the pixels, the maps, and (n, classes) logits; of one output those of no and yes."""
    pixels = tf.constant(images)
    tape = tf.GradientTape(persistent=True)
    with tape:
        tape.watch(pixels)
        maps, logits = user.run(pixels)
        if logits.shape[1] == 1:
            logits = tf.concat([-logits, logits], axis=1)
        scores = tf.unstack(logits, axis=1)
    return tape, pixels, maps, scores


def test_saliency_is_the_gradient_of_the_model(user):
    tape, pixels, _, scores = taped(user, user.images)
    expected = tape.gradient(scores[1], pixels).numpy()
    assert expected.any()
    for one, gradient in zip(visualize.saliency(user.model, user.images, 1), expected, strict=True):
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(one.gradient, gradient, atol=1e-4 * scale)


def test_gradcam_is_its_formula(user):
    tape, _, maps, scores = taped(user, user.images)
    weights = tf.reduce_mean(tape.gradient(scores[1], maps), axis=(1, 2), keepdims=True)
    expected = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()
    found = visualize.gradcam(user.model, user.images, 1, user.layer)
    scale = np.abs(expected).max() + 1e-9
    np.testing.assert_allclose([one.grid for one in found], expected, atol=1e-4 * scale)
    assert visualize.gradcam_plus_plus(user.model, user.images, 1, user.layer)


def test_scorecam_masks_the_image(user):
    image = user.images[:1]
    maps = user.run(image)[0].numpy()[0]
    expected = 0
    for k in range(maps.shape[2]):
        mask = interpolated(maps[..., k], image.shape[1:3])
        mask = (mask - mask.min()) / (np.ptp(mask) or 1)
        probability = user.probabilities(image * mask[..., None].astype("float32"))[0, 1]
        expected = expected + probability * maps[..., k]
    [one] = visualize.scorecam(user.model, image, 1, user.layer)
    np.testing.assert_allclose(one.grid, np.maximum(expected, 0), rtol=1e-3, atol=1e-5)


def test_occlusion_is_the_answer_for_the_covered_image(user):
    image = user.images[0]
    found = visualize.occlusion(user.model, image, 8, 7, target=1, layer=user.layer)
    covered = np.repeat(image[None], found.probability.size, axis=0)
    for one, (row, column) in zip(
        covered, itertools.product(found.rows, found.columns), strict=True
    ):
        one[row : row + 8, column : column + 8] = found.fill
    expected = user.probabilities(covered)[:, 1]
    np.testing.assert_allclose(found.probability.ravel(), expected, atol=1e-5)
    maps = user.run(covered)[0].numpy()[..., found.unit].sum(axis=(1, 2))
    np.testing.assert_allclose(found.activity.ravel(), maps, rtol=1e-3, atol=1e-3)


def test_top_activations_are_the_largest_values(user):
    maps = user.run(user.images)[0].numpy()
    found = visualize.find_top_activations(user.model, user.images, [user.layer], 2)[user.layer]
    expected = np.sort(maps.max(axis=(1, 2)), axis=0)[::-1].T
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-4)


def test_an_optimized_image_has_the_activation_that_is_said(user):
    [one] = visualize.activation_maximization(user.model, user.layer, 1, steps=3)
    seen = user.run(one.image[None])[0].numpy()[(0, *one.position, 1)]
    said = max(one.activation, 0) if user.relu else one.activation
    np.testing.assert_allclose(seen, said, rtol=1e-3, atol=1e-4)


def test_invariance_is_the_answer_for_the_transformed_image(user):
    image, amounts = user.images[0], [0, 3]
    found = visualize.invariance(
        user.model, image, "translation", amounts=amounts, layers=[user.layer]
    )
    moved = [visualize.transform_image(image, "translation", amount) for amount in amounts]
    answers = user.probabilities(np.stack(moved))
    np.testing.assert_allclose(found.probabilities[0], answers[:, found.labels[0]], atol=1e-5)
    maps = user.run(np.stack(moved))[0].numpy().reshape(2, -1)
    distance = np.linalg.norm(maps[1] - maps[0])
    np.testing.assert_allclose(found.distances[0, 0, 1], distance, rtol=1e-3)


def test_features_are_the_maps(user):
    height, width, channels = user.model.input_shape[1:]
    side = max(height, width)
    square = np.random.default_rng(3).uniform(0, 255, (2, side, side, 3)).astype("float32")
    top, left = (side - height) // 2, (side - width) // 2
    fitted = square[:, top : top + height, left : left + width]
    if channels == 1:
        fitted = fitted @ np.array([[0.299], [0.587], [0.114]], "float32")
    expected = user.run(fitted)[0].numpy().reshape(2, -1)
    spec = FeatureSpec(layer=user.layer, l2=False)
    [found] = FeatureExtractor(user.model, spec)([square])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)
    with pytest.raises(UsageError, match=rf"Expected: \(n, {side}, {side}, 3\)"):
        FeatureExtractor(user.model, spec)([square[:, 1:]])


def test_a_projection_is_the_gradient_or_refused(user):
    tape, pixels, maps, _ = taped(user, user.images[:1])
    [one] = visualize.deconvnet(user.model, user.images[:1], user.layer, 1, rule="gradient")
    with tape:
        activation = maps[(0, *one.position, 1)]
    expected = tape.gradient(activation, pixels)[0].numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(one.projection, expected, atol=1e-4 * scale)
    outside = np.ones(expected.shape[:2], bool)
    outside[one.box.slices] = False
    assert not expected[outside].any()
    if user.projects:
        assert visualize.deconvnet(user.model, user.images, user.layer)[0].projection.any()
        assert visualize.top9(user.model, user.images, [user.layer], 2, units=[1])
        return
    for call in (visualize.deconvnet, lambda *args: visualize.top9(*args[:2], [args[2]])):
        with pytest.raises(UsageError, match=r"^Layer '\w+' does not support .* saliency") as error:
            call(user.model, user.images, user.layer)
        assert "\n" not in str(error.value)


def test_comparison_correspondence_and_filters(user):
    image = user.images[0]
    seen = visualize.compare_attributions(
        user.model, image, ["saliency", "gradcam"], 1, layer=user.layer
    )
    np.testing.assert_array_equal(seen.maps[0], visualize.saliency(user.model, image, 1)[0].map)
    boxes = {"part": [visualize.Box(1, 1, 6, 6)] * 2}
    found = visualize.correspondence(user.model, user.images, boxes, [user.layer], draws=1)
    assert found[user.layer].units == np.prod(user.run(user.images)[0].shape[1:])
    if not any(isinstance(one, layers.SeparableConv2D) for one in user.model.layers):
        kernels = visualize.filters(user.model).kernels
        assert kernels.shape[-1] == user.model.input_shape[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "ResNet50", "DenseNet121"])
def test_networks_of_keras_applications(name):
    keras.utils.set_random_seed(1)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(64, 64, 3), classes=3, classifier_activation=None)
    maps = [one.output for one in model.layers if len(getattr(one.output, "shape", ())) == 4]
    end = maps[len(maps) // 2]
    both = keras.Model(model.inputs[0], [end, model.output])
    layer = end._keras_history.operation.name
    relu = "relu" in str(model.get_layer(layer).get_config().get("activation"))
    user = Network(model, layer, functools.partial(both, training=False), relu)
    test_saliency_is_the_gradient_of_the_model(user)
    test_gradcam_is_its_formula(user)
    test_top_activations_are_the_largest_values(user)
    test_invariance_is_the_answer_for_the_transformed_image(user)
    test_features_are_the_maps(user)
    found = visualize.occlusion(model, user.images[0], 32, 32, target=1)
    covered = np.repeat(user.images[:1], 4, axis=0)
    for one, (row, column) in zip(covered, itertools.product((0, 32), (0, 32)), strict=True):
        one[row : row + 32, column : column + 32] = found.fill
    np.testing.assert_allclose(
        found.probability.ravel(), user.probabilities(covered)[:, 1], atol=1e-5
    )
    if name in ("ResNet50", "DenseNet121"):
        assert visualize.deconvnet(model, user.images[:1], layer)[0].projection.shape == (64, 64, 3)
    else:
        with pytest.raises(UsageError, match="does not support the backward rule 'deconvnet'"):
            visualize.deconvnet(model, user.images[:1], layer)
