"""TensorFlow Datasets."""

import json
import struct

import numpy as np
import pytest
import tensorflow as tf

from cnnkit._untrusted.record_lengths import masked_crc
from cnnkit.data import load_dataset
from cnnkit.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("unoptimized")

tfds = pytest.importorskip("tensorflow_datasets")


def test_tfds_that_is_prepared(tmp_path, monkeypatch):
    class CnnkitTinyShapes(tfds.core.GeneratorBasedBuilder):
        """Eight squares."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(None, None, 3)),
                 "label": tfds.features.ClassLabel(names=["dark", "light"])}
            )  # fmt: skip
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples(8)}

        def _generate_examples(self, count):
            for i in range(count):
                image = np.full((6 + i, 5, 3), 20 + 200 * (i % 2), np.uint8)
                yield i, {"image": image, "label": i % 2}

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    builder = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name: builder(name, data_dir=tmp_path))
    with pytest.raises(UsageError, match="not prepared on this machine.*`download=True`"):
        load_dataset("tfds:cnnkit_tiny_shapes")
    source = load_dataset("tfds:cnnkit_tiny_shapes", download=True)
    assert source.class_names == ("dark", "light")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 6, "test": 2}
    for split in source.splits.values():
        for i, label in enumerate(split.labels):
            assert split.load_image(tf.constant(i, tf.int64)).numpy().mean() == 20 + 200 * label
    assert load_dataset("tfds:cnnkit_tiny_shapes").fingerprint == source.fingerprint


class CnnkitTinySquares(tfds.core.GeneratorBasedBuilder):
    """Eight squares in each split, with configurations; the tests replace their features."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, version="1.0.0") for name in ("small", "large")
    ]
    FEATURES = {}
    SPLITS = {"train": 0}
    PIXEL = np.uint8(20)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["dark", "light"]),
            **self.FEATURES,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {name: self._generate_examples(label) for name, label in self.SPLITS.items()}

    def _generate_examples(self, label):
        image_shape = (6, 5, self.info.features["image"].shape[-1])
        for i in range(8):
            value = label if label is None or isinstance(label, int) and label < 0 else i % 2
            if isinstance(self.info.features["label"], tfds.features.Text):
                value = "dark"
            yield i, {"image": np.full(image_shape, self.PIXEL), "label": value}


@pytest.fixture
def squares(tmp_path, monkeypatch):
    builder = tfds.builder
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds, "builder", lambda name: builder(name, data_dir=tmp_path))
    return monkeypatch


@pytest.mark.parametrize(
    ("features", "pixel", "text"),
    [
        (
            {"image": tfds.features.Tensor(shape=(6, 5, 3), dtype=np.uint8)}, np.uint8(20),
            r"is not for image classification.*Received: image \(Tensor",
        ),
        (
            {"image": tfds.features.Image(shape=(None, None, 1), dtype=np.float32)},
            np.float32(0.5), r"an Image of integers.*image \(Image <class 'numpy.float32'>",
        ),
        ({"label": tfds.features.Scalar(dtype=np.int64)}, np.uint8(20), r"label \(Scalar"),
        ({"label": tfds.features.Text()}, np.uint8(20), r"label \(Text"),
    ],
)  # fmt: skip
def test_other_features_are_named(squares, features, pixel, text):
    """A float image was read as zeros, and a tensor as a damaged file."""
    squares.setattr(CnnkitTinySquares, "FEATURES", features)
    squares.setattr(CnnkitTinySquares, "PIXEL", pixel)
    with pytest.raises(UsageError, match=text) as error:
        load_dataset("tfds:cnnkit_tiny_squares", download=True)
    assert "\n" not in str(error.value)


def test_test_images_without_classes_are_not_the_test_split(squares):
    """Those of ImageNet 2012 have the label -1; its validation images are the test images."""
    squares.setattr(CnnkitTinySquares, "SPLITS", {"train": 0, "validation": 0, "test": -1})
    source = load_dataset("tfds:cnnkit_tiny_squares", download=True)
    assert sorted(source.splits["test"].labels.tolist()) == [0] * 4 + [1] * 4
    assert len(source.splits["train"]) == 8
    assert list(source.left_out) == ["in the unused split test"]
    with pytest.raises(DataError, match="8 images of the split test.*have no class"):
        load_dataset("tfds:cnnkit_tiny_squares#test")


def test_a_third_split_is_said_and_can_be_held_out(squares):
    squares.setattr(CnnkitTinySquares, "SPLITS", {"train": 0, "validation": 0, "test": 0})
    source = load_dataset("tfds:cnnkit_tiny_squares", download=True)
    assert source.describe_left_out() == (
        "8 files left out: 8 in the unused split validation; "
        "tfds:cnnkit_tiny_squares#validation holds that split out"
    )
    other = load_dataset("tfds:cnnkit_tiny_squares#validation")
    assert other.spec == "tfds:cnnkit_tiny_squares#validation"
    assert list(other.left_out) == ["in the unused split test"]
    assert other.splits["train"].labels.tolist() == source.splits["train"].labels.tolist()
    with pytest.raises(UsageError, match="Unknown split to hold out 'none'.*one of test, valid"):
        load_dataset("tfds:cnnkit_tiny_squares#none")


