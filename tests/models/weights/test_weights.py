"""Weights that others made: every format against the network that it was made for."""

import json
import pickle
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from cnnkit import load_model
from cnnkit.cli.main import main
from cnnkit.errors import RunError, UsageError
from cnnkit.models import (
    alexnet,
    class_names,
    logits_tensor,
    open_weights,
    replace_head,
    set_class_names,
    vgg11,
    vgg16,
    vgg19,
    zfnet,
)
from cnnkit.models.weights import download
from cnnkit.models.weights.compatible import compatible_networks
from cnnkit.models.weights.convert import convert_weights
from cnnkit.models.weights.output_fingerprint import MEMBER
from cnnkit.models.weights.read_caffe import read_mean_image
from tests.helpers.weights_files import (
    binaryproto,
    caffemodel,
    channels_first_rows,
    old_applications,
)

VGG_MEAN = np.array([123.68, 116.779, 103.939], "float32")
BVLC_MEAN = np.array([122.67891434, 116.66876762, 104.00698793], "float32")
SIDE = 64  # leaves VGG a map of 2 x 2, so that the order of the flattened map matters


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 255, (2, SIDE, SIDE, 3)).astype("float32")


def randomized(model, seed=0):
    """Random weights of He's variance, biases too, so that no activation dies out."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            scale = np.sqrt(2 / np.prod(kernel.shape[:-1]))
            layer.set_weights(
                [random.normal(0, scale, kernel.shape), random.normal(0, 1, bias.shape)]
            )
    return model


def close(ours, theirs, tolerance):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


# --- keras.applications ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def applications(tmp_path_factory):
    """keras.applications.VGG16 with random weights, in every file that Keras has for it."""
    folder = tmp_path_factory.mktemp("applications")
    model = keras.applications.VGG16(
        weights=None, input_shape=(SIDE, SIDE, 3), classes=7, classifier_activation=None
    )
    randomized(model)
    model.save(folder / "whole.keras")
    model.save_weights(folder / "whole.weights.h5")
    model.save(folder / "whole.h5")
    rows = [(layer.name, *layer.get_weights()) for layer in model.layers]
    old_applications(folder / "old.h5", rows)
    old_applications(folder / "notop.h5", [row for row in rows if row[0].startswith("block")])
    return folder, model


@pytest.mark.parametrize("name", ["whole.keras", "whole.weights.h5", "whole.h5", "old.h5"])
def test_keras_files_equal_keras_applications(applications, images, name):
    folder, reference = applications
    expected = reference(keras.applications.vgg16.preprocess_input(images.copy()))
    ours = vgg16(
        weights=folder / name,
        input_shape=(SIDE, SIDE, 3),
        classes=7,
        classifier_activation=None,
    )
    close(ours(images), expected, 1e-5)


@pytest.mark.parametrize("name", ["notop.h5", "old.h5"])
def test_convolutions_alone(applications, images, name):
    folder, reference = applications
    features = keras.Model(reference.input, reference.get_layer("block5_pool").output)
    expected = features(keras.applications.vgg16.preprocess_input(images.copy()))
    close(vgg16(include_top=False, weights=folder / name)(images), expected, 1e-5)


def test_vgg19_equals_keras_applications(tmp_path, images):
    reference = keras.applications.VGG19(weights=None, include_top=False)
    randomized(reference).save_weights(tmp_path / "e.weights.h5")
    expected = reference(keras.applications.vgg19.preprocess_input(images.copy()))
    ours = vgg19(include_top=False, weights=str(tmp_path / "e.weights.h5"))
    close(ours(images), expected, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VGG16", "VGG19"])
def test_whole_networks_equal_keras_applications(tmp_path, name):
    reference = randomized(getattr(keras.applications, name)(weights=None))
    reference.save(tmp_path / "whole.h5")
    module = getattr(keras.applications, name.lower())
    images = np.random.default_rng(2).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    ours = (vgg16 if name == "VGG16" else vgg19)(weights=tmp_path / "whole.h5")
    expected = reference(module.preprocess_input(images.copy()))
    np.testing.assert_allclose(ours(images), expected, rtol=0, atol=1e-5)
    logits = keras.Model(ours.input, logits_tensor(ours))(images)
    # The reference keeps its softmax, so its logits are told up to a constant.
    probable = np.asarray(expected)[0] > 1e-4
    difference = np.log(np.asarray(expected)[0, probable]) - logits.numpy()[0, probable]
    assert np.ptp(difference) <= 1e-5 * np.abs(logits).max()


def test_our_own_files_keep_their_mean(tmp_path, images):
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 3, "hidden_units": 8}
    model = randomized(alexnet(mean=(10, 20, 30), **options))
    set_class_names(model, ["a", "b", "c"])
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "model.keras")
    for name in ("a.weights.h5", "model.keras", ""):
        again = alexnet(weights=tmp_path / name, **options)
        np.testing.assert_array_equal(again(images), model(images))
    assert class_names(again) == ("a", "b", "c")
    assert class_names(load_model(tmp_path)) == ("a", "b", "c")
    own = alexnet(weights=tmp_path, mean=(1, 2, 3), **options)
    np.testing.assert_array_equal(own.get_layer("preprocessing").mean, [1, 2, 3])
    # The layers keep their initializers, for surgery to use.
    before, after = (m.get_layer("conv3").kernel_initializer for m in (model, again))
    assert type(before) is type(after)
    assert class_names(replace_head(model, 2).model) is None
    with pytest.raises(UsageError, match="names do not fit"):
        set_class_names(model, ["a"])


# --- PyTorch --------------------------------------------------------------------------------------

VGG11_PLACES = (0, 3, 6, 8, 11, 13, 16, 18)


def torch_names(model, places, dense, *, convolutional=False):
    """A state dictionary for the weights of `model`: OIHW, channels first where the map is flat."""
    state, places, dense = {}, iter(places), iter(dense)
    flat = model.get_layer("flatten").input.shape[1:]
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, bias = layer.get_weights()
        if kernel.ndim == 4:
            name, kernel = f"features.{next(places)}", kernel.transpose(3, 2, 0, 1)
        else:
            first = kernel.shape[0] == np.prod(flat)
            name = next(dense)
            kernel = channels_first_rows(kernel, flat[2], *flat[:2]) if first else kernel.T
            if convolutional and not name.startswith("head"):
                side = flat[0] if first else 1
                kernel = kernel.reshape(kernel.shape[0], -1, side, side)
        state[f"{name}.weight"], state[f"{name}.bias"] = np.ascontiguousarray(kernel), bias
    return state


TORCHVISION = [f"classifier.{i}" for i in (0, 3, 6)]
TIMM = ["pre_logits.fc1", "pre_logits.fc2", "head.fc"]


@pytest.mark.parametrize("dense", [TORCHVISION, TIMM], ids=["torchvision", "timm"])
def test_safetensors_of_vgg(tmp_path, images, dense):
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 3, "classifier_activation": None}
    model = randomized(vgg11(include_preprocessing=False, **options))
    state = torch_names(model, VGG11_PLACES, dense, convolutional=dense is TIMM)
    save_file(state, tmp_path / "vgg11.safetensors")
    ours = vgg11(weights=tmp_path / "vgg11.safetensors", **options)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    close(ours(images), model(((images / 255 - mean) / std).astype("float32")), 1e-4)


def torch_network(kind, rng, side=2):
    """torchvision's layout, by hand, without its pooling to a fixed size: maps of `side`."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    if kind == "alexnet":
        layers, channels = [], 3
        for filters, size, stride, pad, pooled in (
            (64, 11, 4, 2, True), (192, 5, 1, 2, True), (384, 3, 1, 1, False),
            (256, 3, 1, 1, False), (256, 3, 1, 1, True),
        ):  # fmt: skip
            layers += [nn.Conv2d(channels, filters, size, stride, pad), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2)] if pooled else []
            channels = filters
        units = 32
        drops = [nn.Dropout(), nn.Linear(256 * 3**2, units), nn.ReLU(), nn.Dropout()]
        head = nn.Sequential(*drops, nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 5))
    else:
        columns = {
            "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
            "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
            "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
            "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
        }
        layers, channels = [], 3
        for word in columns[kind].split():
            if word == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(channels, int(word), 3, padding=1), nn.ReLU()]
                channels = int(word)
        drops = [nn.Linear(512 * side**2, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096)]
        head = nn.Sequential(*drops, nn.ReLU(), nn.Dropout(), nn.Linear(4096, 5))
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", head)
    for weight in network.parameters():
        scale = np.sqrt(2 / weight[0].numel()) if weight.ndim > 1 else 1.0
        values = rng.normal(0, scale, tuple(weight.shape)).astype("float32")
        weight.data = torch.from_numpy(values)
    return network.eval()


