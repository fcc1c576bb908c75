"""Attribution: each method against its formula, by a tape and NumPy, in networks of every kind."""

import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import cnnkit
from cnnkit.errors import DataError, UsageError
from cnnkit.layers import ClassProbabilities, LocalResponseNormalization, ReLU
from cnnkit.visualize import gradcam, gradcam_plus_plus, saliency, scorecam, smoothgrad

SHAPE, CLASSES = (20, 26, 3), 4
CAMS = (gradcam, gradcam_plus_plus, scorecam)


def body(x):
    x = layers.Rescaling(1 / 64, offset=-1)(x)
    x = layers.Conv2D(5, 3, activation=ReLU(), name="conv1")(x)
    x = LocalResponseNormalization(alpha=0.5, name="norm1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(x)
    return layers.MaxPooling2D(2, name="pool2")(x)


def plain(end):
    def build():
        inputs = keras.Input(SHAPE)
        x = layers.Flatten(name="flat")(body(inputs))
        return keras.Model(inputs, end(x))

    return build


def sequential():
    return keras.Sequential([
        keras.Input(SHAPE), layers.Rescaling(1 / 64),
        layers.Conv2D(6, 3, strides=2, activation="relu", name="conv2"), layers.Flatten(),
        layers.Dense(CLASSES, name="logits"), layers.Softmax(),
    ])  # fmt: skip


def nested():
    inner = keras.Input(SHAPE)
    inside = keras.Model(inner, body(inner), name="inside")
    inputs = keras.Input(SHAPE)
    x = layers.Dense(CLASSES, name="logits")(layers.Flatten()(inside(inputs)))
    return keras.Model(inputs, layers.Activation("softmax")(x))


def past():
    """The image leads to the classes past the maps as well."""
    inputs = keras.Input(SHAPE)
    x = layers.Rescaling(1 / 64)(inputs)
    one = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(x)
    other = layers.Conv2D(6, 1, name="beside")(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([one, other]))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))


NETWORKS = {
    "fused softmax": plain(lambda x: layers.Dense(CLASSES, "softmax", name="logits")(x)),
    "softmax layer": plain(lambda x: layers.Softmax()(layers.Dense(CLASSES, name="logits")(x))),
    "ours": plain(lambda x: ClassProbabilities()(layers.Dense(CLASSES, name="logits")(x))),
    "logits": plain(lambda x: layers.Dense(CLASSES, name="logits")(x)),
    "sigmoids": plain(lambda x: layers.Dense(CLASSES, "sigmoid", name="logits")(x)),
    "sigmoid layer": plain(
        lambda x: layers.Activation("sigmoid")(layers.Dense(CLASSES, name="logits")(x))
    ),
    "sequential": sequential,
    "nested": nested,
    "past": past,
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).uniform(0, 255, (3, *SHAPE)).astype("float32")


@pytest.fixture(scope="module", params=NETWORKS)
def model(request):
    keras.utils.set_random_seed(4)
    return NETWORKS[request.param]()


@pytest.fixture(scope="module", params=["ours", "sigmoids", "nested", "past"])
def one_of_few(request):
    """One of each way to the classes: how a network ends counts for the logits alone."""
    keras.utils.set_random_seed(4)
    return NETWORKS[request.param]()


def flat(them):
    for layer in them:
        yield from flat(layer.layers) if isinstance(layer, keras.Model) else [layer]


def truth(model, images, name="conv2"):
    """Returns the tape, the pixels, the maps and the logits, without the end's activation."""
    x = tf.constant(images)
    tape = tf.GradientTape(persistent=True)
    with tape:
        tape.watch(x)
        steps = [one for one in flat(model.layers) if not isinstance(one, layers.InputLayer)]
        names = [one.name for one in steps]
        if "beside" in names:
            get = model.get_layer
            scaled = x / 64
            maps = get("conv2")(scaled)
            pooled = tf.reduce_mean(maps + get("beside")(scaled), (1, 2))
            logits = pooled @ get("logits").kernel + get("logits").bias
            return tape, x, maps, logits
        value, maps = x, None
        for step in steps:
            if step.name == "logits":
                return tape, x, maps, value @ step.kernel + step.bias
            value = step(value)
            maps = value if step.name == name else maps
    raise AssertionError


