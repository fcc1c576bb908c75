"""The input block and the classifier head."""

import inspect
import math
import warnings

import keras
import numpy as np
import pytest

from cnnkit import alexnet, load_model, vgg16
from cnnkit.errors import UsageError
from cnnkit.models import BUILDERS, build, vgg, zfnet

NAN, INFINITY = math.nan, math.inf
NO_FLAG = ("yes", 1, None, "False")
NO_COUNT = (0, -1, 1.5, "10", None, True, NAN, (3,))
# Values that are refused, by argument.
WRONG = {
    "include_top": NO_FLAG, "include_preprocessing": NO_FLAG, "lrn": NO_FLAG,
    "overlapping_pooling": NO_FLAG, "classes": NO_COUNT, "hidden_units": NO_COUNT,
    "groups": (0, 3, "2", 1.0, None),
    "sixth_conv": (0, 1.5, "256", False),
    "dropout": (1.5, -0.1, NAN, "0.5", None, True),
    "bias_value": (NAN, INFINITY, "1", (1,)),
    "weight_stddev": (-1, NAN, INFINITY, "0.1", None),
    # A network of three or of five numbers refuses all of them.
    "filters": (384, (384, 384), (4, 4, 0), (4, 4, 4, 4, 0), (4.0, 4, 4), (4.0, 4, 4, 4, 4), "abc"),
    "omit_layers": (5, "conv3", ("conv9",), (3,), None),
    "input_shape": (224, "224", (224, 224), (224, 224, 1), (3, 224, 224), (224.0, 224, 3),
                    (-64, 64, 3), (0, 64, 3), ("64", "64", 3), {64: 64}, (True, 64, 3), ()),
    "mean": ("imagenet", 5, (1, 2), (NAN, 1, 1), (1, INFINITY, 1), ((1, 2, 3),), "", {}),
    "preprocessing": ("imagenet", 5, ["caffe"], "", (1, 2, 3)),
    "activation": ("relu6", 5, None, ["relu"]),
    "preset": ("cafe", 5, None, ["caffe"]),
    "config": ("F", 5, None, ["D"]),
    "initializer": ("he", 5, ["glorot"]),
    "pooling": ("mean", 5, ["avg"], True),
    "classifier_activation": ("softmx", 5, ["softmax"], "get", ""),
    "name": ("", 5, "a/b", ["a"]),
    "weights": (5, True, "", ["file"], "no/such/file.h5"),
}  # fmt: skip


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


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: alexnet(input_shape=(224, 224, 1)), "RGB images"),
        (lambda: vgg16(input_shape=(None, None, 3)), "known image size"),
        (lambda: alexnet(classes=0), "`classes` must be an integer of at least 1. Received: 0"),
        (lambda: alexnet(pooling="mean", include_top=False), "Unknown pooling 'mean'"),
        (lambda: alexnet(pooling="avg"), "`pooling=None`, or `include_top=False`"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("builder", [*BUILDERS, "vgg"])
def test_every_wrong_argument_of_every_builder_is_named(builder):
    make = BUILDERS.get(builder, vgg)
    for name in inspect.signature(make).parameters:
        for value in WRONG[name]:
            with pytest.raises(UsageError) as error:
                make(**{name: value})
            text = str(error.value)
            assert "\n" not in text
            named = {"config": "VGG configuration", "weights": "weights"}.get(name, name)
            assert named in text or str(value) in text, text


def test_a_name_that_is_nearly_right_is_offered():
    with pytest.raises(UsageError, match="Did you mean softmax"):
        alexnet(classifier_activation="softmx")


def test_numbers_of_numpy_are_taken_and_saved(tmp_path):
    model = zfnet(
        classes=np.int64(5), hidden_units=np.int32(8), dropout=np.float32(0.25),
        input_shape=np.array([64, 64, 3]), mean=np.ones(3), filters=np.array([4, 4, 4]),
        lrn=np.bool_(True),
    )  # fmt: skip
    model.save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").output_shape == (None, 5)
    assert model.get_layer("fc6_dropout").rate == 0.25


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


SMALL = {"classes": 3, "hidden_units": 8, "input_shape": (64, 64, 3)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", SMALL),
        ("alexnet_caffe", {"include_top": False, "pooling": "avg"}),
        ("zfnet", {"include_top": False, "pooling": "max"}),
        ("vgg11_lrn", {"include_top": False}),
        ("cifar10_full", {"classes": 3}),
        ("cifar10_quick", {"classes": 3}),
    ],
)
def test_keras_set_to_channels_first_changes_nothing(name, options, channels_first, rng):
    network = build(name, **options)
    keras.config.set_image_data_format("channels_last")
    other = build(name, **options)
    other.set_weights(network.get_weights())
    images = rng.uniform(0, 255, (2, *(network.input_shape[1] or 80,) * 2, 3)).astype("float32")
    expected = other(images, training=False)
    keras.config.set_image_data_format("channels_first")
    np.testing.assert_array_equal(network(images, training=False), expected)
    formats = {getattr(layer, "data_format", "channels_last") for layer in network.layers}
    assert formats == {"channels_last"}


# Keras quantizes what can be, and warns of the other layers.
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_a_network_with_fused_activations_can_be_quantized(rng):
    network, other = (build("alexnet", **SMALL, classifier_activation=None) for _ in range(2))
    other.set_weights(network.get_weights())
    images = rng.uniform(0, 255, (4, 64, 64, 3)).astype("float32")
    # Before its first call.
    network.quantize("int8")
    expected = other(images, training=False).numpy()
    difference = np.abs(network(images, training=False).numpy() - expected)
    assert 0 < difference.max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(("mean", "warns"), [((0.4, 0.5, 0.6), True), ((0.0, 0.0, 1.0), False),
                                             ((0.0, 0.0, 0.0), False)])  # fmt: skip
def test_a_mean_of_images_in_0_to_1_is_told(mean, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build("vgg11", include_top=False, input_shape=(32, 32, 3), mean=mean)
    assert [str(one.message)[:22] for one in caught] == ["`mean` lies in 0..1, a"] * warns