@pytest.mark.parametrize("kind", ["vgg11", "vgg13", "vgg16", "vgg19", "alexnet"])
def test_pytorch_files_equal_pytorch(tmp_path, rng, kind):
    network = torch_network(kind, rng)
    torch = pytest.importorskip("torch")
    from cnnkit import models

    side = 131 if kind == "alexnet" else SIDE
    images = rng.uniform(0, 255, (2, side, side, 3)).astype("float32")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(normalized)).numpy()
    state = network.state_dict()
    files = {"plain.pth": state}
    if kind in ("vgg11", "alexnet"):
        files["old.pth"] = state
        files["checkpoint.pth"] = {
            "model": {f"module.{name}": value for name, value in state.items()}, "epoch": 3
        }  # fmt: skip
    save_file({n: v.numpy() for n, v in state.items()}, tmp_path / "plain.safetensors")
    for name, content in files.items():
        new = name != "old.pth"
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new)
    options = {"input_shape": (side, side, 3), "classes": 5, "classifier_activation": None}
    if kind == "alexnet":
        options |= {"preset": "torchvision", "hidden_units": 32}
    for name in (*files, "plain.safetensors"):
        ours = getattr(models, kind)(weights=tmp_path / name, **options)
        close(ours(images), expected, 1e-4)
    if kind == "alexnet":
        with pytest.raises(UsageError, match="without normalization, which alexnet has"):
            alexnet(weights=tmp_path / "plain.pth", **{**options, "preset": "one-weird-trick"})


