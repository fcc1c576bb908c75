"""classify, features and explain with pixels and with encoded images, and models."""

import warnings

import numpy as np
import pytest

from cnnkit.client import Client, InvalidRequest, Prediction, Signature, TensorSpec
from cnnkit.client.image_calls import (
    check_pixels,
    check_top,
    decode_text,
    output_class_count,
    read_images,
    select_signature,
    top_k_from_labels,
    top_k_from_probabilities,
)
from cnnkit.errors import DataError, UsageError
from cnnkit.wire.dtypes import TensorError

BRIGHT, DARK = np.full((2, 2, 3), 204, np.uint8), np.full((2, 2, 3), 51.0)


def near(predictions):
    return [
        [(one.label, pytest.approx(one.probability, abs=1e-6)) for one in row]
        for row in predictions
    ]


def test_classify_pixels(client, model):
    found = client.classify(np.stack([BRIGHT, DARK]), model="hours")
    assert near(found) == [
        [("class 0", 0.8), ("class 1", 0.2)],
        [("class 1", 0.8), ("class 0", 0.2)],
    ]
    [(signature, _)] = model.asked
    assert signature == "serving_default"
    # One image alone, and a list of arrays.
    assert near(client.classify(BRIGHT, model="hours", top=1)) == [[("class 0", 0.8)]]
    assert near(client.classify([DARK, DARK], model="hours", top=1)) == [[("class 1", 0.8)]] * 2


def test_classify_encoded_in_parts(client, model):
    found = client.classify([b"B1", b"n2", b"B3"], model="hours", top=1, batch_size=2)
    day, night = Prediction("day", 0.75), Prediction("night", 0.75)
    assert found == [[day], [night], [day]]
    assert sorted(images for _, images in model.asked) == [[b"B1", b"n2"], [b"B3"]]


def test_one_image_that_is_none_fails_all(client):
    with pytest.raises(InvalidRequest, match="Unknown image file format"):
        client.classify([b"B1", b"X"], model="hours")


def test_features_of_pixels_and_of_files(client, model, tmp_path):
    pixels = client.features([BRIGHT, BRIGHT], model="hours")
    np.testing.assert_allclose(pixels, [[0.8, 0.2]] * 2, rtol=1e-6)
    (tmp_path / "b.png").write_bytes(b"B")
    files = client.features([tmp_path / "b.png", b"night"], model="hours", batch_size=1)
    assert files.dtype == np.float32
    assert files.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert [name for name, _ in model.asked] == ["features", "features_bytes", "features_bytes"]


def test_explain_the_winning_class(client, model):
    day, night = client.explain([b"B", b"n"], model="hours")
    assert (day.label, day.score, night.label, night.score) == ("day", 0.75, "night", 0.75)
    assert day.projection.shape == day.image.shape == (6, 6, 3)
    assert day.projection[2, 0].tolist() == [1, -1, 1]
    assert not day.projection[:2].any()
    assert day.image.dtype == np.uint8
    assert (day.image == 200).all()
    assert set(day.outputs) == {"labels", "scores", "projection", "image"}
    assert model.asked == [("explain_bytes", [b"B", b"n"])]


def test_explain_a_layer(client):
    first, second = client.explain([b"B", b"n"], model="hours", layer="conv1")
    assert first.label is first.score is None
    assert [int(one.outputs["unit"]) for one in (first, second)] == [7, 8]
    assert [float(one.outputs["activation"]) for one in (first, second)] == [2.5, 3.5]


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, -3e38, 65535, -104])
def test_pixels_out_of_range_are_not_sent(client, model, value):
    images = np.full((2, 2, 2, 3), 100.0)
    images[1, 1, 0, 2] = value
    for call in (client.classify, client.features):
        with pytest.raises(UsageError) as caught:
            call(images, model="hours")
        assert str(caught.value) == (
            f"images[1]: pixels must be in 0..255 (-64 to 319 is accepted), received {value:g}."
        )
    assert model.asked == []


