"""The table of figures, the class option under both names, and networks from weights files."""

import argparse
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from cnnkit import visualize
from cnnkit.cli.main import main
from cnnkit.cli.visualize import FIGURES
from cnnkit.cli.visualize.attribution import METHODS
from cnnkit.models import build

IMAGE = str(Path(__file__).parents[3] / "docs/pictures/top9_conv2.png")
NAMES = [
    "activation-maximization", "compare", "correspondence", "deconvnet", "evolution", "filters",
    "gradcam", "gradcam++", "invariance", "layer2", "occlusion", "rules", "saliency", "scorecam",
    "smoothgrad", "stack", "top9",
]  # fmt: skip


def parse(name, *words):
    parser = argparse.ArgumentParser()
    FIGURES[name].add_arguments(parser)
    return parser.parse_args(words)


def test_every_figure_has_its_name_a_summary_and_a_description():
    assert list(FIGURES) == NAMES
    for command in FIGURES.values():
        first, empty, *rest = command.description.splitlines()
        assert command.summary == first.rstrip(".")
        assert first.endswith(".")
        assert empty == ""
        assert rest


def test_the_options_of_a_method_are_arguments_of_its_function():
    import inspect

    for name, method in METHODS.items():
        parameters = inspect.signature(getattr(visualize, method.function)).parameters
        args = parse(name, "random", IMAGE)
        for option in method.options:
            assert getattr(args, option) == parameters[option].default


@pytest.mark.parametrize("name", [*METHODS, "compare", "occlusion"])
def test_the_class_has_its_former_option_too(name, capsys):
    assert parse(name, "random", IMAGE).target is None
    assert parse(name, "random", IMAGE, "--target", "dog").target == "dog"
    assert capsys.readouterr().err == ""
    assert parse(name, "random", IMAGE, "--label", "dog").target == "dog"
    [note] = capsys.readouterr().err.splitlines()
    assert "--label is now --target" in note


def test_the_classes_of_several_images_have_their_former_option_too(capsys):
    assert parse("invariance", "random", IMAGE, IMAGE).target is None
    args = parse("invariance", "random", IMAGE, IMAGE, "--label", "dog", "cat")
    assert args.target == ["dog", "cat"]
    assert "--label is now --target" in capsys.readouterr().err


def test_a_network_may_come_from_a_weights_file(tmp_path, rng, capsys):
    shape = (64, 64, 3)
    keras.utils.set_random_seed(0)
    network = build("zfnet", input_shape=shape, hidden_units=16, classes=3)
    weights, image, png = (tmp_path / name for name in ("w.weights.h5", "image.png", "seen.png"))
    network.save_weights(weights)
    keras.utils.save_img(image, rng.uniform(0, 255, shape))
    options = ["--model", "zfnet", "--model-option", "input_shape=[64, 64, 3]"]
    options += ["--model-option", "hidden_units=16"]
    command = ["visualize", "deconvnet", str(weights), str(image), *options, "--layer", "conv2"]
    assert main([*command, "--output", str(png), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    pixels = keras.utils.img_to_array(keras.utils.load_img(image))
    [expected] = visualize.deconvnet(network, pixels, "conv2")
    assert (facts["unit"], facts["position"]) == (expected.unit, list(expected.position))
    projection = np.load(f"{png}.npz")["projection"]
    np.testing.assert_allclose(projection, expected.projection, rtol=1e-4, atol=1e-5)
