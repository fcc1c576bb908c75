"""Overlap of two sets: copies of other sizes and qualities are found, other images are not."""

import argparse
import json

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.cli.load_network import add_network_arguments
from cnnkit.cli.main import main
from cnnkit.cli.transfer.inputs import load_referenced_networks, model_reference
from cnnkit.data import Split, load_dataset
from cnnkit.data.sources.voc import MultiLabelDataset
from cnnkit.errors import UsageError
from cnnkit.features import select_features_split
from cnnkit.transfer import drop_duplicates, find_duplicates
from cnnkit.transfer import near_duplicates as module
from tests.helpers.small_network import network
from tests.helpers.weights_files import binaryproto, write_small_alexnet

pytestmark = pytest.mark.usefixtures("unoptimized")


def picture(seed, height=90, width=120):
    """Smooth in space, as photographs are."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (6, 8, 3))
    return tf.image.resize(coarse, (height, width), method="bicubic").numpy().clip(0, 255)


def encode(image, kind="png", quality=90):
    image = tf.cast(tf.round(image), tf.uint8)
    if kind == "png":
        return tf.io.encode_png(image).numpy()
    return tf.io.encode_jpeg(image, quality=quality).numpy()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sets: `a` has 5 images; of `b` three are images of `a`, changed, and three are not."""
    root = tmp_path_factory.mktemp("sets")
    for name in ("a/one", "a/two", "b/red", "b/blue"):
        (root / name).mkdir(parents=True)
    for i in range(5):
        file = root / "a" / ("one" if i < 3 else "two") / f"{i}.png"
        file.write_bytes(encode(picture(i)))
    (root / "b" / "red" / "copy.png").write_bytes(encode(picture(0)))
    (root / "b" / "red" / "encoded.jpg").write_bytes(encode(picture(1), "jpeg", 30))
    small = tf.image.resize(picture(3), (45, 60), antialias=True)
    (root / "b" / "blue" / "scaled.jpg").write_bytes(encode(small, "jpeg"))
    (root / "b" / "blue" / "other.png").write_bytes(encode(picture(9)))
    (root / "b" / "blue" / "upside.png").write_bytes(encode(picture(2)[::-1]))
    (root / "b" / "red" / "gray.png").write_bytes(encode(np.full((20, 20, 3), 127)))
    return root


EXPECTED = {
    "one/0.png": "red/copy.png",
    "one/1.png": "red/encoded.jpg",
    "two/3.png": "blue/scaled.jpg",
}