class Bomb:
    def __reduce__(self):
        return (print, ("this code ran",))


@pytest.mark.slow
def test_a_whole_vgg16_equals_pytorch(tmp_path, rng):
    network = torch_network("vgg16", rng, side=7)
    torch = pytest.importorskip("torch")
    torch.save(network.state_dict(), tmp_path / "vgg16.pth")
    images = rng.uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalized = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(normalized)).numpy()
    ours = vgg16(weights=tmp_path / "vgg16.pth", classes=5, classifier_activation=None)
    close(ours(images), expected, 1e-4)


@pytest.mark.parametrize("new", [True, False])
def test_pytorch_code_is_not_run(tmp_path, capsys, new):
    torch = pytest.importorskip("torch")
    content = {"features.0.weight": torch.zeros(64, 3, 3, 3), "more": Bomb()}
    torch.save(content, tmp_path / "bomb.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(UsageError, match="holds no PyTorch state dictionary"):
        open_weights(tmp_path / "bomb.pth")
    torch.save([1, 2], tmp_path / "list.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(UsageError, match="state dictionary. Received: list"):
        open_weights(tmp_path / "list.pth")
    assert "this code ran" not in capsys.readouterr().out


# --- Caffe ----------------------------------------------------------------------------------------

LRN = {"local_size": 5, "alpha": 1e-4, "beta": 0.75}  # k is left at Caffe's own 1


def caffe_rows(model, *, pool_first=False, lrn=LRN):
    """The weights of one of our networks as Caffe's layers: BGR, OIHW, channels first."""
    flat = model.get_layer("flatten").input.shape[1:] if "flatten" in names(model) else None
    rows, first = [], True
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            if first:
                kernel, first = kernel[:, :, ::-1], False
            if kernel.ndim == 4:
                kind, kernel = "Convolution", kernel.transpose(3, 2, 0, 1)
            elif kernel.shape[0] == np.prod(flat):
                kind, kernel = "InnerProduct", channels_first_rows(kernel, flat[2], *flat[:2])
            else:
                kind, kernel = "InnerProduct", kernel.T
            name = layer.name.replace("block", "conv").replace("_conv", "_")
            name = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}.get(name, name)
            rows.append((name, kind, "x", name, [np.ascontiguousarray(kernel), bias], None))
        elif layer.name.startswith("norm"):
            number = layer.name[4:]
            bottom = f"pool{number}" if pool_first else f"conv{number}"
            rows.append((layer.name, "LRN", bottom, layer.name, [], lrn))
        elif layer.name.startswith("pool"):
            rows.append((layer.name, "Pooling", "x", layer.name, [], None))
    return rows


def names(model):
    return [layer.name for layer in model.layers]


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


ALEXNET = {"input_shape": (131, 131, 3), "classes": 4, "hidden_units": 16}


@pytest.mark.parametrize("preset", ["caffe", "caffenet"])
@pytest.mark.parametrize("v1", [False, True], ids=["new", "until-2015"])
def test_caffemodel_equals_caffes_arithmetic(tmp_path, rng, preset, v1):
    pool_first = preset == "caffenet"
    model = randomized(alexnet(preset=preset, **ALEXNET))
    rows = caffe_rows(model, pool_first=pool_first)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(rows, v1=v1))
    images = rng.uniform(0, 255, (2, 131, 131, 3)).astype("float32")
    options = {**ALEXNET, "classifier_activation": None}
    ours = alexnet(preset=preset, weights=tmp_path / "a.caffemodel", **options)
    close(ours(images), caffe_forward(rows, images, pool_first=pool_first), 1e-4)
    file = open_weights(tmp_path / "a.caffemodel")
    assert (file.channels, file.facts["network"]) == ("BGR", "Net")
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
    rows = caffe_rows(model, pool_first=True, lrn=None)
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(rows, v1=double, double=double))
    ours = builder(weights=tmp_path / "a.caffemodel", **options)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other.astype("float32"))
    mean = VGG_MEAN if builder is vgg11 else BVLC_MEAN
    np.testing.assert_allclose(ours.get_layer("preprocessing").mean, mean, rtol=1e-6)


