"""Arrays by name in .npz and .npy, in the styles of several converters."""

import pickle

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models import alexnet, open_weights
from tests.helpers.weights_files import (
    BVLC_MEAN,
    SIDE,
    PickleBomb,
    arrays_by_name,
    assert_close,
    randomized,
)


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


@pytest.mark.parametrize("order", [("fc6", "fc8", "fc7"), ("fc8", "fc7", "fc6")])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_order_in_the_file_does_not_matter(tmp_path, kind, order):
    """bvlc_alexnet.npy has fc6, fc8, fc7."""
    options = {"input_shape": (SIDE, SIDE, 3), "classes": 5, "hidden_units": 7}
    model = randomized(alexnet(**options))
    found = arrays_by_name(model)
    names = [*order, *(name for name in found if name not in order)]
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        content = {name: list(found[name]) for name in names}
        np.save(path, {**content, "step": np.float64(3)}, allow_pickle=True)
    else:
        np.savez(path, **{f"{name}_{'Wb'[i]}": found[name][i] for name in names for i in (1, 0)})
    file = open_weights(path)
    assert file.classes == 5
    assert [layer.name for layer in file.layers] == list(found)
    ours = alexnet(weights=path, **options)
    for one, other in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stated_mean_and_deviation_are_used(tmp_path, images):
    options = {"include_top": False, "input_shape": (SIDE, SIDE, 3)}
    model = randomized(alexnet(include_preprocessing=False, **options))
    arrays = {}
    for name, (kernel, bias) in arrays_by_name(model).items():
        arrays[f"{name}_W"], arrays[f"{name}_b"] = kernel, bias
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    np.savez(tmp_path / "unit.npz", mean_rgb=mean, std_rgb=std, **arrays)
    np.savez(tmp_path / "bytes.npz", mean_bgr=255 * mean[::-1], std_rgb=255 * std, **arrays)
    expected = model(((images / 255 - mean) / std).astype("float32"))
    for name in ("unit.npz", "bytes.npz"):
        assert_close(alexnet(weights=tmp_path / name, **options)(images), expected, 1e-5)
    np.savez(tmp_path / "mixed.npz", mean_rgb=255 * mean, std_rgb=std, **arrays)
    assert "do not tell the range" in open_weights(tmp_path / "mixed.npz").preprocessing.describe()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bn1_gamma": np.ones(96, "f4")}, "arrays of unknown names.* Received: bn1_gamma"),
        ({"bn1_moving_mean": np.ones(96, "f4")}, "unknown names.* Received: bn1_moving_mean"),
        ({"conv1_W": np.ones((11, 11, 3, 96), "i1")}, "unsupported type in conv1_W.* int8"),
        ({"conv1_W": np.ones((11, 11, 3, 96), "V2")}, "unsupported type in conv1_W"),
        ({"conv1_W": np.ones((11, 11, 3, 96), "c8")}, "unsupported type in conv1_W"),
    ],
)
def test_arrays_that_would_be_left_out_are_refused(small_alexnet, changes, text):
    arrays = {**np.load(small_alexnet / "small.npz"), **changes}
    np.savez(small_alexnet / "changed.npz", **arrays)
    with pytest.raises(UsageError, match=text):
        open_weights(small_alexnet / "changed.npz")


def test_lists_of_more_than_a_kernel_and_a_bias_are_refused(tmp_path):
    scale = [np.ones(4, "f4")] * 3
    kernel = [np.ones((3, 3, 3, 4), "f4"), np.ones(4, "f4")]
    np.save(tmp_path / "a.npy", {"conv1": kernel, "bn1": scale}, allow_pickle=True)
    with pytest.raises(UsageError, match="arrays of unknown names.* Received: bn1/2"):
        open_weights(tmp_path / "a.npy")


def test_no_code_in_a_pickle_runs(tmp_path, capsys):
    np.save(tmp_path / "bomb.npy", {"conv1": PickleBomb()}, allow_pickle=True)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps({"conv1": PickleBomb()}))
    with pytest.raises(UsageError, match="a pickle that calls"):
        open_weights(tmp_path / "bomb.npy")
    with pytest.raises(UsageError, match="is a Python pickle, which can run code"):
        open_weights(tmp_path / "bomb.pkl")
    np.savez(tmp_path / "bomb.npz", conv1_W=np.array([PickleBomb()]))
    with pytest.raises(UsageError, match="conv1_W.npy in .* is not an array of numbers"):
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


def test_names_of_classes_are_a_list_of_texts(small_alexnet):
    arrays = dict(np.load(small_alexnet / "small.npz"))
    path = small_alexnet / "named.npz"
    for key in ("class_names", "labels"):
        np.savez(path, **{**arrays, key: np.array(["cat", "dog"])})
        assert open_weights(path).class_names == ("cat", "dog")
    np.savez(path, **arrays, labels=np.array([["cat", "dog"]]))
    with pytest.raises(UsageError, match="names of classes that are not a list of texts"):
        open_weights(path)
    # What is no array of the network is told.
    np.savez(path, **arrays, step=np.int64(3))
    assert open_weights(path).metadata == {"arrays left out": "step"}
    np.savez(path, **arrays, mean_rgb=np.array(["a", "b", "c"]))
    with pytest.raises(UsageError, match="has a mean_rgb that is not numbers"):
        open_weights(path)


def test_short_texts_beside_the_arrays_are_left_out(tmp_path):
    kernel = [np.ones((3, 3, 3, 4), "f4"), np.ones(4, "f4")]
    path = tmp_path / "a.npy"
    np.save(path, {"conv1": kernel, "note": "x" * 256, "step": 3}, allow_pickle=True)
    assert open_weights(path).metadata == {"arrays left out": "note, step"}
    np.save(path, {"conv1": kernel, "note": "x" * 257}, allow_pickle=True)
    with pytest.raises(UsageError, match="note in .* is not an array"):
        open_weights(path)
