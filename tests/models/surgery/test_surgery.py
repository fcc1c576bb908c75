"""Networks taken apart and put together: against numbers that no surgery made."""

import dataclasses

import keras
import numpy as np
import pytest

from cnnkit import alexnet, load_model
from cnnkit.errors import UsageError
from cnnkit.layers import Dropout, GroupedConv2D, ReLU
from cnnkit.models.surgery import (
    SurgeryResult,
    copy_weights,
    group_kernel,
    replace_head,
    resize_input,
    to_classifier,
    to_dense_convolutions,
    to_fully_convolutional,
    to_grouped_convolutions,
    ungroup_kernel,
)

SIDE, STRIDE = 14, 2


def chain(*layers, side=SIDE, columns=None, name="chain"):
    inputs = x = keras.Input((side, columns or side, 3), name="images")
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def tiny(hidden=(6, 5), classes=4, softmax=True, side=SIDE, **options):
    """No padding: 14 -> 12 -> 6 -> 4, and windows of 14 pixels every 2. Biases are not zero."""
    conv, dense = keras.layers.Conv2D, keras.layers.Dense
    begin = {"bias_initializer": "random_normal"}
    head = []
    for number, units in enumerate(hidden, start=8 - len(hidden)):
        head += [
            dense(units, activation=ReLU(), name=f"fc{number}", **begin),
            Dropout(0.5, name=f"fc{number}_dropout"),
        ]
    return chain(
        conv(5, 3, activation=ReLU(), name="conv1", **begin),
        keras.layers.MaxPooling2D(2, 2, name="pool1"),
        conv(4, 3, activation=ReLU(), name="conv2", **begin),
        keras.layers.Flatten(name="flatten"),
        *head,
        dense(classes, name="fc8", **begin),
        *([keras.layers.Activation("softmax", name="probabilities")] if softmax else []),
        side=side,
        **options,
    )


def small_alexnet(classes=5, **options):
    options = {"initializer": "glorot", "bias_value": 0.1, **options}
    return alexnet(input_shape=(64, 64, 3), classes=classes, **options)


def images(rng, *sides, count=2):
    return rng.uniform(-1, 1, (count, *sides, 3)).astype("float32")


def weights(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def assert_same_weights(one, other, names=None):
    one, other = weights(one), weights(other)
    names = list(one) if names is None else names
    assert names and set(names) <= set(other)
    for name in names:
        for a, b in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(a, b)


def frozen_copy(model):
    """What must not change of a model that is only read."""
    return (
        {name: [value.copy() for value in values] for name, values in weights(model).items()},
        [(layer.name, layer.trainable) for layer in model.layers],
    )


def assert_untouched(model, before):
    now = frozen_copy(model)
    assert now[1] == before[1]
    for name, values in before[0].items():
        for a, b in zip(values, now[0][name], strict=True):
            np.testing.assert_array_equal(a, b)


# Fully convolutional and back


def test_alexnet_says_the_same_as_convolutions(rng):
    model = small_alexnet()
    before = frozen_copy(model)
    network = to_fully_convolutional(model)
    assert network.input_shape == (None, None, None, 3)
    names = [layer.name for layer in model.layers if layer.name != "flatten"]
    assert [layer.name for layer in network.layers] == names
    assert {type(network.get_layer(name)) for name in ("fc6", "fc7", "fc8")} == {
        keras.layers.Conv2D
    }
    pixels = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    scores = np.asarray(network(pixels))
    assert scores.shape == (2, 1, 1, 5)
    assert np.ptp(scores) > 0.01
    np.testing.assert_allclose(scores[:, 0, 0], model(pixels), rtol=1e-5, atol=1e-6)
    # A sum of one at every position: the softmax is over the channels.
    larger = np.asarray(network(rng.uniform(0, 255, (1, 160, 96, 3)).astype("float32")))
    assert larger.shape == (1, 4, 2, 5)
    np.testing.assert_allclose(larger.sum(-1), 1, rtol=1e-5)
    assert_untouched(model, before)


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5), (7, 6, 5)])
@pytest.mark.parametrize("softmax", [True, False])
def test_a_map_of_scores_is_the_classifier_on_every_window(rng, hidden, softmax):
    model = tiny(hidden, softmax=softmax)
    network = to_fully_convolutional(model)
    image = images(rng, 24, 19)
    scores = np.asarray(network(image))
    assert scores.shape == (2, 6, 3, 4)
    for row in range(6):
        for column in range(3):
            top, left = row * STRIDE, column * STRIDE
            window = image[:, top : top + SIDE, left : left + SIDE]
            np.testing.assert_allclose(
                scores[:, row, column],
                model(window),
                rtol=1e-4,
                atol=1e-5,
                err_msg=f"{row, column}",
            )
    assert np.ptp(scores[0, :, :, 0]) > 1e-3


