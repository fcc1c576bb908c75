"""Exported versions: what they answer, what they hold, and how they appear."""

import importlib
import io
import json
import os
import resource
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cnnkit import alexnet
from cnnkit.data import Augmentation, resize_shorter_side
from cnnkit.errors import RunError, UsageError
from cnnkit.export import ImageLimits, export, signature_context
from cnnkit.export import signatures as signatures_module
from cnnkit.export.classifier import prepare_classifier
from cnnkit.export.reference_outputs import CREDIT, ReferenceOutputs
from cnnkit.models import build
from cnnkit.visualize import deconvnet

export_module = importlib.import_module("cnnkit.export.export")

LABELS = ["ant", "bee", "cat", "dog", "elk", "fox"]


def small(**options):
    keras.utils.set_random_seed(0)
    return alexnet(
        input_shape=(64, 64, 3), classes=6, initializer="glorot", hidden_units=32, **options
    )


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(
        model,
        LABELS,
        tmp_path_factory.mktemp("models") / "animals",
        explain_layers=["conv5", "fc6"],
        warmup=2,
    )


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


def seen(encoded):
    """What the network sees of encoded images, by another decoder."""
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded]
    return np.stack([resize_shorter_side(tf.constant(p), 64) for p in pixels])


def quick(monkeypatch):
    """Leaves out the check in another process, for tests of what is not about it."""
    monkeypatch.setattr(export_module, "_check_outputs", lambda *_: None)


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
    expected = model.predict(seen(encoded), verbose=0)
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


def test_features_are_fc7_of_length_one(model, signatures, rng):
    images = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    fc7 = keras.Model(model.inputs[0], model.get_layer("fc7").output)(images).numpy()
    expected = fc7 / np.linalg.norm(fc7, axis=1, keepdims=True)
    answer = signatures["features"](images=tf.constant(images))["features"]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    encoded = list(files())[:1]
    fc7 = keras.Model(model.inputs[0], model.get_layer("fc7").output)(seen(encoded)).numpy()
    answer = signatures["features_bytes"](image_bytes=tf.constant(encoded))["features"]
    np.testing.assert_allclose(answer, fc7 / np.linalg.norm(fc7, axis=1, keepdims=True), atol=1e-5)


def test_explanations_are_those_of_the_deconvnet(model, signatures):
    encoded = list(files())[:1] + list(files())[3:4]
    images = seen(encoded)
    answer = signatures["explain_bytes"](image_bytes=tf.constant(encoded))
    expected = deconvnet(model, images, "probabilities")
    probabilities = model.predict(images, verbose=0)
    for i, one in enumerate(expected):
        scale = np.abs(one.projection).max()
        assert scale > 0
        np.testing.assert_allclose(answer["projection"][i], one.projection, atol=1e-4 * scale)
        assert answer["labels"][i].numpy().decode() == LABELS[probabilities[i].argmax()]
        np.testing.assert_allclose(answer["scores"][i], probabilities[i].max(), atol=1e-6)
    np.testing.assert_array_equal(answer["image"], np.round(images))
    answer = signatures["explain_bytes_conv5"](image_bytes=tf.constant(encoded))
    for i, one in enumerate(deconvnet(model, images, "conv5")):
        assert answer["unit"][i] == one.unit
        assert tuple(answer["position"][i].numpy()) == one.position
        np.testing.assert_allclose(answer["activation"][i], one.activation, rtol=1e-5)
        scale = np.abs(one.projection).max()
        np.testing.assert_allclose(answer["projection"][i], one.projection, atol=1e-4 * scale)
    dense = signatures["explain_bytes_fc6"](image_bytes=tf.constant(encoded))
    assert dense["position"].shape == (2, 0)
    assert [int(unit) for unit in dense["unit"]] == [
        one.unit for one in deconvnet(model, images, "fc6")
    ]


@pytest.mark.parametrize("count", [0, 257])
def test_a_batch_has_images_and_not_too_many(signatures, count):
    for name, given in (
        ("features", {"images": tf.zeros((count, 64, 64, 3))}),
        ("explain_bytes", {"image_bytes": tf.constant([b"x"] * count, tf.string)}),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"no image or too many.*{count}"):
            signatures[name](**given)


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("serving_default", {"images": tf.zeros((64, 64, 3))}),
        ("serving_default", {"images": tf.zeros((1, 32, 64, 3))}),
        ("serving_default", {"images": tf.zeros(())}),
        ("features", {"images": tf.zeros((1, 64, 64, 1))}),
        ("serving_bytes", {"image_bytes": tf.constant("x")}),
        ("serving_bytes", {"image_bytes": tf.constant([b"no image"])}),
        ("classify_bytes", {"image_bytes": tf.constant([["x"]])}),
        ("explain_bytes", {"image_bytes": tf.constant([b"\x89PNG\r\n\x1a\n"])}),
    ],
)
def test_wrong_inputs_are_errors_and_no_crash(signatures, signature, inputs):
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        signatures[signature](**inputs)


