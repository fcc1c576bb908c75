"""The index of shards: prepared and damaged ones are refused in one line."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.data import load_dataset, write_shards
from cnnkit.data.sources.shard_index import read_shard_index
from cnnkit.errors import CnnkitError, DataError, UsageError
from tests.helpers.damage import changed_json, damaged
from tests.helpers.images import load_file, write_files

FAR = 10**15


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a sharded dataset, and the arrays of its index."""
    folder = tmp_path_factory.mktemp("shards")
    write_files(folder / "set", [f"{c}/{i}.png" for c in "ab" for i in range(4)])
    write_shards(load_dataset(f"folder:{folder / 'set'}"), folder / "s")
    with np.load(folder / "s" / "index.npz") as stored:
        return folder / "s", dict(stored)


def save(written, **changes):
    """Write the index with other arrays, or other fields of its description."""
    folder, arrays = written
    about = json.loads(arrays["about"].tobytes())
    about |= {name: value for name, value in changes.items() if name in about}
    arrays = {name: changes.get(name, array) for name, array in arrays.items()}
    if not isinstance(changes.get("about"), np.ndarray):
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(folder / "index.npz", **{n: a for n, a in arrays.items() if a is not None})
    return f"shards:{folder}"


def places(written, column, number):
    changed = written[1]["train/places"].copy()
    changed[:, column] = number
    return {"train/places": changed}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shards": 5}, "`shards` in about in .* must be a list"),
        ({"shards": [["train-00000.tfrecord"]]}, "must be a list of names and sizes"),
        ({"shards": [["../s/train-00000.tfrecord", 1]]}, "must be a file name of its own"),
        ({"shards": [["/tmp/train.tfrecord", 1]]}, "must be a file name of its own"),
        ({"shards": [["..", 1]]}, "must be a file name of its own"),
        ({"shards": [["index.npz", 1]]}, "must be a file name of its own"),
        ({"shards": [["a\0.tfrecord", 1]]}, "must be a text"),
        ({"shards": [["a.tfrecord", -1]]}, "must be an integer from 0"),
        ({"shards": [["a.tfrecord", 1]]}, "a.tfrecord is missing"),
        ({"shards": [["C:a.tfrecord", 1]]}, "must be a file name of its own"),
        ({"shards": [["a\\b.tfrecord", 1]]}, "must be a file name of its own"),
        ({"shards": [["a" * 247 + ".tfrecord", 1]]}, "must be a text of at most 255"),
        ({"shards": [["a" * 246 + ".tfrecord", 1]]}, "is missing"),
        ({"shards": [["train-00000.tfrecord", 1, 2]]}, "must be a list of names and sizes"),
        ({"parts": ["nothing"]}, "a list with train and test"),
        ({"parts": ["train", "test", "x"]}, "has no x/places"),
        ({"format": {}}, "`format` in .* must be an integer"),
        ({"format": 2}, "another version of cnnkit"),
        ({"labels": FAR}, "`labels` in .* must be a list of texts"),
        ({"labels": ["a"]}, "labels of test in .* are damaged. Expected: 0 to 0"),
        ({"fingerprint": None}, "`fingerprint` in .* must be a text"),
        ({"left_out": {"hidden": [1]}}, "`left_out.hidden` in .* must be a list of texts"),
        ({"label_files": "a"}, "`label_files` in .* must be a list of texts"),
        ({"about": np.zeros(3, np.uint8)}, "about in .* must be text in UTF-8"),
        ({"about": np.array([[1]], np.uint8)}, "about in .* is damaged"),
        ({"about": np.zeros(17 << 20, np.uint8)}, "about in .* is too large"),
        ({"train/labels": None}, "has no train/labels"),
        ({"train/labels": np.zeros(100, np.int32)}, "numbers of labels, names and images"),
        ({"train/labels": np.full(6, -1)}, "labels of train in .* are damaged"),
        ({"train/labels": np.zeros(6)}, "not an array of the kinds iu|is damaged"),
        ({"train/names": np.frombuffer(b"a\nb", np.uint8)}, "numbers of labels, names and images"),
        ({"train/names": np.full(11, 255, np.uint8)}, "must be text in UTF-8"),
        ({"train/names": np.full(10**6, 10, np.uint8)}, "names in .* is too large"),
        ({"train/places": np.zeros(24, np.int64)}, r"integers of shape \(n, 4\)"),
        ({"train/places": np.zeros((6, 3), np.int64)}, r"integers of shape \(n, 4\)"),
        ({"train/places": np.zeros((), np.int64)}, r"integers of shape \(n, 4\)"),
        ({"train/places": np.zeros((3, 4), np.int64)}, "numbers of labels, names and images"),
    ],
)  # fmt: skip
def test_lies_of_the_description_are_refused(written, change, text):
    with pytest.raises(DataError, match=text) as error:
        load_dataset(save(written, **change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("number", [-1, FAR, 2**63 - 1, -(2**63)])
def test_images_outside_the_shards_are_refused(written, column, number):
    with pytest.raises(DataError, match="locations of the images of train in .* are damaged"):
        load_dataset(save(written, **places(written, column, number)))


def test_images_are_not_more_than_the_shard(written):
    """A file of a megabyte was read once for each image of the index."""
    size = (written[0] / "train-00000.tfrecord").stat().st_size
    assert len(written[1]["train/places"]) * (size // 2) > size
    table = places(written, 1, 0)["train/places"]
    table[:, 2] = size // 2
    with pytest.raises(DataError, match="side by side within the shards"):
        load_dataset(save(written, **{"train/places": table}))


def test_a_shard_is_named_once(written):
    shards = json.loads(written[1]["about"].tobytes())["shards"]
    with pytest.raises(DataError, match="must be a file name of its own"):
        load_dataset(save(written, shards=[*shards, shards[0]]))


def test_an_image_may_end_with_its_shard(written):
    size = (written[0] / "train-00000.tfrecord").stat().st_size
    table = np.zeros_like(written[1]["train/places"])
    shards = json.loads(written[1]["about"].tobytes())["shards"]
    table[:, 0] = [name for name, _ in shards].index("train-00000.tfrecord")
    table[0, 1:3] = 10, size - 10
    assert len(load_dataset(save(written, **{"train/places": table})).splits["train"]) == 6
    table[0, 1:3] = 0, size
    load_dataset(save(written, **{"train/places": table}))
    table[0, 2] += 1
    with pytest.raises(DataError, match="side by side within the shards"):
        load_dataset(save(written, **{"train/places": table}))


def test_the_largest_image_and_one_byte_less(written, monkeypatch):
    largest = max(int(written[1][f"{name}/places"][:, 2].max()) for name in ("train", "test"))
    spec = save(written)
    monkeypatch.setattr("cnnkit.data.sources.shard_index.max_image_bytes", lambda: largest)
    load_dataset(spec)
    monkeypatch.setattr("cnnkit.data.sources.shard_index.max_image_bytes", lambda: largest - 1)
    with pytest.raises(DataError, match="is too large"):
        load_dataset(spec)


def test_an_image_above_the_limit_is_named(written, monkeypatch):
    monkeypatch.setattr("cnnkit.data.sources.shard_index.max_image_bytes", lambda: 20)
    with pytest.raises(DataError, match=r"image of test .* too large.*[ab]/\d.png, \d+ bytes"):
        load_dataset(save(written, parts=["test", "train"]))


def test_an_image_with_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    write_files(tmp_path / "set", [f"{c}/{i}.png" for c in "ab" for i in range(4)])
    write_shards(load_dataset(f"folder:{tmp_path / 'set'}"), tmp_path / "s")
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "3")
    split = load_dataset(f"shards:{tmp_path / 's'}").splits["train"]
    assert load_file(split, 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="3"):
        split.load_image(tf.constant(0, tf.int64))


def test_the_index_is_as_large_as_its_shards_need(written, monkeypatch):
    monkeypatch.setattr("cnnkit.data.sources.shard_index.MAX_SHARD_INDEX_BYTES", 100)
    with pytest.raises(DataError, match="index.npz is too large"):
        load_dataset(save(written))
    monkeypatch.setattr("cnnkit.data.sources.shard_index.SHARD_BYTES_PER_INDEX_BYTE", 1e-3)
    assert len(load_dataset(save(written)).splits["train"]) == 6


def test_a_description_that_could_not_be_read_is_not_written(written, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnkit.data.sources.tfrecord.MAX_JSON_BYTES", 100)
    with pytest.raises(UsageError, match="too many names"):
        write_shards(load_dataset(save(written)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def read(folder):
    try:
        index = read_shard_index(folder / "index.npz", "unreadable")
    except CnnkitError as error:
        assert "\n" not in str(error)
    else:
        assert all(len(split.names) == len(split.labels) for split in index.splits.values())


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_damaged_indexes_are_read_or_refused(written, data):
    save(written)
    whole = (written[0] / "index.npz").read_bytes()
    (written[0] / "index.npz").write_bytes(data.draw(damaged(whole)))
    read(written[0])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_changed_descriptions_are_read_or_refused(written, data):
    text = data.draw(changed_json(json.loads(written[1]["about"].tobytes())))
    save(written, about=np.frombuffer(text, np.uint8))
    read(written[0])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_damaged_arrays_are_read_or_refused(written, data):
    name = data.draw(st.sampled_from(sorted(written[1])))
    array = written[1][name]
    changed = data.draw(damaged(array.tobytes()))
    width = array.dtype.itemsize * (array.shape[1] if array.ndim > 1 else 1)
    changed = changed[: len(changed) // width * width]
    shape = (-1, *array.shape[1:])
    save(written, **{name: np.frombuffer(changed, array.dtype).reshape(shape)})
    read(written[0])
