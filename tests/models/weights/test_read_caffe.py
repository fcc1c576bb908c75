"""Files of Caffe against its arithmetic, written with TensorFlow's own kernels."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit import load_model
from cnnkit.errors import UsageError
from cnnkit.models import alexnet, cifar10_full, open_weights, vgg, vgg11, zfnet
from cnnkit.models.weights import read_caffe
from cnnkit.models.weights.match import check_normalization_match
from cnnkit.models.weights.read_caffe import read_mean_image
from tests.helpers.weights_files import (
    BVLC_MEAN,
    LRN,
    SIDE,
    VGG_MEAN,
    assert_close,
    binaryproto,
    caffe_layers,
    caffemodel,
    randomized,
)

ALEXNET = {"input_shape": (131, 131, 3), "classes": 4, "hidden_units": 16}


def caffe_forward(rows, images, *, pool_first=False):
    """BVLC's AlexNet on BGR with TensorFlow's own kernels, the towers one after the other."""
    weights = {name: arrays for name, kind, *_, arrays, _ in rows if arrays}

    def conv(x, name, stride, padding, groups):
        kernel = np.transpose(weights[name][0], (2, 3, 1, 0))
        parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
        y = tf.concat([tf.nn.conv2d(p, k, stride, padding) for p, k in parts], -1)
        return tf.nn.relu(y + weights[name][1])

    def norm(x):
        return tf.nn.local_response_normalization(x, 2, 1.0, 1e-4 / 5, 0.75)

    def pool(x):
        return tf.nn.max_pool2d(x, 3, 2, "VALID")

    first, second = (pool, norm) if pool_first else (norm, pool)
    x = (images - BVLC_MEAN)[..., ::-1]
    x = second(first(conv(x, "conv1", 4, "VALID", 1)))
    x = second(first(conv(x, "conv2", 1, "SAME", 2)))
    x = conv(conv(x, "conv3", 1, "SAME", 1), "conv4", 1, "SAME", 2)
    x = pool(conv(x, "conv5", 1, "SAME", 2))
    x = tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (len(images), -1))
    x = tf.nn.relu(tf.linalg.matvec(weights["fc6"][0], x) + weights["fc6"][1])
    x = tf.nn.relu(tf.linalg.matvec(weights["fc7"][0], x) + weights["fc7"][1])
    return tf.linalg.matvec(weights["fc8"][0], x) + weights["fc8"][1]


@pytest.mark.parametrize("preset", ["caffe", "caffenet"])
@pytest.mark.parametrize("v1", [False, True], ids=["new", "until-2015"])
def test_caffemodel_equals_caffes_arithmetic(tmp_path, rng, preset, v1):
    pool_first = preset == "caffenet"
    model = randomized(alexnet(preset=preset, **ALEXNET))
    rows = caffe_layers(model, pool_first=pool_first)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(rows, v1=v1))
    images = rng.uniform(0, 255, (2, 131, 131, 3)).astype("float32")
    options = {**ALEXNET, "classifier_activation": None}
    ours = alexnet(preset=preset, weights=tmp_path / "a.caffemodel", **options)
    assert_close(ours(images), caffe_forward(rows, images, pool_first=pool_first), 1e-4)
    file = open_weights(tmp_path / "a.caffemodel")
    assert (file.channels, file.metadata["network"]) == ("BGR", "Net")
    np.testing.assert_allclose(file.preprocessing.mean, BVLC_MEAN)
    # The other one fits by shape; the order of pooling and normalization tells.
    other = "caffe" if pool_first else "caffenet"
    with pytest.raises(UsageError, match="its pooling, alexnet has it"):
        alexnet(preset=other, weights=file, **options)
    with pytest.raises(UsageError, match="another normalization 'norm1'"):
        alexnet(preset="paper", weights=file, **options)


@pytest.mark.parametrize(
    ("builder", "options"),
    [
        (vgg11, {"input_shape": (SIDE, SIDE, 3), "classes": 3}),
        (zfnet, {"input_shape": (96, 96, 3), "classes": 3, "hidden_units": 8}),
    ],
    ids=["vgg11", "zfnet"],
)
@pytest.mark.parametrize("double", [False, True], ids=["float", "double"])
def test_caffemodel_of_other_networks(tmp_path, builder, options, double):
    model = randomized(builder(**options))
    if double:
        options = {**options, "include_top": False}
        del options["classes"]
        options.pop("hidden_units", None)
        model = randomized(builder(**options))
    # Krizhevsky's constants in Caffe's convention, which divides alpha by the size of the window.
    lrn = {"local_size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2}
    rows = caffe_layers(model, pool_first=True, lrn=lrn)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(rows, v1=double, double=double))
    ours = builder(weights=tmp_path / "a.caffemodel", **options)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other.astype("float32"))
    mean = VGG_MEAN if builder is vgg11 else BVLC_MEAN
    np.testing.assert_allclose(ours.get_layer("preprocessing").mean, mean, rtol=1e-6)


def test_declared_and_missing_normalizations_decide(tmp_path):
    """A file that has layers without weights declares all its normalizations."""
    options = {"include_top": False, "input_shape": (131, 131, 3)}
    rows = caffe_layers(randomized(alexnet(preset="caffe", **options)))
    bare = [row for row in rows if row[1] != "LRN"]
    (tmp_path / "bare.caffemodel").write_bytes(caffemodel(bare))
    with pytest.raises(UsageError, match="a network without normalization, which alexnet has"):
        alexnet(preset="caffe", weights=tmp_path / "bare.caffemodel", **options)
    alexnet(preset="caffe", lrn=False, weights=tmp_path / "bare.caffemodel", **options)
    (tmp_path / "lrn.caffemodel").write_bytes(caffemodel(rows))
    with pytest.raises(UsageError, match="other normalization layers than alexnet has"):
        alexnet(preset="caffe", lrn=False, weights=tmp_path / "lrn.caffemodel", **options)
    # An LRN layer without parameters has Caffe's defaults: alpha 1.
    defaults = [(*row[:5], None) for row in rows]
    (tmp_path / "defaults.caffemodel").write_bytes(caffemodel(defaults))
    with pytest.raises(UsageError, match="another normalization 'norm1'.*alpha=0.2,"):
        alexnet(preset="caffe", weights=tmp_path / "defaults.caffemodel", **options)
    # Without them the file does not tell.
    weights = [row for row in rows if row[4]]
    (tmp_path / "weights.caffemodel").write_bytes(caffemodel(weights))
    assert open_weights(tmp_path / "weights.caffemodel").normalizations == {}


def test_normalization_of_vgg_has_another_name_in_caffe(tmp_path):
    options = {"include_top": False, "input_shape": (SIDE, SIDE, 3)}
    model = randomized(vgg("A-LRN", **options))
    rows = caffe_layers(model)
    rows.insert(1, ("norm1", "LRN", "conv1_1", "norm1", [], {**LRN, "alpha": 5e-4, "k": 2}))
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(rows))
    ours = vgg("A-LRN", weights=tmp_path / "a.caffemodel", **options)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UsageError, match="Expected: none. Received: norm1"):
        vgg11(weights=tmp_path / "a.caffemodel", **options)


@pytest.mark.parametrize("alpha", [5e-5, 1.5e-4])
def test_normalization_within_a_map_counts_the_cells_of_its_square(tmp_path, alpha):
    """Caffe's cifar10_full: alpha is divided by 3 x 3 cells, not by 3."""
    model = randomized(cifar10_full())
    rows = [row for row in caffe_layers(model) if row[1] != "LRN"]
    stated = {"local_size": 3, "alpha": alpha, "beta": 0.75, "norm_region": 1}
    rows += [(f"norm{number}", "LRN", "pool1", "pool1", [], stated) for number in (1, 2)]
    (tmp_path / "full.caffemodel").write_bytes(caffemodel(rows))
    file = open_weights(tmp_path / "full.caffemodel")
    if alpha == 5e-5:
        check_normalization_match(model, file)
    else:
        with pytest.raises(UsageError, match="another normalization 'norm1'"):
            check_normalization_match(model, file)


