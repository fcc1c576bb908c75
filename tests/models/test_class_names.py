"""Class names that a model carries, and classes given by name or number."""

import keras
import pytest

from cnnkit import vgg11
from cnnkit.errors import UsageError
from cnnkit.models import class_index, class_names, set_class_names


@pytest.fixture(scope="module")
def model():
    model = vgg11(input_shape=(32, 32, 3), classes=3)
    set_class_names(model, ["cat", "dog", "2"])
    return model


def test_names_are_held_by_the_last_layer(model):
    assert class_names(model) == ("cat", "dog", "2")
    logits = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    set_class_names(logits, ["cat", "dog", "owl"])
    assert class_names(logits) is None


@pytest.mark.parametrize(("label", "index"), [("dog", 1), (1, 1), ("1", 1), ("2", 2), (0, 0)])
def test_classes_by_name_or_number(model, label, index):
    assert class_index(model, label) == index


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda model: class_index(model, "dgo"), "Did you mean dog"),
        (lambda model: class_index(model, 3), "has no class 3. Expected: 0 to 2. Received: 3"),
        (lambda model: class_index(model, -1), "has no class -1"),
        (lambda model: set_class_names(model, ["cat"]), "Expected: 3 names. Received: 1"),
    ],
)
def test_wrong_arguments_are_refused(model, call, text):
    with pytest.raises(UsageError) as error:
        call(model)
    assert text in str(error.value)
