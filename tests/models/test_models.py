import inspect

import keras
import numpy as np
import pytest

import cnnkit
from cnnkit import alexnet, load_model, vgg11, vgg13, vgg16, vgg19
from cnnkit.errors import UsageError
from cnnkit.models import build, get_layer, logits_tensor, vgg

# Parameters at 1000 classes, by arithmetic from the papers' tables.
PARAMETERS = [
    (alexnet, {}, 60_965_224),
    (alexnet, {"groups": 1}, 62_378_344),
    (vgg11, {}, 132_863_336),
    (vgg13, {}, 133_047_848),
    (vgg16, {}, 138_357_544),
    (vgg19, {}, 143_667_240),
    (vgg, {"config": "C"}, 133_638_952),
    (vgg, {"config": "A-LRN"}, 132_863_336),
]


@pytest.mark.parametrize(
    ("builder", "options", "count"), PARAMETERS, ids=[str(count) for *_, count in PARAMETERS]
)
def test_parameter_totals(builder, options, count):
    # Symbolic initial values: the totals need no half gigabyte of weights.
    with keras.StatelessScope():
        assert builder(**options).count_params() == count


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
    """55 positions, the last one over three rows and columns of zeros (the authors' ceil rule)."""
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


def test_vgg_layers():
    model = vgg16(include_top=False)
    reference = keras.applications.VGG16(include_top=False, weights=None)
    names = [layer.name for layer in reference.layers if layer.name.startswith("block")]
    assert [layer.name for layer in model.layers if layer.name.startswith("block")] == names
    assert [w.shape for w in model.weights] == [w.shape for w in reference.weights]


def test_vgg_equals_keras_applications_with_the_same_weights(rng):
    reference = keras.applications.VGG16(include_top=False, weights=None, pooling="avg")
    model = vgg16(include_top=False, pooling="avg", include_preprocessing=False)
    model.set_weights(reference.get_weights())
    image = rng.normal(0, 60, (1, 48, 40, 3)).astype("float32")
    np.testing.assert_allclose(model(image), reference(image), rtol=1e-4, atol=1e-5)


def test_vgg_head_and_aliases():
    model = vgg11(input_shape=(32, 32, 3), classes=3)
    assert get_layer(model, "fc6") is model.get_layer("fc1")
    assert get_layer(model, "fc8") is model.get_layer("predictions")
    assert logits_tensor(model) is model.get_layer("predictions").output
    plain = vgg11(input_shape=(32, 32, 3), classes=3, classifier_activation=None)
    assert logits_tensor(plain) is plain.output


def test_a_fused_softmax_hides_the_logits():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="d")(inputs))
    with pytest.raises(UsageError, match="'d' ends in a fused softmax"):
        logits_tensor(model)


@pytest.mark.parametrize("builder", [alexnet, vgg11, vgg13, vgg16, vgg19])
def test_arguments_follow_keras_applications(builder):
    parameters = inspect.signature(builder).parameters
    wanted = {
        "include_top": True, "weights": None, "input_shape": None, "pooling": None, "classes": 1000,
        "classifier_activation": "softmax", "include_preprocessing": True,
    }  # fmt: skip
    for name, default in wanted.items():
        assert parameters[name].default == default
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert "name" in parameters
    assert type(builder(include_top=False)) is keras.Model or isinstance(
        builder(include_top=False), keras.Model
    )


def test_the_mean_is_subtracted_inside(rng):
    options = {"input_shape": (64, 64, 3), "include_top": False, "pooling": "max"}
    inside = alexnet(mean=(10, 20, 30), **options)
    outside = alexnet(include_preprocessing=False, **options)
    outside.set_weights(inside.get_weights())
    image = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(
        inside(image), outside(image - np.array([10, 20, 30], "float32")), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_ends_in_float32(policy, rng):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        model = alexnet(input_shape=(64, 64, 3), classes=4, initializer="glorot")
    finally:
        keras.config.set_dtype_policy(before)
    outputs = model(rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32"))
    assert outputs.dtype == "float32"
    assert model.get_layer("conv3").output.dtype == policy.removeprefix("mixed_")
    assert float(np.sum(outputs)) == pytest.approx(1, abs=1e-5)


def test_save_and_load(tmp_path, rng):
    model = alexnet(input_shape=(64, 64, 3), classes=4, initializer="glorot")
    image = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(image), model(image))
    np.testing.assert_array_equal(load_model(tmp_path)(image), model(image))
    model.save_weights(tmp_path / "a.weights.h5")
    other = alexnet(input_shape=(64, 64, 3), classes=4, weights=str(tmp_path / "a.weights.h5"))
    np.testing.assert_array_equal(other(image), model(image))
    with pytest.raises(UsageError, match="does not fit alexnet"):
        alexnet(input_shape=(64, 64, 3), classes=5, weights=str(tmp_path / "a.weights.h5"))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alexnet(input_shape=(63, 64, 3)), "at least 64. Received: 63 x 64"),
        (lambda: vgg16(input_shape=(31, 31, 3)), "at least 32. Received: 31 x 31"),
        (lambda: alexnet(input_shape=(224, 224, 1)), "RGB images"),
        (lambda: vgg16(input_shape=(None, None, 3)), "known image size"),
        (lambda: alexnet(groups=3), "groups=1 or 2. Received: 3"),
        (lambda: alexnet(initializer="he"), "Unknown initializer 'he'"),
        (lambda: alexnet(classes=0), "classes >= 1 and hidden_units >= 1. Received: classes=0"),
        (lambda: alexnet(pooling="mean", include_top=False), "Unknown pooling 'mean'"),
        (lambda: alexnet(pooling="avg"), "pooling=None, or include_top=False"),
        (lambda: vgg("F"), "Unknown VGG configuration 'F'"),
        (lambda: build("alexnett"), "Did you mean alexnet"),
        (lambda: build("vgg16", group=2), "Unknown option of vgg16 'group'"),
        (lambda: get_layer(vgg11(include_top=False), "block1_conv0"), "Did you mean block1_conv1"),
        (lambda: alexnet(weights="no.weights.h5"), "No weights file no.weights.h5"),
        (lambda: alexnet(weights="imagenett"), "No weights file imagenett"),
        (lambda: load_model("no.keras"), "No model at no.keras"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is not a model that Keras can load"):
        load_model(tmp_path / "model.keras")


def test_public_names():
    assert cnnkit.vgg16 is vgg16
    assert set(cnnkit.__all__) <= set(dir(cnnkit))
    with pytest.raises(AttributeError, match="no attribute 'vgg17'"):
        _ = cnnkit.vgg17
