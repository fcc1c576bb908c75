"""The loader of networks that every command uses."""

import argparse

import keras
import numpy as np
import pytest

from cnnkit.cli.load_network import (
    add_network_arguments,
    load_from_arguments,
    load_network,
    load_networks,
)
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.models import build, set_class_names
from cnnkit.run_folder import RunFolder
from tests.helpers.tiny_network import metrics_line

SMALL = {"input_shape": (64, 64, 3), "hidden_units": 16}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Weights of an AlexNet with three classes, which other networks fit too."""
    keras.utils.set_random_seed(0)
    file = tmp_path_factory.mktemp("weights") / "w.weights.h5"
    build("alexnet", classes=3, initializer="glorot", **SMALL).save_weights(file)
    return str(file)


@pytest.fixture
def classifier():
    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])


def test_a_run_folder(classifier, tmp_path):
    run = RunFolder(tmp_path / "run")
    config = TrainingConfig(dataset="folder:/home/me/pets", image_size=4, scale=(6, 6))
    run.create(config, ["cat", "dog"], {})
    run.metrics_file.write_text(metrics_line(1, val_accuracy=0.75))
    classifier.save(run.model_file)
    loaded = load_network(str(run.path))
    assert loaded.labels == ("cat", "dog")
    assert loaded.augmentation.image_size == 4
    assert loaded.augmentation.scales == (6, 6)
    assert (loaded.origin.source, loaded.origin.dataset) == ("the run run", "folder:pets")
    assert (loaded.origin.epochs, loaded.origin.error) == (1, 0.25)
    assert loaded.model.output_shape == (None, 2)


def test_a_keras_file(classifier, tmp_path):
    classifier.save(tmp_path / "m.keras")
    path = str(tmp_path / "m.keras")
    # The file names its network: --model has no use.
    loaded = load_network(path, model="vgg11", preprocessing={"preprocessing": "raw"})
    assert loaded.model.count_params() == classifier.count_params()
    assert loaded.labels == ("0", "1")
    assert loaded.augmentation is None
    assert loaded.origin.source == "m.keras"
    named = build("alexnet", classes=2, initializer="glorot", **SMALL)
    set_class_names(named, ["cat", "dog"])
    named.save(tmp_path / "named.keras")
    assert load_network(str(tmp_path / "named.keras")).labels == ("cat", "dog")
    (tmp_path / "names").write_text("ant\nbee\n")
    given = load_network(
        path, preprocessing={"preprocessing": "raw"}, labels_file=str(tmp_path / "names")
    )
    assert given.labels == ("ant", "bee")


def test_weights_of_others(weights_file):
    loaded = load_network(weights_file, model="alexnet", options=SMALL)
    assert loaded.model.name == "alexnet"
    assert loaded.model.output_shape == (None, 3)
    with pytest.raises(UsageError, match=r"`model` must name the network of .*w\.weights\.h5"):
        load_network(weights_file)


def test_a_keras_file_as_the_weights_of_a_classifier(tmp_path):
    build("alexnet", classes=3, initializer="glorot", **SMALL).save(tmp_path / "m.keras")
    with pytest.raises(UsageError):
        load_network(str(tmp_path / "m.keras"), model="vgg11", options=SMALL, classifier=True)
    loaded = load_network(
        str(tmp_path / "m.keras"), model="alexnet", options=SMALL, classifier=True
    )
    assert loaded.model.output_shape == (None, 3)


def test_weights_without_dense_layers(tmp_path):
    headless = build("alexnet", include_top=False, initializer="glorot", input_shape=(64, 64, 3))
    headless.save_weights(tmp_path / "w.weights.h5")
    path = str(tmp_path / "w.weights.h5")
    options = {"input_shape": (64, 64, 3)}
    assert len(load_network(path, model="alexnet", options=options).model.output_shape) == 4
    with pytest.raises(UsageError, match="has no dense layers"):
        load_network(path, model="alexnet", options=options, classifier=True)


def test_random_weights_follow_from_the_seed():
    parser = argparse.ArgumentParser()
    add_network_arguments(parser)
    words = ["random", "--model", "alexnet", "--model-option", "input_shape=[64,64,3]"]
    words += ["--model-option", "classes=2", "--model-option", "hidden_units=16"]
    first, same, other = (
        load_from_arguments(parser.parse_args([*words, "--model-seed", seed])).model.weights[0]
        for seed in ("1", "1", "2")
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    for word in ("random", "imagenet"):
        with pytest.raises(UsageError, match=f"model`? must name the network that gets {word}"):
            load_network(word)


def test_no_such_network(tmp_path):
    for name in ("none", "none.keras", "none.npz"):
        with pytest.raises(UsageError, match="No model at"):
            load_network(str(tmp_path / name))
    with pytest.raises(UsageError, match="No model at"):
        load_network(str(tmp_path))


def test_each_file_can_have_its_own_name():
    options = {"include_top": False, "input_shape": (64, 64, 3)}

    def names(model):
        both = load_networks(["random", "random"], model=model, options=options)
        return [network.name for network in both]

    assert names("alexnet,vgg11") == ["alexnet", "vgg11"]
    assert names("vgg11") == ["vgg11", "vgg11"]
    with pytest.raises(UsageError, match="one name, or 2 with commas"):
        names("vgg11,vgg11,vgg11")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": 5}, "`classes` must be that of .*w.weights.h5, 3. Received: 5"),
        ({"classes": "3"}, "`classes` must be"),
    ],
)
def test_an_option_that_contradicts_the_file_is_refused(weights_file, options, text):
    """It was replaced by the file's number of classes without a word."""
    with pytest.raises(UsageError, match=text):
        load_network(weights_file, model="alexnet", options={**SMALL, **options})
    same = load_network(weights_file, model="alexnet", options={**SMALL, "classes": 3})
    assert same.model.output_shape == (None, 3)


def test_options_of_a_saved_network_are_refused(classifier, tmp_path):
    classifier.save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="which --model-option does not change.*dropout"):
        load_network(str(tmp_path / "m.keras"), options={"dropout": 0})
