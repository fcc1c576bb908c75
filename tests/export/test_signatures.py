"""What each signature of an exported model answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnkit.data import Augmentation, Decoding
from cnnkit.errors import UsageError
from cnnkit.export import ImageLimits, export
from cnnkit.export import signatures as signatures_module
from cnnkit.export.classifier import prepare_classifier
from cnnkit.export.invalid_inputs import large_png
from cnnkit.export.signature_context import SignatureContext
from cnnkit.export.signatures import get_signature
from cnnkit.visualize import deconvnet
from cnnkit.wire.pixels import find_invalid_pixel
from tests.helpers.exported_network import (
    LABELS,
    decode_reference,
    image_files,
    skip_output_check,
    small_alexnet,
)
from tests.helpers.graph_order import unordered_checks

pytestmark = pytest.mark.usefixtures("unoptimized")


def test_floats_answer_as_in_memory(model, signatures, rng):
    images = rng.uniform(0, 255, (3, 64, 64, 3)).astype("float32")
    answer = signatures["serving_default"](images=tf.constant(images))
    assert set(answer) == {"probabilities"}
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    assert np.ptp(expected[0]) > 0.01


def test_bytes_answer_as_in_memory(model, signatures):
    encoded = list(image_files())
    answer = signatures["serving_bytes"](image_bytes=tf.constant(encoded))
    assert set(answer) == {"probabilities"}
    expected = model(decode_reference(encoded), training=False).numpy()
    # JPEG and WebP decoders differ by rounding; the rest is exact.
    np.testing.assert_allclose(answer["probabilities"], expected, atol=2e-2)
    for i in (0, 2, 3, 4, 6):
        np.testing.assert_allclose(answer["probabilities"][i], expected[i], atol=1e-5)


def test_classify_sorts_the_labels(signatures):
    encoded = tf.constant(list(image_files())[:2])
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
    encoded = list(image_files())[:1]
    fc7 = keras.Model(model.inputs[0], model.get_layer("fc7").output)(
        decode_reference(encoded)
    ).numpy()
    answer = signatures["features_bytes"](image_bytes=tf.constant(encoded))["features"]
    np.testing.assert_allclose(answer, fc7 / np.linalg.norm(fc7, axis=1, keepdims=True), atol=1e-5)


def test_explanations_are_those_of_the_deconvnet(model, signatures):
    encoded = list(image_files())[:1] + list(image_files())[3:4]
    images = decode_reference(encoded)
    answer = signatures["explain_bytes"](image_bytes=tf.constant(encoded))
    expected = deconvnet(model, images, "probabilities")
    probabilities = model(images, training=False).numpy()
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


def test_the_largest_batch_is_answered(signatures):
    answer = signatures["features"](images=tf.zeros((256, 64, 64, 3)))
    assert len(answer["features"]) == 256


@pytest.mark.parametrize("count", [0, 257])
def test_a_batch_has_images_and_not_too_many(signatures, count):
    for name, given in (
        ("features", {"images": tf.zeros((count, 64, 64, 3))}),
        ("explain_bytes", {"image_bytes": tf.constant([b"x"] * count, tf.string)}),
    ):
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match=rf"a request has {count} images, and must have 1 to 256\]",
        ):
            signatures[name](**given)


@pytest.mark.parametrize("signature", ["serving_default", "features"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e5, 319.5, -65, 65535])
def test_invalid_pixels_are_refused_with_the_index_of_their_image(signatures, signature, value):
    images = np.full((4, 64, 64, 3), 100, np.float32)
    images[2, 5, 6, 1] = value
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        signatures[signature](images=tf.constant(images))
    # The same text as that of the client and of the embedded server.
    assert f"[{find_invalid_pixel(images)}]" in caught.value.message
    assert (
        f"[images[2]: pixels must be in 0..255 (-64 to 319 is accepted), received {value:g}]"
        in (caught.value.message)
    )


def test_pixels_that_interpolation_moved_out_of_the_range_are_accepted(model, signatures):
    images = np.full((2, 64, 64, 3), 100, np.float32)
    images[1, 0], images[1, 1] = -64, 319
    found = signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(found, model(images, training=False).numpy(), atol=1e-6)


def test_the_bad_file_of_a_request_is_named(signatures):
    good = list(image_files())
    for index, bad, text in (
        (0, b"text" * 20, "the file is none of JPEG, PNG, GIF, BMP and WebP"),
        (3, good[0][:20], "the file has 20 bytes, too few for its header of 33"),
        (7, large_png(20_000, 20_000), "the image has 20000 x 20000 pixels"),
    ):
        files = [*good[:index], bad, *good[index:], b"also bad" * 9]
        for name in ("serving_bytes", "classify_bytes", "features_bytes", "explain_bytes"):
            with pytest.raises(tf.errors.InvalidArgumentError) as caught:
                signatures[name](image_bytes=tf.constant(files))
            assert f"[image_bytes[{index}]: {text}" in caught.value.message


def test_the_pixels_of_all_files_of_a_request_are_limited(model, tmp_path, monkeypatch):
    skip_output_check(monkeypatch)
    folder = export(
        model, LABELS, tmp_path / "animals", signatures=["serving_bytes"],
        limits=ImageLimits(request_pixels=1_000_000),
    )  # fmt: skip
    loaded = tf.saved_model.load(str(folder))
    file = large_png(1000, 250)
    answer = loaded.signatures["serving_bytes"](image_bytes=tf.constant([file] * 4))
    assert answer["probabilities"].shape == (4, 6)
    text = "the 5 images of a request have 1250000 pixels together, and may have 1000000"
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        loaded.signatures["serving_bytes"](image_bytes=tf.constant([file] * 5))


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


@pytest.mark.parametrize("fully_convolutional", [False, True])
def test_no_network_or_decoder_runs_beside_a_check(model, fully_convolutional):
    network = prepare_classifier(model, fully_convolutional=fully_convolutional)
    context = SignatureContext(
        network, LABELS, Augmentation(64), 2, ImageLimits(), Decoding()
    )  # fmt: skip
    for check, name in (
        (context.check_images, "images"),
        (context.decode.python_function, "image_bytes"),
    ):
        assert unordered_checks(check, context.inputs[name]) == []


def test_larger_images_of_a_fully_convolutional_export(model, tmp_path, monkeypatch):
    skip_output_check(monkeypatch)
    folder = export(
        model, LABELS, tmp_path / "animals", fully_convolutional=True,
        limits=ImageLimits(free_pixels=7 * 64 * 80), signatures=["serving_bytes", "features"],
    )  # fmt: skip
    loaded = tf.saved_model.load(str(folder))
    default = loaded.signatures["serving_default"]
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = model(images, training=False).numpy()
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
    for shape, text in (
        ((1, 32, 64, 3), "images of 32 x 64 pixels are too small; each side must be at least 64"),
        ((1, 300, 200, 3), r"1 x 300 x 200 pixels \(images x height x width\) are too many"),
        # Each image is small enough, all of them are not.
        ((8, 64, 80, 3), r"8 x 64 x 80 pixels .* are too many; a request may have 35840"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=text):
            default(images=tf.zeros(shape))
    assert default(images=tf.zeros((7, 64, 80, 3)))["probabilities"].shape == (7, 6)


def test_every_signature_has_the_input_and_outputs_of_the_table(exported, signatures):
    for name, function in signatures.items():
        if name == "loaded":
            continue
        spec = get_signature(name)
        assert list(function.structured_input_signature[1]) == [spec.input_name]
        assert set(function.structured_outputs) == set(spec.outputs)


def test_an_unknown_signature_is_named():
    with pytest.raises(UsageError, match="Unknown signature 'feature'.*Did you mean features"):
        get_signature("feature")


def test_networks_without_a_deconvnet_have_no_explain_signature():
    bent = small_alexnet(activation="tanh")
    network = prepare_classifier(bent)
    assert "explain_bytes" not in signatures_module.select_signatures(network, None)
    with pytest.raises(UsageError, match="does not support the backward rule 'deconvnet'"):
        signatures_module.select_signatures(network, ["explain_bytes"])


@pytest.mark.parametrize("regression", ["per-class", "single"])
def test_boxes_are_told_in_pixels_of_the_image_sent(regression, tmp_path):
    from tests.helpers.boxes import square_finder, square_image

    crop = Augmentation(16, scale=(32, 32), flip=True)
    network = square_finder(regression)
    version = export(network, ("nothing", "square"), tmp_path / "boxes", augmentation=crop,
                     signatures=["localize_bytes"], warmup=0)  # fmt: skip
    localize = tf.saved_model.load(str(version)).signatures["localize_bytes"]
    # The second square is of twice the size in an image of twice the size, cut at the edge of the
    # image and not at that of the crop, which is mirrored in training only.
    images = [square_image(44, 32, 20, 12), square_image(64, 80, 24, 32, side=8)]
    files = tf.constant([tf.io.encode_png(one).numpy() for one in images])
    answer = {name: value.numpy() for name, value in localize(image_bytes=files).items()}
    assert answer["labels"].tolist() == [[b"square", b"nothing"]] * 2
    np.testing.assert_allclose(answer["scores"], [[1, 0]] * 2, atol=1e-6)
    assert answer["boxes"].shape == (2, 2, 4)
    np.testing.assert_allclose(answer["boxes"][0, 0], (20, 12, 24, 16), atol=1e-3)
    np.testing.assert_allclose(answer["boxes"][1, 0], (24, 32, 32, 40), atol=0.6)
    # The network in memory gives the same boxes, also of the second class.
    from cnnkit.evaluation import ImageClassifier, Localizer

    localizer = Localizer(ImageClassifier(network, augmentation=crop))
    for image, boxes in zip(images, answer["boxes"], strict=True):
        np.testing.assert_allclose(boxes, localizer.boxes(image, [1, 0]), atol=1e-3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes"):
        localize(image_bytes=tf.constant([b"no image"]))


def test_only_a_network_with_boxes_has_the_signature(model, tmp_path):
    with pytest.raises(UsageError, match="has no boxes for localize_bytes"):
        export(model, LABELS, tmp_path / "m", signatures=["localize_bytes"])
