"""Layers by name, and the output of a graph."""

import pytest

from cnnkit import vgg11
from cnnkit.errors import UsageError
from cnnkit.models import get_layer


def test_vgg_head_and_aliases():
    model = vgg11(input_shape=(32, 32, 3), classes=3)
    assert get_layer(model, "fc6") is model.get_layer("fc1")
    assert get_layer(model, "fc8") is model.get_layer("predictions")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: get_layer(vgg11(include_top=False), "block1_conv0"), "Did you mean block1_conv1"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
