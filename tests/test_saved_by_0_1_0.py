"""Files that cnnkit 0.1.0 wrote can still be used: see data/saved_by_0_1_0/README.md."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit import evaluate, load_model, models
from cnnkit.cli.main import main
from cnnkit.client import Client, InvalidRequest
from cnnkit.config import TrainingConfig
from cnnkit.config_fields import option_of
from cnnkit.data import load_dataset
from cnnkit.evaluation.result_store import read_results
from cnnkit.export import verify_export
from cnnkit.export.reference_outputs import ReferenceOutputs
from cnnkit.features import (
    FeatureExtractor,
    FeatureSpec,
    find_neighbors,
    load_features,
    write_features,
)
from cnnkit.layers import (
    CeilMaxPooling2D,
    ClassProbabilities,
    Dropout,
    GroupedConv2D,
    LocalResponseNormalization,
    ReLU,
    SubtractMean,
)
from cnnkit.models import class_names
from cnnkit.run_folder import RunFolder
from cnnkit.server import EmbeddedServer
from cnnkit.stage_folder import read_stages
from cnnkit.training import checkpoint
from cnnkit.transfer import load_linear_probe

SAVED = Path(__file__).parent / "data" / "saved_by_0_1_0"
pytestmark = pytest.mark.filterwarnings("ignore:.*names of version 0.1.0:FutureWarning")

# Another processor sums in another order.
NEAR = {"rtol": 1e-4, "atol": 1e-5}

# Values of the fields of all_fields.json, by the names of 0.1.0; none is the default.
FORMER_FIELDS = {
    "model": "vgg16",
    "model_options": {"dropout": 0.25, "activation": "tanh"},
    "dataset": "folder:images",
    "image_size": 96,
    "mean": "pixel",
    "scale": (128, 160),
    "crop": "random",
    "flip": True,
    "square": True,
    "colour_noise": "std",
    "fast_decode": True,
    "epochs": 7,
    "until_train_error": 0.25,
    "batch_size": 96,
    "accumulate": 4,
    "learning_rate": 0.02,
    "schedule": "plateau",
    "drop_epochs": (3, 5),
    "drop_factor": 0.2,
    "patience": 4,
    "max_drops": 2,
    "warmup_epochs": 1.5,
    "momentum": 0.8,
    "weight_decay": 0.001,
    "decay_biases": True,
    "rate_multipliers": {"*/bias": 2.0, "fc8/*": 10.0},
    "decay_multipliers": {"fc8/kernel": 250.0},
    "max_filter_rms": 0.1,
    "precision": "mixed_bfloat16",
    "jit_compile": False,  # XLA and replicas exclude each other.
    "init_from": "runs/before",
    "init_rule": "vgg-staged",
    "seed": 11,
    "deterministic": True,
    "strategy": "mirrored",
    "replicas": 2,
    "checkpoint_every": "10m",
    "keep_checkpoints": 5,
    "keep_best": True,
    "keep_epochs": (1, 4),
}


FORMER_NAMES = {
    option.former_name: item.name
    for item in dataclasses.fields(TrainingConfig)
    if (option := option_of(item)).former_name
}
ALL_FIELDS = {FORMER_NAMES.get(name, name): value for name, value in FORMER_FIELDS.items()}


def tiny(*, classes, input_shape, mean, dropout=0.0):
    """Builds the network of the run, the features and the export."""
    x = inputs = keras.Input(input_shape, name="images")
    x = SubtractMean(mean, name="preprocessing")(x)
    x = GroupedConv2D(6, 3, activation=ReLU(), name="conv1")(x)
    x = LocalResponseNormalization(3, alpha=1e-4, name="norm1")(x)
    x = CeilMaxPooling2D(3, 2, name="pool1")(x)
    x = GroupedConv2D(8, 3, groups=2, activation=ReLU(), name="conv2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(8, activation=ReLU(), name="fc7")(x)
    x = Dropout(dropout, name="drop7")(x)
    x = keras.layers.Dense(classes, name="fc8")(x)
    return keras.Model(inputs, ClassProbabilities(name="probabilities")(x), name="tiny")


# `ALL_FIELDS`, and the fields that 0.1.0 did not have, with what it did.
READ = {
    **ALL_FIELDS,
    "init_options": {},
    "background": "none",
    "exif_orientation": False,
    "freeze": (),
    "augmentation_draws": None,
    "restore_best": False,
    "early_stopping_patience": None,
    "task": "classify",
    "box_regression": "per-class",
}


@pytest.fixture(scope="module")
def expected():
    """What 0.1.0 answered, by name."""
    with np.load(SAVED / "expected.npz") as arrays:
        return dict(arrays)


def unpack(name, folder):
    """Unpacks an archive, which is there because the files in it are mostly zeros."""
    with zipfile.ZipFile(SAVED / name) as archive:
        archive.extractall(folder)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A copy of the run, by the relative name that it was trained with."""
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)
    monkeypatch.chdir(tmp_path)
    unpack("run.zip", ".")
    return RunFolder.open("run")


