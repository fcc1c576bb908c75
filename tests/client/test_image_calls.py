"""classify, features and explain with pixels and with encoded images, and models."""

import warnings

import numpy as np
import pytest

from cnnkit.client import Client, InvalidRequest, Prediction
from cnnkit.errors import DataError, UsageError

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