def test_mean_image_is_cut_to_the_center(tmp_path, rng):
    bgr = rng.uniform(90, 130, (3, 140, 133)).astype("float32")
    (tmp_path / "mean.binaryproto").write_bytes(binaryproto(bgr))
    mean = read_mean_image(tmp_path / "mean.binaryproto")
    np.testing.assert_array_equal(mean, bgr[::-1].transpose(1, 2, 0))
    model = randomized(alexnet(preset="caffe", **ALEXNET))
    (tmp_path / "a.caffemodel").write_bytes(caffemodel(caffe_rows(model)))
    file = open_weights(tmp_path / "a.caffemodel", mean=mean)
    options = {"preset": "caffe", "weights": file, "classifier_activation": None, **ALEXNET}
    ours = alexnet(**options)
    bare = alexnet(include_preprocessing=False, **options)
    images = rng.uniform(0, 255, (1, 131, 131, 3)).astype("float32")
    center = mean[4:135, 1:132]
    close(ours(images), bare(images - center), 1e-5)
    ours.save(tmp_path / "a.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "a.keras")(images), ours(images))
    assert ours.count_params() == bare.count_params()
    with pytest.raises(UsageError, match="at most 140 x 133 pixels. Received: 134 x 134"):
        alexnet(preset="caffe", weights=file, classes=4, hidden_units=16, input_shape=(134, 134, 3))


# --- NumPy ----------------------------------------------------------------------------------------


def arrays_by_name(model):
    """(kernel, bias) by layer as converters left them: HWIO, the first kernel BGR."""
    found = {}
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            found[layer.name] = (kernel if found else kernel[:, :, ::-1], bias)
    return found


@pytest.mark.parametrize("style", ["lists.npy", "dictionaries.npy", "python2.npy", "npz", "oihw"])
def test_arrays_by_name(tmp_path, style):
    options = {"include_top": False, "input_shape": (SIDE, SIDE, 3)}
    model = randomized(alexnet(**options))
    found = arrays_by_name(model)
    path = tmp_path / style
    if style == "dictionaries.npy":
        content = {name: {"weights": k, "biases": b} for name, (k, b) in found.items()}
        np.save(path, content, allow_pickle=True)
    elif style == "lists.npy":
        np.save(path, {name: [k, b] for name, (k, b) in found.items()}, allow_pickle=True)
    elif style == "python2.npy":
        # How NumPy of Python 2 pickled: protocol 2, bytes as text, numpy.core.
        text = pickle.dumps({name: [k, b] for name, (k, b) in found.items()}, protocol=2)
        text = text.replace(b"numpy._core", b"numpy.core")
        with path.open("wb") as file:
            header = {"descr": "|O", "fortran_order": False, "shape": ()}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(text)
    elif style == "npz":
        arrays = {}
        for name, (kernel, bias) in found.items():
            arrays[f"{name}_W"], arrays[f"{name}_b"] = kernel, bias
        with path.open("wb") as file:
            np.savez(file, mean_bgr=np.array([30.0, 20.0, 10.0]), **arrays)
    else:
        arrays = {}
        for name, (kernel, bias) in found.items():
            arrays[f"{name}/weights"], arrays[f"{name}/biases"] = kernel.transpose(3, 2, 0, 1), bias
        with path.open("wb") as file:
            np.savez(file, **arrays)
    ours = alexnet(weights=path, **options)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    mean = (10, 20, 30) if style == "npz" else BVLC_MEAN
    np.testing.assert_allclose(ours.get_layer("preprocessing").mean, mean, rtol=1e-6)
    rgb = alexnet(weights=open_weights(path, channels="RGB"), **options)
    np.testing.assert_array_equal(rgb.get_layer("conv1").kernel, found["conv1"][0])


@pytest.mark.parametrize("builder", [vgg16, vgg19])
@pytest.mark.parametrize("kind", ["npy", "caffemodel"])
def test_vgg_by_caffes_names(tmp_path, builder, kind):
    model = randomized(builder(include_top=False))
    path = tmp_path / f"vgg.{kind}"
    if kind == "caffemodel":
        path.write_bytes(caffemodel(caffe_rows(model)))
    else:
        found = arrays_by_name(model)
        names = {name: name.replace("block", "conv").replace("_conv", "_") for name in found}
        np.save(path, {names[name]: list(pair) for name, pair in found.items()}, allow_pickle=True)
    ours = builder(include_top=False, weights=path)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(ours.get_layer("preprocessing").mean, VGG_MEAN, rtol=1e-6)


def test_no_code_in_a_pickle_runs(tmp_path, capsys):
    np.save(tmp_path / "bomb.npy", {"conv1": Bomb()}, allow_pickle=True)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps({"conv1": Bomb()}))
    with pytest.raises(UsageError, match="a pickle that asks for"):
        open_weights(tmp_path / "bomb.npy")
    with pytest.raises(UsageError, match="is a Python pickle, which can run code"):
        open_weights(tmp_path / "bomb.pkl")
    np.savez(tmp_path / "bomb.npz", conv1_W=np.array([Bomb()]))
    with pytest.raises(UsageError, match="conv1_W.npy in .* is no array of numbers"):
        open_weights(tmp_path / "bomb.npz")
    assert "this code ran" not in capsys.readouterr().out


