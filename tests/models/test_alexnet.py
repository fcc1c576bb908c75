"""AlexNet and its presets: totals, shapes, first weights, and the overhanging window."""

import keras
import numpy as np
import pytest

from cnnkit import alexnet
from cnnkit.errors import UsageError
from tests.helpers.network_outlines import outline


# By arithmetic from the papers' tables.
@pytest.mark.parametrize(
    ("builder", "options", "count"),
    [
        (alexnet, {}, 60_965_224),
        (alexnet, {"groups": 1}, 62_378_344),
        (alexnet, {"preset": "caffe"}, 60_965_224),
        (alexnet, {"preset": "torchvision"}, 61_100_840),
        (alexnet, {"preset": "one-weird-trick"}, 61_100_840),
        (alexnet, {"omit_layers": ["fc7"]}, 60_965_224 - 16_781_312),
        # Five convolutions of half the filters but for the last, and the same dense layers.
        (alexnet, {"groups": 1, "filters": (48, 128, 192, 192, 256)}, 1_167_168 + 58_631_144),
        (alexnet, {"preset": "torchvision", "filters": [8, 8, 8, 8, 256]}, 24_376 + 58_631_144),
        (alexnet, {"sixth_conv": 256}, 60_965_224 + 9 * 256 * 256 + 256),
    ],
)  # fmt: skip
def test_parameter_totals(builder, options, count):
    assert outline(builder, **options).count_params() == count


def test_alexnet_layers():
    model = alexnet()
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
    expected = {
        "conv1": (55, 55, 96), "norm1": (55, 55, 96), "pool1": (27, 27, 96),
        "conv2": (27, 27, 256), "norm2": (27, 27, 256), "pool2": (13, 13, 256),
        "conv3": (13, 13, 384), "conv4": (13, 13, 384), "conv5": (13, 13, 256),
        "pool5": (6, 6, 256), "fc6": (4096,), "fc7": (4096,), "fc8": (1000,),
        "probabilities": (1000,),
    }  # fmt: skip
    assert {name: shapes[name] for name in expected} == expected
    counts = {name: model.get_layer(name).count_params() for name in ("conv2", "conv4", "fc6")}
    assert counts == {"conv2": 307_456, "conv4": 663_936, "fc6": 37_752_832}


def test_alexnet_starts_as_the_paper_says():
    model = alexnet(input_shape=(64, 64, 3), classes=10, bias_value=0.5)
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        kernel, bias = model.get_layer(name).get_weights()
        assert np.std(kernel) == pytest.approx(0.01, rel=0.05)
        np.testing.assert_array_equal(bias, 0.5 if name in ones else 0.0)
    glorot = alexnet(input_shape=(64, 64, 3), classes=10, initializer="glorot")
    assert all((layer.get_weights()[1] == 0).all() for layer in glorot.layers if layer.weights)


def test_the_last_window_of_224_overhangs_to_the_bottom_right(rng):
    """There are 55 positions; the last one covers three rows and columns of zeros."""
    model = alexnet(include_top=False, input_shape=(224, 224, 3))
    conv1 = keras.Model(model.input, model.get_layer("conv1").output)
    image = rng.uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    kernel, bias = model.get_layer("conv1").get_weights()
    centered = image[0] - np.array([123.68, 116.779, 103.939])
    window = np.zeros((11, 11, 3))
    window[:8, :8] = centered[216:, 216:]
    expected = np.maximum(np.einsum("hwc,hwcf->f", window, kernel) + bias, 0)
    np.testing.assert_allclose(conv1(image)[0, 54, 54], expected, rtol=1e-3, atol=1e-3)
    first = np.maximum(np.einsum("hwc,hwcf->f", centered[:11, :11], kernel) + bias, 0)
    np.testing.assert_allclose(conv1(image)[0, 0, 0], first, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("size", "side"), [(64, 1), (224, 6), (256, 7), (288, 8), (384, 11)])
def test_alexnet_takes_other_sizes(size, side):
    model = alexnet(include_top=False, input_shape=(size, size, 3))
    assert model.output_shape == (None, side, side, 256)


