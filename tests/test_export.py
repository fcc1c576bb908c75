import io
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit import alexnet
from cnnkit import export as export_module
from cnnkit.data import fit
from cnnkit.errors import RunError, UsageError
from cnnkit.export import export

LABELS = ["ant", "bee", "cat", "dog", "elk", "fox"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return alexnet(input_shape=(64, 64, 3), classes=6, initializer="glorot")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(model, LABELS, tmp_path_factory.mktemp("models") / "animals")


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported))
    # The functions live as long as what they were loaded with.
    return {"loaded": loaded, **loaded.signatures}


def files():
    y, x = np.mgrid[0:90, 0:120]
    rgb = np.stack([x * 2, y * 2, (x * y) % 256], -1).astype(np.uint8)
    for kind, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("PNG", "L"), ("BMP", "RGB"),
                       ("GIF", "RGB"), ("WEBP", "RGB"), ("PNG", "RGBA")):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(rgb).convert(mode).save(file, kind)
        yield file.getvalue()


def test_floats_answer_as_in_memory(model, signatures, rng):
    images = rng.uniform(0, 255, (3, 64, 64, 3)).astype("float32")
    answer = signatures["serving_default"](images=tf.constant(images))
    assert set(answer) == {"probabilities"}
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    assert np.ptp(expected[0]) > 0.01


def test_bytes_answer_as_in_memory(model, signatures):
    encoded = list(files())
    answer = signatures["serving_bytes"](image_bytes=tf.constant(encoded))
    assert set(answer) == {"probabilities"}
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded]
    expected = model.predict(np.stack([fit(tf.constant(p), 64) for p in pixels]), verbose=0)
    # JPEG and WebP decoders differ by rounding; the rest is exact.
    np.testing.assert_allclose(answer["probabilities"], expected, atol=2e-2)
    for i in (0, 2, 3, 4, 6):
        np.testing.assert_allclose(answer["probabilities"][i], expected[i], atol=1e-5)


def test_classify_sorts_the_labels(signatures):
    encoded = tf.constant(list(files())[:2])
    probabilities = signatures["serving_bytes"](image_bytes=encoded)["probabilities"].numpy()
    answer = signatures["classify_bytes"](image_bytes=encoded)
    assert answer["labels"].shape == answer["scores"].shape == (2, 5)
    for row, names, scores in zip(
        probabilities, answer["labels"].numpy(), answer["scores"].numpy(), strict=True
    ):
        order = np.argsort(-row)[:5]
        assert [name.decode() for name in names] == [LABELS[i] for i in order]
        np.testing.assert_allclose(scores, row[order], atol=1e-6)


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("serving_default", {"images": tf.zeros((64, 64, 3))}),
        ("serving_default", {"images": tf.zeros((1, 32, 64, 3))}),
        ("serving_default", {"images": tf.zeros(())}),
        ("serving_bytes", {"image_bytes": tf.constant("x")}),
        ("serving_bytes", {"image_bytes": tf.constant([b"no image"])}),
        ("classify_bytes", {"image_bytes": tf.constant([["x"]])}),
    ],
)
def test_wrong_inputs_are_errors_and_no_crash(signatures, signature, inputs):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        signatures[signature](**inputs)


def test_every_weight_is_stored_once(model, exported):
    stored = sum(file.stat().st_size for file in (exported / "variables").iterdir())
    assert stored <= 1.05 * 4 * model.count_params()


def test_labels_are_an_asset(exported):
    assert (exported / "assets" / "labels.txt").read_text().split() == LABELS


def test_loads_without_keras_and_without_us(exported):
    code = (
        "import sys; sys.modules['keras'] = None; sys.modules['cnnkit'] = None\n"
        "import tensorflow as tf\n"
        f"f = tf.saved_model.load({str(exported)!r}).signatures['serving_default']\n"
        "print(f(images=tf.zeros((2, 64, 64, 3)))['probabilities'].shape)"
    )
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(2, 6)"


def test_versions_count_up_and_nothing_else_is_left(model, tmp_path):
    output = tmp_path / "animals"
    (output / "7").mkdir(parents=True)
    (output / "notes").mkdir()
    assert export(model, LABELS, output).name == "8"
    assert sorted(path.name for path in output.iterdir()) == ["7", "8", "notes"]


def test_a_difference_is_found_and_nothing_is_published(model, tmp_path, monkeypatch):
    """A decoder that brightens every image: the bytes answer otherwise than the model."""
    monkeypatch.setattr(export_module, "fit", lambda image, size: fit(image, size) * 0.5)
    with pytest.raises(RunError, match="serving_bytes answers otherwise than the model"):
        export(model, LABELS, tmp_path / "animals")
    assert list((tmp_path / "animals").iterdir()) == []


def test_wrong_exports_are_refused(model, tmp_path):
    with pytest.raises(UsageError, match="Expected: 6 labels. Received: 2"):
        export(model, ["a", "b"], tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="The model folder is a file"):
        export(model, LABELS, tmp_path / "file")
    free = alexnet(include_top=False, pooling="avg")
    with pytest.raises(UsageError, match="built for one image size"):
        export(free, ["x"] * 256, tmp_path / "free")
    assert not (tmp_path / "free").exists() or not list((tmp_path / "free").iterdir())