def test_real_alexnet_loads_and_has_two_towers(shared):
    """Krizhevsky et al. 2012, Fig. 3: one tower's kernels are gray, the other's colored."""
    path = shared("data/alexnet_bvlc_conv.npz")
    model = alexnet(preset="caffe", include_top=False, weights=path)
    arrays = np.load(path)
    kernel = model.get_layer("conv1").get_weights()[0]
    np.testing.assert_array_equal(kernel, arrays["conv1__kernel"][:, :, ::-1])
    np.testing.assert_array_equal(model.get_layer("conv5").bias, arrays["conv5__bias"])
    np.testing.assert_allclose(
        model.get_layer("preprocessing").mean, arrays["imagenet_mean_rgb"], rtol=1e-6
    )
    gray = kernel.mean(axis=2, keepdims=True)
    color = np.square(kernel - gray).sum((0, 1, 2)) / np.square(kernel).sum((0, 1, 2))
    assert np.median(color[48:]) < 0.05
    assert np.median(color[:48]) > 0.9


# --- fingerprints, wrong files, the command -------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A small AlexNet's convolutions as .npz, and the file that it was converted to."""
    model = randomized(alexnet(include_top=False, input_shape=(SIDE, SIDE, 3)))
    arrays = {}
    for name, (kernel, bias) in arrays_by_name(model).items():
        arrays[f"{name}_W"], arrays[f"{name}_b"] = kernel, bias
    np.savez(tmp_path / "small.npz", **arrays)
    convert_weights(open_weights(tmp_path / "small.npz"), "alexnet", tmp_path / "small.keras")
    return tmp_path


