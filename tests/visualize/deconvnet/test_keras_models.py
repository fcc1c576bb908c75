"""The deconvnet through Keras's own models: fused ReLUs, several paths."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit.cli.main import main
from cnnkit.errors import DataError, UsageError
from cnnkit.layers import ReLU
from cnnkit.visualize import deconvnet, receptive_field
from tests.visualize.occlusion.networks import normalized

RULES = ("deconvnet", "guided", "gradient")


@pytest.fixture(scope="module")
def images():
    images = np.random.default_rng(0).normal(size=(2, 13, 15, 3)).astype("float32")
    images[1, 2:9, 3:10] = 0.2
    return images


def fused(relu):
    """A ReLU inside the layer."""
    return relu, lambda x: x


def separate(make):
    """A ReLU in a separate layer."""
    return lambda: None, lambda x: make()(x)


SPELLINGS = {
    "ours": fused(ReLU),
    "fused": fused(lambda: "relu"),
    "function": fused(lambda: tf.nn.relu),
    "layer as activation": fused(keras.layers.ReLU),
    "layer": separate(keras.layers.ReLU),
    "activation": separate(lambda: layers.Activation("relu")),
    "our layer": separate(ReLU),
}


def net(activation, after, top="softmax"):
    keras.utils.set_random_seed(4)
    inputs = keras.Input((13, 15, 3))
    x = after(layers.Conv2D(6, 3, activation=activation(), bias_initializer="uniform")(inputs))
    x = layers.MaxPooling2D(3, 2)(x)
    x = after(layers.Conv2D(6, 3, padding="same", groups=2, activation=activation())(x))
    x = after(layers.Conv2D(4, 3, padding="same", activation=activation(), name="last")(x))
    x = after(layers.Dense(5, activation=activation(), name="fc1")(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(3, activation=top, name="predictions")(x))


@pytest.fixture(scope="module")
def expected(images):
    model = net(*SPELLINGS["ours"])
    return {rule: deconvnet(model, images, "predictions", [0, 2], rule=rule) for rule in RULES}


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if name != "ours"])
def test_every_spelling_of_a_relu_follows_the_rule(images, expected, spelling):
    model = net(*SPELLINGS[spelling])
    seen = {}
    for rule in RULES:
        results = deconvnet(model, images, "predictions", [0, 2], rule=rule)
        for one, other in zip(results, expected[rule], strict=True):
            assert one.activation == pytest.approx(other.activation, abs=1e-6)
            np.testing.assert_allclose(one.projection, other.projection, atol=1e-6)
        seen[rule] = results[0].projection
    assert np.abs(seen["deconvnet"] - seen["guided"]).max() > 1e-3
    assert np.abs(seen["guided"] - seen["gradient"]).max() > 1e-3


def test_a_fused_softmax_is_skipped(images):
    with_softmax, without = (net(*SPELLINGS["fused"], top=top) for top in ("softmax", None))
    for one, other in zip(
        deconvnet(with_softmax, images, "predictions"),
        deconvnet(without, images, "predictions"),
        strict=True,
    ):
        assert (one.unit, one.activation) == (other.unit, other.activation)
        np.testing.assert_array_equal(one.projection, other.projection)


def residual(relu):
    """Two paths that are added, two that are concatenated, batch normalization between."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((13, 15, 3))
    x = relu()(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(inputs)))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
    x = relu()(layers.Add()([x, y]))
    x = layers.Concatenate()([layers.AveragePooling2D(2)(x), layers.MaxPooling2D(2)(x)])
    inner = keras.Input((3, 3, 8))
    block = keras.Model(inner, relu()(layers.Conv2D(5, 2, name="inside")(inner)), name="block")
    x = block(x)
    model = keras.Model(inputs, layers.Dense(3, name="top")(layers.GlobalMaxPooling2D()(x)))
    random = np.random.default_rng(6)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    return model


def residual_by_hand(model, images, unit):
    """The same model in plain TensorFlow, each ReLU with the deconvnet's rule."""

    @tf.custom_gradient
    def relu(x):
        return tf.nn.relu(x), tf.nn.relu

    def norm(x, layer):
        gamma, beta, mean, variance = layer.get_weights()
        return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta

    block = model.get_layer("block")
    conv1, conv2 = (one for one in model.layers if isinstance(one, layers.Conv2D))
    norm1, norm2 = (one for one in model.layers if isinstance(one, layers.BatchNormalization))
    with tf.GradientTape() as tape:
        pixels = tf.constant(images)
        tape.watch(pixels)
        x = relu(norm(conv1(pixels), norm1))
        x = relu(x + norm(conv2(x), norm2))
        x = tf.concat([tf.nn.avg_pool2d(x, 2, 2, "VALID"), tf.nn.max_pool2d(x, 2, 2, "VALID")], -1)
        x = relu(block.get_layer("inside")(x))
        # Positions are distinct except in dead maps, whose first position counts.
        flat = tf.reshape(x, (len(images), -1, 5))
        x = tf.gather(flat, tf.argmax(flat, axis=1), axis=1, batch_dims=1)
        x = tf.linalg.diag_part(x)
        score = tf.reduce_sum((x @ model.get_layer("top").kernel)[:, unit])
    return tape.gradient(score, pixels).numpy()