@pytest.mark.parametrize(
    "images",
    [
        np.linspace(0, 1, 12).reshape(1, 2, 2, 3),
        np.linspace(-1, 1, 12).reshape(1, 2, 2, 3),
        np.linspace(-2.1, 2.6, 12, dtype=np.float16).reshape(1, 2, 2, 3),
    ],
)
def test_normalized_pixels_are_sent_with_a_warning(client, images):
    with pytest.warns(UserWarning, match=r"as after a normalization; .* expect pixels in 0..255"):
        client.classify(images, model="hours")


@pytest.mark.parametrize("images", [np.zeros((1, 2, 2, 3)), np.uint8([[[[0, 1, 2]] * 2] * 2])])
def test_dark_images_are_no_reason_for_a_warning(client, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.classify(images, model="hours")


def test_what_the_model_does_not_offer(client, model):
    with pytest.raises(UsageError, match="explain_bytes_conv9"):
        client.explain(b"B", model="hours", layer="conv9")
    with pytest.raises(
        UsageError, match=r"does not accept arrays for this call.*Send encoded images"
    ):
        client.explain(BRIGHT, model="hours")
    assert model.asked == []


def test_pixels_of_another_size_are_not_sent(client, model):
    with pytest.raises(UsageError, match=r"wrong shape.*\[1, 3, 2, 3\]"):
        client.classify(np.zeros((3, 2, 3)), model="hours")
    with pytest.raises(
        UsageError, match="`images` must be paths and bytes, or arrays of the same shape"
    ):
        client.features([BRIGHT, b"B"], model="hours")
    assert model.asked == []


def test_models(client):
    found = client.models(["hours", "absent"])
    assert list(found) == ["hours", "absent"]
    assert [(one.version, one.state) for one in found["hours"]] == [(3, "AVAILABLE")]
    assert found["absent"] == []
    assert list(client.models("hours")) == ["hours"]


@pytest.mark.parametrize(
    ("images", "kind", "text"),
    [
        (["no/such.png"], UsageError, "`images` must be existing files, received no/such.png"),
        ([], UsageError, "`images` must hold at least one image"),
        ([b""], DataError, "`images` must not hold empty bytes"),
        ([3], UsageError, "`images` must be paths, bytes or arrays. Received: int"),
        (["."], DataError, "cannot be read"),
    ],
)
def test_wrong_images_need_no_server(images, kind, text):
    with Client("localhost:1") as client, pytest.raises(kind) as caught:
        client.classify(images, model="colors")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((4, 5, 3)), (1, 4, 5, 3)),
        (np.zeros((2, 4, 5, 3)), (2, 4, 5, 3)),
        (np.zeros((5, 3)), (5, 3)),
        ([np.zeros((4, 5, 3))] * 2, (2, 4, 5, 3)),
        (iter([np.zeros((4, 5, 3))]), (1, 4, 5, 3)),
        (b"a", [b"a"]),
        ([b"a", b"bc"], [b"a", b"bc"]),
        (np.array([b"a", b"b\0"], object), [b"a", b"b\0"]),
    ],
)
def test_images_become_one_batch(images, found):
    batch = read_images(images)
    if isinstance(found, tuple):
        assert batch.shape == found
    else:
        assert (batch.dtype, batch.tolist()) == (np.dtype(object), found)


