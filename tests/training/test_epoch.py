"""The images of an epoch: their order, their augmentation, and one that cannot be decoded."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from cnnkit.cli.main import main
from cnnkit.data import batches, load_dataset
from cnnkit.errors import DataError, RunError
from cnnkit.run_folder import RunFolder
from cnnkit.training import Callback, step_batches, train
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG

pytestmark = pytest.mark.usefixtures("unoptimized")


def test_every_epoch_has_an_order_of_its_own(tmp_path, monkeypatch):
    shown = []

    def watched(split, **options):
        if options.get("order") is not None:
            shown.append(tuple(options["order"]))
        return batches(split, **options)

    monkeypatch.setattr(step_batches, "batches", watched)
    train(CONFIG, tmp_path / "run")
    assert len(shown) == len(set(shown)) == 3
    assert all(sorted(order) == list(range(1438)) for order in shown)


def test_augmentation_follows_the_configuration(tmp_path, monkeypatch):
    """Training images are augmented by seed and epoch; held-out ones are center crops at Q."""
    seen = []

    def watched(split, **options):
        seen.append(options)
        return batches(split, **options)

    monkeypatch.setattr(step_batches, "batches", watched)
    fields = {"scale": (10, 14), "crop": "random", "flip": True, "pca_color": "std"}
    fields |= {"central_square": True}
    config = dataclasses.replace(CONFIG, **fields, mean="pixel", epochs=2)
    run = train(config, tmp_path / "run")
    training, held_out = seen[0]["augmentation"], seen[1]["augmentation"]
    assert (training.scale, training.crop, training.flip) == ((10, 14), "random", True)
    assert (training.color.mode, held_out.color) == ("std", None)
    assert (training.central_square, held_out.central_square) == (True, False)
    assert (held_out.scale, held_out.crop, held_out.flip) == ((12, 12), "center", False)
    assert [(o["seed"], o["epoch"]) for o in seen if o["order"] is not None] == [(5, 1), (5, 2)]
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


class Messages(Callback):
    def __init__(self):
        self.texts = []

    def on_message(self, message):
        self.texts.append(message)


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_a_held_out_loss_beyond_float16_is_that_of_the_saved_network(tmp_path):
    """One step so large that activations pass 65,504; the cross-entropy by hand in NumPy."""
    messages = Messages()
    config = dataclasses.replace(
        CONFIG, precision="mixed_float16", learning_rate=1e4, batch_size=2000, epochs=1
    )
    run = train(config, tmp_path / "run", callbacks=[messages])
    [line] = (
        json.loads(text, parse_constant=refuse_constant)
        for text in run.metrics_file.read_text().splitlines()
    )
    held_out = load_dataset("digits", seed=CONFIG.seed).splits["test"]
    whole = keras.saving.load_model(run.model_file)
    network = keras.Model(whole.input, whole.get_layer("fc8").output)
    images = np.stack([held_out.load_image(i).numpy() for i in range(len(held_out))])
    logits = network(images.astype("float32"), training=False).numpy().astype("float64")
    largest = logits.max(axis=1)
    total = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    losses = total - logits[np.arange(len(logits)), held_out.labels]
    assert line["val_loss"] == pytest.approx(losses.mean(), rel=1e-4)
    assert line["val_loss"] > 65504
    assert line["val_accuracy"] == np.mean(logits.argmax(axis=1) == held_out.labels)
    [text] = [text for text in messages.texts if "held-out loss" in text]
    assert "exceeds the range of mixed_float16; it was measured in float32" in text


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_held_out_loss_that_is_not_finite_ends_the_run(tmp_path, precision):
    config = dataclasses.replace(
        CONFIG, precision=precision, learning_rate=1e25, batch_size=2000, epochs=1
    )
    with pytest.raises(RunError, match="held-out images is not finite after epoch 1.*Lower the"):
        train(config, tmp_path / "run")
    assert RunFolder(tmp_path / "run").metrics == []
    assert not (tmp_path / "run" / "model.keras").exists()


def test_the_command_fails_where_the_held_out_loss_is_not_finite(tmp_path, capsys):
    words = ["--model", "tiny", "--image-size", "8", "--epochs", "1", "--batch-size", "2000"]
    words += ["--learning-rate", "1e25", "--strategy", "default"]
    assert main(["train", *words, "--output", str(tmp_path / "run")]) == 1
    captured = capsys.readouterr()
    assert "done:" not in captured.out
    assert "The loss of the held-out images is not finite after epoch 1" in captured.err