@pytest.mark.parametrize("relu", [ReLU, keras.layers.ReLU])
def test_several_paths_and_nested_models(images, relu):
    model = residual(relu)
    results = deconvnet(model, images, "top", unit=1)
    expected = residual_by_hand(model, images, 1)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose([r.projection for r in results], expected, atol=1e-5)
    [inside] = deconvnet(model, images[0], "inside", 0, (1, 1))
    assert inside.projection.any()


def test_sequential_models(images):
    stages = [layers.Conv2D(4, 3, activation="relu", name="c"), layers.MaxPooling2D(2, name="p")]
    sequential = keras.Sequential([keras.Input((13, 15, 3)), *stages])
    functional = keras.Model(sequential.inputs, sequential.outputs)
    for one, other in zip(
        deconvnet(sequential, images, "p"), deconvnet(functional, images, "p"), strict=True
    ):
        np.testing.assert_array_equal(one.projection, other.projection)
    with pytest.raises(UsageError, match="built"):
        deconvnet(keras.Sequential([layers.Conv2D(4, 3)]), images, "c")


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_max_pooling_credits_the_first_of_equals(keepdims):
    inputs = keras.Input((4, 4, 1))
    pooled = layers.GlobalMaxPooling2D(keepdims=keepdims, name="pool")(inputs)
    # A layer behind it that needs the shape which `keepdims` gives.
    top = layers.Conv2D(1, 1, name="top") if keepdims else layers.Dense(1, name="top")
    model = keras.Model(inputs, top(pooled))
    top.set_weights([np.ones_like(top.kernel), np.zeros(1)])
    image = np.zeros((4, 4, 1))
    image[1, 3] = image[2, 0] = 1
    [result] = deconvnet(model, image, "top", 0)
    assert np.argwhere(result.projection).tolist() == [[1, 3, 0]]
    assert result.projection.sum() == 1


def test_keras_vgg16_itself(rng):
    model = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = rng.uniform(-100, 100, (1, 32, 32, 3)).astype("float32")
    before = model.predict(images, verbose=0)
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    variables = [id(variable) for variable in model.variables]
    # Every convolution pooled, so the rules differ between the convolutions of a block.
    one, other = (
        deconvnet(model, images, "block3_conv3", 0, rule=rule)[0].projection
        for rule in ("deconvnet", "guided")
    )
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()
    [top] = deconvnet(model, images, "predictions")
    assert top.unit == before.argmax()
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    assert [id(variable) for variable in model.variables] == variables
    assert [
        layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")
    ] == ["relu"] * 15 + ["softmax"]


