"""Arrays by name in .npz and .npy, in the styles of several converters."""

import pickle

import numpy as np
import pytest

from cnnkit.errors import UsageError
from cnnkit.models import alexnet, open_weights
from tests.helpers.weights_files import BVLC_MEAN, SIDE, PickleBomb, arrays_by_name, randomized


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
