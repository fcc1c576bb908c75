"""The images of an epoch: their order, their augmentation, and one that cannot be decoded."""

import dataclasses
import shutil

import numpy as np
import pytest

from cnnkit.data import batches
from cnnkit.errors import DataError
from cnnkit.training import epoch, train
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG


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
