"""The deconvnet layer by layer against the gradient form, and the adjoint of a convolution."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit import alexnet, vgg11, zfnet
from cnnkit.errors import UsageError
from cnnkit.layers import GroupedConv2D, SubtractMean
from cnnkit.visualize import backward_steps, deconvnet, forward_steps, pool_with_switches, unpool


@pytest.mark.parametrize(("padding", "stride"), [("valid", 2), ("same", 2), ("same", 1)])
def test_pool_and_unpool_are_loops_over_windows(rng, padding, stride):
    # Few values, so that there are many ties; zeros in whole windows.
    values = np.maximum(rng.integers(-3, 3, (2, 5, 7, 3)), 0).astype("float32")
    pooled, switches = pool_with_switches(values, 3, stride, padding)
    signal = rng.normal(size=pooled.shape)
    expected = np.zeros(values.shape)
    for n, row, column, channel in np.ndindex(*pooled.shape):
        best = -np.inf
        # SAME padding: 5 and 7 are padded by 1 before, at stride 2 as at stride 1.
        shift = 1 if padding == "same" else 0
        for r in range(row * stride - shift, row * stride - shift + 3):
            for c in range(column * stride - shift, column * stride - shift + 3):
                if 0 <= r < 5 and 0 <= c < 7 and values[n, r, c, channel] > best:
                    best, place = values[n, r, c, channel], (r, c)
        assert pooled[n, row, column, channel] == best
        assert switches.indices[n, row, column, channel] == place[0] * 7 + place[1]
        expected[(n, *place, channel)] += signal[n, row, column, channel]
    np.testing.assert_allclose(unpool(signal, switches), expected, atol=1e-12)
    with pytest.raises(UsageError, match="one value for every switch"):
        unpool(signal[:, :1], switches)


@pytest.mark.parametrize(
    ("padding", "strides", "groups", "dilation"),
    [("valid", 2, 1, 1), ("same", 2, 2, 1), ("same", 1, 1, (2, 1))],
)
def test_the_transposed_filters_are_the_adjoint(rng, padding, strides, groups, dilation):
    # <W x, y> = <x, W' y> for all x and y: the definition of the transpose.
    keras.utils.set_random_seed(0)
    layer = GroupedConv2D(4, (3, 2), strides=strides, padding=padding, groups=groups,
                          dilation_rate=dilation, name="c")  # fmt: skip
    inputs = keras.Input((9, 8, 2))
    model = keras.Model(inputs, layer(inputs))
    x = rng.normal(size=(1, 9, 8, 2))
    steps = forward_steps(model, x, "c")
    y = rng.normal(size=steps[-1].output.shape)
    up, down = np.vdot(steps[-1].output, y), np.vdot(x, backward_steps(steps, y.astype("float32")))
    # Relative to the largest possible products: by chance they may nearly cancel.
    most = np.linalg.norm(steps[-1].output) * np.linalg.norm(y)
    assert abs(up - down) < 1e-5 * most
    assert abs(up) > 1e-3 * most


def test_a_kernel_with_one_nonzero_value_is_transposed():
    # One unit of a 3 x 3 convolution: its transpose writes the kernel at its receptive field.
    inputs = keras.Input((5, 5, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 3, name="c")(inputs))
    kernel = np.arange(9, dtype="float32").reshape(3, 3, 1, 1)
    model.get_layer("c").set_weights([kernel, np.array([100.0])])
    steps = forward_steps(model, np.zeros((1, 5, 5, 1)), "c")
    signal = np.zeros((1, 3, 3, 1), "float32")
    signal[0, 1, 2] = 1
    expected = np.zeros((5, 5))
    expected[1:4, 2:5] = kernel[..., 0, 0]
    np.testing.assert_array_equal(backward_steps(steps, signal)[0, ..., 0], expected)


def flattened():
    """Padding, strides, a separate ReLU, and a flattened map that is not square."""
    inputs = keras.Input((14, 21, 3))
    x = layers.ZeroPadding2D(((1, 2), (0, 3)))(inputs)
    x = layers.ReLU()(layers.Conv2D(4, 3, strides=2)(x))
    x = layers.MaxPooling2D(3, 2, "same")(x)
    x = layers.Dense(6, activation="relu", name="fc")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, layers.Dense(2, name="top")(x))


NETS = {
    "flattened": (flattened, ("flat", "fc", "top")),
    "alexnet": (lambda: alexnet(input_shape=(64, 64, 3), classes=7, initializer="glorot"),
                ("pool2", "conv4", "fc7")),
    "zfnet": (lambda: zfnet(input_shape=(64, 64, 3), classes=7, initializer="glorot"),
              ("norm1", "pool5")),
    "vgg11": (lambda: vgg11(input_shape=(32, 32, 3), include_top=False), ("block3_conv2",)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_equals_the_gradient_form(rng, name):
    build, names = NETS[name]
    keras.utils.set_random_seed(0)
    model = build()
    images = rng.uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    images[1, 10:30, 5:25] = 200
    for layer in names:
        steps = forward_steps(model, images, layer)
        for rule in ("deconvnet", "guided"):
            results = deconvnet(model, images, layer, rule=rule)
            signal = np.zeros_like(steps[-1].output)
            for result in results:
                place = (result.image, *result.position, result.unit)
                assert steps[-1].output[place] == pytest.approx(result.activation, rel=1e-4)
                signal[place] = 1
            expected = backward_steps(steps, signal, rule)
            scale = np.abs(expected).max()
            assert scale > 0
            for result in results:
                np.testing.assert_allclose(
                    result.projection, expected[result.image], atol=1e-5 * scale
                )


def test_gradient_rule_layer_by_layer(rng):
    model = vgg11(input_shape=(32, 32, 3), include_top=False)
    image = rng.uniform(0, 255, (32, 32, 3))
    [result] = deconvnet(model, image, "block2_conv1", rule="gradient")
    steps = forward_steps(model, image[None], "block2_conv1")
    signal = np.zeros_like(steps[-1].output)
    signal[(0, *result.position, result.unit)] = 1
    scale = np.abs(result.projection).max()
    np.testing.assert_allclose(
        backward_steps(steps, signal, "gradient")[0], result.projection, atol=1e-5 * scale
    )


def test_other_linear_layers_pass_the_signal_by_their_transpose(rng):
    inputs = keras.Input((9, 9, 3))
    x = keras.layers.RandomFlip()(keras.layers.Rescaling(1 / 64)(inputs)) - 2.0
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    x = keras.layers.AveragePooling2D(2)(x)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 2, activation="relu", name="end")(x))
    image = rng.uniform(0, 255, (9, 9, 3)).astype("float32")
    [result] = deconvnet(model, image, "end")
    steps = forward_steps(model, image[None], "end")
    signal = np.zeros_like(steps[-1].output)
    signal[(0, *result.position, result.unit)] = 1
    assert result.projection.any()
    np.testing.assert_allclose(backward_steps(steps, signal)[0], result.projection, atol=1e-6)


def test_a_deviation_divides_the_signal(rng):
    inputs = keras.Input((5, 6, 3))
    x = SubtractMean((1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0), name="mean")(inputs)
    model = keras.Model(inputs, x)
    image = rng.uniform(0, 255, (1, 5, 6, 3)).astype("float32")
    steps = forward_steps(model, image, "mean")
    np.testing.assert_allclose(steps[-1].output, (image - [1, 2, 3]) / [2, 4, 8], rtol=1e-5)
    signal = rng.normal(size=image.shape)
    np.testing.assert_allclose(backward_steps(steps, signal), signal / [2, 4, 8], rtol=1e-6)


def test_unsupported_layers_are_named(rng):
    inputs = keras.Input((8, 8, 3))
    largest = keras.layers.GlobalMaxPooling2D(name="largest")(inputs)
    image = np.zeros((1, 8, 8, 3))
    with pytest.raises(UsageError, match="'largest' has no step in the layer-by-layer deconvnet"):
        forward_steps(keras.Model(inputs, largest), image, "largest")
    twice = keras.layers.Add(name="twice")([inputs, inputs])
    with pytest.raises(UsageError, match="'twice' has no step"):
        forward_steps(keras.Model(inputs, twice), image, "twice")
    model = alexnet(include_top=False, input_shape=(64, 64, 3))
    steps = forward_steps(model, np.zeros((1, 64, 64, 3)), "norm1")
    with pytest.raises(UsageError, match="the step of layer 'norm1' skips its derivative"):
        backward_steps(steps, steps[-1].output, "gradient")
    with pytest.raises(UsageError, match="Did you mean guided"):
        backward_steps(steps, steps[-1].output, "guidd")