def test_maps_of_vgg_have_the_sides_of_the_paper():
    """Five padded blocks, each halved: the width does not matter."""
    layers = []
    for block in range(1, 6):
        layers.append(keras.layers.Conv2D(2, 3, padding="same", name=f"block{block}_conv1"))
        layers.append(keras.layers.MaxPooling2D(2, 2, name=f"block{block}_pool"))
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(n, name=k) for k, n in (("fc1", 3), ("fc2", 3), ("p", 4))]
    network = to_fully_convolutional(chain(*layers, side=224))
    assert network.get_layer("fc1").kernel_size == (7, 7)
    sides = {224: 1, 256: 2, 288: 3, 352: 5, 384: 6, 416: 7, 512: 10, 640: 14, 768: 18}
    for size, side in sides.items():
        assert network.compute_output_shape((1, size, 224, 3)) == (1, side, 1, 4)


def test_a_map_that_is_not_square_keeps_its_order(rng):
    """3 x 5 positions: rows and columns confused would show."""
    model = chain(
        keras.layers.Conv2D(2, 3, name="conv1"), keras.layers.Flatten(), keras.layers.Dense(4),
        side=5, columns=7,
    )  # fmt: skip
    image = images(rng, 5, 7)
    network = to_fully_convolutional(model)
    np.testing.assert_allclose(network(image)[:, 0, 0], model(image), rtol=1e-5, atol=1e-6)
    back = to_classifier(network, (5, 7, 3))
    np.testing.assert_array_equal(back(image), model(image))


@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_there_and_back_is_bit_exact(rng, hidden):
    model = tiny(hidden)
    network = to_fully_convolutional(model)
    before = frozen_copy(network)
    back = to_classifier(network, (SIDE, SIDE, 3))
    assert back.input_shape == model.input_shape
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert_same_weights(model, back)
    image = images(rng, SIDE, SIDE)
    np.testing.assert_array_equal(back(image), model(image))
    assert_untouched(network, before)


def test_alexnet_there_and_back():
    model = small_alexnet()
    back = to_classifier(to_fully_convolutional(model), (64, 64, 3))
    assert_same_weights(model, back)
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]


