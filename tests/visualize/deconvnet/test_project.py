"""The deconvnet against one in NumPy and against an independent implementation."""

import keras
import numpy as np
import pytest

from cnnkit import alexnet
from cnnkit.errors import UsageError
from cnnkit.layers import GroupedConv2D, LocalResponseNormalization, ReLU
from cnnkit.visualize import Box, deconvnet


def small_net(lrn=True, pool=3, relu=True):
    def activation():
        return ReLU() if relu else None

    inputs = keras.Input((17, 19, 3), name="images")
    x = GroupedConv2D(6, 3, strides=2, padding="valid", activation=activation(), name="conv1")(
        inputs
    )
    if lrn:
        x = LocalResponseNormalization(alpha=1e-2, name="norm1")(x)
    x = keras.layers.MaxPooling2D(pool, 2, name="pool1")(x)
    x = GroupedConv2D(8, 3, padding="same", groups=2, activation=activation(), name="conv2")(x)
    x = GroupedConv2D(4, 3, padding="same", activation=activation(), name="conv3")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(5, activation=activation(), name="fc6")(x)
    x = keras.layers.Dense(3, name="fc8")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax", name="probabilities")(x))


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(1)
    model = small_net()
    random = np.random.default_rng(1)
    # Negative biases leave dead pooling windows, whose switches are ties.
    model.set_weights([w + (random.normal(-0.1, 0.2, w.shape) if w.ndim == 1 else 0)
                       for w in model.get_weights()])  # fmt: skip
    return model


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(2)
    images = random.normal(0, 1, (3, 17, 19, 3)).astype("float32")
    images[2, 4:12, 4:12] = 0.3
    return images


# --- a deconvnet in plain NumPy: every step written out, nothing differentiated ---


def conv(x, kernel, bias, stride, pad):
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    k = kernel.shape[0]
    rows = range(0, x.shape[0] - k + 1, stride)
    columns = range(0, x.shape[1] - k + 1, stride)
    return np.array([[np.einsum("hwc,hwcf->f", x[r : r + k, c : c + k], kernel) for c in columns]
                     for r in rows]) + bias  # fmt: skip


def conv_transposed(y, kernel, stride, pad, shape):
    k = kernel.shape[0]
    x = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad, kernel.shape[2]))
    for r, c in np.ndindex(y.shape[:2]):
        x[r * stride : r * stride + k, c * stride : c * stride + k] += np.einsum(
            "hwcf,f->hwc", kernel, y[r, c]
        )
    return x[pad : pad + shape[0], pad : pad + shape[1]]


