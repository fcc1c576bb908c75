"""Outlines of networks name the layers, units and classes of the networks themselves."""

import inspect
import json
import zipfile

import keras
import pytest

from cnnkit import _network_names as names
from cnnkit import load_model, models
from cnnkit._network_outline import (
    outline_of_builder,
    outline_of_config,
    outline_of_file,
)
from cnnkit._networks import LAYERS, OPTIONS, PAPERS
from cnnkit.errors import UsageError
from cnnkit.models.class_names import class_count, class_index
from cnnkit.models.graph import build_graph
from cnnkit.models.summary import build_without_weights
from tests.helpers.boxes import square_finder


def units_of(model):
    """Returns the units of every layer with maps or vectors, by name, as the graph has them."""
    return {node.layer.name: node.tensors[0].shape[-1] for node in build_graph(model).nodes}


def check_units(outline, model):
    """Checks that no name is missing or wrong, and that a number that is known is right."""
    expected = units_of(model)
    assert list(outline.units) == list(expected)
    known = {name: count for name, count in outline.units.items() if count is not None}
    assert known == {name: expected[name] for name in known}
    return known


def test_the_classes_of_a_network_with_boxes_are_not_its_outputs(tmp_path):
    square_finder().save(tmp_path / "a.keras")
    outline = outline_of_file(tmp_path / "a.keras")
    assert (outline.classes, outline.class_names) == (2, ("nothing", "square"))
    outline.check_class("square")
    with pytest.raises(UsageError, match="no class 2"):
        outline.check_class("2")


@pytest.mark.parametrize("name", PAPERS)
def test_the_table_of_layers_is_that_of_the_builder(name):
    with build_without_weights(name) as model:
        classes = class_count(model)
        outline = outline_of_builder(name, {"classes": classes})
        known = check_units(outline, model)
        weighted = [layer.name for layer in model.layers if layer.trainable_weights]
    assert (outline.weighted, outline.classes) == (tuple(weighted), classes)
    assert set(weighted) < set(known)
    assert outline.name == name
    assert OPTIONS[name] == tuple(inspect.signature(models.BUILDERS[name]).parameters)


def test_options_that_change_the_layers_leave_the_rest_to_the_network():
    assert outline_of_builder("alexnet", {"omit_layers": ["fc6"]}) is None
    assert outline_of_builder("zfnet", {"filters": [4, 4, 4]}).units["conv5"] is None
    assert outline_of_builder("alexnet", {"hidden_units": 8}).units["fc6"] is None
    assert outline_of_builder("tiny", {}) is None
    assert set(LAYERS) == set(PAPERS)


def test_dense_layers_of_vgg_have_the_names_of_caffe_too():
    vgg = outline_of_builder("vgg16", {})
    assert [vgg.find_layer(name) for name in ("fc6", "fc7", "fc8")] == ["fc1", "fc2", "predictions"]
    vgg.check_unit("fc6", 4095)
    with pytest.raises(UsageError, match="Layer 'fc1' has no unit 4096"):
        vgg.check_unit("fc6", 4096)


def nested_network():
    inner = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(5, 3, name="inside")], name="inner"
    )
    inputs = keras.Input((16, 16, 3), name="image")
    x = keras.layers.BatchNormalization(name="bn")(inner(inputs))
    x = keras.layers.Concatenate(name="both")([x, x])
    x = keras.layers.Conv2D(7, 1, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax", name="out")(x), name="outer")


def sequential_network():
    return keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv1"),
         keras.layers.Flatten(name="flat"), keras.layers.Dense(1, "sigmoid", name="out")],
        name="yes_or_no",
    )  # fmt: skip


def named_network():
    model = models.build("cifar10_quick", classes=3, input_shape=(32, 32, 3))
    models.set_class_names(model, ("cat", "dog", "7"))
    return model


@pytest.mark.parametrize("build", [nested_network, sequential_network, named_network])
def test_the_outline_of_a_file_is_that_of_its_network(tmp_path, build):
    model = build()
    file = tmp_path / "model.keras"
    model.save(file)
    outline = outline_of_file(file)
    assert outline.name == model.name
    known = check_units(outline, load_model(file, preprocessing="raw"))
    assert known[next(name for name in known if name.startswith(("inside", "conv")))] > 3
    # The two classes of a network with one output are told by the network.
    assert outline.classes == (None if build is sequential_network else class_count(model))
    assert outline.class_names == models.class_names(model)
    if build is nested_network:
        assert (known["bn"], known["inside"], outline.units["both"]) == (5, 5, None)
        assert outline.find_layer("inner") is outline.find_layer("image") is None