def splits(folders):
    return [select_features_split(load_dataset(f"folder:{folders}/{name}")) for name in "ab"]


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_copies_are_found(folders, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    first, second = splits(folders)
    found = find_duplicates(first, second)
    assert {pair.name: pair.other for pair in found} == EXPECTED
    assert all(first.names[pair.index] == pair.name for pair in found)
    # Against the correlation of the two thumbnails as NumPy has it.
    for pair in found:
        both = [
            split.load_image(tf.constant(split.names.index(name), tf.int64))
            for split, name in ((first, pair.name), (second, pair.other))
        ]
        gray = [
            tf.reduce_mean(tf.image.resize(image, (32, 32), method="area"), -1).numpy().ravel()
            for image in both
        ]
        assert pair.correlation == pytest.approx(np.corrcoef(*gray)[0, 1], abs=1e-5)
    assert [pair.name for pair in find_duplicates(first, second, 1.0)] == ["one/0.png"]


def test_pictures_of_one_color_are_like_nothing(folders):
    gray = np.full((2, 9, 9, 3), 200, np.uint8)
    split = Split.from_pixels(np.zeros(2, np.int32), ["a", "b"], gray)
    assert find_duplicates(split, split) == []
    _, second = splits(folders)
    # Every image equals itself, but the gray one.
    assert len(find_duplicates(second, second, 1.0)) == len(second) - 1


def test_a_dataset_without_them(folders):
    source = load_dataset(f"folder:{folders}/a")
    others = load_dataset(f"folder:{folders}/b").splits.values()
    rest, found = drop_duplicates(source, others)
    assert {pair.name for pair in found} == set(EXPECTED)
    whole, kept = select_features_split(source), select_features_split(rest)
    assert set(kept.names) == set(whole.names) - set(EXPECTED)
    assert rest.fingerprint != source.fingerprint
    for i, name in enumerate(kept.names):
        place = whole.names.index(name)
        assert kept.labels[i] == whole.labels[place]
        np.testing.assert_array_equal(
            kept.load_image(tf.constant(i, tf.int64)),
            whole.load_image(tf.constant(place, tf.int64)),
        )
    same, nothing = drop_duplicates(rest, others)
    assert (same, nothing) == (rest, [])


def test_one_image_a_class_leaves_none_to_test_on(folders, tmp_path):
    for name, file in (("x", "one/0.png"), ("y", "two/4.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "it.png").write_bytes((folders / "a" / file).read_bytes())
    others = load_dataset(f"folder:{tmp_path}").splits
    assert len(others["test"]) == 0
    rest, found = drop_duplicates(load_dataset(f"folder:{folders}/a"), others.values())
    assert {(pair.name, pair.other) for pair in found} == {
        ("one/0.png", "x/it.png"),
        ("two/4.png", "y/it.png"),
    }
    assert len(select_features_split(rest)) == 3


def test_marks_go_with_their_images(folders):
    first, second = splits(folders)
    marks = np.arange(10, dtype=np.int8).reshape(5, 2)
    source = MultiLabelDataset("voc:x", ("a", "b"), {"test": first}, {"test": marks}, "f")
    rest, _ = drop_duplicates(source, [second])
    kept = [first.names.index(name) for name in rest.splits["test"].names]
    np.testing.assert_array_equal(rest.voc_labels["test"], marks[kept])


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_wrong_thresholds(folders, threshold):
    with pytest.raises(UsageError, match="`threshold` must be above 0, at most 1"):
        find_duplicates(*splits(folders), threshold)


def test_pixels_in_memory(rng):
    pixels = rng.integers(0, 255, (6, 8, 8, 3), np.uint8)
    split = Split.from_pixels(np.arange(6, dtype=np.int32), list("abcdef"), pixels)
    part = split.subset(np.array([4, 1]))
    assert part.names == ("e", "b")
    assert part.labels.tolist() == [4, 1]
    np.testing.assert_array_equal(part.pixels, pixels[[4, 1]])
    np.testing.assert_array_equal(part.load_image(tf.constant(1, tf.int64)), pixels[1])


def test_the_command(folders, tmp_path, capsys):
    network().save(tmp_path / "net.keras")
    words = ["transfer", str(tmp_path / "net.keras"), "--layer", "fc7", "--per-class", "1"]
    words += ["--splits", "1", "--dataset", f"folder:{folders}/b"]
    assert main([*words, "--exclude-overlap", f"folder:{folders}/a", "--json"]) == 1
    assert "The class red has too few images" in capsys.readouterr().err
    words += ["--exclude-overlap", f"folder:{folders}/a", "--overlap-threshold", "0.9999"]
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert "red/copy.png is one/0.png" in captured.err
    document = json.loads(captured.out)
    assert [pair["name"] for pair in document["left_out"]] == ["red/copy.png"]
    assert document["scores"][0]["splits"][0]["test_images"] == 3
    assert main([*words[:-4], "--overlap-threshold", "0.9"]) == 2
    assert "--overlap-threshold requires --exclude-overlap SPEC" in capsys.readouterr().err


@pytest.mark.parametrize("mean", ["10,20,30", "mean.binaryproto"])
def test_a_reference_to_networks_keeps_their_preprocessing(tmp_path, monkeypatch, mean):
    """A saved classifier loads its network again, perhaps from another folder."""
    monkeypatch.chdir(tmp_path)
    image = np.full((3, 64, 64), 5, "float32")
    (tmp_path / "mean.binaryproto").write_bytes(binaryproto(image))
    write_small_alexnet(tmp_path)
    parser = argparse.ArgumentParser()
    add_network_arguments(parser, "models", nargs="+")
    words = ["small.npz", "--model", "alexnet", "--channels", "RGB", "--mean", mean, "--std", "2"]
    args = parser.parse_args([*words, "--model-option", "input_shape=[64,64,3]"])
    reference = json.loads(json.dumps(model_reference(args)))
    monkeypatch.chdir("/")
    [model] = load_referenced_networks(reference)
    expected = [10, 20, 30] if mean == "10,20,30" else image.transpose(1, 2, 0)
    np.testing.assert_array_equal(model.get_layer("preprocessing").mean, expected)
    np.testing.assert_array_equal(model.get_layer("preprocessing").std, [2, 2, 2])
    arrays = np.load(tmp_path / "small.npz")
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, arrays["conv1_W"])
    # References of version 0.1.0 say nothing about it.
    old = {name: reference[name] for name in ("models", "model", "model_option", "model_seed")}
    [model] = load_referenced_networks(old)
    assert model.get_layer("preprocessing").std is None
