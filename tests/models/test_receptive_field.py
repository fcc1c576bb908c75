"""Receptive fields by arithmetic against what single pixels reach."""

import keras
import numpy as np
import pytest
from keras import layers

from cnnkit import alexnet, vgg16, zfnet
from cnnkit.errors import UsageError
from cnnkit.layers import CeilMaxPooling2D, LocalResponseNormalization
from cnnkit.visualize import Box, receptive_field


def conv(kernel, **options):
    return layers.Conv2D(1, kernel, **options)


def chain(*stages):
    def build(x):
        for stage in stages:
            x = stage(x)
        return x

    return build


def two_paths(x):
    left = conv(5, padding="same", strides=2)(x)
    right = layers.MaxPooling2D(2, padding="same")(conv(3, padding="same", dilation_rate=3)(x))
    return conv(2)(layers.Concatenate()([left, right]))


def residual(x):
    x = conv(3, strides=2)(x)
    y = conv((1, 3), padding="same", activation="relu")(layers.BatchNormalization()(x))
    return layers.Add()([x, y])


def nested(x):
    inputs = keras.Input((11, 13, 1))
    inner = keras.Model(inputs, layers.MaxPooling2D(3, 2)(conv(3, padding="same")(inputs)))
    return conv(2)(inner(conv(3, strides=2, padding="same")(x)))


NETS = {
    "valid": chain(conv(5, strides=2), layers.MaxPooling2D(3, 2), conv(3)),
    "same": chain(conv(5, strides=2, padding="same"), layers.MaxPooling2D(3, 2, "same"),
                  conv(4, padding="same")),
    "overlap": chain(layers.MaxPooling2D(3, 2), layers.AveragePooling2D(3, 1)),
    "gaps": chain(conv(1, strides=2), conv(2, strides=3)),
    "dilation": chain(conv(3, padding="same", dilation_rate=2), conv(3, dilation_rate=(3, 1))),
    "dilation at the border": chain(conv(3, padding="same", dilation_rate=4),
                                    conv(3, strides=2, padding="same")),
    "rectangles": chain(conv((2, 5), strides=(3, 1), padding="same"),
                        layers.AveragePooling2D((1, 2), (1, 3), "same")),
    "ceil pooling": chain(conv(3), CeilMaxPooling2D(3, 2), CeilMaxPooling2D(2, 2)),
    "padding": chain(layers.ZeroPadding2D(((1, 2), (3, 0))), conv(3, strides=2),
                     layers.Cropping2D(((1, 0), (0, 2)))),
    "nothing but padding": chain(layers.ZeroPadding2D(3), conv(2)),
    "pointwise": chain(layers.Rescaling(2), conv(3), layers.BatchNormalization(), layers.ReLU(),
                       layers.Dropout(0.5), layers.Dense(2)),
    "depthwise": chain(layers.DepthwiseConv2D((3, 2), strides=2),
                       layers.SeparableConv2D(1, 3, padding="same", dilation_rate=2)),
    "operations": chain(lambda x: x / 255.0, conv(3, strides=2), keras.ops.relu,
                        lambda x: keras.ops.concatenate([x, 2 * x], axis=-1), conv(2)),
    "two paths": two_paths,
    "residual": residual,
    "nested": nested,
    "flat": chain(conv(3, strides=4), layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(2)),
    "global": chain(conv(4, strides=3), layers.GlobalMaxPooling2D(), layers.Dense(2)),
    "global map": chain(conv(4, strides=3), layers.GlobalAveragePooling2D(keepdims=True)),
}  # fmt: skip


