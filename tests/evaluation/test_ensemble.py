"""Networks as fully convolutional ones, and their score functions."""

import dataclasses

import keras
import numpy as np
import pytest

from cnnkit import alexnet, vgg11
from cnnkit.config import TrainingConfig
from cnnkit.data import load_dataset
from cnnkit.errors import UsageError
from cnnkit.evaluation import EvaluatedModel, evaluate
from cnnkit.evaluation.ensemble import (
    dense_network,
    evaluated_model,
    held_out_images,
    runs_of_changed_dataset,
    score_function,
)
from cnnkit.evaluation.predictions import log_softmax
from cnnkit.run_folder import RunFolder
from tests.helpers.evaluation_networks import CLASSES, LABELS, SIZE, images, network, split_of
from tests.helpers.images import write_files


@pytest.fixture(scope="module")
def pictures():
    return images()


@pytest.fixture(scope="module")
def split(pictures):
    return split_of(pictures, [0, 1, 2, 3, 4, 5, 6, 0])


@pytest.mark.parametrize("build", [alexnet, vgg11])
def test_dense_is_the_classifier_at_the_training_size(build, rng):
    model = build(classes=4, input_shape=(64, 64, 3), initializer="glorot")
    batch = rng.uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    member = evaluated_model(model, None)
    looks = score_function(dense_network(member), flip=True, average="scores")(batch).numpy()
    expected = np.log(model(batch).numpy())
    mirrored = np.log(model(batch[:, :, ::-1]).numpy())
    np.testing.assert_allclose(log_softmax(looks[:, 0]), expected, atol=1e-4)
    np.testing.assert_allclose(log_softmax(looks[:, 1]), mirrored, atol=1e-4)


def test_padding_makes_dense_differ_from_cut_windows(pictures):
    """A window that is cut out is surrounded by zeros, inside the image by its neighbors."""
    padded = network(3, padding="same")
    member = evaluated_model(padded, None)
    looks = score_function(dense_network(member), flip=False, average="scores")
    whole = pictures[6].astype(np.float32)
    height, width = whole.shape[:2]
    cut = [
        whole[top : top + SIZE, left : left + SIZE]
        for top in range(0, height - SIZE + 1, 2)
        for left in range(0, width - SIZE + 1, 2)
    ]
    inner = keras.Model(padded.input, padded.get_layer("fc8").output)
    expected = inner(np.stack(cut)).numpy().mean(axis=0)
    difference = looks(whole[None]).numpy()[0, 0] - expected
    assert np.abs(difference).max() > 0.01


def test_a_network_of_any_size_is_tested_densely(split):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(CLASSES, 3)(keras.layers.Rescaling(1 / 64)(inputs))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    result = evaluate(EvaluatedModel("any", model, (16,), SIZE), split, LABELS, protocol="dense")
    assert result.images == 8


@pytest.fixture
def moved(tmp_path):
    """Two runs with different seeds on a dataset without splits, which was moved since."""
    names = [f"{label}/{i}.png" for label in LABELS for i in range(5)]
    write_files(tmp_path / "before", names)
    runs = []
    for seed in (0, 1):
        source = load_dataset(f"folder:{tmp_path / 'before'}", seed=seed)
        run = RunFolder(tmp_path / f"run{seed}")
        config = TrainingConfig(dataset=source.spec, image_size=SIZE, seed=seed)
        run.create(config, LABELS, {"dataset": {"fingerprint": source.fingerprint}})
        runs.append(run)
    (tmp_path / "before").rename(tmp_path / "after")
    return runs, tmp_path / "after"


def test_runs_of_a_moved_dataset_keep_their_held_out_images(moved):
    runs, folder = moved
    source, seed = held_out_images(runs[1:], f"folder:{folder}")
    assert seed == 1
    expected = load_dataset(f"folder:{folder}", seed=1).splits["test"].names
    assert source.splits["test"].names == expected
    with pytest.raises(UsageError, match="held out different images of folder:.*after"):
        held_out_images(runs, f"folder:{folder}")
    # A dataset of neither of the runs is split by the first seed.
    write_files(folder, ["a/new.png"])
    assert held_out_images(runs[::-1], f"folder:{folder}")[1] == 1


def test_runs_that_decode_differently_have_no_common_images(moved):
    runs, folder = moved
    other = dataclasses.replace(runs[0].config, background="#008000")
    runs[1].write_config(dataclasses.replace(other, seed=1))
    with pytest.raises(UsageError, match="`runs` must decode images in one way.*Received: 2 ways"):
        held_out_images(runs, f"folder:{folder}")


def test_a_dataset_that_changed_since_the_training_is_noticed(moved):
    runs, folder = moved
    folder.rename(folder.with_name("before"))
    source, _ = held_out_images(runs[:1], None)
    assert runs_of_changed_dataset(runs[:1], source) == []
    write_files(folder.with_name("before"), ["a/new.png"])
    source, _ = held_out_images(runs[:1], None)
    assert runs_of_changed_dataset(runs[:1], source) == runs[:1]