def test_other_layers_of_a_head(rng):
    """Dropout first, a separate ReLU, a fused softmax, normalization, no bias, a constraint."""
    model = chain(
        keras.layers.Conv2D(2, 3, name="conv1"),
        keras.layers.MaxPooling2D(2, name="pool1"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dropout(0.5, name="drop"),
        keras.layers.Dense(
            6, use_bias=False, kernel_constraint=keras.constraints.MaxNorm(0.5), name="fc6"
        ),
        keras.layers.BatchNormalization(axis=1, name="normal"),
        ReLU(name="relu"),
        keras.layers.Dense(3, activation="softmax", name="fc7"),
        side=8,
    )
    normal = model.get_layer("normal")
    normal.set_weights([rng.uniform(0.5, 2, 6).astype("float32") for _ in range(4)])
    image = images(rng, 8, 8)
    network = to_fully_convolutional(model)
    np.testing.assert_allclose(network(image)[:, 0, 0], model(image), rtol=1e-5, atol=1e-6)
    # The norm of a unit's weights is that of all of them, wherever they stand.
    fc6 = network.get_layer("fc6")
    wanted = model.get_layer("fc6").kernel_constraint(model.get_layer("fc6").kernel)
    found = np.reshape(fc6.kernel_constraint(fc6.kernel), (18, 6))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    back = to_classifier(network, (8, 8, 3))
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert back.get_layer("fc6").kernel_constraint.axis == 0
    np.testing.assert_array_equal(back(image), model(image))


def test_an_ordinary_convolution_before_the_head_can_be_kept(rng):
    """3 x 3 over a map of 3 x 3 could be either; `first` says which."""
    model = chain(
        keras.layers.Conv2D(4, 3, name="conv1"), keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(5, name="fc6"), keras.layers.Dense(2, name="fc7"), side=3,
    )  # fmt: skip
    network = to_fully_convolutional(model)
    image = images(rng, 3, 3)
    back = to_classifier(network, (3, 3, 3), first="fc6")
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert_same_weights(model, back)
    greedy = to_classifier(network, (3, 3, 3))
    assert greedy.layers[1].name == "flatten"
    np.testing.assert_allclose(greedy(image), model(image), rtol=1e-5, atol=1e-6)


def test_policies_and_frozen_layers_stay(rng):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = small_alexnet()
    finally:
        keras.config.set_dtype_policy(before)
    for name in ("conv1", "conv3", "fc6"):
        model.get_layer(name).trainable = False
    network = to_fully_convolutional(model)
    for new in (
        network,
        to_classifier(network, (64, 64, 3)),
        resize_input(model, 72).model,
        replace_head(model, 3).model,
        to_dense_convolutions(model),
        to_grouped_convolutions(to_dense_convolutions(model)),
    ):
        for layer in new.layers:
            if layer.name == "images":
                continue
            old = model.get_layer(layer.name) if layer.name != "flatten" else layer
            assert layer.dtype_policy.name == old.dtype_policy.name, layer.name
            assert layer.trainable == old.trainable, layer.name
        assert new.get_layer("conv3").compute_dtype == "bfloat16"
        assert new.get_layer("fc8").compute_dtype == "float32"
    assert not network.get_layer("fc6").trainable_weights


def test_a_converted_network_saves_and_loads(rng, tmp_path):
    network = to_fully_convolutional(tiny())
    network.save(tmp_path / "model.keras")
    image = images(rng, 16, 18)
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(image), network(image))


@pytest.mark.parametrize(
    "change",
    [
        to_fully_convolutional,
        lambda model: to_classifier(to_fully_convolutional(model), (SIDE, SIDE, 3)),
        lambda model: resize_input(model, 15).model,
        lambda model: replace_head(model, 4).model,
        to_dense_convolutions,
        lambda model: to_grouped_convolutions(model, 1, ["conv1"]),
    ],
)
def test_the_new_network_has_weights_of_its_own(change):
    model = tiny()
    before = frozen_copy(model)
    new = change(model)
    new.set_weights([np.zeros(weight.shape) for weight in new.weights])
    assert_untouched(model, before)


# Other sizes


def test_a_size_with_another_map_makes_the_first_dense_layer_new(rng):
    model = tiny()
    before = frozen_copy(model)
    result = resize_input(model, (20, 16))
    assert isinstance(result, SurgeryResult)
    assert (result.copied, result.reinitialized) == (("conv1", "conv2", "fc7", "fc8"), ("fc6",))
    assert result.model.input_shape == (None, 20, 16, 3)
    assert_same_weights(model, result.model, result.copied)
    # 7 x 5 positions of 4 channels; made by its own initializers.
    kernel, bias = result.model.get_layer("fc6").get_weights()
    assert kernel.shape == (140, 6) and np.std(kernel) > 0 and np.std(bias) > 0
    assert result.model.get_layer("fc6").trainable
    assert_untouched(model, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.reinitialized = ()


def test_a_size_with_the_same_map_keeps_the_head(rng):
    model = tiny()
    result = resize_input(model, 15)
    assert result.reinitialized == ()
    assert result.copied == ("conv1", "conv2", "fc6", "fc7", "fc8")
    image = images(rng, 15, 15)
    # The pooling leaves the last row and column out.
    np.testing.assert_allclose(result.model(image), model(image[:, :14, :14]), rtol=1e-5, atol=1e-6)


def test_as_many_numbers_in_another_layout_do_not_fit():
    wide = chain(keras.layers.Conv2D(2, 1), keras.layers.Flatten(), keras.layers.Dense(4, name="d"),
                 side=2, columns=3)  # fmt: skip
    assert resize_input(wide, (3, 2)).reinitialized == ("d",)
    assert resize_input(wide, (2, 3)).reinitialized == ()


def test_networks_without_a_dense_head_come_along_whole(rng):
    network = to_fully_convolutional(tiny())
    result = resize_input(network, 24)
    assert result.reinitialized == () and result.model.output_shape == (None, 6, 6, 4)
    image = images(rng, 24, 24)
    np.testing.assert_allclose(result.model(image), network(image), rtol=1e-6)
    pooled = chain(
        keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)
    )
    assert resize_input(pooled, 9).reinitialized == ()


