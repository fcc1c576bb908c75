"""Fine-tuning: the network that weights belong to, its two stages, and what is left at the end."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnkit import load_model, models, predict
from cnnkit.config import TrainingConfig
from cnnkit.data import Augmentation, Decoding, batches, load, load_dataset
from cnnkit.errors import CnnkitError, DataError, UsageError
from cnnkit.models.feature_extractor import feature_extractor
from cnnkit.models.weights import download as weights_download
from cnnkit.run_folder import RunFolder, names_imagenet
from cnnkit.training import Callback, finetune, train
from cnnkit.training.build import load_initial_model
from cnnkit.training.finetune import (
    classifier_learning_rate,
    describe_pretrained,
    finetuning_stages,
)

pytestmark = pytest.mark.usefixtures("unoptimized")

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
    with pytest.raises(UsageError, match="Did you mean caffe"):
        describe_pretrained(
            convolutions, model="alexnet_caffe", init_options={"preprocessing": "cafe"}
        )


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
    both = {
        "model": "alexnet_caffe", "model_options": {"omit_layers": ["fc6", "fc7"]},
        "dataset": spec, "init_from": str(convolutions), "init_options": options,
        "image_size": 67, "scale": (67, 77), "crop": "random", "flip": True, "seed": 4,
        "batch_size": 32, "schedule": "cosine", "augmentation_draws": 4, "restore_best": True,
    }  # fmt: skip
    for config, own in (
        (first.config, {"epochs": 30, "early_stopping_patience": 10}),
        (last.config, {"epochs": 3, "early_stopping_patience": 4, "warmup_epochs": 0.75}),
    ):
        expected = dataclasses.replace(
            TrainingConfig(**both, **own),
            learning_rate=config.learning_rate,
            lr_multipliers=config.lr_multipliers,
            freeze=config.freeze,
            weight_mapping=config.weight_mapping,
        )
        assert config == expected
    assert last.config.weight_mapping == "by-name"
    all_layers = finetuning_stages(
        convolutions, spec, model="alexnet_caffe", image_size=67, init_options=options, freeze=[]
    )
    assert all_layers[1].config.freeze == ()


def test_fields_that_are_given_stay(digits, image_folder, monkeypatch):
    module, opened = sys.modules["cnnkit.training.finetune"], []

    def open_dataset(spec, **options):
        opened.append(options)
        return load_dataset(spec, **options)

    monkeypatch.setattr(module, "load_dataset", open_dataset)
    monkeypatch.setattr(module, "LARGE_NETWORK", 1)
    first, last = finetuning_stages(
        digits.path, f"folder:{image_folder}", epochs=40, early_stopping_patience=7,
        warmup_epochs=0.5, scale=(50, 60), background="#000009", seed=3,
    )  # fmt: skip
    for stage in (first, last):
        assert (stage.config.early_stopping_patience, stage.config.warmup_epochs) == (7, 0.5)
        assert (stage.config.scale, stage.config.augmentation_draws) == ((50, 60), 2)
    [options] = opened
    assert (options["seed"], options["decoding"]) == (3, Decoding(background=(0, 0, 9)))
    assert finetuning_stages(digits.path, f"folder:{image_folder}")[1].config.warmup_epochs == 1
    empty = dataclasses.replace(load_dataset(f"folder:{image_folder}"))
    empty.splits["test"] = empty.splits["test"].subset(np.arange(0))
    monkeypatch.setattr(module, "load_dataset", lambda *args, **options: empty)
    with pytest.raises(CnnkitError, match="has no held-out images"):
        finetuning_stages(digits.path, f"folder:{image_folder}")


def test_options_of_a_run_and_of_its_weights_describe_the_network(tmp_path):
    run = RunFolder(tmp_path / "run")
    config = TrainingConfig(model="cifar10_full", image_size=32, model_options={"lrn": False})
    run.create(config, ["a"], {})
    found = describe_pretrained(run.path)
    assert (found.name, found.options, found.image_size) == ("cifar10_full", {"lrn": False}, 32)
    given = {"model_options": {"initializer": "glorot"}, "image_size": 40}
    found = describe_pretrained(run.path, **given)
    assert found.options == {"lrn": False, "initializer": "glorot"}
    assert found.image_size == 40
    config = dataclasses.replace(config, model_options={})
    run.write_config(config)
    assert describe_pretrained(run.path, model="cifar10_quick").name == "cifar10_quick"
    with pytest.raises(UsageError, match="`freeze` must name layers of cifar10_full"):
        describe_pretrained(run.path, freeze=["conv9"])


def write_arrays(file, model, layers=lambda name: True):
    arrays = {
        f"{layer.name}__{variable.name}": np.asarray(variable.value)
        for layer in model.layers
        if hasattr(layer, "kernel") and layers(layer.name)
        for variable in layer.weights
    }
    np.savez(file, **arrays)
    return file


def test_only_weights_without_a_head_lose_the_hidden_layers(convolutions, tmp_path):
    pixels = {"preprocessing": "caffe"}
    options = {"hidden_units": 8}
    model = models.build("alexnet_caffe", input_shape=(67, 67, 3), classes=3, **options)
    whole = write_arrays(tmp_path / "whole.npz", model)
    found = describe_pretrained(
        whole, model="alexnet_caffe", model_options=options, image_size=67, init_options=pixels
    )
    assert (found.options, found.classifier) == (options, "fc8")
    # What is given counts.
    given = {"omit_layers": ["fc7"], "hidden_units": 8}
    found = describe_pretrained(
        convolutions, model="alexnet_caffe", model_options=given, image_size=67, init_options=pixels
    )
    assert found.options == given
    model = models.build("cifar10_quick", input_shape=(32, 32, 3), classes=3)
    file = write_arrays(tmp_path / "conv.npz", model, lambda name: name.startswith("conv"))
    found = describe_pretrained(file, model="cifar10_quick", init_options={"preprocessing": "raw"})
    assert found.options == {}


def test_imagenet_means_the_convolutions_of_vgg(image_folder, tmp_path, monkeypatch):
    """Without dense layers, unless they are kept; a run of this name is that run."""
    with pytest.raises(UsageError, match="`model` must name the network .* Expected: vgg16 or vgg"):
        describe_pretrained("imagenet")
    model = models.vgg16(include_top=False, input_shape=(32, 32, 3), initializer="glorot")
    write_arrays(tmp_path / "vgg16.npz", model)
    names = {str(number): ["", f"class {number}"] for number in range(1000)}
    (tmp_path / "names.json").write_text(json.dumps(names))
    asked = []

    def download(file):
        asked.append(file)
        return tmp_path / ("names.json" if file is weights_download.CLASS_NAMES else "vgg16.npz")

    monkeypatch.setattr(weights_download, "download_file", download)
    first, last = finetuning_stages(
        "imagenet", f"folder:{image_folder}", model="vgg16", image_size=32, seed=3
    )
    assert {first.config.init_from, last.config.init_from} == {"imagenet"}
    assert first.config.model_options == {"omit_layers": ["fc1", "fc2"]}
    assert asked == [weights_download.FILES["vgg16", False]]
    loaded = load_initial_model(first.config)
    name = "block3_conv2"
    np.testing.assert_array_equal(
        *(np.asarray(one.get_layer(name).kernel) for one in (model, loaded))
    )
    # The pixels are those of these files, unless the options say otherwise.
    given = dataclasses.replace(first.config, init_options={"preprocessing": "torch"})
    means = [
        load_initial_model(one).get_layer("preprocessing").std for one in (first.config, given)
    ]
    assert means[0] is None and means[1] is not None
    load_initial_model(dataclasses.replace(first.config, model_options={}))
    assert asked[-2:] == [weights_download.FILES["vgg16", True], weights_download.CLASS_NAMES]
    monkeypatch.chdir(tmp_path)
    assert names_imagenet("imagenet")
    shutil.copytree(image_folder, "imagenet")
    assert names_imagenet("imagenet")
    Path("imagenet/config.json").touch()
    assert not names_imagenet("imagenet")


def test_the_arguments_of_finetune_reach_the_stages(digits, tmp_path, monkeypatch):
    module, calls = sys.modules["cnnkit.training.finetune"], []
    monkeypatch.setattr(module, "finetuning_stages", lambda *args, **options: ("stages", options))
    for name in ("write_stages", "train"):
        monkeypatch.setattr(module, name, lambda *args, _n=name, **o: calls.append((_n, args, o)))
    monkeypatch.setattr(
        module, "train_stages", lambda output, stages, train, report: train("c", output, True)
    )
    notes = [Notes()]
    run = finetune(
        digits.path, "digits", tmp_path, overwrite=True, download=True, callbacks=notes, flip=False
    )
    assert run.path == tmp_path
    (_, (_, stages), options), (_, args, training) = calls
    assert options == {"overwrite": True}
    assert stages[1]["download"] and stages[1]["flip"] is False
    assert args == ("c", tmp_path)
    assert training == {"resume": True, "download": True, "callbacks": notes}


def squared_inputs(inputs, images):
    rows = inputs(images, training=False).numpy()
    return np.square(rows.reshape(len(images), -1).astype(float)).sum(axis=1).mean()


def test_the_rate_is_of_some_images_at_the_size_of_the_network(digits, image_folder, monkeypatch):
    """Twenty images: the last batch is not full."""
    module, read = sys.modules["cnnkit.training.finetune"], []

    def read_batches(split, *, augmentation, **options):
        read.append((len(split), augmentation))
        return batches(split, augmentation=augmentation, **options)

    monkeypatch.setattr(module, "SAMPLED_IMAGES", 20)
    monkeypatch.setattr(module, "batches", read_batches)
    dataset, model = load_dataset(f"folder:{image_folder}"), models.load_model(digits.path)
    split = dataset.splits["train"]
    order = np.random.default_rng(0).permutation(len(split))[:20]
    sample = split.subset(order)
    [batch] = batches(sample, augmentation=Augmentation(32), batch_size=20)
    inputs = feature_extractor(model, model.layers[-3].name)
    expected = 1 / (squared_inputs(inputs, batch["images"].numpy()) + 1)
    config = dataclasses.replace(DIGITS, image_size=40, scale=(40, 60))
    assert classifier_learning_rate(model, config, dataset) == pytest.approx(expected, rel=0.06)
    # A network of convolutions has no size: its last maps are the inputs.
    free = models.build("cifar10_quick", include_top=False)
    [batch] = batches(sample, augmentation=Augmentation(40), batch_size=20)
    expected = 1 / (squared_inputs(free, batch["images"].numpy()) + 1)
    assert classifier_learning_rate(free, config, dataset) == pytest.approx(expected, rel=0.06)
    assert read == [(20, Augmentation(32)), (20, Augmentation(40))]


def test_a_damaged_image_is_named(digits, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "photos")
    dataset = load_dataset(f"folder:{tmp_path / 'photos'}")
    for file in (tmp_path / "photos" / "above").iterdir():
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cannot be decoded.*above/"):
        classifier_learning_rate(models.load_model(digits.path), DIGITS, dataset)


def test_the_rate_of_the_classifier_is_the_inverse_of_its_inputs_squared(digits, image_folder):
    dataset = load_dataset(f"folder:{image_folder}")
    model = models.load_model(digits.path)
    config = dataclasses.replace(DIGITS, scale=(32, 40))
    [batch] = batches(dataset.splits["train"], augmentation=Augmentation(32), batch_size=32)
    inputs = feature_extractor(model, model.layers[-3].name)(
        batch["images"], training=False
    ).numpy()
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
