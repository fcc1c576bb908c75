"""ZFNet: totals and shapes."""

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models import zfnet
from tests.helpers.network_outlines import outline, shapes_of


# By arithmetic from the papers' tables.
@pytest.mark.parametrize(
    ("builder", "options", "count"),
    [
        (zfnet, {}, 62_357_608),
        (zfnet, {"filters": (512, 1024, 512)}, 107_627_624),
        (zfnet, {"hidden_units": 2048}, 28_848_232),
        (zfnet, {"hidden_units": 8192}, 154_542_184),
        (zfnet, {"omit_layers": ["fc7"]}, 62_357_608 - 16_781_312),
        # conv5 then sees the 256 maps of conv2.
        (zfnet, {"omit_layers": ["conv3", "conv4"]},
         62_357_608 - 885_120 - 1_327_488 - 884_992 + 9 * 256 * 256 + 256),
    ],
)  # fmt: skip
def test_parameter_totals(builder, options, count):
    assert outline(builder, **options).count_params() == count


def test_zfnet_shapes():
    shapes = shapes_of(outline(zfnet))
    expected = {
        "conv1": (110, 110, 96), "pool1": (55, 55, 96), "norm1": (55, 55, 96),
        "conv2": (26, 26, 256), "pool2": (13, 13, 256), "norm2": (13, 13, 256),
        "conv3": (13, 13, 384), "conv4": (13, 13, 384), "conv5": (13, 13, 256),
        "pool5": (6, 6, 256), "fc6": (4096,), "fc7": (4096,), "fc8": (1000,),
    }  # fmt: skip
    assert {name: shapes[name] for name in expected} == expected
    assert list(shapes).index("pool1") < list(shapes).index("norm1")


def test_zfnet_starts_as_the_paper_says():
    """Weights of the deviation 0.01, biases of 0; half a pixel of padding behind each side."""
    model = zfnet(input_shape=(64, 64, 3), classes=9, hidden_units=64)
    assert model.get_layer("pad1").padding == ((0, 1), (0, 1))
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"):
        kernel, bias = model.get_layer(name).get_weights()
        assert np.std(kernel) == pytest.approx(0.01, rel=0.05), name
        assert not bias.any()
    glorot = zfnet(input_shape=(64, 64, 3), classes=9, hidden_units=64, initializer="glorot")
    assert np.std(glorot.get_layer("conv1").kernel) > 0.015


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: zfnet(omit_layers=["conv5"]),
            "`omit_layers` of ZFNet must name layers that can be left out",
        ),
        (lambda: zfnet(filters=(384, 384)), "filters of conv3, conv4 and conv5"),
        (lambda: zfnet(hidden_units=0), "`hidden_units` must be an integer of at least 1"),
        (lambda: zfnet(input_shape=(20, 20, 3)), "too small for ZFNet"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