def test_every_field_of_a_configuration_is_read():
    file = SAVED / "all_fields.json"
    assert list(json.loads(file.read_text())) == list(FORMER_FIELDS)
    config = TrainingConfig.from_json(file.read_text(), file)
    assert dataclasses.asdict(config) == READ
    assert set(config.differences(TrainingConfig())) >= set(ALL_FIELDS) - {"jit_compile"}


def test_a_run_is_read(run):
    config = run.config
    assert (config.gradient_accumulation_steps, config.pca_color, config.central_square) == (
        2,
        "eig01",
        True,
    )
    assert (config.lr_milestones, config.lr_decay) == ((2,), 0.5)
    assert config.lr_multipliers == {"*/bias": 2.0}
    assert config.stop_at_train_error == 0.01
    assert config.weight_decay_on_biases
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    assert run.class_names == tuple("0123456789")
    assert run.environment["cnnkit"] == "0.1.0"
    assert set(run.statistics) == {"mean", "eigenvalues", "eigenvectors"}
    assert list(run.kept_epochs) == [1]


def test_the_networks_of_a_run_answer_as_before(run, expected):
    files = {"model": run.path, "best": run.best_file, "epoch 1": run.kept_epochs[1]}
    for name, file in files.items():
        model = load_model(file)
        answer = model(expected["images"], training=False).numpy()
        np.testing.assert_allclose(answer, expected[f"run/{name}"], **NEAR)
        assert class_names(model) == run.class_names


def test_a_run_is_resumed(run, expected, capsys):
    """The third epoch, with the momentum and the dropout of the checkpoint, is the same."""
    assert len(checkpoint.checkpoints_newest_first(run.checkpoints)) == 1
    words = ["train", "--resume", "--output", "run", "--epochs", "3", "--json"]
    assert main(words) == 0
    line = json.loads(capsys.readouterr().out)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
        np.testing.assert_allclose(line[name], expected[f"resumed/{name}"], rtol=2e-2)
    answer = load_model("run")(expected["images"], training=False).numpy()
    np.testing.assert_allclose(answer, expected["resumed/answer"], atol=5e-3)


def test_a_run_that_goes_on_has_to_be_asked_for_the_same(run, capsys):
    """The options of 0.1.0 say the same as what is stored."""
    words = [
        "--accumulate", "2", "--colour-noise", "eig01", "--square", "--drop-epochs", "2",
        "--drop-factor", "0.5", "--until-train-error", "0.01", "--decay-biases",
        "--rate-multiplier", "*/bias=2", "--init-rule", "by-name", "--max-filter-rms", "0.5",
    ]  # fmt: skip
    assert main(["train", "--resume", "--output", "run", *words]) == 0
    assert main(["train", "--resume", "--output", "run", "--accumulate", "1"]) == 2
    assert "another configuration" in capsys.readouterr().err


def test_the_parts_of_a_recipe_are_read():
    parts = read_stages(SAVED / "parts")
    assert [(part.name, part.follows) for part in parts] == [("first", False), ("second", True)]
    assert dataclasses.asdict(parts[1].config) == READ