def pool(x, size, stride):
    """Returns the maxima and the switches: the first maximum of each window in row-major order."""
    rows, columns = ((side - size) // stride + 1 for side in x.shape[:2])
    maxima = np.zeros((rows, columns, x.shape[2]))
    switches = np.zeros((rows, columns, x.shape[2], 2), int)
    for r, c, f in np.ndindex(*maxima.shape):
        window = x[r * stride : r * stride + size, c * stride : c * stride + size, f]
        place = np.unravel_index(np.argmax(window), window.shape)
        maxima[r, c, f] = window[place]
        switches[r, c, f] = r * stride + place[0], c * stride + place[1]
    return maxima, switches


def unpool(y, switches, shape):
    x = np.zeros(shape)
    for r, c, f in np.ndindex(*y.shape):
        # Overlapping windows that share a maximum add.
        x[(*switches[r, c, f], f)] += y[r, c, f]
    return x


def dense_kernel(kernel, groups):
    """Spreads a grouped kernel over all input channels, zeros between the groups."""
    k, _, inputs, filters = kernel.shape
    full = np.zeros((k, k, inputs * groups, filters))
    for g in range(groups):
        out = slice(g * filters // groups, (g + 1) * filters // groups)
        full[:, :, g * inputs : (g + 1) * inputs, out] = kernel[..., out]
    return full


def by_hand(net, image, layer, unit, position, rule):
    w = {l.name: l.get_weights() for l in net.layers if l.weights}  # noqa: E741
    kernels = {"conv1": w["conv1"][0], "conv2": dense_kernel(w["conv2"][0], 2),
               "conv3": w["conv3"][0]}  # fmt: skip
    before = {}
    before["conv1"] = conv(image.astype(float), kernels["conv1"], w["conv1"][1], 2, 0)
    x = np.maximum(before["conv1"], 0)
    sums = np.stack([(x[..., max(0, i - 2) : i + 3] ** 2).sum(-1) for i in range(6)], -1)
    normalized = x / (2 + 1e-2 * sums) ** 0.75
    pooled, switches = pool(normalized, 3, 2)
    before["conv2"] = conv(pooled, kernels["conv2"], w["conv2"][1], 1, 1)
    before["conv3"] = conv(np.maximum(before["conv2"], 0), kernels["conv3"], w["conv3"][1], 1, 1)

    def rectify(signal, name):
        signal = np.maximum(signal, 0)
        return signal * (before[name] > 0) if rule == "guided" else signal

    signal = np.zeros_like(before[layer])
    signal[(*position, unit)] = 1
    shapes = {"conv1": image.shape, "conv2": pooled.shape, "conv3": before["conv2"].shape}
    for name in ("conv3", "conv2", "conv1")[("conv3", "conv2", "conv1").index(layer) :]:
        if name == "conv1":
            if layer != "conv1":
                signal = unpool(signal, switches, before["conv1"].shape)
            return conv_transposed(rectify(signal, "conv1"), kernels["conv1"], 2, 0, image.shape)
        signal = conv_transposed(rectify(signal, name), kernels[name], 1, 1, shapes[name])
    raise AssertionError(layer)


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_equals_a_deconvnet_in_numpy(net, images, layer, rule):
    results = deconvnet(net, images, layer, unit=[0, 2, 3], rule=rule)
    assert [(r.image, r.unit) for r in results] == [(i, u) for i in range(3) for u in (0, 2, 3)]
    for result in results:
        expected = by_hand(net, images[result.image], layer, result.unit, result.position, rule)
        np.testing.assert_allclose(result.projection, expected, atol=1e-6)
    assert max(np.abs(r.projection).max() for r in results) > 0.05


def test_position_and_activation_are_those_of_the_feature_map(net, images):
    maps = keras.Model(net.input, net.get_layer("conv3").output)(images).numpy()
    for result in deconvnet(net, images, "conv3"):
        of_image = maps[result.image]
        assert result.unit == np.unravel_index(of_image.argmax(), of_image.shape)[-1]
        assert result.activation == of_image.max() == of_image[(*result.position, result.unit)]
    [placed] = deconvnet(net, images[0], "conv3", unit=1, position=(0, 2))
    assert placed.position == (0, 2)
    assert placed.activation == pytest.approx(maps[0, 0, 2, 1], rel=1e-6)


def test_support_is_within_the_box(net, images):
    for layer in ("conv1", "pool1", "conv2", "conv3", "fc6"):
        for result in deconvnet(net, images, layer, rule="gradient"):
            outside = result.projection.copy()
            outside[result.box.slices] = 0
            assert not outside.any()
    # Rows 2 * 3 to 2 * 3 + 2 of conv1's unit, and the last window of the last unit.
    [one] = deconvnet(net, images[0], "conv1", 0, (3, 8))
    assert one.box == one.unclipped == Box(6, 16, 9, 19)
    [corner] = deconvnet(net, images[0], "conv2", 0, (0, 0))
    assert corner.box == Box(0, 0, 11, 11)
    assert corner.unclipped == Box(-4, -4, 11, 11)


def test_a_softmax_is_skipped(net, images):
    at_softmax = deconvnet(net, images, "probabilities", unit=1)
    at_logits = deconvnet(net, images, "fc8", unit=1)
    for one, other in zip(at_softmax, at_logits, strict=True):
        np.testing.assert_array_equal(one.projection, other.projection)
        assert one.activation == pytest.approx(other.activation, rel=1e-6)
        assert one.position == ()


def test_gradient_rule_is_the_gradient(net, images):
    import tensorflow as tf

    network = keras.Model(net.input, net.get_layer("fc8").output)
    with tf.GradientTape() as tape:
        pixels = tf.constant(images)
        tape.watch(pixels)
        score = tf.reduce_sum(network(pixels)[:, 2])
    expected = tape.gradient(score, pixels).numpy()
    results = deconvnet(net, images, "fc8", unit=2, rule="gradient")
    np.testing.assert_allclose([r.projection for r in results], expected, atol=1e-7)


def test_rules_agree_on_a_linear_net(images):
    keras.utils.set_random_seed(3)
    model = small_net(lrn=False, relu=False)
    results = {
        rule: deconvnet(model, images, "conv3", unit=0, rule=rule)[0].projection
        for rule in ("deconvnet", "guided", "gradient")
    }
    np.testing.assert_array_equal(results["deconvnet"], results["gradient"])
    np.testing.assert_array_equal(results["guided"], results["gradient"])


def test_batches_do_not_matter(net, images):
    units = list(range(4))
    together = deconvnet(net, images, "conv3", unit=units)
    apart = deconvnet(net, images, "conv3", unit=units, batch_size=1)
    for one, other in zip(together, apart, strict=True):
        assert (one.image, one.unit, one.position) == (other.image, other.unit, other.position)
        np.testing.assert_allclose(one.projection, other.projection, atol=1e-7)


def test_the_model_is_not_changed(images):
    model = small_net()
    before = model.get_weights(), model.predict(images, verbose=0), model.to_json()
    deconvnet(model, images, "fc8", unit=0)
    for one, other in zip(before[0], model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before[1], model.predict(images, verbose=0))
    assert before[2] == model.to_json()
    # Training afterwards follows the true gradient: as for a fresh copy without a deconvnet.
    fresh = small_net()
    fresh.set_weights(model.get_weights())
    for one in (model, fresh):
        one.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        one.fit(images, np.array([0, 1, 2]), epochs=2, verbose=0, shuffle=False)
    for one, other in zip(model.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.fixture(scope="module")
def oracle(shared):
    arrays = dict(np.load(shared("oracles/oracle_captum.npz")))
    inputs = keras.Input((33, 41, 3))
    x = keras.layers.ZeroPadding2D(1)(inputs)
    x = keras.layers.Conv2D(8, 5, strides=2, activation=ReLU(), name="conv1")(x)
    x = keras.layers.MaxPooling2D(3, 2)(x)
    x = keras.layers.Conv2D(12, 3, padding="same", activation=ReLU(), name="conv2")(x)
    x = keras.layers.Conv2D(10, 3, padding="same", activation=ReLU(), name="conv3")(x)
    x = keras.layers.MaxPooling2D(3, 2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(16, activation=ReLU(), name="fc1")(x)
    model = keras.Model(inputs, keras.layers.Dense(7, name="fc2")(x))
    for name in ("conv1", "conv2", "conv3", "fc1", "fc2"):
        model.get_layer(name).set_weights([arrays[f"{name}/kernel"], arrays[f"{name}/bias"]])
    return model, arrays


def test_oracle_logits(oracle):
    model, arrays = oracle
    # Relative to the largest: processors sum in different orders.
    largest = np.abs(arrays["logits"]).max()
    np.testing.assert_allclose(model(arrays["x"]), arrays["logits"], rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("rule", "key"),
    [("deconvnet", "deconv"), ("guided", "guided"), ("gradient", "saliency_signed")],
)
def test_oracle_classes(oracle, rule, key):
    model, arrays = oracle
    for i, target in enumerate(arrays["target"]):
        [result] = deconvnet(model, arrays["x"][i], "fc2", unit=int(target), rule=rule)
        np.testing.assert_allclose(result.projection, arrays[key][i], atol=1e-5)


@pytest.mark.parametrize("layer", ["conv2", "conv3"])
@pytest.mark.parametrize(("rule", "key"), [("deconvnet", "deconv"), ("guided", "guided")])
def test_oracle_units(oracle, layer, rule, key):
    model, arrays = oracle
    for i, (unit, row, column) in enumerate(arrays[f"unit/{layer}/cyx"]):
        [result] = deconvnet(model, arrays["x"][i], layer, int(unit), (row, column), rule=rule)
        np.testing.assert_allclose(result.projection, arrays[f"unit/{layer}/{key}"][i], atol=1e-5)
        assert result.activation == pytest.approx(arrays[f"unit/{layer}/value"][i], abs=1e-5)


def test_alexnet_every_layer(rng):
    model = alexnet(input_shape=(64, 64, 3), classes=10, initializer="glorot")
    image = rng.uniform(0, 255, (64, 64, 3))
    for layer in ("conv1", "norm1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5",
                  "fc6", "fc7", "fc8", "probabilities"):  # fmt: skip
        [result] = deconvnet(model, image, layer)
        assert result.projection.shape == (64, 64, 3)
        assert np.isfinite(result.projection).all()
        assert result.projection.any()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"layer": "conv5"}, "Unknown layer 'conv5'"),
        ({"layer": "conv3", "unit": 4}, "has no unit 4. Expected: 0 to 3"),
        ({"layer": "conv3", "unit": -1}, "has no unit -1"),
        (
            {"layer": "conv3", "unit": 0, "position": (0, 99)},
            "`position` must lie in the feature map",
        ),
        ({"layer": "fc8", "unit": 0, "position": (0, 0)}, "a dense layer"),
        ({"layer": "conv3", "rule": "decon"}, "Did you mean deconvnet"),
    ],
)
def test_invalid_arguments(net, images, arguments, text):
    with pytest.raises(UsageError) as error:
        deconvnet(net, images, **arguments)
    assert text in str(error.value)


def test_images_of_another_size(net):
    with pytest.raises(UsageError, match=r"\(n, 17, 19, 3\). Received: \(1, 5, 5, 3\)"):
        deconvnet(net, np.zeros((5, 5, 3)), "conv3")