def test_every_weight_is_stored_once(model, exported):
    stored = sum(file.stat().st_size for file in (exported / "variables").iterdir())
    assert stored <= 1.05 * 4 * model.count_params()


def test_assets_and_the_card(model, exported):
    assert (exported / "assets" / "labels.txt").read_text().split() == LABELS
    facts = json.loads((exported / "assets" / "preprocessing.json").read_text())
    assert facts["side"] == facts["shorter_side_before_crop"] == 64
    assert facts["features_layer"] == "fc7"
    assert facts["mean"] == pytest.approx(model.layers[1].mean.tolist(), abs=1e-3)
    assert facts["limits"]["pixels"] == ImageLimits().pixels
    card = (exported / "README.md").read_text()
    for text in (
        "# animals",
        f"alexnet, {model.count_params():,} parameters, float32",
        "6: ant, bee, cat, dog, elk, fox",
        "| `classify_bytes` | `image_bytes` string (n,) | `labels` string (n, 5), `scores` float32",
        "`projection` float32 (n, 64, 64, 3)",
        "cnnkit serve models/animals",
        CREDIT,
    ):  # fmt: skip
        assert text in card


def test_references_are_real_photographs(exported):
    kept = ReferenceOutputs.read(exported)
    first, second = (Image.open(io.BytesIO(file)) for file in kept.files)
    assert (first.format, second.format) == ("JPEG", "PNG")
    assert min(first.size) == min(second.size) == 80
    # Sky above roofs, and a flower: not noise.
    assert np.asarray(first.convert("L"), float)[:20].mean() > 150
    assert kept.images.shape == (2, 64, 64, 3)
    assert set(kept.outputs) == {
        *signatures_module.SIGNATURES,
        "explain_bytes_conv5",
        "explain_bytes_fc6",
    }


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


def test_versions_count_up_and_nothing_else_is_left(model, tmp_path, monkeypatch):
    quick(monkeypatch)
    output = tmp_path / "animals"
    (output / "7").mkdir(parents=True)
    (output / "notes").mkdir()
    only = {"signatures": ["serving_default"], "warmup": 0}
    assert export(model, LABELS, output, **only).name == "8"
    assert export(model, LABELS, output, version=3, **only).name == "3"
    assert sorted(path.name for path in output.iterdir()) == ["3", "7", "8", "notes"]
    assert not (output / "3" / "assets.extra" / "tf_serving_warmup_requests").exists()
    with pytest.raises(UsageError, match="Version 3 exists"):
        export(model, LABELS, output, version=3)


