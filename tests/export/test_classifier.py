"""Preparation of a classifier: probabilities, features, dtype."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.export import export
from cnnkit.export.classifier import prepare_classifier
from cnnkit.models import build
from tests.helpers.exported_network import (
    LABELS,
    decode_reference,
    image_files,
    skip_output_check,
)

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.mark.parametrize(
    ("name", "layer"),
    [("alexnet", "fc7"), ("vgg11", "fc2"), ("zfnet", "fc7"), ("cifar10_quick", "fc4"),
     ("alexnet_torchvision", "fc7")],
)  # fmt: skip
def test_features_are_the_layer_before_the_logits(name, layer):
    options = {} if "cifar" in name else {"input_shape": (64, 64, 3)}
    assert prepare_classifier(build(name, classes=3, **options)).features_layer == layer


def test_half_the_bytes_in_bfloat16(model, tmp_path):
    folder = export(
        model, LABELS, tmp_path / "animals", dtype="bfloat16", warmup=0,
        signatures=["serving_bytes"], explain_layers=["conv3"],
    )  # fmt: skip
    stored = sum(file.stat().st_size for file in (folder / "variables").iterdir())
    assert stored <= 1.05 * 2 * model.count_params() + 4096
    loaded = tf.saved_model.load(str(folder))
    encoded = list(image_files())
    answer = loaded.signatures["serving_bytes"](image_bytes=tf.constant(encoded))["probabilities"]
    assert answer.dtype == tf.float32
    expected = model(decode_reference(encoded), training=False).numpy()
    np.testing.assert_allclose(answer, expected, atol=3e-2)
    assert np.abs(answer - expected).max() > 1e-6


def test_a_model_that_ends_in_logits_answers_probabilities(tmp_path, monkeypatch):
    skip_output_check(monkeypatch)
    keras.utils.set_random_seed(0)
    model = build("cifar10_quick", classes=3, classifier_activation=None)
    folder = export(
        model, ["a", "b", "c"], tmp_path / "letters", top=2, signatures=["classify_bytes"]
    )
    loaded = tf.saved_model.load(str(folder))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    answer = loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(
        answer, keras.ops.softmax(model(images, training=False).numpy()), atol=1e-5
    )
    classified = loaded.signatures["classify_bytes"](
        image_bytes=tf.constant(list(image_files())[:1])
    )
    assert classified["labels"].shape == (1, 2)