def chosen(logits, label=None):
    targets = logits.numpy().argmax(1) if label is None else np.full(len(logits), label)
    return targets, tf.gather(logits, targets, axis=1, batch_dims=1)


@pytest.mark.parametrize("label", [None, 2])
def test_saliency_is_the_tapes(model, images, label):
    tape, x, _, logits = truth(model, images)
    with tape:
        targets, scores = chosen(logits, label)
    gradient = tape.gradient(scores, x).numpy()
    found = saliency(model, images, label, batch_size=2)
    assert [one.image for one in found] == [0, 1, 2]
    scale = np.abs(gradient).max()
    assert scale > 1e-5
    for one, target, score, expected in zip(found, targets, scores, gradient, strict=True):
        assert one.target == target
        assert one.score == pytest.approx(float(score), rel=1e-5)
        np.testing.assert_allclose(one.gradient, expected, rtol=0, atol=1e-6 * scale)
        np.testing.assert_array_equal(one.map, np.abs(one.gradient).max(axis=2))
        assert one.grid is None


def test_smoothgrad_is_the_mean_over_noisy_copies(one_of_few, images):
    model = one_of_few
    images = images[:2]
    found = smoothgrad(model, images, samples=5, noise=0.2, seed=7, batch_size=3)
    for i, (one, image) in enumerate(zip(found, images, strict=True)):
        random = np.random.default_rng((7, i))
        deviation = 0.2 * (image.max() - image.min())
        copies = np.stack([image + random.normal(0, deviation, SHAPE) for _ in range(5)])
        expected = sum(copy.gradient for copy in saliency(model, copies, one.target)) / 5
        np.testing.assert_allclose(
            one.gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )
        np.testing.assert_array_equal(one.map, np.abs(one.gradient).max(axis=2))
        # The class is that of the image as it is.
        assert one.target == saliency(model, image)[0].target