def test_results_are_read_and_kept(run, expected, capsys):
    """A second evaluation finds the file of the first one, which fits."""
    [file] = (run.path / "evaluations").glob("*.json")
    stored = read_results(file)
    np.testing.assert_allclose(stored["top1_error"], expected["evaluation/top1_error"])
    digits = load_dataset(run.config.dataset, seed=run.config.seed)
    result = evaluate(load_model("run"), digits.splits["test"], digits.class_names, scales=[9])
    assert abs(result.top1_error - stored["top1_error"]) < 0.01
    assert main(["evaluate", "run", "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["file"]) == file
    assert main(["plot", "run", "--kind", "confusion", "--output", "confusion.png"]) == 0


def test_features_are_read_and_are_those_of_the_network(run, expected):
    index, found = load_features(SAVED / "features")
    np.testing.assert_array_equal(found.values, expected["features/values"])
    assert (index.images, index.dimension, index.parts) == (30, 8, 2)
    assert (index.split, index.spec.layer, index.spec.pool) == ("all", "fc7", "flatten")
    assert found.classes == tuple("012")
    model = load_model("run")
    assert FeatureExtractor(model, index.spec).identity == index.identity


def test_features_go_on_where_they_were_stopped(run, expected):
    shutil.copytree(SAVED / "features", "features")
    Path("features/features-00001.json").unlink()
    source = load_dataset(f"shards:{SAVED / 'shards'}")
    write_features(load_model("run"), source, FeatureSpec.with_defaults("fc7"), "features", rows=16)
    values = load_features("features")[1].values
    np.testing.assert_allclose(values, expected["features/values"], **NEAR)


def test_neighbors_are_found(run, expected):
    model = load_model("run")
    [found] = find_neighbors(model, [SAVED / "digit.png"], SAVED / "features", k=4)
    assert [one.index for one in found] == expected["neighbors/index"].tolist()
    distances = [one.distance for one in found]
    np.testing.assert_allclose(distances, expected["neighbors/distance"], **NEAR)


def test_shards_are_a_dataset(expected):
    source = load_dataset(f"shards:{SAVED / 'shards'}")
    assert source.fingerprint == str(expected["shards/fingerprint"])
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 18, "test": 12}
    np.testing.assert_array_equal(source.splits["train"].labels, expected["shards/labels"])


@pytest.mark.parametrize("kind", ["svm", "softmax"])
def test_a_classifier_predicts(run, expected, kind):
    saved = load_linear_probe(SAVED / f"transfer_{kind}")
    assert (saved.classes, saved.classifier, saved.multilabel) == (tuple("012"), kind, False)
    np.testing.assert_allclose(
        saved.scores(expected["features/values"]), expected[f"transfer/{kind}"], **NEAR
    )
    source = load_dataset(f"shards:{SAVED / 'shards'}")
    scores = saved.predict(load_model("run"), source.splits["test"])
    np.testing.assert_allclose(scores, expected[f"transfer/{kind}/test"], rtol=1e-3, atol=1e-4)


def test_every_layer_is_loaded(tmp_path, expected):
    """`load_model` compares the network with its fingerprint, which is in the file."""
    unpack("layers.zip", tmp_path)
    file = tmp_path / "layers.keras"
    with zipfile.ZipFile(file) as archive:
        assert "fingerprint.json" in archive.namelist()
    model = load_model(file)
    np.testing.assert_allclose(model(expected["images"]).numpy(), expected["layers"], **NEAR)
    assert class_names(model) == ("cat", "dog", "fox")


def test_the_optimizer_goes_on(tmp_path, expected):
    """A compiled model has the settings and the momentum; the next step is the same."""
    unpack("layers.zip", tmp_path)
    model = keras.saving.load_model(tmp_path / "layers.keras")
    labels = expected["layers/labels"]
    model.train_on_batch(expected["images"], labels)
    answer = model(expected["images"], training=False).numpy()
    np.testing.assert_allclose(answer, expected["layers/after a step"], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The exported version folder."""
    folder = tmp_path_factory.mktemp("export")
    unpack("export.zip", folder)
    return folder / "digits" / "1"


def test_an_export_answers(export, expected):
    loaded = tf.saved_model.load(str(export))
    references = ReferenceOutputs.read(export)
    names = {name for name in loaded.signatures if not name.startswith("__")}
    assert names == set(references.outputs)
    for name in names:
        inputs = references.inputs(name)
        [argument] = inputs
        given = inputs[argument]
        given = tf.constant(given.tolist() if given.dtype == object else given)
        for output, values in loaded.signatures[name](**{argument: given}).items():
            values, wanted = values.numpy(), expected[f"export/{name}/{output}"]
            if values.dtype == object:
                assert values.astype("U").tolist() == wanted.tolist()
            else:
                np.testing.assert_allclose(values, wanted, rtol=1e-3, atol=1e-4)


def test_an_export_is_verified(export):
    """Everything but its graph's missing check of pixels, which a server of this version adds."""
    failed = {check.name: check.detail for check in verify_export(export).checks
              if check.passed is False}  # fmt: skip
    text = "an image of nan: is accepted"
    pixels = {name: detail for name, detail in failed.items() if "file" in name}
    assert set(pixels) == {
        "a BMP file with a palette", "a JPEG file on its side", "a transparent WebP file",
    }  # fmt: skip
    assert {name: detail for name, detail in failed.items() if name not in pixels} == {
        "guards of serving_default": text, "guards of features": text,
    }  # fmt: skip


def test_an_export_is_served(export, expected):
    references = ReferenceOutputs.read(export)
    images = references.inputs("serving_default")["images"]
    with EmbeddedServer({"digits": export.parent}) as server, Client(server.address) as client:
        answer = client.predict(images, model="digits")["probabilities"]
        wanted = expected["export/serving_default/probabilities"]
        np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-4)
        bad = images.copy()
        bad[1, 2, 3, 0] = 3e38
        with pytest.raises(InvalidRequest) as caught:
            client.predict(bad, model="digits")
        assert "refuses images[1] of this request" in str(caught.value)
        assert "pixels must be in 0..255 (-64 to 319 is accepted), received 3e+38" in str(
            caught.value
        )
        # The text of its graph does not name the file, so the client searches it.
        files = [references.files[0], b"no image", references.files[1]]
        with pytest.raises(InvalidRequest, match=r"refuses image_bytes\[1\] of this request"):
            client.classify(files, model="digits")