def test_both_forms_of_the_output_of_a_configuration_are_read():
    """Keras has written the only output with and without a list around it."""
    model = named_network()
    config = json.loads(model.to_json())
    output = [model.layers[-1].name, 0, 0]
    for form in (output, [output]):
        config["config"]["output_layers"] = form
        outline = outline_of_config(config)
        assert (outline.classes, outline.class_names) == (3, ("cat", "dog", "7"))


def errors_of(*calls):
    """Returns the errors of calls."""
    texts = []
    for call in calls:
        with pytest.raises(UsageError) as error:
            call()
        texts.append(str(error.value))
    return texts


def test_an_outline_says_what_the_network_says(tmp_path):
    model = named_network()
    model.save(tmp_path / "model.keras")
    outline = outline_of_file(tmp_path / "model.keras")
    graph = build_graph(model)
    for name in ("convv3", "fc7"):
        early, late = errors_of(lambda n=name: outline.find_layer(n), lambda n=name: graph.node(n))
        assert early == late
    for label in ("bird", "3", 5):
        early, late = errors_of(
            lambda one=label: outline.check_class(one), lambda one=label: class_index(model, one)
        )
        assert early == late
    for label in ("cat", "7", "2", 0):
        outline.check_class(label)
    assert errors_of(lambda: outline.check_unit("conv1", 32), lambda: outline.check_unit("x", 0))[
        0
    ].startswith("Layer 'conv1' has no unit 32. Expected: 0 to 31")
    outline.check_unit("conv1", 31)
    outline.check_unit("probabilities", "cat")


def test_what_a_file_does_not_tell_is_left_to_the_network(tmp_path):
    file = tmp_path / "model.keras"
    assert outline_of_file(file) is None
    file.write_bytes(b"no archive")
    assert outline_of_file(file) is None
    for text in ("{", "[]", '{"config": 3}', '{"config": {"layers": [3]}}', '{"class_name": "A"}'):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("config.json", text)
        assert outline_of_file(file) is None, text
    strange = {"class_name": "Conv2D", "registered_name": "mine>Conv2D", "config": {"name": "a"}}
    strange["config"]["filters"] = 3
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": [strange]}}
    outline = outline_of_config(json.loads(json.dumps(model)))
    assert outline.units == {"a": None}
    outline.check_unit("a", 1000)


@pytest.mark.parametrize(
    ("check", "fits"),
    [
        (lambda: names.check_square((5, 7), (5, 7)), True),
        (lambda: names.check_square((6, 7), (5, 7)), False),
        (lambda: names.check_square((5, 8), (5, 7)), False),
        (lambda: names.check_crop_side(32, None), True),
        (lambda: names.check_crop_side(32, 32), True),
        (lambda: names.check_crop_side(32, 33), False),
        (lambda: names.check_scale(32, 32), True),
        (lambda: names.check_scale(31, 32), False),
        (lambda: names.check_class_names("ab", 2), True),
        (lambda: names.check_class_names("ab", 3), False),
        (lambda: names.check_unit("conv1", "0", 1), True),
        (lambda: names.check_unit("conv1", "-1", 1), False),
        (lambda: names.check_unit("conv1", "x", 1), False),
        (lambda: names.check_exported_explanation("deconvnet", None), True),
        (lambda: names.check_exported_explanation("deconvnet", 3), False),
        (lambda: names.check_exported_explanation("gradcam", None), False),
        (
            lambda: names.check_multipliers("lr_multipliers", ["*/bias"], ["a/kernel", "a/bias"]),
            True,
        ),
        (lambda: names.check_multipliers("lr_multipliers", ["a/*", "b/*"], ["a/bias"]), False),
    ],
)
def test_numbers_and_names_at_their_limits(check, fits):
    if fits:
        check()
        return
    with pytest.raises(UsageError):
        check()