def test_two_exports_at_once_get_two_versions(model, tmp_path, monkeypatch):
    quick(monkeypatch)
    output, made = tmp_path / "animals", []
    together = threading.Barrier(2)
    publish = export_module.publish_version

    def at_once(*arguments):
        together.wait(timeout=120)
        return publish(*arguments)

    monkeypatch.setattr(export_module, "publish_version", at_once)
    threads = [
        threading.Thread(
            target=lambda: made.append(
                export(model, LABELS, output, signatures=["serving_default"])
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(folder.name for folder in made) == ["1", "2"]
    assert sorted(path.name for path in output.iterdir()) == ["1", "2"]
    for folder in made:
        assert (folder / "saved_model.pb").is_file()


@pytest.mark.parametrize("most", [1 << 10, 1 << 20])
def test_a_full_disk_leaves_nothing(model, tmp_path, most, monkeypatch):
    """No file of this process may grow beyond `most` bytes: the weights do not fit."""
    quick(monkeypatch)
    output = tmp_path / "animals"
    (output / "1").mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(RunError, match="could not be written.*Make room there"):
            export(model, LABELS, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in output.iterdir()] == ["1"]


def test_a_difference_is_found_and_nothing_is_published(model, tmp_path, monkeypatch):
    """A decoder that darkens every image: the bytes answer otherwise than the model."""
    right = signature_context.augment_bytes
    monkeypatch.setattr(signature_context, "augment_bytes", lambda *given: right(*given) * 0.5)
    with pytest.raises(RunError, match="signature serving_bytes differ from the model's"):
        export(model, LABELS, tmp_path / "animals", signatures=["serving_bytes"])
    assert not (tmp_path / "animals").exists()


def test_wrong_exports_are_refused(model, tmp_path):
    with pytest.raises(UsageError, match="Expected: 6 labels. Received: 2"):
        export(model, ["a", "b"], tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="`output` must be a model folder, not a file"):
        export(model, LABELS, tmp_path / "file")
    free = alexnet(include_top=False, pooling="avg")
    with pytest.raises(UsageError, match="built for one image size"):
        export(free, ["x"] * 256, tmp_path / "free")
    for options, text in (
        ({"dtype": "float16"}, "Unknown dtype 'float16'"),
        ({"signatures": ["explain"]}, "Did you mean explain_bytes"),
        ({"explain_layers": ["conv9"]}, "Unknown layer 'conv9'"),
        ({"features_layer": "fc9"}, "Unknown layer 'fc9'"),
        ({"top": 0}, "`top` must be 1 or more"),
        ({"version": 0}, "`version` must be 1 or more"),
        ({"warmup": 500}, r"`warmup` must be in 0..166 for 6 signatures.*Received: 500"),
        ({"augmentation": Augmentation(32)}, "Expected: 64 pixels. Received: 32"),
    ):
        with pytest.raises(UsageError, match=text):
            export(model, LABELS, tmp_path / "free", **options)
    with pytest.raises(UsageError, match="`pixels` must be 1 or more"):
        ImageLimits(pixels=0)
    assert not (tmp_path / "free").exists()


def test_what_the_deconvnet_cannot_follow_is_not_explained(tmp_path, monkeypatch):
    quick(monkeypatch)
    bent = small(activation="tanh")
    network = prepare_classifier(bent)
    assert "explain_bytes" not in signatures_module.select_signatures(network, None)
    with pytest.raises(UsageError, match="does not support the backward rule 'deconvnet'"):
        signatures_module.select_signatures(network, ["explain_bytes"])


@pytest.mark.parametrize(
    ("name", "layer"),
    [("alexnet", "fc7"), ("vgg11", "fc2"), ("zfnet", "fc7"), ("cifar10_quick", "fc4"),
     ("alexnet_torchvision", "fc7")],
)  # fmt: skip
def test_features_are_the_layer_before_the_logits(name, layer):
    options = {} if "cifar" in name else {"input_shape": (64, 64, 3)}
    assert prepare_classifier(build(name, classes=3, **options)).features_layer == layer


def test_half_the_bytes_in_bfloat16(model, tmp_path):
    folder = export(model, LABELS, tmp_path / "animals", dtype="bfloat16", explain_layers=["conv3"])
    stored = sum(file.stat().st_size for file in (folder / "variables").iterdir())
    assert stored <= 1.05 * 2 * model.count_params() + 4096
    loaded = tf.saved_model.load(str(folder))
    encoded = list(files())
    answer = loaded.signatures["serving_bytes"](image_bytes=tf.constant(encoded))["probabilities"]
    assert answer.dtype == tf.float32
    expected = model.predict(seen(encoded), verbose=0)
    np.testing.assert_allclose(answer, expected, atol=3e-2)
    assert np.abs(answer - expected).max() > 1e-6


def test_larger_images_of_a_fully_convolutional_export(model, tmp_path):
    folder = export(
        model, LABELS, tmp_path / "animals", fully_convolutional=True,
        limits=ImageLimits(free_pixels=200 * 200), signatures=["serving_bytes", "features"],
    )  # fmt: skip
    loaded = tf.saved_model.load(str(folder))
    default = loaded.signatures["serving_default"]
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        default(images=tf.constant(images))["probabilities"], expected, atol=1e-5
    )
    wide = np.random.default_rng(1).uniform(0, 255, (1, 96, 160, 3)).astype("float32")
    answer = default(images=tf.constant(wide))
    assert answer["probability_map"].shape == (1, 2, 4, 6)
    np.testing.assert_allclose(
        answer["probabilities"], answer["probability_map"].numpy().mean(axis=(1, 2)), atol=1e-6
    )
    length = np.linalg.norm(loaded.signatures["features"](images=tf.constant(wide))["features"])
    assert length == pytest.approx(1, abs=1e-5)
    for shape in ((1, 32, 64, 3), (1, 300, 200, 3)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too few or too many pixels"):
            default(images=tf.zeros(shape))


def test_a_model_that_ends_in_logits_answers_probabilities(tmp_path):
    keras.utils.set_random_seed(0)
    model = build("cifar10_quick", classes=3, classifier_activation=None)
    folder = export(
        model, ["a", "b", "c"], tmp_path / "letters", top=2, signatures=["classify_bytes"]
    )
    loaded = tf.saved_model.load(str(folder))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    answer = loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(
        answer, keras.ops.softmax(model.predict(images, verbose=0)), atol=1e-5
    )
    classified = loaded.signatures["classify_bytes"](image_bytes=tf.constant(list(files())[:1]))
    assert classified["labels"].shape == (1, 2)