def test_files_become_one_batch(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    paths = [tmp_path / "a", str(tmp_path / "b")]
    assert read_images(paths).tolist() == [b"a", b"b"]
    assert read_images(np.array([str(tmp_path / "b")])).tolist() == [b"b"]
    assert read_images(paths[0]).tolist() == [b"a"] == read_images(str(paths[0])).tolist()
    (tmp_path / "none").write_bytes(b"")
    with pytest.raises(DataError, match="none must not be empty. Received: 0 bytes"):
        read_images([*paths, tmp_path / "none"])
    with pytest.raises(UsageError) as caught:
        read_images([np.zeros((2, 2, 3)), np.zeros((1, 2, 3)), np.zeros((2, 2, 3))])
    assert str(caught.value) == (
        "`images` must be paths and bytes, or arrays of the same shape. "
        "Received: (1, 2, 3), (2, 2, 3)."
    )


@pytest.mark.parametrize(
    ("least", "largest", "warns"),
    [(0, 3, True), (-3, 0.5, True), (0, 3.01, False), (-3.01, 0.5, False), (-64, 319, False)],
)
def test_values_that_look_normalized(least, largest, warns):
    """Within 3, and not all whole."""
    batch = np.array([least, largest, 0.25])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_pixels(batch)
        # Nothing to look at: whole numbers, files, flags, and no image at all.
        for other in (np.float32([0, 3]), np.array([b"a"], object), np.array([True]), batch[:0]):
            check_pixels(other)
    assert [f"{one.message}"[:30] for one in told] == (
        [f"`images` hold values in {least:.3g}..{largest:.3g}, as after"[:30]] if warns else []
    )


def signature_of(*dtypes):
    return Signature({str(n): TensorSpec(dtype, (None,)) for n, dtype in enumerate(dtypes)}, {})


def test_the_first_signature_that_takes_such_images():
    pixels, files = np.zeros((1, 2, 2, 3)), read_images(b"a")
    known = {
        "two": signature_of("string", "string"),
        "b": signature_of("string"),
        "a": signature_of("string"),
        "p": signature_of("float32"),
    }
    names = ["none", "two", "p", "a", "b"]
    assert select_signature(known, names, files, "m") == "a"
    assert select_signature(known, iter(names), pixels, "m") == "p"
    with pytest.raises(UsageError) as caught:
        select_signature(known, ["a", "b"], pixels, "m")
    assert str(caught.value) == (
        "Model 'm' does not accept arrays for this call. Expected: a signature a or b. "
        "Received: two, b, a, p. Send encoded images."
    )
    with pytest.raises(UsageError) as caught:
        select_signature({}, ["a"], files, "m")
    assert str(caught.value) == (
        "Model 'm' does not accept encoded images for this call. Expected: a signature a. "
        "Received: none. Export the model with that signature."
    )


def test_how_many_classes_may_be_asked_for():
    for top, count in ((None, None), (None, 0), (1, 1), (9, None), (10, 10)):
        check_top(top, count, "m")
    for top, count, text in (
        (0, 10, "`top` must be positive. Expected: top >= 1. Received: 0."),
        (
            11,
            10,
            "`top` must not exceed the 10 classes that model 'm' returns. Expected: top <= 10. "
            "Received: 11.",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            check_top(top, count, "m")
        assert str(caught.value) == text
    labels, probabilities = TensorSpec("string", (None, 3)), TensorSpec("float32", (None, 7))
    for outputs, count in (
        ({"labels": labels, "probabilities": probabilities}, 3),
        ({"probabilities": probabilities}, 7),
        ({"labels": TensorSpec("string", (None, None))}, None),
        ({"labels": TensorSpec("string", None)}, None),
        ({"labels": TensorSpec("string", ())}, None),
        ({"other": probabilities}, None),
    ):
        assert output_class_count(Signature({}, outputs)) == count


def test_the_most_probable_classes():
    """Of equally probable ones, the first."""
    probabilities = np.float32([[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]])
    found = top_k_from_probabilities({"probabilities": probabilities}, 2)
    assert [[one.label for one in row] for row in found] == [
        ["class 1", "class 0"],
        ["class 2", "class 0"],
    ]
    assert [row[0].probability for row in found] == [0.5, pytest.approx(0.8)]
    outputs = {"labels": np.array([[b"a", b"b\xff"]], object), "scores": np.float32([[0.75, 0.25]])}
    assert top_k_from_labels(outputs, 5) == [[Prediction("a", 0.75), Prediction("b\ufffd", 0.25)]]
    assert top_k_from_labels(outputs, 1) == [[Prediction("a", 0.75)]]


def test_labels_are_short_texts():
    assert decode_text(b"a" * 4096) == "a" * 4096
    for label, received in ((b"a" * 4097, "4,097 bytes"), (7, "a number")):
        with pytest.raises(TensorError) as caught:
            decode_text(label)
        assert str(caught.value) == (
            f"`labels` must hold short texts. Expected: 4,096 bytes at most. Received: {received}."
        )