def test_alexnet_at_another_size():
    result = resize_input(small_alexnet(), 96)
    assert result.reinitialized == ("fc6",)
    assert result.model.get_layer("fc6").kernel.shape[0] == 2 * 2 * 256


# Other classes


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


# From one network into another


def test_copy_by_name():
    source, target = tiny(classes=4), tiny(classes=9)
    before, old = frozen_copy(source), weights(target)
    result = copy_weights(source, target)
    assert result.model is target
    assert (result.copied, result.reinitialized) == (("conv1", "conv2", "fc6", "fc7"), ("fc8",))
    assert_same_weights(source, target, result.copied)
    np.testing.assert_array_equal(old["fc8"][0], target.get_layer("fc8").get_weights()[0])
    assert_untouched(source, before)


def staged(columns, classes=3, side=32, top=True):
    """VGG's names at a width of 2 to 4 channels; `columns` convolutions in each block."""
    layers = []
    for block, count in enumerate(columns, start=1):
        for position in range(1, count + 1):
            name = f"block{block}_conv{position}"
            layers.append(keras.layers.Conv2D(min(1 + block, 4), 3, padding="same", name=name))
        layers.append(keras.layers.MaxPooling2D(2, name=f"block{block}_pool"))
    if top:
        layers.append(keras.layers.Flatten(name="flatten"))
        units = {"fc1": 6, "fc2": 5, "predictions": classes}
        layers += [keras.layers.Dense(n, name=name) for name, n in units.items()]
    return chain(*layers, side=side, name="x".join(map(str, columns)))


STAGED = (
    "block1_conv1", "block2_conv1", "block3_conv1", "block3_conv2", "fc1", "fc2", "predictions",
)  # fmt: skip


def test_copy_vgg_staged():
    a, d = staged((1, 1, 2, 2, 2)), staged((2, 2, 3, 3, 3))
    old = weights(d)
    result = copy_weights(a, d, rule="vgg-staged")
    assert result.copied == STAGED
    assert set(result.reinitialized) == set(old) - set(STAGED) and len(result.reinitialized) == 9
    assert_same_weights(a, d, STAGED)
    for name in result.reinitialized:
        np.testing.assert_array_equal(old[name][0], d.get_layer(name).get_weights()[0])
    # By name, the fourth and fifth block would come along too.
    assert "block4_conv1" in copy_weights(a, staged((2, 2, 3, 3, 3))).copied


def test_copy_vgg_staged_without_a_head():
    a, b = staged((1, 1, 2, 2, 2)), staged((2, 2, 2, 2, 2), top=False)
    assert copy_weights(a, b, "vgg-staged").copied == STAGED[:4]
    result = copy_weights(b, a, "vgg-staged")
    assert result.copied == STAGED[:4] and set(STAGED[4:]) < set(result.reinitialized)


def test_nothing_is_half_copied():
    a, d = staged((1, 1, 2, 2, 2)), staged((2, 2, 3, 3, 3), classes=8)
    before = frozen_copy(d)
    with pytest.raises(UsageError) as error:
        copy_weights(a, d, "vgg-staged")
    for text in ("'predictions'", "(5, 3)", "(5, 8)", "replace_head"):
        assert text in str(error.value)
    assert_untouched(d, before)


# Groups


