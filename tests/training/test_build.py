"""Networks that begin with other weights, their preprocessing, and their precision on disk."""

import dataclasses

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from cnnkit import load_model
from cnnkit.config import TrainingConfig
from cnnkit.errors import UsageError
from cnnkit.models import alexnet, class_names
from cnnkit.run_folder import RunFolder
from cnnkit.training import train
from tests.helpers.tiny_network import DIGITS_CONFIG

CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@pytest.fixture(scope="module")
def config(image_folder):
    # A step too small to move a weight, so that what a run begins with is what it ends with.
    return TrainingConfig(
        model="alexnet",
        model_options={"hidden_units": 8, "preset": "torchvision"},
        dataset=f"folder:{image_folder}",
        image_size=64,
        epochs=1,
        batch_size=16,
        learning_rate=1e-12,
        momentum=0.0,
        weight_decay=0.0,
    )


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory):
    """The convolutions of torchvision's AlexNet as a .safetensors file."""
    network = alexnet(preset="torchvision", include_top=False)
    state = {}
    for place, name in zip((0, 3, 6, 8, 10), CONVOLUTIONS, strict=True):
        kernel, bias = network.get_layer(name).get_weights()
        state[f"features.{place}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        state[f"features.{place}.bias"] = bias + 0.25
    path = tmp_path_factory.mktemp("torch") / "alexnet.safetensors"
    save_file(state, path)
    return path, network


def test_weights_of_others_bring_their_preprocessing(tmp_path, config, torch_file):
    path, network = torch_file
    begun = dataclasses.replace(config, init_from=str(path))
    run = train(begun, tmp_path / "run")
    model = load_model(run.path)
    for name in CONVOLUTIONS:
        np.testing.assert_allclose(
            model.get_layer(name).kernel, network.get_layer(name).kernel, atol=1e-6
        )
        np.testing.assert_allclose(model.get_layer(name).bias, 0.25, atol=1e-6)
    preprocessing = model.get_layer("preprocessing")
    np.testing.assert_allclose(preprocessing.mean, [123.675, 116.28, 103.53])
    np.testing.assert_allclose(preprocessing.std, [58.395, 57.12, 57.375])
    assert class_names(model) == ("above", "below")

    # Again from that run, in another precision, and with a mean that is asked for.
    again = dataclasses.replace(
        config, init_from=str(run.path), precision="mixed_bfloat16", mean="imagenet"
    )
    model = load_model(train(again, tmp_path / "again").path)
    preprocessing = model.get_layer("preprocessing")
    np.testing.assert_allclose(preprocessing.mean, [123.68, 116.779, 103.939])
    np.testing.assert_allclose(preprocessing.std, [58.395, 57.12, 57.375])
    assert model.get_layer("conv3").compute_dtype == "float32"


def test_a_resumed_run_keeps_the_preprocessing_it_began_with(tmp_path, config, torch_file):
    path, _ = torch_file
    begun = dataclasses.replace(config, init_from=str(path))
    train(begun, tmp_path / "run")
    longer = dataclasses.replace(begun, epochs=2)
    model = load_model(train(longer, tmp_path / "run", resume=True).path)
    np.testing.assert_allclose(model.get_layer("preprocessing").std, [58.395, 57.12, 57.375])


def test_a_file_of_another_network_is_refused(tmp_path, config, torch_file):
    path, _ = torch_file
    options = {"hidden_units": 8, "preset": "one-weird-trick"}
    with pytest.raises(UsageError, match="without normalization, which alexnet has"):
        train(
            dataclasses.replace(config, init_from=str(path), model_options=options),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_run_in_half_precision_saves_float32(tmp_path):
    config = dataclasses.replace(
        DIGITS_CONFIG,
        learning_rate=0.1,
        lr_milestones=(),
        precision="mixed_bfloat16",
        epochs=1,
        keep_best=True,
    )
    run = train(config, tmp_path / "run")
    for file in (run.model_file, run.best_file):
        model = keras.saving.load_model(file)
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    [line] = RunFolder(tmp_path / "run").metrics
    assert line["val_accuracy"] > 0.3


def test_init_from_begins_with_another_runs_weights(tmp_path):
    config = dataclasses.replace(DIGITS_CONFIG, learning_rate=0.1, lr_milestones=(), epochs=1)
    first = train(config, tmp_path / "first")
    second = dataclasses.replace(
        config, init_from=str(first.path), seed=8, learning_rate=1e-9, momentum=0.0
    )
    run = train(second, tmp_path / "second")
    for a, b in zip(*(keras.saving.load_model(r.model_file).get_weights() for r in (first, run)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, atol=1e-6)
    with pytest.raises(UsageError, match="No model at"):
        train(dataclasses.replace(second, init_from="/no/where"), tmp_path / "third")
    assert not (tmp_path / "third").exists()