def test_fingerprint_guards_a_converted_network(small):
    model = load_model(small / "small.keras")
    assert alexnet(include_top=False, weights=small / "small.keras").count_params() == 2_334_080
    with zipfile.ZipFile(small / "small.keras") as archive:
        recorded = json.loads(archive.read(MEMBER))
    assert recorded["image"] == [224, 224]
    assert len(recorded["values"]) == 256
    # The same shapes, another network: without its normalization.
    other = alexnet(include_top=False, lrn=False)
    other.set_weights(model.get_weights())
    other.save(small / "other.keras")
    with zipfile.ZipFile(small / "other.keras", "a") as archive:
        archive.writestr(MEMBER, json.dumps(recorded))
    with pytest.raises(RunError, match="does not answer as it did when they were converted"):
        load_model(small / "other.keras")


def test_a_fingerprint_is_compared_only_with_the_same(small):
    """Another input, precision or mean answers otherwise, and rightly so."""
    options = {"include_top": False, "weights": small / "small.keras"}
    for more in ({"include_preprocessing": False}, {"mean": (1, 2, 3)}):
        assert alexnet(**options, **more).count_params() == 2_334_080
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        assert alexnet(**options).count_params() == 2_334_080
    finally:
        keras.config.set_dtype_policy(before)
    with pytest.raises(RunError, match="does not answer as it did"):
        alexnet(**options, activation="tanh")


def test_weights_reach_every_replica(small, mirrored):
    with mirrored.scope():
        model = alexnet(include_top=False, weights=small / "small.keras")
    expected = load_model(small / "small.keras").get_layer("conv2").kernel.numpy()
    copies = mirrored.experimental_local_results(model.get_layer("conv2").kernel.value)
    assert len(copies) == 2
    for copy in copies:
        np.testing.assert_array_equal(copy.numpy(), expected)
    copies[0].assign_add(tf.ones_like(copies[0]))
    np.testing.assert_array_equal(copies[1].numpy(), expected)


def test_conversion_overwrites_nothing(small):
    file = open_weights(small / "small.npz")
    before = (small / "small.keras").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        convert_weights(file, "alexnet", small / "small.keras")
    with pytest.raises(UsageError, match="is written as FILE.keras"):
        convert_weights(file, "alexnet", small / "small.h5")
    with pytest.raises(UsageError, match="has no weights for layer 'block1_conv1'"):
        convert_weights(file, "vgg16", small / "new.keras")
    assert (small / "small.keras").read_bytes() == before
    assert sorted(p.name for p in small.iterdir()) == ["small.keras", "small.npz"]


def test_a_fit_is_found_and_what_differs_is_named(small):
    found = compatible_networks(open_weights(small / "small.npz"))
    fitting = [fit.network for fit in found if fit.problem is None]
    assert fitting == ["alexnet_caffe", "caffenet", "alexnet"]
    by_name = {fit.network: fit for fit in found}
    problem = by_name["alexnet_torchvision"].problem
    assert "conv1_W (11, 11, 3, 96) is not the kernel of 'conv1'" in problem
    assert "Expected: (11, 11, 3, 64)" in problem
    # What a converted network declares tells it from its kin.
    fitting = [
        f.network
        for f in compatible_networks(open_weights(small / "small.keras"))
        if f.problem is None
    ]
    assert fitting == ["alexnet"]


def written(path, content=b""):
    path.write_bytes(content)
    return path


