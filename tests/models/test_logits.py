"""How networks end, by their own outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit import vgg11
from cnnkit.errors import UsageError
from cnnkit.models import class_index, class_names, logits_tensor, set_class_names
from cnnkit.models.class_names import class_captions
from cnnkit.models.logits import output_activation, output_layer


def small(end):
    inputs = keras.Input((4,), name="image")
    return keras.Model(inputs, end(layers.Dense(3, name="top")(inputs)))


def nested():
    inner = small(layers.Softmax())
    return keras.Sequential([keras.Input((4,)), layers.Rescaling(2.0), inner])


def second_of_two():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3)(inputs)
    inner = keras.Model(inputs, [layers.Dense(2)(hidden), layers.Softmax()(hidden)])
    outer = keras.Input((4,))
    return keras.Model(outer, inner(outer)[1])


@pytest.mark.parametrize(
    "build",
    [
        lambda: small(layers.Softmax()),
        lambda: small(layers.Activation("softmax")),
        lambda: small(layers.Activation(tf.nn.softmax)),
        lambda: small(layers.Activation(keras.ops.softmax)),
        lambda: small(keras.ops.softmax),
        nested,
        second_of_two,
    ],
)
def test_the_logits_of_a_softmax(build, rng):
    model = build()
    inputs = rng.normal(size=(5, 4)).astype("float32")
    assert output_activation(model) == "softmax"
    logits = keras.Model(model.inputs[0], logits_tensor(model))(inputs)
    assert not np.allclose(tf.reduce_sum(logits, axis=-1), 1)
    np.testing.assert_allclose(tf.nn.softmax(logits), model(inputs), atol=1e-6)


def test_one_of_several_outputs_is_not_guessed():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3)(inputs)
    both = keras.Model(inputs, [layers.Softmax(name="first")(hidden), hidden])
    assert output_layer(both) is None
    assert output_layer(keras.Model(inputs, both.outputs[0])).name == "first"


def test_outputs_without_a_softmax_are_the_logits():
    for end, kind in (
        (layers.Activation("sigmoid"), "sigmoid"),
        (keras.ops.sigmoid, "sigmoid"),
        (layers.Activation(tf.sigmoid), "sigmoid"),
        (layers.Activation("tanh"), None),
        (layers.Identity(), None),
    ):
        model = small(end)
        assert output_activation(model) == kind
        assert logits_tensor(model) is model.output
    # A softmax below the last layer is part of the network.
    hidden = small(lambda x: layers.Dense(2)(layers.Softmax()(x)))
    assert output_activation(hidden) is None
    assert logits_tensor(hidden) is hidden.output


def test_networks_without_logits_are_refused():
    inputs = keras.Input((4,))
    fused = keras.Model(inputs, layers.Dense(2, activation="softmax", name="d")(inputs))
    outer = keras.Sequential([keras.Input((4,)), fused])
    for model in (fused, outer):
        assert output_activation(model) == "softmax"
        with pytest.raises(UsageError, match="'d' ends in a fused softmax"):
            logits_tensor(model)
    two = keras.Model(inputs, {"a": layers.Dense(2)(inputs), "b": layers.Dense(3)(inputs)})
    assert output_activation(two) is None
    with pytest.raises(UsageError, match="must have one output. Received: 2 outputs"):
        logits_tensor(two)
    with pytest.raises(UsageError, match="must have one output"):
        class_index(two, 0)


def test_names_in_a_model_used_as_a_layer():
    inner = vgg11(input_shape=(32, 32, 3), classes=2)
    outer = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1.0), inner])
    set_class_names(outer, ("cat", "dog"))
    assert class_names(outer) == class_names(inner) == class_captions(outer) == ("cat", "dog")
    assert class_index(outer, "dog") == 1


def test_the_two_classes_of_one_output():
    model = vgg11(input_shape=(32, 32, 3), classes=1, classifier_activation="sigmoid")
    assert class_captions(model) == ("class 0 (no)", "class 1 (yes)")
    set_class_names(model, ["cat"])
    assert class_captions(model) == ("not cat", "cat")
    assert [class_index(model, one) for one in ("cat", "not cat", 0, "1")] == [1, 0, 0, 1]
    assert class_names(model) == ("cat",)
    # A softmax over one class is always 1: there is no second class.
    assert class_captions(small(lambda x: layers.Dense(1, "softmax")(x))) is None


@pytest.mark.parametrize("label", [1.7, [0, 1], None, True, (1,), np.float32(1)])
def test_a_class_is_a_name_or_a_number(label):
    with pytest.raises(UsageError, match="`label` must be the name or the number of a class"):
        class_index(small(layers.Softmax()), label)
