"""The command `cnnkit weights`."""

import json

import numpy as np
import pytest

from cnnkit import load_model
from cnnkit.cli.main import main
from tests.helpers.weights_files import write_small_alexnet


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
    assert facts["first kernel takes"] == "BGR"
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
    assert "a Keras model (.keras)" in text
    assert "caffenet (include_top=False)" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "vgg16"], "has no weights for layer 'block1_conv1'"),
        (["--model", "alexnett"], "Did you mean alexnet"),
        (["--model", "alexnet", "--mean", "1,2"], "--mean must be numbers"),
        (["--model", "alexnet", "--mean", "no.binaryproto"], "R,G,B or FILE"),
        (
            ["--model", "alexnet", "--labels", "no.txt"],
            "--labels must be an existing file. Expected: class names, one a line. "
            "Received: no.txt",
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
