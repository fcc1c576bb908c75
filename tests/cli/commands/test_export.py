"""`cnnkit export` of a run, a model and a weights file of others."""

import importlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.models import build, set_class_names
from cnnkit.run_folder import RunFolder
from tests.helpers.tiny_network import metrics_line

export_module = importlib.import_module("cnnkit.export.export")

LABELS = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """The check in another process takes longer than all else, and has tests of its own."""
    monkeypatch.setattr(export_module, "_check_outputs", lambda *_: None)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build("cifar10_quick", classes=3)


@pytest.fixture
def run_folder(model, tmp_path):
    run = RunFolder(tmp_path / "run")
    config = TrainingConfig(
        model="cifar10_quick", dataset="folder:/home/me/pets", image_size=32, scale=(40, 48)
    )
    run.create(config, LABELS, {})
    run.metrics_file.write_text(metrics_line(1) + metrics_line(2, val_accuracy=0.875))
    model.save(run.model_file)
    return run.path


def exported(folder, *options):
    words = ["export", *map(str, folder), *options, "--warmup", "0"]
    assert main([*words, "--signatures", "serving_bytes"]) == 0


def test_a_run_brings_its_classes_its_scale_and_its_error(run_folder, tmp_path, capsys):
    words = ["--max-pixels", "5000", "--max-request-pixels", "9000", "--max-free-pixels", "7000"]
    exported([run_folder], "--output", str(tmp_path / "pets"), "--json", *words)
    document = json.loads(capsys.readouterr().out)
    assert document == {"folder": str(tmp_path / "pets" / "1"), "version": 1}
    card = (tmp_path / "pets" / "1" / "README.md").read_text()
    assert "trained on | folder:pets, 2 epochs" in card
    assert "top-1 error on held-out images | 12.50 %" in card
    assert "/home/me" not in card
    facts = json.loads((tmp_path / "pets" / "1" / "assets" / "preprocessing.json").read_text())
    assert facts["shorter_side_before_crop"] == 44
    limits = {"pixels": 5000, "request_pixels": 9000, "free_pixels": 7000}
    assert facts["limits"] == {"images": 256, "file_bytes": 20971520, **limits}


def test_a_model_brings_its_classes_or_is_told_them(model, tmp_path):
    named = keras.models.clone_model(model)
    set_class_names(named, LABELS)
    named.save(tmp_path / "m.keras")
    exported([tmp_path / "m.keras"], "--output", str(tmp_path / "m"), "--version", "4")
    assert (tmp_path / "m" / "4" / "assets" / "labels.txt").read_text() == "ant\nbee\ncat\n"
    (tmp_path / "names").write_text("x\ny\nz\n")
    words = ["--labels", str(tmp_path / "names"), "--scale", "36"]
    exported([tmp_path / "m.keras"], "--output", str(tmp_path / "m"), *words)
    assert (tmp_path / "m" / "5" / "assets" / "labels.txt").read_text() == "x\ny\nz\n"
    facts = json.loads((tmp_path / "m" / "5" / "assets" / "preprocessing.json").read_text())
    assert facts["shorter_side_before_crop"] == 36


def test_weights_become_the_network_that_is_named(tmp_path):
    keras.utils.set_random_seed(0)
    options = {"input_shape": (64, 64, 3), "hidden_units": 16}
    model = build("alexnet", classes=3, initializer="glorot", **options)
    model.save_weights(tmp_path / "w.weights.h5")
    words = ["--model", "alexnet", "--output", str(tmp_path / "w")]
    for name, value in options.items():
        words += ["--model-option", f"{name}={json.dumps(value)}"]
    exported([tmp_path / "w.weights.h5"], *words)
    loaded = tf.saved_model.load(str(tmp_path / "w" / "1"))
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    answer = loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(answer, model(images, training=False).numpy(), atol=1e-6)
    assert (tmp_path / "w" / "1" / "assets" / "labels.txt").read_text() == "0\n1\n2\n"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("{tmp}/none.keras", 2, "must be an existing run folder, model or weights file"),
        ("{tmp}", 2, "No run folder"),
        ("{run} --labels {tmp}/none", 2, "--labels must be an existing file"),
        ("{run} --version 0", 2, "--version must be a whole number of at least 1, received 0"),
        ("{run} --dtype half", 2, "--dtype must be one of float32, bfloat16, received half"),
        ("{run} --scale 8", 2, "The shorter side in --scale is too small for the crop"),
        ("{run} --explain-layers conv9", 2, "Unknown layer 'conv9'"),
        ("{run} --max-pixels 0", 2, "--max-pixels must be a whole number of at least 1"),
        ("{run} --signatures classify", 2, "Did you mean classify_bytes"),
        ("{run} --model-option x", 2, "--model-option must be NAME=VALUE. Received: x"),
    ],
)
def test_bad_input_is_one_line(run_folder, tmp_path, capsys, words, code, text):
    words = words.format(tmp=tmp_path, run=run_folder).split()
    assert main(["export", *words, "--output", str(tmp_path / "new")]) == code
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