def test_wrong_files_are_named_in_one_line(small, tmp_path):
    cases = {
        "no weights file of a known kind": written(tmp_path / "noise", bytes(range(256)) * 9),
        "is no weights file of a known kind": written(tmp_path / "text", b"hello, world\n" * 9),
        "of a known kind": written(tmp_path / "empty"),
        "zip archive of no known kind": tmp_path / "a.zip",
        "holds no Keras weights": tmp_path / "b.h5",
        "layers of unknown names": tmp_path / "c.safetensors",
        "batch normalization": tmp_path / "d.safetensors",
        "arrays of unknown names": tmp_path / "e.npz",
        "holds one array": tmp_path / "f.npy",
        "No weights file": tmp_path / "absent",
    }
    import h5py

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme", "")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = 1
    save_file({"layer1.weight": np.zeros((2, 2), "f4")}, tmp_path / "c.safetensors")
    save_file({"features.1.running_mean": np.zeros(2, "f4")}, tmp_path / "d.safetensors")
    np.savez(tmp_path / "e.npz", x=np.zeros(3))
    np.save(tmp_path / "f.npy", np.zeros(3))
    for text, path in cases.items():
        with pytest.raises(UsageError) as error:
            open_weights(path)
        assert text in str(error.value)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["small.npz", "small.keras", "small.safetensors", "small.h5",
                                  "small.caffemodel"])  # fmt: skip
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_torn_file_is_one_clear_line(small, name, kept):
    model = load_model(small / "small.keras")
    if name == "small.safetensors":
        save_file({"features.0.weight": np.zeros((64, 3, 3, 3), "f4")}, small / name)
    elif name == "small.h5":
        rows = [(layer.name, *layer.get_weights()) for layer in model.layers if layer.weights]
        old_applications(small / name, rows)
    elif name == "small.caffemodel":
        (small / name).write_bytes(caffemodel(caffe_rows(model)))
    content = (small / name).read_bytes()
    torn = written(small / "torn", content[: int(kept * len(content))])
    with pytest.raises(UsageError) as error:
        alexnet(include_top=False, weights=torn)
    assert "torn" in str(error.value)
    assert "whole" in str(error.value) or "not all of one" in str(error.value)


