"""Other classes: only the last layer is new."""

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models.surgery import (
    replace_head,
    to_fully_convolutional,
)
from tests.helpers.surgery_networks import (
    SIDE,
    assert_same_weights,
    assert_untouched,
    frozen_copy,
    headless,
    images,
    tiny,
)


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("convolutional", [True, False])
def test_a_new_head(rng, softmax, convolutional):
    model = tiny(softmax=softmax)
    model = to_fully_convolutional(model) if convolutional else model
    before = frozen_copy(model)
    result = replace_head(model, np.int64(7))
    assert (result.copied, result.reinitialized) == (("conv1", "conv2", "fc6", "fc7"), ("fc8",))
    assert result.model.output_shape == (*model.output_shape[:-1], 7)
    assert_same_weights(model, result.model, result.copied)
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    outputs = np.asarray(result.model(images(rng, SIDE, SIDE)))
    assert bool(np.allclose(outputs.sum(-1), 1)) is softmax
    assert_untouched(model, before)


def test_a_new_head_of_the_same_size_is_new():
    model = tiny()
    new = replace_head(model, 4).model
    assert not np.array_equal(*(m.get_layer("fc8").get_weights()[0] for m in (model, new)))


def test_a_frozen_network_gets_a_head_that_can_learn():
    model = tiny()
    model.trainable = False
    new = replace_head(model, 3).model
    assert [weight.path.split("/")[-2] for weight in new.trainable_weights] == ["fc8", "fc8"]
    assert not model.trainable
    # Also where its layers were made trainable again one by one, which Keras ignores.
    model.get_layer("conv1").trainable = True
    assert not to_fully_convolutional(model).trainable_weights


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: replace_head(tiny(), 0), "a whole number >= 1. Received: 0"),
        (lambda: replace_head(tiny(), 2.5), "Received: 2.5"),
        (lambda: replace_head(headless(), 2), "no head to replace"),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
