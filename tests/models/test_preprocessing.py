"""Preprocessing inside a network."""

import numpy as np
import pytest
from keras.applications import imagenet_utils

from cnnkit import alexnet
from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import PRESETS, find_preset, override_preprocessing


def test_the_mean_is_subtracted_inside(rng):
    options = {"input_shape": (64, 64, 3), "include_top": False, "pooling": "max"}
    inside = alexnet(mean=(10, 20, 30), **options)
    outside = alexnet(include_preprocessing=False, **options)
    outside.set_weights(inside.get_weights())
    image = rng.uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(
        inside(image), outside(image - np.array([10, 20, 30], "float32")), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_equal_preprocess_input(rng, name):
    images = rng.uniform(0, 255, (2, 5, 4, 3)).astype("float32")
    preset = find_preset(name)
    ours = (images - np.asarray(preset.mean)) / (1 if preset.std is None else preset.std)
    ours = ours[..., ::-1] if preset.channels == "BGR" else ours
    if name == "raw":
        expected = images
    elif name == "unit":
        expected = images / 255
    else:
        expected = imagenet_utils.preprocess_input(images.copy(), mode=name)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-5)


def test_arguments_take_the_place_of_a_custom():
    torch = PRESETS["torch"].by_convention("torchvision")
    assert torch.is_assumed
    kept = override_preprocessing(torch, mean=[104, 117, 124])
    # The deviation still is a custom that nobody confirmed.
    assert kept.is_assumed and "except for what is given" in kept.describe()
    caffe = override_preprocessing(torch, channels="BGR", mean=[123.68, 116.779, 103.939], std=1)
    assert not caffe.is_assumed
    assert caffe.describe() == "BGR, minus 103.9 116.8 123.7, as given"
    assert override_preprocessing(torch, "caffe").describe() == caffe.describe()
    np.testing.assert_allclose(override_preprocessing(torch, std=1, scale=1 / 255).std, [255] * 3)
    assert override_preprocessing(torch) is torch


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"preset": "imagenet"}, "Unknown preprocessing 'imagenet'"),
        ({"channels": "rgb"}, "Unknown order of colors 'rgb'"),
        (
            {"mean": [0.485, 0.456, 0.406]},
            "`mean` must be in 0..255, not in 0..1. Expected: 123.67",
        ),
        ({"mean": [1, 2]}, "`mean` must be that of RGB images"),
        ({"mean": [1, 2, np.nan]}, "`mean` must be that of RGB images"),
        ({"std": [0.229, 0.224, 0.225]}, "`std` must be that of images in 0..255"),
        ({"std": [1, 2, 0]}, "`std` must be 3 numbers above zero"),
        ({"std": [1, 2]}, "`std` must be 3 numbers above zero"),
        ({"scale": -1}, "`scale` must be a factor above 0"),
    ],
)
def test_wrong_preprocessing_arguments(arguments, text):
    with pytest.raises(UsageError) as error:
        override_preprocessing(PRESETS["raw"], **arguments)
    assert text in str(error.value)