def by_hand(image, kernel, groups):
    """Grouped convolution, VALID, as sums over windows in float64."""
    size, _, depth, filters = kernel.shape
    rows, columns = (side - size + 1 for side in image.shape[1:3])
    out = np.zeros((len(image), rows, columns, filters))
    for f in range(filters):
        g = f // (filters // groups)
        part = image[..., g * depth : (g + 1) * depth].astype("float64")
        for i in range(rows):
            for j in range(columns):
                window = part[:, i : i + size, j : j + size]
                out[:, i, j, f] = (window * kernel[..., f]).sum((1, 2, 3))
    return out


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_an_ungrouped_kernel_does_the_same(rng, groups):
    kernel = rng.normal(size=(3, 3, 2, 6)).astype("float32")
    image = rng.normal(size=(2, 5, 6, 2 * groups)).astype("float32")
    dense = ungroup_kernel(kernel, groups)
    assert dense.shape == (3, 3, 2 * groups, 6) and dense.dtype == kernel.dtype
    found = keras.ops.conv(image, dense, padding="valid")
    np.testing.assert_allclose(found, by_hand(image, kernel, groups), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(group_kernel(dense, groups), kernel)


def test_a_kernel_that_mixes_is_not_grouped(rng):
    dense = ungroup_kernel(rng.normal(size=(1, 1, 2, 4)), 2)
    dense[0, 0, 0, 2] = -0.25
    with pytest.raises(UsageError, match=r"1 of 8 values off the diagonal .* largest 0\.25\."):
        group_kernel(dense, 2)


def test_alexnet_with_one_tower_and_again_with_two(rng):
    model = small_alexnet()
    before = frozen_copy(model)
    one = to_dense_convolutions(model)
    image = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(one(image), model(image), rtol=1e-4, atol=1e-6)
    # The shapes of the network that is built with one tower.
    built = alexnet(input_shape=(64, 64, 3), classes=5, groups=1)
    assert [w.shape for w in one.weights] == [w.shape for w in built.weights]
    assert [type(layer) for layer in one.layers] == [type(layer) for layer in built.layers]
    two = to_grouped_convolutions(one)
    assert_same_weights(model, two)
    np.testing.assert_array_equal(two(image), model(image))
    assert_untouched(model, before)
    with pytest.raises(UsageError, match="Layer 'conv2' cannot be grouped.* off the diagonal"):
        to_grouped_convolutions(built)


def test_keras_convolutions_become_ours():
    model = chain(keras.layers.Conv2D(6, 1, groups=3, use_bias=False, name="c"), side=2)
    one = to_dense_convolutions(model)
    assert type(one.get_layer("c")) is GroupedConv2D and one.get_layer("c").groups == 1
    assert_same_weights(model, to_grouped_convolutions(one, 3, ["c"]))


# Topology and wrong arguments


def test_a_layer_that_another_model_uses_as_well_is_no_obstacle(rng):
    model = tiny()
    other = keras.Input((SIDE, SIDE, 3))
    model.get_layer("flatten")(model.get_layer("conv2")(keras.Input((10, 10, 5))))
    model.get_layer("conv1")(other)
    image = images(rng, SIDE, SIDE)
    np.testing.assert_allclose(
        to_fully_convolutional(model)(image)[:, 0, 0], model(image), rtol=1e-5, atol=1e-6
    )
    assert resize_input(model, 14).reinitialized == ()


def test_a_sequential_model_is_a_chain(rng):
    model = tiny()
    sequential = keras.Sequential([model.inputs[0], *model.layers[1:]])
    image = images(rng, SIDE, SIDE)
    found = to_fully_convolutional(sequential)(image)[:, 0, 0]
    np.testing.assert_allclose(found, model(image), rtol=1e-5, atol=1e-6)


def channels_first():
    flatten = keras.layers.Flatten(data_format="channels_first", name="f")
    return chain(flatten, keras.layers.Dense(2), side=4)


def branched():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1, name="a")(inputs)
    x = keras.layers.Add(name="sum")([x, inputs])
    return keras.Model(inputs, keras.layers.Flatten()(x), name="branched")


def twice():
    inputs, layer = keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="again")
    return keras.Model(inputs, layer(layer(inputs)), name="twice")


def dropping():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dropout(0.5, name="d")(inputs, training=True))


def nested():
    inputs = keras.Input((SIDE, SIDE, 3))
    return keras.Model(inputs, tiny(name="inner")(inputs), name="nested")


def two_outputs():
    model = tiny()
    return keras.Model(model.inputs, [model.output, model.get_layer("fc7").output], name="two")


def mixed_head():
    return chain(
        keras.layers.Flatten(), keras.layers.Softmax(name="early"), keras.layers.Dense(2), side=4
    )