@pytest.mark.parametrize("v1", [False, True], ids=["new", "until-2015"])
def test_the_data_layer_of_a_training_network_is_read(tmp_path, images, v1):
    """Caffe's data_transformer: (pixel - mean_value) * scale, on BGR."""
    options = {"include_top": False, "input_shape": (SIDE, SIDE, 3)}
    model = randomized(vgg11(include_preprocessing=False, **options))
    rows = caffe_layers(model)
    path = tmp_path / "a.caffemodel"
    for stated, mean, scale in (
        ({"mean_value": [104.0, 117.0, 124.0], "scale": 0.5}, (124, 117, 104), 0.5),
        ({"mean_value": [128.0], "scale": 1 / 128, "mirror": 1}, (128, 128, 128), 1 / 128),
        ({"crop_size": 64}, (0, 0, 0), 1),
    ):
        data = ("data", "Data", "x", "data", [], stated)
        path.write_bytes(caffemodel([data, *rows], v1=v1))
        expected = model(((images - np.array(mean)) * scale).astype("float32"))
        assert_close(vgg11(weights=path, **options)(images), expected, 1e-5)
        assert not open_weights(path).preprocessing.is_assumed
    data = ("data", "Data", "x", "data", [], {"mean_file": "/imagenet.binaryproto"})
    path.write_bytes(caffemodel([data, *rows], v1=v1))
    said = open_weights(path).preprocessing
    assert said.is_assumed
    assert "names the mean image /imagenet.binaryproto" in said.describe()