def test_a_changed_byte_is_found_where_the_format_has_checksums(small):
    content = bytearray((small / "small.npz").read_bytes())
    content[len(content) // 2] ^= 255
    changed = written(small / "changed.npz", bytes(content))
    with pytest.raises(UsageError, match="changed.npz is not whole. Received: Bad CRC-32"):
        alexnet(include_top=False, weights=changed)


def test_layers_of_another_kind_are_refused(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1")(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization(name="bn")(x))
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "b.h5")
    for name in ("a.weights.h5", "b.h5"):
        with pytest.raises(UsageError, match="weights of another kind in layer 'bn'"):
            open_weights(tmp_path / name)


def test_numbers_that_are_not_finite_are_refused(small):
    arrays = dict(np.load(small / "small.npz"))
    arrays["conv3_W"][1, 1, 5, 7] = np.nan
    np.savez(small / "nan.npz", **arrays)
    with pytest.raises(UsageError, match=r"conv3_W \(3, 3, 256, 384\) holds numbers that are not"):
        alexnet(include_top=False, weights=small / "nan.npz")


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
def test_a_tensor_that_differs_is_named(small, changes, text):
    arrays = dict(np.load(small / "small.npz"))
    for name, shape in changes.items():
        if shape is None:
            del arrays[name]
        else:
            arrays[name] = np.zeros(shape, "f4")
    np.savez(small / "changed.npz", **arrays)
    with pytest.raises(UsageError) as error:
        alexnet(include_top=False, weights=small / "changed.npz")
    assert text in str(error.value)


def test_two_towers_into_one_are_refused_with_the_way_out(small):
    with pytest.raises(UsageError, match="build it with groups=2, and ungroup it"):
        alexnet(include_top=False, groups=1, weights=small / "small.npz")
    with pytest.raises(UsageError, match="include_top=False takes the convolutions alone"):
        alexnet(weights=small / "small.npz")


def test_weights_command(small, capsys):
    (small / "labels.txt").write_text("a\nb\n")
    assert main(["weights", "inspect", str(small / "small.npz"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "arrays by name (.npz)"
    assert facts["parameters"] == 2_334_080
    assert facts["tensors"][0] == {"name": "conv1_W", "shape": [11, 11, 3, 96]}
    assert facts["fits"][0] == "alexnet_caffe (include_top=False)"
    assert facts["first kernel takes"] == "BGR"
    mean = ["--mean", "1,2,3", "--channels", "RGB"]
    output = str(small / "new.keras")
    command = ["weights", "convert", str(small / "small.npz"), "--model", "caffenet"]
    assert main([*command, "--output", output, *mean]) == 0
    assert "2,334,080 parameters" in capsys.readouterr().out
    model = load_model(output)
    np.testing.assert_array_equal(model.get_layer("preprocessing").mean, [1, 2, 3])
    arrays = np.load(small / "small.npz")
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, arrays["conv1_W"])
    assert main(["weights", "inspect", output]) == 0
    text = capsys.readouterr().out
    assert "a Keras model (.keras)" in text
    assert "caffenet (include_top=False)" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "vgg16"], "has no weights for layer 'block1_conv1'"),
        (["--model", "alexnett"], "Did you mean alexnet"),
        (["--model", "alexnet", "--mean", "1,2"], "--mean must have three values"),
        (["--model", "alexnet", "--mean", "no.binaryproto"], "R,G,B or FILE"),
        (
            ["--model", "alexnet", "--labels", "no.txt"],
            "--labels must be an existing file. Expected: class names, one a line. Received: no.txt",
        ),
        (["--model", "alexnet", "--model-option", "lrn"], "NAME=VALUE"),
        (["--model", "alexnet", "--model-option", "lnr=0"], "Did you mean lrn"),
    ],
)
def test_wrong_use_of_the_command(small, capsys, arguments, text):
    output = ["--output", str(small / "x.keras")]
    assert main(["weights", "convert", str(small / "small.npz"), *output, *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (small / "x.keras").exists()


# --- weights="imagenet" ---------------------------------------------------------------------------


def test_imagenet_is_downloaded_once_and_checked(tmp_path, monkeypatch, images, applications):
    import hashlib

    folder, reference = applications
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    file = folder / "notop.h5"
    checksum = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(
        download.FILES, ("vgg16", False), download.Download(file.as_uri(), checksum)
    )
    features = keras.Model(reference.input, reference.get_layer("block5_pool").output)
    expected = features(keras.applications.vgg16.preprocess_input(images.copy()))
    close(vgg16(include_top=False, weights="imagenet")(images), expected, 1e-5)
    [kept] = tmp_path.rglob("notop.h5")
    file = download.Download(file.as_uri(), "0" * 32)
    monkeypatch.setitem(download.FILES, ("vgg16", False), file)
    kept.unlink()
    with pytest.raises(RunError, match="could not be downloaded"):
        vgg16(include_top=False, weights="imagenet")


def test_without_a_network_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    address = "http://127.0.0.1:9/vgg16.h5"
    monkeypatch.setitem(download.FILES, ("vgg16", True), download.Download(address, "0" * 32))
    with pytest.raises(RunError) as error:
        vgg16(weights="imagenet")
    assert address in str(error.value)
    assert str(tmp_path / "models" / "vgg16.h5") in str(error.value)


def test_what_has_no_imagenet_weights_is_refused():
    with pytest.raises(UsageError, match="no ImageNet weights to download for this network"):
        vgg11(weights="imagenet")
    with pytest.raises(UsageError, match="Expected: vgg16 or vgg19, or a weights file"):
        alexnet(weights="imagenet")
    with pytest.raises(UsageError, match="have 1,000 classes"):
        vgg16(weights="imagenet", classes=10)


def test_the_addresses_are_those_of_keras_applications():
    from keras.src.applications import vgg16 as theirs16
    from keras.src.applications import vgg19 as theirs19

    for network, module in (("vgg16", theirs16), ("vgg19", theirs19)):
        assert download.FILES[network, True].address == module.WEIGHTS_PATH
        assert download.FILES[network, False].address == module.WEIGHTS_PATH_NO_TOP