@pytest.mark.parametrize(
    ("preset", "size", "side"),
    [("paper", 256, 7), ("paper", 288, 8), ("paper", 384, 11),
     ("caffe", 256, 6), ("caffe", 288, 7), ("caffe", 384, 10), ("caffe", 227, 6),
     ("one-weird-trick", 224, 6), ("torchvision", 224, 6)],
)  # fmt: skip
def test_alexnet_presets_map_sides(preset, size, side):
    model = outline(alexnet, preset=preset, include_top=False, input_shape=(size, size, 3))
    assert model.output_shape == (None, side, side, 256)
    if preset == "caffe":
        assert outline(alexnet, preset="caffe").input_shape == (None, 227, 227, 3)


def test_presets_begin_as_their_sources_say():
    options = {"input_shape": (67, 67, 3), "classes": 5}
    caffe = alexnet(preset="caffe", **options)
    assert caffe.get_layer("norm1").get_config()["k"] == 1.0
    assert caffe.get_layer("norm1").alpha_convention == "mean"
    assert (caffe.get_layer("conv2").get_weights()[1] == np.float32(0.1)).all()
    assert np.std(caffe.get_layer("fc6").get_weights()[0]) == pytest.approx(0.005, rel=0.05)

    later = alexnet(preset="one-weird-trick", **options)
    names = [layer.name for layer in later.layers]
    assert names[names.index("conv1") : names.index("conv2")] == [
        "conv1",
        "norm1",
        "pool1",
        "relu1",
    ]
    assert np.std(later.get_layer("conv3").get_weights()[0]) == pytest.approx(0.03, rel=0.05)
    assert (later.get_layer("fc8").get_weights()[1] == -7).all()

    torch = alexnet(preset="torchvision", **options)
    names = [layer.name for layer in torch.layers]
    assert not [name for name in names if name.startswith("norm")]
    assert names.index("fc6_dropout") < names.index("fc6")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alexnet(input_shape=(63, 64, 3)), "at least 64. Received: 63 x 64"),
        (
            lambda: alexnet(filters=(96, 256, 384)),
            "`filters` of AlexNet must be 5 integers of at least 1, the filters of conv1, conv2, "
            "conv3, conv4 and conv5. Received: (96, 256, 384)",
        ),
        (lambda: alexnet(filters=(3, 4, 4, 4, 4)), "`filters` must be even with `groups=2`"),
        (lambda: alexnet(groups=3), "`groups` must be 1 or 2. Received: 3"),
        (lambda: alexnet(initializer="he"), "Unknown initializer 'he'"),
        (lambda: alexnet(preset="cafe"), "Did you mean caffe"),
        (lambda: alexnet(activation="relu6"), "Unknown activation 'relu6'"),
        (lambda: alexnet(omit_layers=["conv2"]), "a list of some of conv3, conv4, fc6, fc7"),
        (lambda: alexnet(omit_layers="conv3"), "Received: conv3"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("preset", "padding", "normalization", "biases"),
    [
        ("paper", ((0, 3), (0, 3)), ("sum", 2.0), {"conv2", "conv4", "conv5", "fc6", "fc7"}),
        ("caffe", None, ("mean", 1.0), {"conv2", "conv4", "conv5", "fc6", "fc7"}),
        ("caffenet", None, ("mean", 1.0), {"conv2", "conv4", "conv5", "fc6", "fc7"}),
        ("one-weird-trick", ((0, 3), (0, 3)), ("mean", 2.0),
         {"conv2", "conv4", "conv5", "fc6", "fc7", "fc8"}),
        ("torchvision", ((2, 2), (2, 2)), None, set()),
    ],
)  # fmt: skip
def test_padding_normalization_and_first_biases_of_a_preset(preset, padding, normalization, biases):
    model = alexnet(preset=preset, input_shape=(67, 67, 3), classes=3, hidden_units=8)
    layers = {layer.name: layer for layer in model.layers}
    assert (layers["pad1"].padding if "pad1" in layers else None) == padding
    for name in ("norm1", "norm2"):
        norm = layers.get(name)
        assert (norm and (norm.alpha_convention, norm.k)) == normalization
    value = {"caffe": 0.1, "caffenet": 1.0}.get(preset, 1.0)
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        expected = 0 if name not in biases else -7 if name == "fc8" else value
        np.testing.assert_array_equal(layers[name].bias, np.float32(expected), err_msg=name)
    if preset != "torchvision":
        small = {"conv3", "conv4", "conv5"} if preset == "one-weird-trick" else set()
        for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
            expected = 0.03 if name in small else 0.01
            assert np.std(layers[name].kernel) == pytest.approx(expected, rel=0.05), name
