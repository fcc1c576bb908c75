import dataclasses
import random
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit import models
from cnnkit.config import TrainingConfig
from cnnkit.data import batches
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.training import SGD, checkpoint, epoch, get_strategy, train
from cnnkit.training.checkpoint import TrainingState
from cnnkit.training.schedule import learning_rate_at
from cnnkit.training.step import StepRunner
from tests.helpers.tiny_network import tiny


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)


CONFIG = TrainingConfig(
    model="tiny",
    dataset="digits",
    image_size=8,
    epochs=3,
    batch_size=100,
    learning_rate=0.05,
    lr_milestones=(3,),
    seed=5,
)


def weights_of(run):
    return keras.saving.load_model(run.model_file).get_weights()


def test_decay_is_inside_the_momentum():
    """Two thousand steps without a gradient leave 0.905202 of a weight, all of a bias."""
    kernel = keras.Variable(1.0, name="kernel")
    bias = keras.Variable(1.0, name="bias")
    optimizer = SGD(0.01, momentum=0.9, decay=5e-4)
    optimizer.build([kernel, bias])
    zeros = [tf.zeros(()), tf.zeros(())]

    @tf.function
    def fifty():
        for _ in range(50):
            optimizer.apply(zeros, [kernel, bias])

    for _ in range(20):
        fifty()
    assert float(kernel) == pytest.approx(0.951635, abs=2e-5)
    for _ in range(20):
        fifty()
    assert float(kernel) == pytest.approx(0.905202, abs=2e-5)
    assert float(bias) == 1.0


def test_update_equals_the_papers_rule(rng):
    w, v = rng.normal(size=4), np.zeros(4)
    variable = keras.Variable(w, name="kernel", dtype="float64")
    optimizer = SGD(0.1, momentum=0.9, decay=0.01)
    optimizer.build([variable])
    for rate in (0.1, 0.1, 0.01):
        gradient = rng.normal(size=4)
        optimizer.learning_rate = rate
        optimizer.apply([tf.constant(gradient)], [variable])
        v = 0.9 * v - 0.01 * rate * w - rate * gradient
        w = w + v
        np.testing.assert_allclose(variable.numpy(), w, rtol=1e-6)


def test_optimizer_survives_serialization():
    optimizer = SGD(0.1, momentum=0.8, decay=0.02)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("images", [8, 7, 1])
def test_two_replicas_equal_one(mirrored, rng, images):
    """Even, uneven, and with one replica that has no image at all."""
    rows = 8
    batch = {
        "images": rng.uniform(0, 255, (rows, 8, 8, 3)).astype("float32"),
        "labels": rng.integers(0, 10, rows).astype("int32"),
        "weights": (np.arange(rows) < images).astype("float32"),
    }
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            random.seed(0)
            model = tiny(classes=10, input_shape=(8, 8, 3), mean=None)
            steps = StepRunner(model, SGD(0.1, momentum=0.9, decay=5e-4), strategy)
        for _ in range(4):
            counts = steps.train(batch, images, 0.1)
        results.append((model.get_weights(), counts.numpy()))
    (one, one_metrics), (two, two_metrics) = results
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert one_metrics == pytest.approx(two_metrics, abs=1e-5)


def test_a_step_is_the_mean_over_the_real_images(rng):
    """The padded rows of a batch count for nothing: as Keras's own step on the images alone."""
    images = rng.uniform(0, 255, (5, 8, 8, 3)).astype("float32")
    labels = np.array([1, 2, 3, 4, 5], "int32")
    model = tiny(classes=10, input_shape=(8, 8, 3), mean=None)
    peer = keras.models.clone_model(model)
    peer.set_weights(model.get_weights())
    peer.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy())
    peer_loss = peer.train_on_batch(images, labels)
    steps = StepRunner(model, SGD(0.1, momentum=0.0), tf.distribute.get_strategy())
    padded = np.concatenate([images, np.full((3, 8, 8, 3), 99, "float32")])
    batch = {
        "images": padded,
        "labels": np.pad(labels, (0, 3)),
        "weights": np.float32([1] * 5 + [0] * 3),
    }
    loss, _ = steps.train(batch, 5, 0.1).numpy()
    for a, b in zip(model.get_weights(), peer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert loss / 5 == pytest.approx(peer_loss, abs=1e-5)


def test_a_run_leaves_its_folder(tmp_path):
    run = train(CONFIG, tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} == {
        "config.json", "environment.json", "metrics.jsonl", "checkpoints", "model.keras",
        "labels.txt", "statistics.npz",
    }  # fmt: skip
    assert run.config == CONFIG
    assert run.class_names == tuple("0123456789")
    lines = run.metrics
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert set(lines[0]) == {
        "epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate",
        "images_per_second",
    }  # fmt: skip
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.05, 0.05, 0.005])
    assert [line["step"] for line in lines] == [15, 30, 45]
    assert lines[-1]["val_accuracy"] > 0.7
    assert run.environment["dataset"]["images"] == {"train": 1438, "test": 359}
    assert len(list(run.checkpoints.iterdir())) == 2


