"""TensorFlow Datasets."""

import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import load_dataset
from cnnkit.errors import UsageError


def test_tfds_that_is_prepared(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

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
    with pytest.raises(UsageError, match="not prepared on this machine.*Pass --download"):
        load_dataset("tfds:cnnkit_tiny_shapes")
    source = load_dataset("tfds:cnnkit_tiny_shapes", download=True)
    assert source.class_names == ("dark", "light")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 6, "test": 2}
    for split in source.splits.values():
        for i, label in enumerate(split.labels):
            assert split.load_image(tf.constant(i, tf.int64)).numpy().mean() == 20 + 200 * label
    assert load_dataset("tfds:cnnkit_tiny_shapes").fingerprint == source.fingerprint