def test_training_images_without_classes_are_refused(squares):
    squares.setattr(CnnkitTinySquares, "SPLITS", {"train": -1, "test": 0})
    with pytest.raises(DataError, match="8 images of the split train.*have no class.*0 to 1"):
        load_dataset("tfds:cnnkit_tiny_squares", download=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cnnkit_tiny_squares/smal", "tfds:cnnkit_tiny_squares/small, tfds:cnnkit_tiny_squares/l"),
        ("cnnkit_tiny_squares:9.9.9", "no such configuration or version.*only: 1.0.0"),
        ("cnnkit_tiny_squares/small:2.0.0", "versions 1.0.0"),
        ("cnnkit_tiny_squares/", "no such configuration or version"),
        ("a b", "tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:1.0.0"),
        ("cnnkit_tiny_squares/no=3", "unexpected keyword argument"),
        ("cnnkit_tiny_squarez", "Unknown dataset.*Did you mean tfds:cnnkit_tiny_squares"),
    ],
)
def test_unknown_variants_are_refused_in_one_line(squares, name, text):
    with pytest.raises(UsageError, match=text) as error:
        load_dataset(f"tfds:{name}", download=True)
    assert "\n" not in str(error.value)


def test_files_of_another_format_are_named(squares, tmp_path):
    load_dataset("tfds:cnnkit_tiny_squares", download=True)
    [info] = tmp_path.rglob("dataset_info.json")
    facts = json.loads(info.read_text())
    info.write_text(json.dumps({**facts, "fileFormat": "array_record"}))
    with pytest.raises(UsageError, match="prepared as array_record files.*tfds convert_format"):
        load_dataset("tfds:cnnkit_tiny_squares")


def test_archives_that_are_downloaded_by_hand_are_told(squares):
    def fail(self, manager):
        raise AssertionError("Manual directory x does not exist. Get a.tar\nfrom its page.")

    squares.setattr(CnnkitTinySquares, "_split_generators", fail)
    with pytest.raises(DataError, match="could not be prepared. Received: Manual directory x"):
        load_dataset("tfds:cnnkit_tiny_squares", download=True)


def stating(length):
    head = struct.pack("<Q", length)
    return head + struct.pack("<I", masked_crc(head))


def prepared(squares, folder):
    """Prepare a dataset with a third split, and return the file of its training images."""
    squares.setattr(CnnkitTinySquares, "SPLITS", {"train": 0, "validation": 0, "test": 0})
    load_dataset("tfds:cnnkit_tiny_squares", download=True)
    squares.setattr(
        "tensorflow_datasets.core.utils.file_utils.list_data_dirs", lambda: [str(folder)]
    )
    [file] = folder.rglob("*-train.tfrecord*")
    return file


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (stating(1 << 62) + bytes(100), "damaged or incomplete.*a record of 4,611,686,018"),
        (bytes(1000), "damaged or incomplete"),
        (None, "must be a regular file"),
    ],
)
def test_records_that_lie_are_not_read(squares, tmp_path, data, text):
    file = prepared(squares, tmp_path)
    file.unlink()
    file.mkdir() if data is None else file.write_bytes(data)
    with pytest.raises(DataError, match=text):
        load_dataset("tfds:cnnkit_tiny_squares")


def test_a_label_beyond_int32_is_no_class(squares, tmp_path):
    """2**32 became the class 0."""
    file = prepared(squares, tmp_path)
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(file))]
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            example = tf.train.Example.FromString(record)
            example.features.feature["label"].int64_list.value[:] = [2**32]
            writer.write(example.SerializeToString())
    with pytest.raises(DataError, match="absurd label.*Received: 4294967296"):
        load_dataset("tfds:cnnkit_tiny_squares")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda info: "[" * 10_000, "not a sensible JSON document"),
        (lambda info: "{}" + " " * (17 << 20), "too large"),
        (lambda info: json.dumps(info)[:-9], "not valid JSON"),
        (lambda info: json.dumps({**info, "splits": 5}), "The description of .* is damaged"),
    ],
)
def test_descriptions_are_checked_before_they_are_read(squares, tmp_path, change, text):
    prepared(squares, tmp_path)
    [info] = tmp_path.rglob("dataset_info.json")
    info.write_text(change(json.loads(info.read_text())))
    with pytest.raises(DataError, match=text) as error:
        load_dataset("tfds:cnnkit_tiny_squares")
    assert "\n" not in str(error.value)


def of_split(name, **fields):
    return lambda info: [one.update(fields) for one in info["splits"] if one["name"] == name]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (of_split("validation", shardLengths=["1000000000000"]), "split validation is damaged"),
        (of_split("train", filepathTemplate="{DATASET}/../../secret"), "outside of its dataset"),
    ],
)
def test_splits_are_those_beside_their_description(squares, tmp_path, change, text):
    """A number of images in the description is a number of names in memory."""
    prepared(squares, tmp_path)
    [info] = tmp_path.rglob("dataset_info.json")
    facts = json.loads(info.read_text())
    change(facts)
    info.write_text(json.dumps(facts))
    with pytest.raises(DataError, match=text):
        load_dataset("tfds:cnnkit_tiny_squares")


def test_no_module_is_imported_because_a_description_names_it(squares, tmp_path):
    prepared(squares, tmp_path)
    (tmp_path / "strangers_module.py").write_text("raise SystemExit('imported')")
    squares.syspath_prepend(tmp_path)
    [file] = tmp_path.rglob("features.json")
    features = json.loads(file.read_text())
    [image] = [part for part in features["featuresDict"]["features"].values() if "image" in part]
    assert image["pythonClassName"].startswith("tensorflow_datasets.")
    image["pythonClassName"] = "strangers_module.Image"
    file.write_text(json.dumps(features))
    with pytest.raises(DataError, match=r"names a class.*Received: .?strangers_module\.Image"):
        load_dataset("tfds:cnnkit_tiny_squares")
