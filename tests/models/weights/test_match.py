"""Layers matched by name, and the message for the first one that does not fit."""

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models import alexnet, vgg16, vgg19
from tests.helpers.weights_files import (
    SIDE,
    VGG_MEAN,
    arrays_by_name,
    caffe_layers,
    caffemodel,
    randomized,
)


@pytest.mark.parametrize("builder", [vgg16, vgg19])
@pytest.mark.parametrize("kind", ["npy", "caffemodel"])
def test_vgg_by_caffes_names(tmp_path, builder, kind):
    model = randomized(builder(include_top=False))
    path = tmp_path / f"vgg.{kind}"
    if kind == "caffemodel":
        path.write_bytes(caffemodel(caffe_layers(model)))
    else:
        found = arrays_by_name(model)
        names = {name: name.replace("block", "conv").replace("_conv", "_") for name in found}
        np.save(path, {names[name]: list(pair) for name, pair in found.items()}, allow_pickle=True)
    ours = builder(include_top=False, weights=path)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(ours.get_layer("preprocessing").mean, VGG_MEAN, rtol=1e-6)


@pytest.mark.parametrize("name", ["fc8_flickr", "fc8-pascal", "fc8_oxford_102"])
def test_the_renamed_last_layer_of_a_fine_tuned_network(tmp_path, name):
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 5, "hidden_units": 7}
    model = randomized(alexnet(**options))
    rows = [(name if row[0] == "fc8" else row[0], *row[1:]) for row in caffe_layers(model)]
    rows = [row for row in rows if row[1] != "LRN"]
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(rows))
    ours = alexnet(lrn=False, weights=tmp_path / "a.caffemodel", **options)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    both = [*rows, next(("fc8", *row[1:]) for row in rows if row[0] == name)]
    (tmp_path / "b.caffemodel").write_bytes(caffemodel(both))
    with pytest.raises(UsageError, match="has a layer that alexnet lacks"):
        alexnet(lrn=False, weights=tmp_path / "b.caffemodel", **options)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"conv2_W": (5, 5, 48, 128)}, "conv2_W (5, 5, 48, 128) is not the kernel of 'conv2'"),
        ({"conv2_b": (255,)}, "the bias of 'conv2'. Expected: (256,). Received: conv2_b (255,)"),
        ({"conv6_W": (3, 3, 256, 8)}, "has a layer that alexnet lacks: conv6_W (3, 3, 256, 8)"),
        ({"conv4_W": None}, "has no weights for layer 'conv4' of alexnet"),
        ({"conv4_W": (3, 3, 384, 384)}, "build it with groups=1"),
    ],
)
def test_a_tensor_that_differs_is_named(small_alexnet, changes, text):
    arrays = dict(np.load(small_alexnet / "small.npz"))
    for name, shape in changes.items():
        if shape is None:
            del arrays[name]
        else:
            arrays[name] = np.zeros(shape, "f4")
    np.savez(small_alexnet / "changed.npz", **arrays)
    with pytest.raises(UsageError) as error:
        alexnet(include_top=False, weights=small_alexnet / "changed.npz")
    assert text in str(error.value)


def test_two_towers_into_one_are_refused_with_a_hint(small_alexnet):
    with pytest.raises(UsageError, match="build it with groups=2, and ungroup it"):
        alexnet(include_top=False, groups=1, weights=small_alexnet / "small.npz")
    with pytest.raises(UsageError, match="`include_top=False` takes the convolutions alone"):
        alexnet(weights=small_alexnet / "small.npz")
