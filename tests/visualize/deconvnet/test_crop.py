"""Crops of units that touch no border: the same result as from the whole image."""

import importlib

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit import alexnet, vgg11, zfnet
from cnnkit.layers import LocalResponseNormalization, ReLU, SubtractMean
from cnnkit.models.graph import build_graph
from cnnkit.visualize import Box, deconvnet, project, receptive_field
from cnnkit.visualize.deconvnet.crop import crop_for_unit

pytestmark = pytest.mark.usefixtures("unoptimized")


def block():
    """Paths with several windows that join, with padding, dilation, groups, batch normalization."""
    inputs = keras.Input((40, 44, 3))
    x = SubtractMean((100, 110, 120))(inputs)
    x = layers.ZeroPadding2D(((1, 2), (0, 1)))(x)
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="first")(x)
    x = layers.AveragePooling2D(3, 1, "same", name="mean")(x)
    wide = layers.Conv2D(4, (5, 3), padding="same", groups=2, name="wide")(x)
    wide = layers.BatchNormalization(name="scaled")(ReLU()(wide))
    holes = layers.Conv2D(4, 3, padding="same", dilation_rate=(2, 1), name="holes")(x)
    x = layers.Concatenate()([layers.Add()([wide, holes, x]), layers.Cropping2D(0)(x)])
    x = LocalResponseNormalization(alpha=1e-2, name="norm")(layers.Activation("relu")(x))
    x = layers.MaxPooling2D(3, 2, "same", name="pool")(x)
    return keras.Model(inputs, layers.Conv2D(5, 1, activation="relu", name="top")(x))


NETS = {
    "block": (block, ("first", "wide", "norm", "pool", "top")),
    "alexnet": (lambda: alexnet(include_top=False, input_shape=(131, 115, 3)), ("pool1", "conv2")),
    "zfnet": (lambda: zfnet(include_top=False, input_shape=(96, 101, 3)), ("norm1", "conv3")),
    "vgg11": (lambda: vgg11(include_top=False, input_shape=(48, 56, 3)), ("block3_conv1",)),
}


@pytest.mark.parametrize("name", NETS)
def test_equals_the_pass_of_the_whole_image(rng, name, monkeypatch):
    build, names = NETS[name]
    keras.utils.set_random_seed(4)
    model = build()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2, w.shape) for w in layer.get_weights()])
    images = rng.uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    images[1, 10:30, 5:25] = 200
    module = importlib.import_module("cnnkit.visualize.deconvnet.project")
    for layer in names:
        rows, columns = model.get_layer(layer).output.shape[1:3]
        field = receptive_field(model, layer)
        place = (rows // 2, columns // 2)
        graph = build_graph(model)
        cut = crop_for_unit(graph, graph.ancestors(graph.node(layer)), place, images.shape[1:3])
        assert cut.box == field.unclipped(place) == field.box(place)
        for rule in ("deconvnet", "guided", "gradient"):
            options = {"unit": [0, 1, 2, 3], "position": place, "rule": rule}
            quick = deconvnet(model, images, layer, **options)
            with monkeypatch.context() as patched:
                patched.setattr(module, "crop_for_unit", lambda *_: None)
                whole = deconvnet(model, images, layer, **options)
            scale = max(np.abs(one.projection).max() for one in whole)
            assert scale > 0
            for one, other in zip(quick, whole, strict=True):
                assert one.activation == pytest.approx(other.activation, rel=1e-5, abs=1e-5)
                np.testing.assert_allclose(one.projection, other.projection, atol=2e-6 * scale)


def test_only_units_that_touch_no_border_are_cropped():
    """3 x 3 with padding, a pooling, 3 x 3 with padding over 12 x 10 pixels, by arithmetic."""
    inputs = keras.Input((12, 10, 1))
    x = layers.Conv2D(1, 3, padding="same")(inputs)
    x = layers.Conv2D(1, 3, padding="same", name="top")(layers.MaxPooling2D(2)(x))
    graph = build_graph(keras.Model(inputs, x))
    calls = graph.ancestors(graph.node("top"))
    inside = {place: crop_for_unit(graph, calls, place, (12, 10)) for place in np.ndindex(6, 5)}
    # Position i of 6 depends on rows 2 i - 3 to 2 i + 4: within 0..11 for i = 2, 3; of 5: i = 2.
    assert {place for place, cut in inside.items() if cut} == {(2, 2), (3, 2)}
    assert inside[2, 2].box == Box(1, 1, 9, 9)


@pytest.mark.parametrize("layer", [
    SubtractMean(np.zeros((16, 16, 3))), layers.PReLU(), layers.GlobalAveragePooling2D(),
    LocalResponseNormalization(size=3, region="within"), layers.Conv2D(1, 1, dtype="float16"),
])  # fmt: skip
def test_layers_that_differ_by_position_are_not_cropped(layer):
    inputs = keras.Input((16, 16, 3))
    graph = build_graph(keras.Model(inputs, layer(layers.Conv2D(3, 1)(inputs))))
    assert crop_for_unit(graph, graph.nodes, (8, 8), (16, 16)) is None
    assert crop_for_unit(graph, graph.nodes[:-1], (8, 8), (16, 16)) is not None


def test_the_order_of_units_is_kept(rng):
    model = vgg11(include_top=False, input_shape=(32, 32, 3))
    images = rng.uniform(0, 255, (3, 32, 32, 3))
    places = [(2, 0, 0, 5), (1, 7, 7, 3), (0, 15, 15, 9), (2, 8, 7, 1), (2, 7, 7, 1)]
    together = project(model, images, "block2_conv1", places, batch_size=2)
    for place, one in zip(places, together, strict=True):
        assert (one.image, *one.position, one.unit) == place
        [alone] = project(model, images, "block2_conv1", [place])
        np.testing.assert_allclose(one.projection, alone.projection, atol=1e-6)
        assert one.activation == pytest.approx(alone.activation, rel=1e-5)