def headless():
    return chain(keras.layers.Conv2D(4, 3, padding="same"), keras.layers.MaxPooling2D(name="pool"))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: to_fully_convolutional(branched()), "2 tensors into 'sum'"),
        (lambda: to_fully_convolutional(twice()), "layer 'again' twice"),
        (lambda: to_fully_convolutional(dropping()), "'d' called with arguments of its own"),
        (lambda: replace_head(nested(), 2), "Received: 'inner', a Functional"),
        (lambda: to_dense_convolutions(two_outputs()), "1 inputs and 2 outputs"),
        (
            lambda: to_dense_convolutions(keras.Sequential([keras.layers.Dense(2)])),
            "has no known graph",
        ),
        (lambda: to_fully_convolutional(channels_first()), "'f' takes the channels first"),
        (
            lambda: resize_input(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), 4),
            "takes no images. Expected: an input (n, h, w, c). Received: (None, 4)",
        ),
        (lambda: resize_input(tiny(), True), "Received: True"),
        (lambda: to_fully_convolutional(headless()), "no dense head. Expected: a Flatten"),
        (
            lambda: to_fully_convolutional(to_fully_convolutional(tiny())),
            "'chain' is fully convolutional already",
        ),
        (lambda: to_fully_convolutional(mixed_head()), "'early' of the dense head has no"),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (16, 16, 3)),
            "Expected: a map of 4 x 4. Received: 5 x 5 from an image of 16 x 16",
        ),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (13, 15, 3)),
            "height and width of at least 14. Received: 13 x 15",
        ),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (14, 14, 1)),
            "input_shape=(height, width, 3). Received: (14, 14, 1)",
        ),
        (lambda: to_classifier(tiny(), (14, 14, 3)), "has no convolutional head"),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (14, 14, 3), first="conv1"),
            "Received: first='conv1'",
        ),
        (
            lambda: to_classifier(to_fully_convolutional(tiny()), (14, 14, 3), first="fc66"),
            "Unknown layer 'fc66'",
        ),
        (lambda: resize_input(tiny(), 7), "at least 8. Received: 7 x 7"),
        (lambda: resize_input(tiny(), (20, 5)), "at least 8. Received: 20 x 5"),
        (lambda: resize_input(tiny(), 0), "Received: 0"),
        (lambda: resize_input(tiny(), "14"), "Received: '14'"),
        (lambda: resize_input(tiny(), (14, 14, 3)), "Received: (14, 14, 3)"),
        (lambda: resize_input(tiny(), 14.0), "Received: 14.0"),
        (lambda: replace_head(tiny(), 0), "a whole number >= 1. Received: 0"),
        (lambda: replace_head(tiny(), 2.5), "Received: 2.5"),
        (lambda: replace_head(headless(), 2), "no head to replace"),
        (lambda: copy_weights(tiny(), tiny(), "by_name"), "Did you mean by-name?"),
        (lambda: copy_weights(tiny(), tiny(), "vgg-staged"), "'chain' is not a VGG network"),
        (
            lambda: copy_weights(tiny(), keras.Sequential([keras.layers.Dense(2)], name="raw")),
            "Model 'raw' has no weights yet",
        ),
        (lambda: ungroup_kernel(np.zeros((1, 1, 2, 5)), 2), "multiples of 2. Received: 5 outputs"),
        (lambda: group_kernel(np.zeros((1, 1, 3, 4)), 2), "Received: 3 inputs, 4 outputs"),
        (lambda: group_kernel(np.zeros((3, 4)), 2), "`kernel` must have four axes"),
        (lambda: group_kernel(np.zeros((1, 1, 2, 2)), 0), "whole number >= 1. Received: 0"),
        (lambda: to_grouped_convolutions(tiny(), 2, ("conv9",)), "Unknown layer 'conv9'"),
        (lambda: to_grouped_convolutions(tiny(), 2, ("fc6",)), "'fc6' cannot be grouped. Expected"),
        (
            lambda: to_grouped_convolutions(tiny(), 3, "conv1"),
            "'conv1' cannot be grouped: `groups` must divide the channels",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, text):
    with pytest.raises(UsageError) as error:
        call()
    assert text in str(error.value)
    assert "\n" not in str(error.value)
