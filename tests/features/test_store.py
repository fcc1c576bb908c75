"""Features: against the network asked image by image, in shards, after a kill, merged."""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cnnkit import alexnet, vgg11
from cnnkit.cli.main import main
from cnnkit.data import load_dataset, resize_shorter_side
from cnnkit.errors import DataError, UsageError
from cnnkit.features import (
    FeatureExtractor,
    FeatureSpec,
    extract_features,
    l2_normalize,
    load_features,
    merge_features,
    missing_parts,
    read_index,
    select_features_split,
    write_features,
)
from cnnkit.features.extractor import model_identity
from cnnkit.models.feature_extractor import feature_extractor, with_variable_input_size


def network(seed=1, size=23, name="net"):
    """Without padding, so that a larger image is seen as its windows are."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(5, 5, strides=2, activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(7, activation="relu", bias_initializer="ones", name="fc7")(x)
    x = layers.Dense(3, name="fc8")(x)
    return keras.Model(inputs, x, name=name)


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def source(image_folder):
    return load_dataset(f"folder:{image_folder}")


def pixels(source, split="all"):
    part = select_features_split(source, split)
    return [part.load_image(tf.constant(i, tf.int64)).numpy() for i in range(len(part))]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_center_is_what_the_network_answers_to_it(net, source, batch_size):
    found = extract_features(net, source, "pool1", flip=True, batch_size=batch_size)
    part = keras.Model(net.input, net.get_layer("pool1").output)
    for i, image in enumerate(pixels(source)):
        center = resize_shorter_side(tf.constant(image), 23).numpy()
        both = part(np.stack([center, center[:, ::-1]])).numpy().reshape(2, -1)
        expected = both.mean(axis=0)
        np.testing.assert_allclose(found.values[i], expected / np.linalg.norm(expected), atol=1e-5)
    # The dataset's own test images come after its training images, each with its own label.
    splits = source.splits
    np.testing.assert_array_equal(
        found.labels, np.concatenate([splits["train"].labels, splits["test"].labels])
    )
    assert found.names == (*splits["train"].names, *splits["test"].names)
    assert found.classes == ("above", "below")


@pytest.mark.parametrize(
    ("aggregate", "combine"),
    [
        ("stack", np.concatenate),
        ("average", lambda v: np.mean(v, 0)),
        ("max", lambda v: np.max(v, 0)),
    ],
)
def test_dense_features_are_those_of_the_windows_cut_out(net, source, aggregate, combine):
    # Appendix B: every position, both flips, every scale. The network has no padding, so its
    # answer at a position is what the classifier says to that window, 4 pixels further each time.
    scales = (23, 33)
    found = extract_features(net, source, "fc7", scales=scales, aggregate=aggregate, split="test")
    classifier = keras.Model(net.input, net.get_layer("fc7").output)
    for i, image in enumerate(pixels(source, "test")[:5]):
        vectors = []
        for scale in scales:
            ratio = scale / min(image.shape[:2])
            sides = [max(scale, round(side * ratio)) for side in image.shape[:2]]
            scaled = tf.image.resize(image, sides, antialias=True).numpy()
            answers = []
            for view in (scaled, scaled[:, ::-1]):
                windows = [
                    view[top : top + 23, left : left + 23]
                    for top in range(0, view.shape[0] - 22, 4)
                    for left in range(0, view.shape[1] - 22, 4)
                ]
                answers.append(classifier(np.stack(windows)).numpy().mean(axis=0))
            vectors.append(np.mean(answers, axis=0))
        expected = combine(vectors)
        np.testing.assert_allclose(found.values[i], expected / np.linalg.norm(expected), atol=1e-5)


def test_dense_at_the_training_size_is_the_classifier(net):
    images = np.random.default_rng(0).uniform(0, 255, (4, 23, 23, 3)).astype(np.float32)
    [dense] = FeatureExtractor(
        net, FeatureSpec.with_defaults("fc7", scales=(23,), flip=False, l2=False)
    )([images])
    [center] = FeatureExtractor(net, FeatureSpec("fc7", l2=False))([images])
    np.testing.assert_allclose(dense, center, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        center, feature_extractor(net, "fc7")(images).numpy(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_groups_of_one_shape_keep_their_images(net, source, batch_size):
    one = extract_features(net, source, "fc7", scales=(30,), batch_size=2)
    other = extract_features(net, source, "fc7", scales=(30,), batch_size=batch_size)
    np.testing.assert_allclose(one.values, other.values, atol=1e-6)


def test_vectors_have_the_length_one_and_zeros_stay_zero():
    vectors = l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0]])


def test_a_network_is_known_by_what_it_computes(net, tmp_path):
    net.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    assert model_identity(net) == model_identity(again) == model_identity(network(name="other"))
    assert model_identity(net) != model_identity(network(seed=2))
    # Weights above the layer do not count, those below do, and so does a stride without weights.
    again.get_layer("fc8").set_weights([w + 1 for w in again.get_layer("fc8").get_weights()])
    assert model_identity(feature_extractor(net, "fc7")) == model_identity(
        feature_extractor(again, "fc7")
    )
    again.get_layer("conv1").set_weights([w + 1 for w in again.get_layer("conv1").get_weights()])
    assert model_identity(feature_extractor(net, "fc7")) != model_identity(
        feature_extractor(again, "fc7")
    )
    plain = [
        keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPooling2D(2, strides=strides)])
        for strides in (1, 2)
    ]
    assert model_identity(plain[0]) != model_identity(plain[1])


def test_any_functional_model():
    # Two branches, a model inside, an operation with a constant: nothing of ours.
    inputs = keras.Input((16, 16, 3))
    inner = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, padding="same")])
    x = layers.Add(name="sum")([inner(inputs / 255.0), layers.Conv2D(4, 1)(inputs)])
    model = keras.Model(inputs, layers.GlobalAveragePooling2D(name="pooled")(x))
    digits = load_dataset("digits")
    assert extract_features(model, digits, "sum", split="test").values.shape == (359, 1024)
    dense = extract_features(model, digits, "pooled", scales=(16, 20), split="test")
    assert dense.values.shape == (359, 8)
    # Somebody else's use of a layer does not matter.
    keras.Model(inputs, model.get_layer("sum")([x, x]))
    assert feature_extractor(model, "sum").output_shape == (None, 16, 16, 4)


def test_layers_go_by_the_field_names_too():
    model = vgg11(input_shape=(32, 32, 3), classes=2)
    assert feature_extractor(model, "fc7").output_shape == (None, 4096)
    assert with_variable_input_size(model, "fc7").output_shape == (None, None, None, 4096)


def test_written_in_parts_by_two_machines_and_merged(net, source, tmp_path):
    spec = FeatureSpec("fc7")
    whole = extract_features(net, source, "fc7")
    for number in (0, 1):
        write_features(net, source, spec, tmp_path / f"{number}", shard=(number, 2), rows=7)
    assert missing_parts(tmp_path / "0", read_index(tmp_path / "0")) == 3
    with pytest.raises(
        DataError, match="3 of 6 parts of the features .* no complete features-00001.npy"
    ):
        load_features(tmp_path / "0")
    merge_features([tmp_path / "0", tmp_path / "1"], tmp_path / "both")
    index, found = load_features(tmp_path / "both")
    assert (index.images, index.dimension, index.parts) == (40, 7, 6)
    np.testing.assert_allclose(found.values, whole.values, atol=1e-6)
    np.testing.assert_array_equal(found.labels, whole.labels)
    assert found.names == whole.names
    # One folder for both does the same.
    for number in (0, 1):
        write_features(net, source, spec, tmp_path / "one", shard=(number, 2), rows=7)
    np.testing.assert_array_equal(load_features(tmp_path / "one")[1].values, found.values)


def test_what_is_there_is_not_redone_and_what_is_torn_is(net, source, tmp_path):
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7)
    files = sorted((tmp_path / "f").glob("*.npy"))
    whole = files[2].read_bytes()
    times = [file.stat().st_mtime_ns for file in files]
    files[2].write_bytes(whole[:-1])
    (tmp_path / "f" / "features-00004.json").unlink()
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7)
    again = [file.stat().st_mtime_ns for file in files]
    assert [a != b for a, b in zip(times, again, strict=True)] == [0, 0, 1, 0, 1, 0]
    assert files[2].read_bytes() == whole


def test_features_of_something_else_are_refused(net, source, tmp_path):
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f", rows=7)
    before = {file.name: file.read_bytes() for file in (tmp_path / "f").iterdir()}
    others = [
        (network(seed=2), source, FeatureSpec("fc7"), "another network"),
        (net, source, FeatureSpec("fc8"), "another spec"),
        (net, source, FeatureSpec("fc7", flip=True), "another spec"),
        (net, load_dataset("digits"), FeatureSpec("fc7"), "another dataset"),
    ]
    for model, images, spec, message in others:
        rows = 7 if images is source else 2000
        with pytest.raises(UsageError, match=message):
            write_features(model, images, spec, tmp_path / "f", rows=rows)
        write_features(model, images, spec, tmp_path / message, rows=rows, split="all")
        with pytest.raises(UsageError, match=message):
            merge_features([tmp_path / "f", tmp_path / message], tmp_path / "merged")
        for file in (tmp_path / message).iterdir():
            file.unlink()
    assert {file.name: file.read_bytes() for file in (tmp_path / "f").iterdir()} == before
    assert not (tmp_path / "merged").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds other files"):
        write_features(net, source, FeatureSpec("fc7"), tmp_path / "full")


def test_labels_that_do_not_fit_are_refused(net, source, tmp_path):
    write_features(net, source, FeatureSpec("fc7"), tmp_path / "f")
    file = tmp_path / "f" / "features-00000.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "labels": [5] * 40}))
    with pytest.raises(DataError, match="do not fit the classes. Expected: 0 to 1. Received: 5"):
        load_features(tmp_path / "f")


def test_wrong_requests(net, source):
    digits = load_dataset("digits")
    with pytest.raises(UsageError, match="Unknown layer 'fc77'.*Did you mean fc7"):
        extract_features(net, digits, "fc77")
    with pytest.raises(UsageError, match="at least 23. Received: 20"):
        extract_features(net, digits, "fc7", scales=(20,))
    with pytest.raises(UsageError, match="at least 64. Received: 20"):
        extract_features(alexnet(include_top=False), digits, "pool5", scales=(20,))
    with pytest.raises(
        UsageError, match="images of one size.*23, or scales. Received: image size 30"
    ):
        extract_features(net, digits, "fc7", image_size=30)
    with pytest.raises(UsageError, match="`image_size` must be given: .* takes images of any size"):
        extract_features(alexnet(include_top=False), digits, "pool5")
    with pytest.raises(UsageError, match="Unknown split 'val'.*train, test, all"):
        extract_features(net, digits, "fc7", split="val")
    with pytest.raises(UsageError, match="Unknown aggregate 'sum'"):
        FeatureSpec("fc7", aggregate="sum")
    with pytest.raises(UsageError, match="`pool` must be 'average' or 'max'"):
        FeatureSpec.with_defaults("fc7", scales=(24,), pool="flatten")
    with pytest.raises(UsageError, match="mean image of 64 x 64"):
        with_variable_input_size(
            alexnet(input_shape=(64, 64, 3), mean=np.zeros((64, 64, 3)), classes=2), "fc7"
        )
    # The last layer, which has no rectifier: some rectifiers make zeros of what is no number.
    broken = network()
    last = broken.get_layer("fc8")
    last.set_weights([w * np.nan for w in last.get_weights()])
    name = select_features_split(source).names[0]
    with pytest.raises(DataError, match=f"output of layer 'fc8' for image {name} is not finite"):
        extract_features(broken, source, "fc8")


SCRIPT = """
import os, signal, sys
from cnnkit.cli.quiet_tensorflow import import_tensorflow
import_tensorflow()
from cnnkit import _files
from cnnkit.cli.main import main
from cnnkit.features import store
real, count = store.write_text, 0
def write_text(path, text):
    global count
    count += 1
    if count == 3:  # the index, a whole part, and the second part's values without their names
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, text)
store.write_text = write_text
store._default_rows = lambda dimension: 7
sys.exit(main(sys.argv[1:]))
"""


def test_goes_on_after_a_kill(net, source, image_folder, tmp_path, monkeypatch, capsys):
    net.save(tmp_path / "net.keras")
    words = ["features", str(tmp_path / "net.keras"), "--dataset", f"folder:{image_folder}"]
    words += ["--layer", "fc7", "--output", str(tmp_path / "f")]
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], env=os.environ, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "f" / "features-00001.npy").is_file()
    assert missing_parts(tmp_path / "f", read_index(tmp_path / "f")) == 5
    monkeypatch.setattr("cnnkit.features.store._default_rows", lambda dimension: 7)
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 0
    values = extract_features(net, source, "fc7").values
    np.testing.assert_allclose(load_features(tmp_path / "f")[1].values, values, atol=1e-6)


def test_the_command(net, image_folder, tmp_path, capsys):
    net.save(tmp_path / "net.keras")
    words = ["features", str(tmp_path / "net.keras"), "--dataset", f"folder:{image_folder}"]
    assert main([*words, "--scales", "24,30", "--output", str(tmp_path / "f")]) == 0
    said = capsys.readouterr().out
    assert "40 images" in said and "layer fc7 of net, 14 values each; complete" in said
    assert main(["features", "merge", str(tmp_path / "f"), "--output", str(tmp_path / "g")]) == 0
    assert "complete" in capsys.readouterr().out
    mistakes = [
        (words[:2], "--dataset must name the images"),
        ([*words, "--layer", "fc66"], "Unknown layer 'fc66'"),
        ([*words[:1], str(tmp_path / "none"), *words[2:]], "No model at"),
        (
            ["features", "random", *words[2:]],
            "--model must name the network that gets random weights",
        ),
        (["features", "merge"], "merge needs at least one DIR"),
    ]
    for given, message in mistakes:
        assert main([*given, "--output", str(tmp_path / "h")]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "h").exists()
    for option in (["--shard", "2/2"], ["--scales", "a"]):
        with pytest.raises(SystemExit, match="2"):
            main([*words, *option, "--output", str(tmp_path / "h")])
