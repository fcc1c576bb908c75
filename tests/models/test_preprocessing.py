"""Preprocessing inside a network."""

import numpy as np
import pytest
from keras.applications import imagenet_utils

from cnnkit import alexnet
from cnnkit.errors import UsageError
from cnnkit.models.preprocessing import (
    PRESETS,
    Preprocessing,
    find_preset,
    from_statistics,
    override_preprocessing,
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


STATED = Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)).said_by_file("layer 'x'")


@pytest.mark.parametrize(
    ("other", "contradicts"),
    [
        (Preprocessing((1.0005, 2.0, 3.0), (4.0, 5.0, 6.003)), False),
        (Preprocessing((1.01, 2.0, 3.0), (4.0, 5.0, 6.0)), True),
        (Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.1)), True),
        (Preprocessing((1.0, 2.0, 3.0)), True),
        (Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "BGR"), True),
        (Preprocessing(np.full((2, 2, 3), (1.0, 2.0, 3.0)), (4.0, 5.0, 6.0)), True),
    ],
)
def test_only_what_a_file_states_can_be_contradicted(other, contradicts):
    assert STATED.contradicts(other) is contradicts
    plain = Preprocessing(STATED.mean).said_by_file("x")
    assert not plain.contradicts(Preprocessing(STATED.mean))
    assert plain.contradicts(Preprocessing(STATED.mean, (2.0, 2.0, 2.0)))
    for custom in (STATED.by_convention("x"), Preprocessing(STATED.mean, STATED.std)):
        assert not custom.contradicts(other)


def test_pixels_that_are_taken_as_they_are_are_known():
    assert Preprocessing().is_identity
    for other in ({"channels": "BGR"}, {"std": (2.0,) * 3}, {"mean": (0.0, 0.0, 1.0)}):
        assert not Preprocessing(**other).is_identity


@pytest.mark.parametrize(
    ("preprocessing", "text"),
    [
        (Preprocessing(), "RGB, 0..255 as they are, as given"),
        (STATED, "RGB, minus 1.0 2.0 3.0, divided by 4.0 5.0 6.0, stated in the file: layer 'x'"),
        (
            STATED.said_by_file(""),
            "RGB, minus 1.0 2.0 3.0, divided by 4.0 5.0 6.0, stated in the file",
        ),
        (
            PRESETS["caffe"].by_convention("Caffe"),
            "BGR, minus 103.9 116.8 123.7, assumed: convention of Caffe",
        ),
        (PRESETS["tf"], "RGB, minus 127.5, divided by 127.5, as given"),
        (Preprocessing(np.full((2, 4, 3), 7.0)), "RGB, minus 7 (mean image, 2 x 4), as given"),
        (Preprocessing(origin="unknown"), "not stated in the file; taken as RGB in 0..255"),
        (Preprocessing(origin="unknown", reason="x"), "x; taken as RGB in 0..255"),
    ],
)
def test_the_pixels_are_described(preprocessing, text):
    assert preprocessing.describe() == text


def test_a_mean_image_covers_the_images_of_the_network():
    mean = np.arange(5 * 8 * 3.0).reshape(5, 8, 3)
    preprocessing = Preprocessing(mean)
    np.testing.assert_array_equal(preprocessing.for_size(5, 8).mean, mean)
    np.testing.assert_array_equal(preprocessing.for_size(2, 5).mean, mean[1:3, 1:6])
    for height, width in ((6, 8), (5, 9), (None, 8), (5, None)):
        with pytest.raises(UsageError, match=f"at most 5 x 8 pixels. Received: {height} x {width}"):
            preprocessing.for_size(height, width)
    color = Preprocessing((1.0, 2.0, 3.0))
    assert color.for_size(None, None) is color


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ((0.4, 0.5, 0.6), None, ((102, 127.5, 153), (255, 255, 255))),
        ((0.4, 0.5, 1.0), (0.2, 0.2, 1.0), ((102, 127.5, 255), (51, 51, 255))),
        ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), ((0, 0, 0), (127.5, 127.5, 127.5))),
        ((104.0, 117.0, 124.0), None, ((104, 117, 124), None)),
        ((104.0, 117.0, 124.0), (1.0, 1.0, 1.0), ((104, 117, 124), (1, 1, 1))),
        ((0.0, 0.0, 0.0), (57.0, 57.0, 57.0), ((0, 0, 0), (57, 57, 57))),
        ((0.4, 117.0, 124.0), None, None),
        ((0.4, 0.5, 0.6), (57.0, 57.0, 57.0), None),
        ((0.0, 0.0, 0.0), None, None),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), None),
    ],
)
def test_stored_statistics_tell_the_range_of_the_images(mean, std, expected):
    found = from_statistics(mean, std)
    if expected is None:
        assert found.is_assumed and "do not tell the range of the images" in found.reason
        return
    np.testing.assert_allclose(found.mean, expected[0])
    assert (found.std is None) == (expected[1] is None)
    if found.std is not None:
        np.testing.assert_allclose(found.std, expected[1])


def test_arguments_at_their_limits():
    raw = PRESETS["raw"]
    assert override_preprocessing(raw, mean=(0, 0, 0)).is_identity
    assert override_preprocessing(raw, mean=(0, 0, 1.5)).mean == (0, 0, 1.5)
    assert override_preprocessing(raw, std=1).std is None
    np.testing.assert_allclose(override_preprocessing(raw, std=(1, 2, 4), scale=2).std, (0.5, 1, 2))
    for wrong in ({"mean": (0, 0, 1)}, {"scale": 0}, {"scale": np.inf}, {"std": (1, np.inf, 1)},
                  {"mean": np.ones((4, 3))}, {"std": np.ones((3, 3))}):  # fmt: skip
        with pytest.raises(UsageError):
            override_preprocessing(raw, **wrong)
