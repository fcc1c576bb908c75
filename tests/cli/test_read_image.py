"""Image files at the size and with the channels of a network, and every figure of them."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from cnnkit.cli.main import main
from cnnkit.cli.read_image import read_image, read_image_for
from cnnkit.data.crops import fit_images
from cnnkit.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("unoptimized")


def body(inputs):
    ones = {"bias_initializer": "ones", "activation": "relu"}
    x = layers.Conv2D(4, 3, name="conv1", **ones)(layers.Rescaling(1 / 255)(inputs))
    return layers.Conv2D(5, 3, name="conv2", **ones)(layers.MaxPooling2D()(x))


def network(kind):
    keras.utils.set_random_seed(3)
    shape = {"gray": (28, 28, 1), "wide": (20, 36, 3), "nested": (24, 24, 3)}[kind]
    inputs = keras.Input(shape)
    if kind == "nested":
        inside = keras.Input(shape)
        inner = keras.Model(inside, body(inside), name="backbone")
        maps = inner(layers.RandomFlip()(inputs))
    else:
        maps = body(inputs)
    head = layers.Dense(3, activation="softmax", name="classes")
    return keras.Model(inputs, head(layers.Flatten()(maps)))


def photo(path, size=(70, 50)):
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (size[1] // 5, size[0] // 5, 3)).repeat(5, 0).repeat(5, 1)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(path)


def by_pillow(path, shape):
    """The largest center crop of this shape, rescaled."""
    image = keras.utils.load_img(path)
    height, width, channels = shape
    scale = max(height / image.height, width / image.width)
    scaled = [max(round(image.width * scale), width), max(round(image.height * scale), height)]
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    pixels = np.asarray(image.resize(scaled, Image.BILINEAR))
    pixels = pixels[top : top + height, left : left + width]
    if channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels.astype(np.float32)


@pytest.mark.parametrize("size", [(70, 50), (50, 70), (28, 28), (36, 20)])
@pytest.mark.parametrize("kind", ["gray", "wide", "nested"])
def test_an_image_covers_the_input_of_the_network(tmp_path, kind, size):
    path = photo(tmp_path / "photo.png", size)
    model = network(kind)
    found = read_image_for(path, model)
    expected = by_pillow(path, model.input_shape[1:])
    assert found.shape == expected.shape
    # Pillow rounds after each direction.
    np.testing.assert_allclose(found, expected, atol=2)
    assert np.abs(found - expected).mean() < 0.6


def test_a_gray_pixel_keeps_its_value_and_other_channels_are_refused(tmp_path):
    values = np.arange(256, dtype=np.float32).reshape(16, 16, 1)
    np.testing.assert_array_equal(fit_images(values.repeat(3, -1), (16, None, 1)), values)
    with pytest.raises(UsageError, match="must take RGB or gray images.*5 channels"):
        read_image(photo(tmp_path / "photo.png"), 16, 5)


FIGURES = {
    "saliency": "{image}",
    "scorecam": "{image} --layer conv2",
    "compare": "{image} --methods saliency deconvnet",
    "occlusion": "{image} --square 8 --others {image}",
    "invariance": "{image} {image} --transform rotation",
    "deconvnet": "{image} --layer conv2",
    "stack": "{image} --layer conv2",
    "rules": "{image} --layer conv1 conv2",
    "filters": "",
    "top9": "digits --layer conv2 --unit 2",
    "layer2": "digits --count 2",
    "correspondence": "{parts} --layer conv2 --draws 1",
}


def slow(kind):
    return pytest.param(kind, marks=pytest.mark.slow)


@pytest.mark.parametrize("kind", ["gray", slow("wide"), slow("nested")])
def test_every_figure(tmp_path, kind, capsys):
    model = network(kind)
    model.save(tmp_path / "model.keras")
    image = photo(tmp_path / "photo.png")
    entry = {"image": "photo.png", "parts": {"eye": [20, 25, 30, 35]}}
    (tmp_path / "parts.json").write_text(json.dumps([entry, entry]))
    facts = {}
    for figure, words in FIGURES.items():
        picture = tmp_path / f"{figure}.png"
        given = words.format(image=image, parts=tmp_path / "parts.json").split()
        command = ["visualize", figure, str(tmp_path / "model.keras"), *given]
        assert main([*command, "--output", str(picture)]) == 0, capsys.readouterr().err
        with Image.open(picture) as drawn:
            assert min(drawn.size) > 50
        facts[figure] = json.loads((tmp_path / f"{figure}.png.json").read_text())
    pixels = read_image_for(image, model)[None]
    source = model.get_layer("backbone") if kind == "nested" else model
    conv2 = source.get_layer("conv2").output
    maps = keras.Model(source.inputs[0], conv2)(pixels, training=False).numpy()
    assert facts["deconvnet"]["activation"] == pytest.approx(maps.max(), rel=1e-5)
    answer = model(pixels, training=False).numpy()[0]
    assert facts["occlusion"]["clean_probability"] == pytest.approx(answer.max(), abs=1e-6)
    # Gray pictures are drawn gray: the image beside the map.
    drawn = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "saliency.png"))
    left = drawn[:, : drawn.shape[1] // 4]
    assert (np.ptp(left, axis=-1).max() == 0) == (kind == "gray")


@pytest.mark.parametrize("kind", ["gray", "wide", "nested"])
def test_features_of_a_dataset(tmp_path, kind):
    model = network(kind)
    model.save(tmp_path / "model.keras")
    words = ["--dataset", "digits", "--split", "test", "--layer", "conv2"]
    folder = tmp_path / "features"
    command = ["features", str(tmp_path / "model.keras"), *words, "--output", str(folder)]
    assert main(command) == 0
    index = json.loads(next(folder.glob("*.json")).read_text())
    source = model.get_layer("backbone") if kind == "nested" else model
    assert index["dimension"] == np.prod(source.get_layer("conv2").output.shape[1:])


def test_an_image_above_the_limit_is_refused(tmp_path, monkeypatch, capsys):
    file = photo(tmp_path / "photo.png")
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "3499")
    with pytest.raises(DataError, match=r"photo.png is too large.*50 x 70 pixels.*MAX_IMAGE_PIX"):
        read_image(file, 32)
    figure = str(tmp_path / "a.png")
    words = ["visualize", "gradient", str(tmp_path / "none"), file, "--output", figure]
    option = "--max-image-pixels"
    for given in ([option, "many"], [f"{option}=0"], [option]):
        assert main([*words, *given]) == 2
        assert "must be a number of pixels" in capsys.readouterr().err


def test_a_damaged_image_is_told_from_another_file(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:500])
    with pytest.raises(DataError, match=r"half.png is damaged or incomplete. Expected: a whole"):
        read_image(str(tmp_path / "half.png"), 8)
    (tmp_path / "text.png").write_text("no image at all, but long enough for a header")
    with pytest.raises(DataError, match=r"text.png must be an image. Expected: a JPEG"):
        read_image(str(tmp_path / "text.png"), 8)
