import keras
import numpy as np
import pytest

from cnnkit.data import Augmentation
from cnnkit.errors import RunError, UsageError
from cnnkit.evaluation import ImageClassifier, Localizer
from tests.helpers.boxes import square_finder, square_image


@pytest.fixture(scope="module", params=["per-class", "single"])
def network(request):
    return square_finder(request.param)


@pytest.mark.parametrize(("left", "top"), [(8, 4), (9, 5), (16, 12)])
def test_the_box_of_the_crop_is_told_in_pixels_of_the_image(network, left, top):
    [found] = Localizer(network).locate(square_image(28, 16, left, top))
    assert (found.label, found.index) == ("square", 1)
    assert found.probability == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.box, (left, top, left + 4, top + 4), atol=1e-4)


def test_a_rescaled_image(network):
    """Of an image of twice the size, the crop shows a square of 8 pixels as one of 4."""
    [found] = Localizer(network).locate(square_image(56, 32, 24, 8, side=8))
    np.testing.assert_allclose(found.box, (24, 8, 32, 16), atol=0.6)


@pytest.mark.parametrize(
    ("width", "height", "left", "top"), [(48, 32, 4, 20), (32, 44, 25, 7), (40, 32, 36, 28)]
)
def test_dense_application_finds_what_the_center_does_not_show(network, width, height, left, top):
    image = square_image(width, height, left, top)
    localizer = Localizer(network, method="dense", scales=(32,))
    [box] = localizer.boxes(image, [1])
    np.testing.assert_allclose(box, (left, top, left + 4, top + 4), atol=1e-3)
    # Most places show nothing, so that class comes first.
    [first, second] = localizer.locate(image, top=2)
    assert (first.label, second.label) == ("nothing", "square")
    assert first.probability + second.probability == pytest.approx(1)


def test_several_scales_are_merged(network):
    image = square_image(80, 64, 40, 24, side=8)
    [box] = Localizer(network, method="dense", scales=(32, 36)).boxes(image, [1])
    np.testing.assert_allclose(box, (40, 24, 48, 32), atol=1.5)


def test_each_class_has_its_own_box_only_per_class():
    image = square_image(16, 16, 8, 4)
    for regression in ("per-class", "single"):
        model = square_finder(regression)
        layer = model.get_layer("fc")
        kernel, bias = layer.get_weights()
        bias[4] = 1.0  # The width of the first box.
        layer.set_weights([kernel, bias])
        nothing, square = Localizer(model).boxes(image, [0, 1])
        assert nothing == pytest.approx((2, 4, 16, 8), abs=1e-4)  # Cut at the edge of the image.
        assert square == pytest.approx((8, 4, 12, 8) if regression == "per-class" else nothing)


def test_the_center_is_a_part_of_the_image():
    localizer = Localizer(square_finder(), method="center", center_size=(0.5, 0.25))
    assert localizer.boxes(square_image(80, 40, 0, 0), [0, 1]) == [(20, 15, 60, 25)] * 2


def test_boxes_of_explanations_surround_what_speaks_for_the_class():
    image = square_image(28, 16, 12, 4)
    for method in ("gradient", "occlusion"):
        [box] = Localizer(square_finder(), method=method).boxes(image, [1])
        left, top, right, bottom = box
        assert left >= 0 and right <= 28 and top >= 0 and bottom <= 16
        if method == "occlusion":
            assert left <= 12 and right >= 16 and top <= 4 and bottom >= 8 and right - left <= 9


def test_the_probabilities_of_another_classifier():
    inputs = keras.Input((16, 16, 3))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    other = keras.Model(inputs, keras.layers.Softmax()(outputs))
    other.set_weights([np.zeros((768, 2)), np.log([0.75, 0.25])])
    named = ImageClassifier(other, class_names=("nothing", "square"))
    for method in ("crop", "dense"):
        localizer = Localizer(square_finder(), method=method, classifier=named)
        [first] = localizer.locate(square_image(16, 16, 4, 4))
        assert (first.label, first.probability) == ("nothing", pytest.approx(0.75))
        assert first.box == pytest.approx((4, 4, 8, 8), abs=1e-3)
    with pytest.raises(UsageError, match="must have the classes of the network"):
        Localizer(square_finder(), classifier=ImageClassifier(other, class_names=("a", "b")))


def test_wrong_arguments():
    model = square_finder()
    inner = keras.Model(model.inputs[0], keras.layers.Softmax()(model.get_layer("fc").output))
    for method in ("crop", "dense"):
        with pytest.raises(UsageError, match=f"`method` {method} needs a network with boxes"):
            Localizer(inner, method=method)
    assert Localizer(inner).method == "gradcam"
    with pytest.raises(UsageError, match="Unknown method 'cropp'"):
        Localizer(model, method="cropp")
    with pytest.raises(UsageError, match="`scales` are for the method dense"):
        Localizer(model, scales=(32,))
    with pytest.raises(UsageError, match="at least 16. Received: 8"):
        Localizer(model, method="dense", scales=(8, 32))


def test_scores_that_are_no_numbers_are_refused():
    model = square_finder()
    weights = model.get_layer("fc").get_weights()
    weights[1][0] = np.nan
    model.get_layer("fc").set_weights(weights)
    with pytest.raises(RunError, match=r"no finite scores for a\.png"):
        Localizer(model).locate(square_image(16, 16, 0, 0), name="a.png")


def test_the_crop_of_a_run_is_used():
    """The network sees a crop of 16 from an image that is rescaled to 32."""
    network = ImageClassifier(square_finder(), augmentation=Augmentation(16, scale=(32, 32)))
    [found] = Localizer(network).locate(square_image(40, 32, 20, 12))
    assert found.box == pytest.approx((20, 12, 24, 16), abs=1e-3)
