"""Errors that the papers report, for the same networks and protocols."""

import dataclasses

import pytest

from cnnkit.evaluation.published import published_errors
from cnnkit.recipes import find_recipe

ALL_SEVEN = "vgg-d-256 vgg-d-384 vgg-d-jitter vgg-c-256 vgg-c-384 vgg-e-256 vgg-e-384"


@pytest.mark.parametrize(
    ("recipe", "protocol", "scales", "errors"),
    [
        ("alexnet-paper", "ten-crop", (256,), (0.407, 0.182)),
        ("alexnet-paper", "center", (256,), None),
        ("zfnet-paper", "ten-crop", (256,), (0.384, 0.165)),
        ("zfnet-paper", "center", (256,), None),
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


# Simonyan & Zisserman 2014: Table 3 by column and training scale, then Tables 4 and 5.
SINGLE_SCALE = """
    a 256 29.6 10.4, a-lrn 256 29.7 10.5, b 256 28.7 9.9, c 256 28.1 9.4, c 384 28.1 9.3,
    c jitter 27.3 8.8, d 256 27.0 8.8, d 384 26.8 8.7, d jitter 25.6 8.1, e 256 27.3 9.0,
    e 384 26.9 8.7, e jitter 25.5 8.0
"""
MULTI_SCALE = """
    b 256 28.2 9.6, c 256 27.7 9.2, c 384 27.8 9.2, c jitter 26.3 8.2, d 256 26.6 8.6,
    d 384 26.5 8.6, d jitter 24.8 7.5, e 256 26.9 8.7, e 384 26.7 8.6, e jitter 24.8 7.5
"""
SIDES = {
    "Table 3": {"256": (256,), "384": (384,), "jitter": (384,)},
    "Table 4": {"256": (224, 256, 288), "384": (352, 384, 416), "jitter": (256, 384, 512)},
}


@pytest.mark.parametrize(("table", "text"), [("Table 3", SINGLE_SCALE), ("Table 4", MULTI_SCALE)])
def test_the_tables_of_vgg_are_whole(table, text):
    given = {tuple(entry.split()[:2]): entry.split()[2:] for entry in text.split(",")}
    for column in ("a", "a-lrn", "b", "c", "d", "e"):
        for trained, sides in SIDES[table].items():
            network = (find_recipe(f"vgg-{column}-{trained}").config, sides)
            found = published_errors([network], "dense", 1000)
            errors = given.get((column, trained))
            if errors is None:
                assert found is None
            else:
                assert found.source == f"Simonyan & Zisserman 2014, {table}"
                assert [f"{100 * e:.1f}" for e in (found.top1_error, found.top5_error)] == errors


def changed(recipe, **changes):
    """The configuration of a recipe with other options of its builder, or other fields."""
    config = find_recipe(recipe).config
    fields = {field.name for field in dataclasses.fields(config)}
    options = {name: value for name, value in changes.items() if name not in fields}
    others = {name: value for name, value in changes.items() if name in fields}
    return dataclasses.replace(config, model_options={**config.model_options, **options}, **others)


ALEXNET, ZFNET = "alexnet-paper", "zfnet-paper"
SIXTH = {"sixth_conv": 256, "init_from": "runs/22k"}


@pytest.mark.parametrize(
    ("networks", "classes", "protocol", "errors"),
    [
        # Krizhevsky et al. 2012, Tables 1 and 2 and section 6: top-1, top-5, top-5 on test images.
        ([(ALEXNET, SIXTH)], 1000, "ten-crop", (39.0, 16.6, None)),
        ([(ALEXNET, {"sixth_conv": 256})], 1000, "ten-crop", None),
        ([(ALEXNET, {})] * 5, 1000, "ten-crop", (38.1, 16.4, 16.4)),
        (
            [(ALEXNET, SIXTH), *[(ALEXNET, {})] * 5, (ALEXNET, SIXTH)],
            1000, "ten-crop", (36.7, 15.4, 15.3),
        ),
        ([(ALEXNET, {"dataset": "folder:ilsvrc2010"})], 1000, "ten-crop", (37.5, 17.0, None)),
        ([(ALEXNET, {"dataset": "folder:ilsvrc2010"})], 1000, "center", (39.0, 18.3, None)),
        ([(ALEXNET, {"sixth_conv": 256})], 10184, "ten-crop", (67.4, 40.9, None)),
        # Another network than the paper's.
        ([(ALEXNET, {"lrn": False})], 1000, "ten-crop", None),
        ([(ALEXNET, {"groups": 1})], 1000, "ten-crop", None),
        ([(ALEXNET, {"bias_value": 0.1})], 1000, "ten-crop", (40.7, 18.2, None)),
        # Zeiler & Fergus 2013, Tables 2 and 3.
        ([(ZFNET, {})] * 5, 1000, "ten-crop", (36.7, 15.3, 15.3)),
        ([(ZFNET, {"filters": [512, 1024, 512]})], 1000, "ten-crop", (37.5, 16.0, 16.1)),
        (
            [*[(ZFNET, {})] * 5, (ZFNET, {"filters": [512, 1024, 512]})],
            1000, "ten-crop", (36.0, 14.7, 14.8),
        ),
        ([(ZFNET, {"hidden_units": 2048})], 1000, "ten-crop", (40.2, 17.6, None)),
        ([(ZFNET, {"hidden_units": 8192})], 1000, "ten-crop", (38.8, 17.0, None)),
        (
            [(ZFNET, {"hidden_units": 8192, "filters": (512, 1024, 512)})],
            1000, "ten-crop", (38.3, 16.9, None),
        ),
        ([(ALEXNET, {"omit_layers": ["conv4", "conv3"]})], 1000, "ten-crop", (45.4, 22.1, None)),
        ([(ALEXNET, {"omit_layers": ["fc7"]})], 1000, "ten-crop", (40.0, 18.4, None)),
        ([(ALEXNET, {"omit_layers": ["fc6", "fc7"]})], 1000, "ten-crop", (44.8, 22.4, None)),
        (
            [(ALEXNET, {"omit_layers": ["conv3", "conv4", "fc6", "fc7"]})],
            1000, "ten-crop", (71.3, 50.1, None),
        ),
        ([(ALEXNET, {"hidden_units": 2048})], 1000, "ten-crop", (41.7, 18.8, None)),
        ([(ALEXNET, {"hidden_units": 8192})], 1000, "ten-crop", (40.0, 18.1, None)),
        ([(ZFNET, {"omit_layers": ["fc7"]})], 1000, "ten-crop", None),
    ],
)  # fmt: skip
def test_the_papers_figure_for_a_changed_network(networks, classes, protocol, errors):
    networks = [(changed(recipe, **changes), (256,)) for recipe, changes in networks]
    found = published_errors(networks, protocol, classes)
    if errors is None:
        assert found is None
    else:
        numbers = (found.top1_error, found.top5_error, found.test_top5_error)
        assert tuple(n and round(100 * n, 1) for n in numbers) == errors


def test_errors_on_the_competitions_test_images():
    # Simonyan & Zisserman 2014: section 4.2, and Tables 6 and 7.
    d, e = ((find_recipe(f"vgg-{c}-jitter").config, (256, 384, 512)) for c in "de")
    for networks, protocol, test in (
        ([e], "dense", 0.073), ([e], "dense+multi-crop", 0.07), ([d], "dense", None),
        ([d, e], "dense", 0.07), ([d, e], "multi-crop", None), ([d, e], "dense+multi-crop", 0.068),
    ):  # fmt: skip
        assert published_errors(networks, protocol, 1000).test_top5_error == test


def test_the_source_names_the_row():
    config = find_recipe(ZFNET).config
    found = published_errors([(config, (256,))], "ten-crop", 1000)
    assert found.source == "Zeiler & Fergus 2013, Table 2: 1 network as in Fig. 3"
    config = find_recipe(ALEXNET).config
    found = published_errors([(config, (256,))], "ten-crop", 1000)
    assert found.source == "Krizhevsky et al. 2012, Table 2: 1 CNN"