def of_ones(build):
    """Returns the model with only positive weights: a single pixel shows wherever it is seen."""
    inputs = keras.Input((21, 25, 1))
    model = keras.Model(inputs, build(inputs))
    for layer in model.layers:
        if not isinstance(layer, layers.BatchNormalization):
            layer.set_weights([np.full(w.shape, w.ndim > 1, w.dtype) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize("name", NETS)
def test_boxes_are_what_single_pixels_reach(name):
    model = of_ones(NETS[name])
    pixels = np.eye(21 * 25, dtype="float32").reshape(-1, 21, 25, 1)
    answers = np.asarray(model(pixels)).max(axis=-1)
    answers = answers.reshape(21, 25, *(answers.shape[1:] or (1, 1)))
    field = receptive_field(model, model.layers[-1].name)
    assert answers.shape[2:] == (len(field.rows), len(field.columns))
    for row, column in np.ndindex(answers.shape[2:]):
        seen = answers[:, :, row, column] > 0
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        box = field.box((row, column))
        if not len(rows):
            assert box.top == box.bottom or box.left == box.right
            continue
        assert box == Box(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
        unclipped = field.unclipped((row, column))
        assert unclipped.top <= box.top
        assert unclipped.right >= box.right
        # Well inside the image nothing is cut.
        if row == 1 and name in ("valid", "overlap", "gaps", "ceil pooling"):
            assert (unclipped.top, unclipped.bottom) == (box.top, box.bottom)


# Size and stride, as the papers' stages follow from their windows.
PUBLISHED = {
    alexnet: {"conv1": (11, 4), "pool1": (19, 8), "conv2": (51, 8), "pool2": (67, 16),
              "conv3": (99, 16), "conv4": (131, 16), "conv5": (163, 16), "pool5": (195, 32)},
    zfnet: {"conv1": (7, 2), "pool1": (11, 4), "conv2": (27, 8), "pool2": (43, 16),
            "conv3": (75, 16), "conv5": (139, 16), "pool5": (171, 32)},
    vgg16: {"block1_conv2": (5, 1), "block3_conv3": (40, 4), "block5_conv3": (196, 16),
            "block5_pool": (212, 32)},
}  # fmt: skip


@pytest.mark.parametrize("network", PUBLISHED, ids=lambda network: network.__name__)
def test_papers_networks(network):
    model = network(include_top=False, input_shape=(224, 224, 3))
    for layer, (size, stride) in PUBLISHED[network].items():
        field = receptive_field(model, layer)
        assert (field.size, field.stride) == ((size, size), (stride, stride))
        assert len(field.rows) == model.get_layer(layer).output.shape[1]


def test_normalization_within_a_map_sees_its_neighbors():
    inputs = keras.Input((9, 9, 1))
    normalized = LocalResponseNormalization(3, alpha=1.0, region="within", name="n")(inputs)
    model = keras.Model(inputs, normalized)
    field = receptive_field(model, "n")
    assert (field.box((4, 0)), field.size) == (Box(3, 0, 6, 2), (3, 3))
    image = np.ones((1, 9, 9, 1), "float32")
    before = np.asarray(model(image))
    image[0, 3, 1] = 2
    changed = np.asarray(model(image))[0, ..., 0] != before[0, ..., 0]
    assert np.argwhere(changed).min(axis=0).tolist() == [2, 0]
    assert np.argwhere(changed).max(axis=0).tolist() == [4, 2]


def test_images_of_any_size():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, conv(5, strides=2, padding="same", name="c")(inputs))
    with pytest.raises(UsageError, match="image_size"):
        receptive_field(model, "c")
    # 10 rows: 5 windows reach 4 * 2 + 5 = 13, so 3 rows are added, one of them before.
    field = receptive_field(model, "c", (10, 11))
    assert field.offset == (-1, -2)
    assert field.unclipped((4, 0)) == Box(7, -2, 12, 3)
    assert field.box((4, 0)) == Box(7, 0, 10, 3)


def test_an_image_too_small():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, conv(3, name="b")(layers.MaxPooling2D(3, 2, name="a")(inputs)))
    with pytest.raises(
        UsageError, match="too small: the window of layer 'b' does not fit.* Received: 6 x 30"
    ):
        receptive_field(model, "b", (6, 30))


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (layers.UpSampling2D(name="up"), "field of layer 'up' is unknown.*UpSampling2D"),
        (layers.Permute((2, 1, 3), name="swap"), "field of layer 'swap' is unknown"),
        (
            layers.Flatten(data_format="channels_first", name="first"),
            "must have its channels last.*channels first in layer 'first'",
        ),
    ],
)
def test_unknown_layers_are_named(layer, text):
    inputs = keras.Input((9, 9, 1))
    with pytest.raises(UsageError, match=text):
        receptive_field(keras.Model(inputs, layer(inputs)), layer.name)


def test_paths_that_do_not_fit_are_refused():
    inputs = keras.Input((9, 9, 1))
    sum_ = layers.Add(name="sum")([conv(5)(inputs), layers.MaxPooling2D(2, 2, "same")(inputs)])
    with pytest.raises(UsageError, match="into layer 'sum' must have one stride.*1 of 5.*2 of 5"):
        receptive_field(keras.Model(inputs, sum_), "sum")