def test_networks_of_chosen_epochs_are_kept(tmp_path):
    short = dataclasses.replace(CONFIG, epochs=1, keep_epochs=(1, 3, 40))
    run = train(short, tmp_path / "run")
    (run.path / "epochs" / ".aside-99-0003.keras").write_bytes(b"half")
    train(dataclasses.replace(CONFIG, epochs=3, keep_epochs=(2, 3)), run.path, resume=True)
    assert list(run.kept_epochs) == [1, 2, 3]
    assert not list(run.path.rglob(".aside-*"))
    first, second, third = (
        keras.saving.load_model(file).get_weights()[0] for file in run.kept_epochs.values()
    )
    np.testing.assert_array_equal(third, weights_of(run)[0])
    assert np.abs(first - second).max() > 1e-3


def test_the_seed_decides_and_the_callers_generator_is_left_alone(tmp_path):
    random.seed(1)
    state = random.getstate()
    short = dataclasses.replace(CONFIG, epochs=1)
    one, again = (train(short, tmp_path / name) for name in "ab")
    other = train(dataclasses.replace(short, seed=6), tmp_path / "c")
    assert random.getstate() == state
    for a, b in zip(weights_of(one), weights_of(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(weights_of(one)[0] - weights_of(other)[0]).max() > 0.01


def test_resumed_equals_uninterrupted(tmp_path, mirrored):
    """Weights, momentum, order, dropout masks and metrics go on as if nothing had happened."""
    config = dataclasses.replace(
        CONFIG, model_options={"dropout": 0.3}, strategy="mirrored", replicas=2
    )
    whole = train(config, tmp_path / "whole")
    train(dataclasses.replace(config, epochs=1), tmp_path / "parts")
    parts = train(config, tmp_path / "parts", resume=True)
    assert [line["epoch"] for line in parts.metrics] == [1, 2, 3]
    for a, b in zip(whole.metrics, parts.metrics, strict=True):
        for key in set(a) - {"images_per_second"}:
            assert a[key] == pytest.approx(b[key], abs=1e-5)
    for a, b in zip(weights_of(whole), weights_of(parts), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert parts.config == config


def test_every_epoch_has_an_order_of_its_own(tmp_path, monkeypatch):
    shown = []

    def watched(split, **options):
        if "order" in options:
            shown.append(tuple(options["order"]))
        return batches(split, **options)

    monkeypatch.setattr(epoch, "batches", watched)
    train(CONFIG, tmp_path / "run")
    assert len(shown) == len(set(shown)) == 3
    assert all(sorted(order) == list(range(1438)) for order in shown)


def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path):
    run = train(CONFIG, tmp_path / "run")
    before = weights_of(run)
    newest = run.checkpoints / "step-000000045.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    run.model_file.unlink()
    train(CONFIG, run.path, resume=True)
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3]
    for a, b in zip(before, weights_of(run), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_a_killed_process_leaves_is_cleared_away(tmp_path):
    """A half-written checkpoint, a torn line of metrics; a run killed while it was created."""
    run = train(dataclasses.replace(CONFIG, epochs=1), tmp_path / "run")
    (run.checkpoints / ".aside-99-step-000000030.npz").write_bytes(b"half")
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 2, "lo')
    train(CONFIG, run.path, resume=True)
    assert [line["epoch"] for line in run.metrics] == [1, 2, 3]
    assert not list(run.path.rglob(".aside-*"))

    begun = tmp_path / "begun"
    (begun / "checkpoints").mkdir(parents=True)
    (begun / "labels.txt").write_text("a\n")
    assert len(train(dataclasses.replace(CONFIG, epochs=1), begun).metrics) == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    checkpoint.save_checkpoint(
        tmp_path, 1, TrainingState(), [keras.Variable(np.zeros(3), name="a")]
    )
    with pytest.raises(RunError, match="step-000000001.npz is of another network"):
        checkpoint.restore_checkpoint(tmp_path, [keras.Variable(np.zeros(4), name="a")])


def test_a_finished_run_is_left_alone(tmp_path):
    run = train(CONFIG, tmp_path / "run")
    written = run.model_file.stat().st_mtime_ns
    train(CONFIG, run.path, resume=True)
    assert run.model_file.stat().st_mtime_ns == written
    assert len(run.metrics) == 3


def test_existing_runs_are_not_overwritten(tmp_path):
    short = dataclasses.replace(CONFIG, epochs=1)
    run = train(short, tmp_path / "run")
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists. --resume continues it, --overwrite starts again"):
        train(short, run.path)
    with pytest.raises(UsageError, match="Unknown model"):
        train(dataclasses.replace(short, model="tinny"), run.path, overwrite=True)
    assert (run.path / "notes.txt").exists()
    train(short, run.path, overwrite=True)
    assert not (run.path / "notes.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="exists and is not a run folder"):
            train(short, other, overwrite=overwrite)
    assert (other / "thesis.tex").read_text() == "years"


def test_resume_with_another_configuration_names_the_fields(tmp_path):
    run = train(dataclasses.replace(CONFIG, epochs=2), tmp_path / "run")
    with pytest.raises(UsageError) as error:
        train(dataclasses.replace(CONFIG, learning_rate=0.1, seed=9), run.path, resume=True)
    text = str(error.value)
    assert "learning_rate 0.05, now 0.1; seed 5, now 9" in text
    assert "batch_size" not in text
    with pytest.raises(UsageError, match="epochs of at least 2"):
        train(dataclasses.replace(CONFIG, epochs=1), run.path, resume=True)
    with pytest.raises(UsageError, match="No run folder"):
        train(CONFIG, tmp_path / "none", resume=True)


def test_resume_with_a_changed_dataset_is_refused(tmp_path, image_folder):
    from shutil import copytree

    images = copytree(image_folder, tmp_path / "images")
    config = dataclasses.replace(CONFIG, dataset=f"folder:{images}", epochs=1)
    run = train(config, tmp_path / "run")
    (images / "above" / "00.jpg").unlink()
    with pytest.raises(RunError, match="has changed since the run"):
        train(dataclasses.replace(config, epochs=2), run.path, resume=True)


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    with pytest.raises(
        RunError, match="no longer finite at step 2 of epoch 1.*Lower the learning rate"
    ):
        train(dataclasses.replace(CONFIG, learning_rate=1e30), tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()


def test_an_unfinished_run_has_no_model(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    with pytest.raises(RunError, match="has no model yet.*Received: 0 epochs.*--resume"):
        run.finished_model()


def test_learning_rate_drops_before_the_epochs_named():
    config = TrainingConfig(learning_rate=1.0, lr_milestones=(3, 5), lr_decay=0.5)
    assert [learning_rate_at(config, e) for e in range(1, 7)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_strategies_are_made_once(mirrored):
    assert get_strategy("mirrored", 2) is mirrored
    assert get_strategy("default").num_replicas_in_sync == 1
    with pytest.raises(
        UsageError, match="split into 16 replicas only before TensorFlow is first used"
    ):
        get_strategy("mirrored", 16)


def test_augmentation_follows_the_configuration(tmp_path, monkeypatch):
    """Training images are augmented by seed and epoch; held-out ones are center crops at Q."""
    seen = []

    def watched(split, **options):
        seen.append(options)
        return batches(split, **options)

    monkeypatch.setattr(epoch, "batches", watched)
    fields = {"scale": (10, 14), "crop": "random", "flip": True, "pca_color": "std"}
    config = dataclasses.replace(CONFIG, **fields, mean="pixel", epochs=2)
    run = train(config, tmp_path / "run")
    training, held_out = seen[0]["augmentation"], seen[1]["augmentation"]
    assert (training.scale, training.crop, training.flip) == ((10, 14), "random", True)
    assert (training.color.mode, held_out.color) == ("std", None)
    assert (held_out.scale, held_out.crop, held_out.flip) == ((12, 12), "center", False)
    assert [(o["seed"], o["epoch"]) for o in seen if "order" in o] == [(5, 1), (5, 2)]
    assert run.config == config
    kept = run.statistics
    assert kept["mean"].shape == (8, 8, 3)
    # Digits are gray: their only component is gray.
    np.testing.assert_allclose(np.abs(kept["eigenvectors"][:, 0]), 3**-0.5, atol=1e-6)


def test_an_image_that_breaks_in_training_is_named(tmp_path, image_folder):
    """Opening a folder looks at the ends of a JPEG only; its middle shows when it is decoded."""
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    whole = (folder / "above" / "00.jpg").read_bytes()
    (folder / "above" / "00.jpg").write_bytes(whole[:150] + whole[-2:])
    fields = {"dataset": f"folder:{folder}", "mean": "imagenet", "epochs": 1}
    with pytest.raises(DataError, match="1 of the images cannot be decoded. Received: .*00.jpg"):
        train(dataclasses.replace(CONFIG, **fields), tmp_path / "run")