def test_mean_image_is_cut_to_the_center(tmp_path, rng):
    bgr = rng.uniform(90, 130, (3, 140, 133)).astype("float32")
    (tmp_path / "mean.binaryproto").write_bytes(binaryproto(bgr))
    mean = read_mean_image(tmp_path / "mean.binaryproto")
    np.testing.assert_array_equal(mean, bgr[::-1].transpose(1, 2, 0))
    model = randomized(alexnet(preset="caffe", **ALEXNET))
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(caffe_layers(model)))
    file = open_weights(tmp_path / "a.caffemodel", mean=mean)
    options = {"preset": "caffe", "weights": file, "classifier_activation": None, **ALEXNET}
    ours = alexnet(**options)
    bare = alexnet(include_preprocessing=False, **options)
    images = rng.uniform(0, 255, (1, 131, 131, 3)).astype("float32")
    center = mean[4:135, 1:132]
    assert_close(ours(images), bare(images - center), 1e-5)
    ours.save(tmp_path / "a.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "a.keras")(images), ours(images))
    assert ours.count_params() == bare.count_params()
    with pytest.raises(UsageError, match="at most 140 x 133 pixels. Received: 134 x 134"):
        alexnet(preset="caffe", weights=file, classes=4, hidden_units=16, input_shape=(134, 134, 3))


@pytest.mark.parametrize(
    "stated",
    [
        [{"mean_value": [104.0, 117.0], "scale": 0.5}],
        [{"mean_value": [104.0, 117.0, 124.0], "scale": 0.0}],
        [{"scale": -1.0}],
        [{"mean_file": "/imagenet.binaryproto", "scale": 0.0}],
        [{"scale": float("inf")}],
        # Of training and of testing, which differ.
        [{"mean_value": [1.0]}, {"mean_value": [2.0]}],
    ],
)
def test_a_data_layer_that_does_not_tell_leaves_the_convention(tmp_path, stated):
    model = randomized(vgg11(include_preprocessing=False, include_top=False,
                             input_shape=(SIDE, SIDE, 3)))  # fmt: skip
    data = [(f"data{i}", "Data", "x", "data", [], one) for i, one in enumerate(stated)]
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel([*data, *caffe_layers(model)]))
    found = open_weights(path).preprocessing
    assert found.is_assumed and found.std is None
    np.testing.assert_allclose(found.mean, VGG_MEAN, rtol=1e-6)


def test_equal_data_layers_of_training_and_of_testing_count(tmp_path):
    model = randomized(vgg11(include_preprocessing=False, include_top=False,
                             input_shape=(SIDE, SIDE, 3)))  # fmt: skip
    stated = {"mean_value": [104.0, 117.0, 124.0], "scale": 0.5}
    data = [(f"data{i}", "Data", "x", "data", [], stated) for i in range(2)]
    path = tmp_path / "a.caffemodel"
    path.write_bytes(caffemodel([*data, *caffe_layers(model)]))
    found = open_weights(path).preprocessing
    assert not found.is_assumed
    assert (tuple(found.mean), tuple(found.std)) == ((124, 117, 104), (2, 2, 2))


def test_a_mean_image_has_three_colors_and_a_sensible_size(tmp_path, monkeypatch):
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(binaryproto(np.zeros((3, 4, 5), "f4")).replace(b"\x10\x03", b"\x10\x02", 1))
    with pytest.raises(UsageError, match="is incomplete"):
        read_mean_image(path)
    path.write_bytes(binaryproto(np.zeros((3, 4, 5), "f4")).replace(b"\x08\x01", b"\x08\x03", 1)
                     .replace(b"\x10\x03", b"\x10\x01", 1))  # fmt: skip
    with pytest.raises(UsageError, match=r"is not a mean image.*Received: \(3, 1, 4, 5\)"):
        read_mean_image(path)
    path.write_bytes(binaryproto(np.zeros((3, 4, 5), "f4")))
    monkeypatch.setattr(read_caffe, "MAX_MEAN_BYTES", 480)
    assert read_mean_image(path).shape == (4, 5, 3)
    monkeypatch.setattr(read_caffe, "MAX_MEAN_BYTES", 479)
    with pytest.raises(UsageError, match="absurdly large mean image"):
        read_mean_image(path)
