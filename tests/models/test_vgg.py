"""VGG: totals, first weights, and the outputs of keras.applications with the same weights."""

import keras
import numpy as np
import pytest

from cnnkit import vgg11, vgg13, vgg16, vgg19
from cnnkit.errors import UsageError
from cnnkit.models import vgg
from tests.helpers.network_outlines import outline


# By arithmetic from the papers' tables.
@pytest.mark.parametrize(
    ("builder", "options", "count"),
    [
        (vgg11, {}, 132_863_336),
        (vgg13, {}, 133_047_848),
        (vgg16, {}, 138_357_544),
        (vgg19, {}, 143_667_240),
        (vgg, {"config": "C"}, 133_638_952),
        (vgg, {"config": "A-LRN"}, 132_863_336),
        (vgg, {"config": "B-5x5"}, 134_503_528),
    ],
)  # fmt: skip
def test_parameter_totals(builder, options, count):
    assert outline(builder, **options).count_params() == count


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


def test_vgg_paper_initialization_has_the_papers_variance():
    model = vgg("A", input_shape=(32, 32, 3), classes=3, initializer="paper")
    assert np.var(model.get_layer("block4_conv1").get_weights()[0]) == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: vgg16(input_shape=(31, 31, 3)), "at least 32. Received: 31 x 31"),
        (lambda: vgg("F"), "Unknown VGG configuration 'F'"),
        (lambda: vgg("A", initializer="he"), "Unknown initializer 'he'"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