def test_smoothgrad_has_one_seed(images):
    model = NETWORKS["ours"]()
    state = np.random.get_state()[1].copy()
    one, same, other = (smoothgrad(model, images[:1], samples=2, seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one.gradient, same.gradient)
    assert (one.gradient != other.gradient).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    [still] = smoothgrad(model, images[:1], samples=2, noise=0)
    [expected] = saliency(model, images[:1])
    np.testing.assert_allclose(
        still.gradient, expected.gradient, rtol=0, atol=1e-6 * expected.map.max()
    )


@pytest.mark.parametrize("label", [None, 1])
def test_gradcam_is_the_formula(one_of_few, images, label):
    model = one_of_few
    tape, _, maps, logits = truth(model, images)
    with tape:
        targets, scores = chosen(logits, label)
    gradients = tape.gradient(scores, maps).numpy()
    found = gradcam(model, images, label, batch_size=2)
    for one, target, gradient, values in zip(found, targets, gradients, maps.numpy(), strict=True):
        assert (one.target, one.layer, one.method) == (target, "conv2", "gradcam")
        weights = gradient.mean(axis=(0, 1))
        expected = np.maximum((values * weights).sum(axis=2), 0)
        np.testing.assert_allclose(one.grid, expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert any(one.grid.any() for one in found)


def test_gradcam_plus_plus_is_the_formula(one_of_few, images):
    model = one_of_few
    tape, _, maps, logits = truth(model, images)
    with tape:
        _, scores = chosen(logits)
    gradients = tape.gradient(scores, maps).numpy().astype(float)
    found = gradcam_plus_plus(model, images)
    for one, g, values in zip(found, gradients, maps.numpy().astype(float), strict=True):
        weights = np.zeros(values.shape[2])
        for k in range(len(weights)):
            denominator = 2 * g[..., k] ** 2 + g[..., k] ** 3 * values[..., k].sum()
            alpha = np.divide(
                g[..., k] ** 2, denominator, out=np.zeros_like(denominator), where=g[..., k] != 0
            )
            if alpha.sum() != 0:
                alpha /= alpha.sum()
            weights[k] = (alpha * np.maximum(g[..., k], 0)).sum()
        expected = np.maximum((values * weights).sum(axis=2), 0)
        np.testing.assert_allclose(one.grid, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_gradcam_plus_plus_of_large_logits(images):
    keras.utils.set_random_seed(4)
    model = NETWORKS["logits"]()
    kernel, bias = model.get_layer("logits").get_weights()
    expected = gradcam_plus_plus(model, images, 1)
    model.get_layer("logits").set_weights([kernel, bias + 1000])
    for one, other in zip(gradcam_plus_plus(model, images, 1), expected, strict=True):
        # exp(1000) is no float.
        assert one.score > 900
        np.testing.assert_allclose(one.grid, other.grid, rtol=1e-4)


def test_scorecam_is_the_formula(one_of_few, images):
    model = one_of_few
    logits = truth(model, images)[3]
    if "sigmoid" in str(getattr(model.layers[-1], "activation", None)):
        with pytest.raises(UsageError, match="Expected: classes that share one probability"):
            scorecam(model, images)
        return
    targets = logits.numpy().argmax(1)
    maps = truth(model, images)[2].numpy()
    for one, target, image, values in zip(
        scorecam(model, images, batch_size=4), targets, images, maps, strict=True
    ):
        expected = 0
        for k in range(values.shape[2]):
            mask = enlarged(values[..., k], SHAPE[:2])
            if np.ptp(mask) > 0:
                mask = (mask - mask.min()) / np.ptp(mask)
            masked = (image * mask[..., None]).astype("float32")
            answer = truth(model, masked[None])[3].numpy()[0].astype(float)
            probability = np.exp(answer - answer.max())
            probability = probability[target] / probability.sum()
            expected = expected + probability * values[..., k]
        np.testing.assert_allclose(one.grid, np.maximum(expected, 0), rtol=1e-4)


def enlarged(values, size):
    """Linear, first and last places on first and last pixels."""
    for axis, (have, want) in enumerate(zip(values.shape, size, strict=True)):
        places = np.linspace(0, have - 1, want)
        values = np.apply_along_axis(
            lambda v, places=places: np.interp(places, np.arange(len(v)), v), axis, values
        )
    return values


@pytest.mark.parametrize("cam", CAMS)
def test_other_layers_have_maps_too(images, cam):
    keras.utils.set_random_seed(4)
    model = NETWORKS["ours"]()
    for layer, grid in (("conv1", (18, 24)), ("norm1", (18, 24)), ("pool2", (4, 6))):
        [one] = cam(model, images[0], layer=layer)
        assert (one.layer, one.grid.shape, one.map.shape) == (layer, grid, SHAPE[:2])


def test_places_lie_at_the_middle_of_what_they_see(images):
    keras.utils.set_random_seed(4)
    [one] = gradcam(NETWORKS["ours"](), images[0], 3)
    grid = one.grid
    assert grid.shape == (9, 12)
    # A place of pool1, and so of conv2, sees 4 pixels from 2 i on: its middle is 2 i + 1.5.
    for row, column in ((5, 8), (9, 22), (12, 3)):
        r, c = (row - 1.5) / 2, (column - 1.5) / 2
        i, j = int(r), int(c)
        v, u = r - i, c - j
        by_hand = (1 - v) * ((1 - u) * grid[i, j] + u * grid[i, j + 1]) + v * (
            (1 - u) * grid[i + 1, j] + u * grid[i + 1, j + 1]
        )
        assert one.map[row, column] == pytest.approx(by_hand, rel=1e-5)
    # Beyond the middles nothing is made up.
    assert one.map[0, 0] == grid[0, 0]
    assert one.map[-1, -1] == pytest.approx(grid[-1, -1], rel=1e-6)


def test_places_lie_evenly_where_it_is_not_known_what_they_see(images):
    keras.utils.set_random_seed(4)
    inputs = keras.Input(SHAPE)
    x = layers.DepthwiseConv2D(2, strides=2, name="depth")(inputs)
    x = layers.Conv2D(3, 1, activation="relu", name="conv")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    [one] = gradcam(model, images[0], 0)
    assert one.grid.shape == (10, 13)
    assert one.map[0, 0] == pytest.approx(one.grid[0, 0])
    expected = 0.75 * one.grid[3] + 0.25 * one.grid[4]
    assert one.map[7, 0] == pytest.approx(expected[0], rel=1e-5)


def test_the_network_of_keras_applications():
    keras.utils.set_random_seed(1)
    model = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=10)
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    twin = keras.Model(model.input, model.get_layer("fc2").output)
    top = model.get_layer("predictions")
    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = (twin(x) @ top.kernel + top.bias)[0, 3]
    expected = tape.gradient(score, x).numpy()[0]
    [one] = saliency(model, image, 3)
    np.testing.assert_allclose(one.gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert gradcam(model, image, 3)[0].layer == "block5_conv3"


def test_the_model_is_left_as_it_was(one_of_few, images, capsys):
    model = one_of_few

    def state():
        nodes = [
            (len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in flat(model.layers)
        ]
        return nodes, [layer.get_config() for layer in model.layers if layer.name != "inside"]

    before, weights, answers = state(), model.get_weights(), model(images).numpy()
    for method in (saliency, gradcam, gradcam_plus_plus):
        method(model, images[:1])
    smoothgrad(model, images[:1], samples=2)
    if model.layers[-1].get_config().get("activation") != "sigmoid":
        scorecam(model, images[:1])
    assert state() == before
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model(images).numpy(), answers)
    # No progress bars.
    assert capsys.readouterr() == ("", "")


def test_tf_keras_vis_is_imported_when_it_is_asked_for(monkeypatch, images):
    package = Path(cnnkit.__file__).parent
    imports = re.compile(r"^\s*(import|from) tf_keras_vis", re.MULTILINE)
    assert not [file for file in package.rglob("*.py") if imports.search(file.read_text())]
    monkeypatch.setitem(sys.modules, "tf_keras_vis.saliency", None)
    with pytest.raises(UsageError, match="tf-keras-vis does not answer.*pip install tf-keras-vis"):
        saliency(NETWORKS["ours"](), images)


def test_a_variable_that_cuts_methods_short_is_refused(monkeypatch, images):
    monkeypatch.setenv("TF_KERAS_VIS_MAX_STEPS", "3")
    with pytest.raises(UsageError, match=r"TF_KERAS_VIS_MAX_STEPS .* Received: 3. Unset it"):
        saliency(NETWORKS["ours"](), images)


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda m, x: gradcam(m, x, layer="conv7"), "Unknown layer 'conv7'.*Did you mean conv"),
        (lambda m, x: gradcam(m, x, layer="logits"), "'logits' has no map.*for example conv2"),
        (lambda m, x: scorecam(m, x, layer="flat"), "'flat' has no map"),
        (lambda m, x: saliency(m, x, 4), "has no class 4. Expected: 0 to 3"),
        (lambda m, x: saliency(m, x, "cat"), "Unknown class 'cat'"),
        (lambda m, x: saliency(m, x[:, :9]), "`images` must have the shape of the model.s input"),
        (lambda m, x: saliency(m, x, batch_size=0), "Expected: 1 or more. Received: 0"),
        (lambda m, x: smoothgrad(m, x, samples=0), "nothing to average"),
        (lambda m, x: smoothgrad(m, x, noise=-1), "0 or more. Received: -1"),
        (lambda m, x: smoothgrad(m, x, noise=np.nan), "0 or more. Received: nan"),
    ],
)
def test_wrong_requests(images, ask, text):
    with pytest.raises(UsageError, match=text):
        ask(NETWORKS["ours"](), images)


