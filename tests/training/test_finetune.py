"""Fine-tuning: the network that weights belong to, its two stages, and what is left at the end."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cnnkit import load_model, models, predict
from cnnkit.config import TrainingConfig
from cnnkit.data import Augmentation, batches, load, load_dataset
from cnnkit.errors import UsageError
from cnnkit.models.feature_extractor import feature_extractor
from cnnkit.run_folder import RunFolder
from cnnkit.training import Callback, finetune, train
from cnnkit.training.finetune import (
    classifier_learning_rate,
    describe_pretrained,
    finetuning_stages,
)

DIGITS = TrainingConfig(
    model="cifar10_quick", image_size=32, epochs=1, batch_size=64, learning_rate=0.001
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run on digits: other classes than those of the photos below."""
    return train(DIGITS, tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    """A file of AlexNet's convolutions, without dense layers."""
    file = tmp_path_factory.mktemp("weights") / "conv.npz"
    model = models.build("alexnet_caffe", include_top=False, input_shape=(67, 67, 3))
    arrays = {}
    for layer in model.layers:
        for variable in layer.weights if layer.name.startswith("conv") else ():
            arrays[f"{layer.name}__{variable.name}"] = np.asarray(variable.value)
    np.savez(file, **arrays)
    return file


def test_convolutions_get_a_linear_classifier(convolutions, monkeypatch):
    found = describe_pretrained(
        convolutions, model="alexnet_caffe", init_options={"preprocessing": "caffe"}
    )
    assert (found.name, found.image_size, found.classifier) == ("alexnet_caffe", 227, "fc8")
    assert found.options == {"omit_layers": ["fc6", "fc7"]}
    # Below the last but one pooling.
    assert found.freeze == ("conv1", "conv2")
    # No builder takes all arguments but those of the package.
    monkeypatch.delitem(models.BUILDERS, "tiny")
    with pytest.raises(UsageError, match=r"whose arrays fit several. Expected: alexnet_caffe \("):
        describe_pretrained(convolutions, init_options={"preprocessing": "caffe"})


def test_a_run_keeps_its_network_and_size(digits):
    found = describe_pretrained(digits.path)
    assert (found.name, found.image_size) == ("cifar10_quick", 32)
    assert found.classifier == models.load_model(digits.path).layers[-2].name


def test_stages_are_a_classifier_and_then_the_layers_below_it(convolutions, image_folder):
    spec = f"folder:{image_folder}"
    options = {"preprocessing": "caffe"}
    first, last = finetuning_stages(
        convolutions, spec, model="alexnet_caffe", image_size=67, init_options=options, epochs=3,
        learning_rate=0.002, seed=4,
    )  # fmt: skip
    assert first.config.freeze == ("*", "!fc8")
    assert first.config.weight_mapping == "new-classifier"
    assert last.config.freeze == ("conv1", "conv2")
    assert (last.follows, last.config.epochs, last.config.learning_rate) == (True, 3, 0.002)
    # The classifier keeps its rate.
    [factor] = last.config.lr_multipliers.values()
    assert factor * 0.002 == pytest.approx(first.config.learning_rate)
    assert first.config.scale == last.config.scale == (67, 77)
    assert first.config.seed == last.config.seed == 4
    all_layers = finetuning_stages(
        convolutions, spec, model="alexnet_caffe", image_size=67, init_options=options, freeze=[]
    )
    assert all_layers[1].config.freeze == ()


def test_the_rate_of_the_classifier_is_the_inverse_of_its_inputs_squared(digits, image_folder):
    dataset = load_dataset(f"folder:{image_folder}")
    model = models.load_model(digits.path)
    config = dataclasses.replace(DIGITS, scale=(32, 40))
    [batch] = batches(dataset.splits["train"], augmentation=Augmentation(32), batch_size=32)
    inputs = feature_extractor(model, model.layers[-3].name).predict(batch["images"], verbose=0)
    squared = np.square(inputs.reshape(32, -1).astype(float)).sum(axis=1)
    expected = 1 / (squared.mean() + 1)
    assert classifier_learning_rate(model, config, dataset) == pytest.approx(expected, rel=0.06)


class Notes(Callback):
    def __init__(self):
        self.texts = []

    def on_message(self, message):
        self.texts.append(message)


def test_a_run_on_digits_learns_photos(digits, image_folder, tmp_path, monkeypatch):
    notes, opened, open_dataset = Notes(), [], load._open_dataset
    monkeypatch.setattr(
        load, "_open_dataset", lambda *args: opened.append(args[0]) or open_dataset(*args)
    )
    output = tmp_path / "photos"
    run = finetune(
        digits.path, f"folder:{image_folder}", output, epochs=2, callbacks=[notes], batch_size=16,
        early_stopping_patience=3,
    )  # fmt: skip
    assert run.path == output
    assert opened == [f"folder:{image_folder}"]
    assert run.class_names == ("above", "below")
    assert run.result["val_accuracy"] == 1
    model = load_model(output)
    assert model.output_shape == (None, 2)
    assert models.class_names(model) == ("above", "below")
    # The whole folder is a classifier of files, with the crop of its configuration.
    files = [image_folder / name for name in ("above", "below")]
    found = predict(output, files)
    assert len(found) > 1
    assert all(one.label == Path(one.name).parent.name for one in found)
    # The frozen layer is that of the digits, bit for bit.
    name = "conv1"
    before = models.load_model(digits.path).get_layer(name).get_weights()
    for a, b in zip(model.get_layer(name).get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    stages = [RunFolder(output / name) for name in ("classifier", "finetuned")]
    assert [line["epoch"] for line in run.metrics] == list(range(1, 1 + len(run.metrics)))
    assert len(run.metrics) == sum(len(stage.metrics) for stage in stages)
    assert (output / "model.keras").read_bytes() == stages[1].model_file.read_bytes()
    assert "16 training images of each class" in notes.texts
    assert any(text.startswith("before training, the error") for text in notes.texts)
    with pytest.raises(UsageError, match="exists.*`overwrite` starts again"):
        finetune(digits.path, f"folder:{image_folder}", output)


def test_weights_that_do_not_fit_are_refused_before_they_are_frozen(digits, image_folder, tmp_path):
    """The hidden layer would have kept random weights."""
    with pytest.raises(UsageError, match="do not fit fc4 of cifar10_quick.*same image size"):
        finetune(digits.path, f"folder:{image_folder}", tmp_path / "run", image_size=40)


def test_all_layers_learn_without_frozen_ones(digits, image_folder):
    stages = finetuning_stages(
        digits.path, f"folder:{image_folder}", freeze=[], lr_multipliers={"conv1/*": 0.5}
    )
    assert stages[0].config.lr_multipliers == {}
    assert stages[1].config.freeze == ()
    assert stages[1].config.lr_multipliers["conv1/*"] == 0.5