def test_the_model_is_not_changed(images, tmp_path):
    model, fresh = net(*SPELLINGS["fused"]), net(*SPELLINGS["fused"])
    before = model.to_json()
    for rule in RULES:
        deconvnet(model, images, "predictions", rule=rule)
    assert model.to_json() == before
    # Gradients and steps afterwards equal those of a model without a deconvnet.
    gradients = []
    for one in (model, fresh):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(one(images, training=True)[:, 0])
        gradients.append(tape.gradient(loss, one.trainable_variables))
        one.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        one.fit(images, np.array([0, 1]), epochs=2, verbose=0, shuffle=False)
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(model.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_a_deconvnet_within_a_traced_training_step_leaves_no_rule_behind(images):
    model = net(*SPELLINGS["ours"])
    step = tf.function(lambda x: tf.gradients(model(x), x)[0])
    deconvnet(model, images, "predictions")
    traced = step(tf.constant(images))
    with tf.GradientTape() as tape:
        pixels = tf.constant(images)
        tape.watch(pixels)
        score = model(pixels)
    np.testing.assert_allclose(traced, tape.gradient(score, pixels), atol=1e-6)


def test_the_gradient_is_right_through_any_activation(images):
    inputs = keras.Input((13, 15, 3))
    bent = layers.LeakyReLU()(layers.Conv2D(2, 3, activation="tanh")(inputs))
    model = keras.Model(inputs, layers.Flatten(name="top")(bent))
    with tf.GradientTape() as tape:
        pixels = tf.constant(images)
        tape.watch(pixels)
        score = tf.reduce_sum(model(pixels)[:, 5])
    results = deconvnet(model, images, "top", 5, rule="gradient")
    expected = tape.gradient(score, pixels)
    np.testing.assert_allclose([r.projection for r in results], expected, atol=1e-7)


def test_ambiguous_layers_and_models(images):
    inputs = keras.Input((13, 15, 3))
    shared = layers.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    model = keras.Model(inputs, layers.Dense(2, name="top")(shared(shared(inputs))))
    with pytest.raises(UsageError, match="2 outputs of a layer 'shared'"):
        deconvnet(model, images, "shared")
    assert deconvnet(model, images, "top")[0].projection.any()
    other = keras.Input((13, 15, 3))
    two = keras.Model([inputs, other], layers.Add(name="sum")([inputs, other]))
    with pytest.raises(UsageError, match="does not take images alone"):
        deconvnet(two, images, "sum")


def test_values_that_are_not_finite_are_named(images):
    model = net(*SPELLINGS["fused"])
    broken = images.copy()
    broken[1, 3, 3] = np.nan
    with pytest.raises(DataError, match="Image 1 has pixels that are not finite"):
        deconvnet(model, broken, "last")
    kernel, bias = model.get_layer("last").get_weights()
    for weights in ([kernel, bias + np.inf], [kernel * np.nan, bias]):
        model.get_layer("last").set_weights(weights)
        with pytest.raises(DataError, match="'last' has weights that are not finite"):
            deconvnet(model, images, "fc1")
    # Every weight is finite, and their products overflow.
    model.get_layer("last").set_weights([kernel, bias + 3e38])
    dense, offset = model.get_layer("fc1").get_weights()
    model.get_layer("fc1").set_weights([np.abs(dense) * 1e10, offset])
    with pytest.raises(DataError, match="'fc1' has values for image 0 that are not finite"):
        deconvnet(model, images, "fc1")


def test_a_gradient_that_is_not_finite_is_named():
    """Over a black image the values are 0, and the product of the weights overflows."""
    inputs = keras.Input((4, 4, 3))
    x = inputs
    for name in ("a", "b"):
        x = layers.Conv2D(1, 1, kernel_initializer=keras.initializers.Constant(1e30), name=name)(x)
    model = keras.Model(inputs, x)
    with pytest.raises(DataError, match="'b' has values for image 0 that are not finite"):
        deconvnet(model, np.zeros((4, 4, 3)), "b", rule="gradient")


def test_a_notebook_shows_the_projection_and_its_field(images):
    model = net(*SPELLINGS["fused"])
    [one] = deconvnet(model, images[0], "last", 1, (2, 3))
    shown = one._repr_html_()
    text = f"deconvnet, last unit 1, activation {one.activation:.3g} at row 2, column 3"
    assert text in shown
    assert (shown.count("<img"), "its receptive field" in shown) == (2, True)
    [whole] = deconvnet(model, images[0], "fc1", 0)
    shown = whole._repr_html_()
    assert f"deconvnet, fc1 unit 0, activation {whole.activation:.3g}<" in shown
    assert (shown.count("<img"), "its receptive field" in shown) == (1, False)


def test_half_precision(images):
    keras.utils.set_random_seed(8)
    inputs = keras.Input((13, 15, 3))
    policy = keras.DTypePolicy("mixed_float16")
    x = layers.Conv2D(4, 3, activation="relu", dtype=policy, name="c")(inputs)
    x = layers.Dense(3, dtype=policy, name="top")(layers.Flatten()(layers.MaxPooling2D(2)(x)))
    model = keras.Model(inputs, x)
    results = deconvnet(model, images, "top", 1)
    assert [r.activation for r in results] == model(images).numpy()[:, 1].tolist()
    assert results[0].projection.dtype == np.float32


def test_command_says_that_a_unit_does_not_fire(tmp_path, rng, capsys):
    inputs = keras.Input((13, 13, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, activation="relu", name="last")(inputs))
    # Below zero everywhere, so the unit is dead; a deconvnet would still draw noise.
    model.set_weights([model.get_weights()[0], np.array([-1e9, 0])])
    model.save(tmp_path / "model.keras")
    keras.utils.save_img(tmp_path / "image.png", rng.uniform(0, 255, (13, 13, 3)))
    words = [str(tmp_path / "model.keras"), str(tmp_path / "image.png"), "--preprocessing", "raw",
             "--layer", "last", "--output", str(tmp_path / "x.png")]  # fmt: skip
    for verb in ("deconvnet", "stack"):
        assert main(["visualize", verb, *words, "--unit", "0"]) == 1
        assert "Unit 0 of last is not active on" in capsys.readouterr().err
    model.set_weights([model.get_weights()[0], np.array([-1e9, -1e9])])
    model.save(tmp_path / "model.keras")
    for verb in ("deconvnet", "rules"):
        assert main(["visualize", verb, *words]) == 1
        assert "No unit of last is active on" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_the_gradient_through_an_activation_that_looks_across_the_map():
    """A unit then depends on the whole image, not on the window of its convolutions."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((29, 37, 3))
    x = layers.Conv2D(6, 3, activation=normalized)(inputs)
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="top")(x))
    image = np.random.default_rng(0).uniform(0, 2, (29, 37, 3)).astype("float32")
    [result] = deconvnet(model, image, "top", 1, (12, 15), rule="gradient")
    with tf.GradientTape() as tape:
        pixels = tf.constant(image[None])
        tape.watch(pixels)
        score = model(pixels)[0, 12, 15, 1]
    expected = tape.gradient(score, pixels)[0].numpy()
    np.testing.assert_allclose(result.projection, expected, atol=1e-5 * np.abs(expected).max())
    assert (result.box.top, result.box.left, result.box.bottom, result.box.right) == (0, 0, 29, 37)
    with pytest.raises(UsageError, match="receptive field of layer .* is unknown"):
        receptive_field(model, "top")
