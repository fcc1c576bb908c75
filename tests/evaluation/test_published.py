"""Errors that the papers report, for the same networks and protocols."""

import pytest

from cnnkit.evaluation.published import published_errors
from cnnkit.recipes import find_recipe

ALL_SEVEN = "vgg-d-256 vgg-d-384 vgg-d-jitter vgg-c-256 vgg-c-384 vgg-e-256 vgg-e-384"


@pytest.mark.parametrize(
    ("recipe", "protocol", "scales", "errors"),
    [
        ("alexnet-paper", "ten-crop", (256,), (0.407, 0.182)),
        ("alexnet-paper", "center", (256,), None),
        ("vgg-d-256", "dense", (256,), (0.27, 0.088)),
        ("vgg-d-256", "dense", (384,), None),
        ("vgg-d-256", "dense", (288, 224, 256), (0.266, 0.086)),
        ("vgg-e-jitter", "dense", (384,), (0.255, 0.08)),
        ("vgg-e-jitter", "dense", (256, 384, 512), (0.248, 0.075)),
        ("vgg-e-jitter", "multi-crop", (256, 384, 512), (0.246, 0.074)),
        ("vgg-d-jitter", "dense+multi-crop", (256, 384, 512), (0.244, 0.072)),
        ("vgg-d-384", "multi-crop", (352, 384, 416), None),
        ("demo", "ten-crop", (256,), None),
    ],
)
def test_the_papers_figure_for_the_same(recipe, protocol, scales, errors):
    network = (find_recipe(recipe).config, scales)
    found = published_errors([network], protocol, 1000)
    assert (found and (found.top1_error, found.top5_error)) == errors
    assert published_errors([network], protocol, 10) is None


@pytest.mark.parametrize(
    ("recipes", "protocol", "errors"),
    [
        ("alexnet-paper " * 5, "ten-crop", (0.381, 0.164)),
        ("alexnet-paper " * 4, "ten-crop", None),
        ("vgg-e-jitter vgg-d-jitter", "dense", (0.24, 0.071)),
        ("vgg-d-jitter vgg-e-jitter", "multi-crop", (0.239, 0.072)),
        ("vgg-d-jitter vgg-e-jitter", "dense+multi-crop", (0.237, 0.068)),
        ("vgg-d-jitter vgg-d-jitter", "dense", None),
        ("vgg-d-jitter alexnet-paper", "dense", None),
        (ALL_SEVEN, "dense", (0.247, 0.075)),
        (ALL_SEVEN, "multi-crop", None),
    ],
)
def test_the_papers_figure_for_the_same_ensemble(recipes, protocol, errors):
    several = {"256": (224, 256, 288), "384": (352, 384, 416), "jitter": (512, 384, 256)}
    networks = [
        (find_recipe(name).config, several.get(name.split("-")[-1], (256,)))
        for name in recipes.split()
    ]
    found = published_errors(networks, protocol, 1000)
    assert (found and (found.top1_error, found.top5_error)) == errors