def test_wrong_networks_and_pixels(images):
    headless = keras.Model(*(lambda x: (x, body(x)))(keras.Input(SHAPE)))
    for method in (saliency, *CAMS):
        with pytest.raises(UsageError, match="is not a classifier"):
            method(headless, images)
    model = NETWORKS["ours"]()
    broken = images.copy()
    broken[1, 2, 3, 0] = np.nan
    with pytest.raises(DataError, match="Image 1 has pixels that are not finite"):
        gradcam(model, broken)
    kernel, bias = model.get_layer("conv2").get_weights()
    model.get_layer("conv2").set_weights([kernel * np.nan, bias])
    with pytest.raises(DataError, match="'conv2' has weights that are not finite"):
        saliency(model, images)
    model.get_layer("conv2").set_weights([kernel * 1e30, bias])
    model.get_layer("logits").set_weights(
        [w * 1e30 for w in model.get_layer("logits").get_weights()]
    )
    with pytest.raises(DataError, match="image 0 with values that are not finite"):
        saliency(model, images)
    flat_inputs = keras.Input(SHAPE)
    dense = keras.Model(flat_inputs, layers.Dense(2)(layers.Flatten()(flat_inputs)))
    with pytest.raises(UsageError, match="no convolution with a map. Name a layer"):
        gradcam(dense, images)
    assert saliency(dense, images[:0]) == gradcam(NETWORKS["ours"](), images[:0]) == []
