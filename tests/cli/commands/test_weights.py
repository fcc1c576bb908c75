"""The command `cnnkit weights`."""

import json

import numpy as np
import pytest

from cnnkit import alexnet, load_model
from cnnkit.cli.load_network import load_network
from cnnkit.cli.main import main
from tests.helpers.weights_files import SIDE, arrays_by_name, randomized, write_small_alexnet


@pytest.fixture
def small_alexnet(tmp_path):
    return write_small_alexnet(tmp_path)


def test_weights_command(small_alexnet, capsys):
    (small_alexnet / "labels.txt").write_text("a\nb\n")
    assert main(["weights", "inspect", str(small_alexnet / "small.npz"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "arrays by name (.npz)"
    assert facts["parameters"] == 2_334_080
    assert facts["tensors"][0] == {"name": "conv1_W", "shape": [11, 11, 3, 96]}
    assert facts["fits"][0] == "alexnet_caffe (include_top=False)"
    assert facts["to_choose"].startswith("alexnet_caffe (Caffe's bvlc_alexnet: 227 pixels")
    assert facts["first_kernel_takes"] == "BGR"
    mean = ["--mean", "1,2,3", "--channels", "RGB"]
    output = str(small_alexnet / "new.keras")
    command = ["weights", "convert", str(small_alexnet / "small.npz"), "--model", "caffenet"]
    assert main([*command, "--output", output, *mean]) == 0
    assert "2,334,080 parameters" in capsys.readouterr().out
    model = load_model(output)
    np.testing.assert_array_equal(model.get_layer("preprocessing").mean, [1, 2, 3])
    arrays = np.load(small_alexnet / "small.npz")
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, arrays["conv1_W"])
    assert main(["weights", "inspect", output]) == 0
    text = capsys.readouterr().out
    assert "Keras model (.keras)" in text
    assert "caffenet (include_top=False)" in text


def test_dense_layers_in_any_order(tmp_path, capsys):
    """bvlc_alexnet.npy has fc6, fc8, fc7; the number of classes is that of fc8."""
    model = randomized(alexnet(input_shape=(SIDE, SIDE, 3), classes=5, hidden_units=7))
    found = arrays_by_name(model)
    names = ["fc6", "fc8", "fc7", *(name for name in found if "conv" in name)]
    file = str(tmp_path / "a.npy")
    np.save(file, {name: list(found[name]) for name in names}, allow_pickle=True)
    options = ["--model", "alexnet", "--model-option", f"input_shape=[{SIDE},{SIDE},3]"]
    options += ["--model-option", "hidden_units=7"]
    assert main(["weights", "inspect", file]) == 0
    assert "fc8/weights  7 x 5" in capsys.readouterr().out
    output = str(tmp_path / "a.keras")
    assert main(["weights", "convert", file, *options, "--output", output]) == 0
    for one, other in zip(load_model(output).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert load_network(file, model="alexnet", options={
        "input_shape": (SIDE, SIDE, 3), "hidden_units": 7
    }).model.output_shape == (None, 5)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "vgg16"], "has no weights for layer 'block1_conv1'"),
        (["--model", "alexnett"], "Did you mean alexnet"),
        (["--model", "alexnet", "--mean", "1,2"], "--mean must be three numbers"),
        (["--model", "alexnet", "--mean", "no.binaryproto"], "R,G,B or an existing file"),
        (
            ["--model", "alexnet", "--labels", "no.txt"],
            "--labels must be an existing file, received no.txt.",
        ),
        (["--model", "alexnet", "--model-option", "lrn"], "NAME=VALUE"),
        (["--model", "alexnet", "--model-option", "lnr=0"], "Did you mean lrn"),
    ],
)
def test_invalid_arguments(small_alexnet, capsys, arguments, text):
    output = ["--output", str(small_alexnet / "x.keras")]
    assert main(["weights", "convert", str(small_alexnet / "small.npz"), *output, *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (small_alexnet / "x.keras").exists()
