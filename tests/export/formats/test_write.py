"""Exports for ONNX Runtime, LiteRT and OpenVINO, compared by these with the network in memory."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from cnnkit import models
from cnnkit._networks import LEAST_SIDES, OMITTABLE
from cnnkit.cli.main import main
from cnnkit.errors import RunError, UsageError
from cnnkit.export import RuntimeExport, export_for_runtime
from cnnkit.export.formats import write
from cnnkit.export.formats.photographs import own_photographs
from cnnkit.export.formats.write import RUNTIMES
from tests.export.formats.runtimes import run
from tests.helpers.exported_network import LABELS

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

FORMATS = ("onnx", "litert", "openvino")


@pytest.fixture
def images(rng):
    return rng.uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    """A network that is exported within a second."""
    keras.utils.set_random_seed(0)
    return models.build("cifar10_quick", input_shape=(8, 8, 3), classes=3, initializer="glorot")


def build(name):
    """Returns a network that is as small as its name allows, with large weights."""
    keras.utils.set_random_seed(0)
    omitted = {"omit_layers": OMITTABLE[name]} if name.startswith("vgg") else {}
    units = {"hidden_units": 16} if name.startswith(("alex", "caffe", "zf")) else {}
    side = LEAST_SIDES[name]
    return models.build(
        name, input_shape=(side, side, 3), classes=5, initializer="glorot", **omitted, **units
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_runtime_gives_the_networks_answers(model, images, tmp_path, format, capsys):
    # Grouped convolutions, normalization and overhanging windows.
    found = export_for_runtime(model, LABELS, tmp_path / "animals", format)
    assert capsys.readouterr().out == ""
    assert isinstance(found, RuntimeExport)
    expected = model(images, training=False).numpy()
    assert expected.std(axis=1).min() > 0.01
    for n in (1, 3):
        [probabilities] = run(format, found.folder, images[:n], "probabilities")
        np.testing.assert_allclose(probabilities, expected[:n], atol=1e-5)
    assert 0 < found.difference < 1e-5 and found.compared == 8
    assert (found.agreeing, found.photographs) == (8, 8)
    facts = json.loads((found.folder / "preprocessing.json").read_text())
    assert facts["side"] == 64 and facts["mean"] == pytest.approx([123.68, 116.779, 103.939])
    assert (found.folder / "labels.txt").read_text().split() == LABELS
    card = (found.folder / "README.md").read_text()
    assert f"on 8 photographs | {found.difference:.1e}, by {found.runtime} |" in card
    sizes = [file.stat().st_size for file in found.folder.glob("model.*")]
    assert found.file_bytes == sum(sizes) and found.file in found.folder.iterdir()
    assert 1 < found.file_bytes / (4 * model.count_params()) < 1.05
    assert [path.name for path in tmp_path.iterdir()] == ["animals"]


@pytest.mark.slow
@pytest.mark.parametrize("name", models.BUILDERS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_network_can_be_exported(rng, tmp_path, name, format):
    model = build(name)
    photographs = own_photographs(model.input_shape[1]).astype(np.float32)
    noise = rng.uniform(0, 255, (3, *model.input_shape[1:])).astype(np.float32)
    found = export_for_runtime(model, list("abcde"), tmp_path / name, format)
    assert found.compared == len(photographs) == 8 and found.difference < 1e-4
    for images in (photographs, noise):
        expected = model(images, training=False).numpy()
        # Not the same for every image, which a network that ignores it would give too.
        assert expected.std(axis=0).max() > 1e-3
        [probabilities] = run(format, found.folder, images, "probabilities")
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_normalization_within_channels(rng, tmp_path, format):
    model = build("cifar10_full")
    images = rng.uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
    found = export_for_runtime(model, list("abcde"), tmp_path / "net", format)
    [probabilities] = run(format, found.folder, images, "probabilities")
    np.testing.assert_allclose(probabilities, model(images, training=False).numpy(), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_every_size(rng, tmp_path, format):
    model = build("alexnet_caffe")
    dense = models.to_fully_convolutional(model)
    images = rng.uniform(0, 255, (2, 99, 131, 3)).astype(np.float32)
    found = export_for_runtime(
        model, list("abcde"), tmp_path / "net", format, fully_convolutional=True
    )
    mean, places = run(format, found.folder, images, "probabilities", "probability_map")
    expected = dense(images, training=False).numpy()
    assert expected.shape == (2, 2, 3, 5)
    np.testing.assert_allclose(places, expected, atol=1e-5)
    np.testing.assert_allclose(mean, expected.mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("quantize", ["int8", "int8-static"])
def test_int8_is_a_quarter_of_the_size(model, images, tmp_path, shared_photos, format, quantize):
    if format == "openvino":
        pytest.importorskip("nncf")
    found = export_for_runtime(
        model, LABELS, tmp_path / "animals", format, quantize=quantize, photos=shared_photos
    )
    assert 4 * model.count_params() / found.file_bytes > 3.7
    [probabilities] = run(format, found.folder, images, "probabilities")
    # In 8 bits, but the same network.
    difference = np.abs(probabilities - model(images, training=False).numpy()).max()
    assert 1e-5 < difference < 0.1
    assert found.photographs == 12 and found.compared == 8 and found.agreeing >= 11
    card = (found.folder / "README.md").read_text()
    assert f"on {found.agreeing} of 12 photographs" in card
    assert ("activations in int8" in card) == (quantize == "int8-static")


@pytest.fixture(scope="module")
def shared_photos(tmp_path_factory):
    """A folder of twelve windows of real photographs, of another size than the network's."""
    folder = tmp_path_factory.mktemp("photos")
    photographs = [*own_photographs(80), *own_photographs(96)[[0, 2, 4, 6]]]
    for i, photograph in enumerate(photographs):
        keras.utils.save_img(folder / f"{i:02}.png", photograph)
    return folder


@pytest.mark.parametrize(("error", "refused"), [(9e-5, False), (1.2e-4, True), (np.nan, True)])
def test_an_export_that_differs_is_not_written(small, tmp_path, monkeypatch, error, refused):
    runner = RUNTIMES["litert"].runner

    def wrong(folder, outputs):
        network = runner(folder, outputs)
        return lambda images: {name: found + error for name, found in network(images).items()}

    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], runner=wrong))
    if not refused:
        found = export_for_runtime(small, list("abc"), tmp_path / "net", "litert")
        assert found.difference == pytest.approx(9e-5, rel=0.02)
        return
    with pytest.raises(RunError, match=r"model.tflite differ.*up to 1e-04.*by ai-edge-litert"):
        export_for_runtime(small, list("abc"), tmp_path / "net", "litert")
    assert list(tmp_path.iterdir()) == []


def test_int8_that_changes_clear_classes_is_not_written(small, tmp_path, monkeypatch):
    runner = RUNTIMES["litert"].runner

    def wrong(folder, outputs):
        network = runner(folder, outputs)
        return lambda images: {name: found[:, ::-1] for name, found in network(images).items()}

    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], runner=wrong))
    with pytest.raises(RunError, match=r"another class on [1-8] of 8 by ai-edge-litert"):
        export_for_runtime(small, list("abc"), tmp_path / "net", "litert", quantize="int8")
    assert list(tmp_path.iterdir()) == []


def test_int8_that_is_not_smaller_is_not_written(small, tmp_path, monkeypatch):
    before = RUNTIMES["litert"]

    def unchanged(model, folder, *_):
        before.write(model, folder, None, None)

    monkeypatch.setitem(RUNTIMES, "litert", replace(before, write=unchanged))
    with pytest.raises(RunError, match=r"in int8 is larger than 1/3\.8 of the weights"):
        export_for_runtime(small, list("abc"), tmp_path / "net", "litert", quantize="int8")


def written(**change):
    facts = {"folder": Path("net"), "file": Path("net/model.onnx"), "runtime": "onnxruntime 1",
             "quantize": "int8", "file_bytes": 9, "difference": 0.3, "compared": 8, "agreeing": 9,
             "photographs": 100}  # fmt: skip
    return RuntimeExport(**{**facts, **change})


def test_the_limits_of_int8():
    """Two of a hundred clear photographs, and 1/3.8 of the weights with 128 KiB for the graph."""
    network = SimpleNamespace(weight_bytes=380_000)
    largest = 100_000 + 131_072
    for change, changed, text in (
        ({}, 2, None),
        ({}, 3, "the same class on 98 % of the photographs.*another class on 3 of 100"),
        ({"difference": np.inf}, 0, "another class on 0 of 100"),
        ({"file_bytes": largest}, 0, None),
        ({"file_bytes": largest + 1}, 0, f"in int8 is larger.*{largest:,} bytes"),
        ({"quantize": None, "difference": 1e-4, "file_bytes": largest + 1}, 9, None),
        ({"quantize": None, "difference": 1.01e-4}, 0, "a difference up to 1e-04"),
    ):
        found = written(**change)
        measured = write._Measured(found.difference, 9, changed, 100)
        with contextlib.nullcontext() if text is None else pytest.raises(RunError, match=text):
            write._check(found, measured, network)


def test_a_class_is_clear_by_a_fifth():
    """The network answers its pixels, and the runtime the other class for all of them."""
    inputs = keras.Input((1, 2, 1))
    model = keras.Model(inputs, {"probabilities": keras.layers.Flatten()(inputs)})
    leads = np.array([0.5, 0.25, 0.1875, 0.0, *[0.5] * 16])
    images = np.stack([0.5 + leads / 2, 0.5 - leads / 2], axis=1).reshape(-1, 1, 2, 1)
    told = []

    @contextlib.contextmanager
    def progress(count, work):
        told.append((count, work))
        yield told.append

    def run(batch):
        return {"probabilities": batch.reshape(-1, 2)[:, ::-1].astype(np.float32)}

    found = write._measure(model, run, images, images, progress)
    # Of equal scores both take the first class.
    assert (found.agreeing, found.clearly_changed, found.photographs) == (1, 18, 20)
    assert found.difference == pytest.approx(0.5)
    assert told == [(20, "comparing photographs"), 16, 4]


def test_photographs_are_chosen_evenly():
    chosen = [write._evenly(np.arange(count), 4).tolist() for count in (3, 4, 5, 10)]
    assert chosen == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 5, 7]]


def test_an_earlier_export_is_kept_until_the_new_one_is_whole(small, tmp_path, monkeypatch):
    before = export_for_runtime(small, list("abc"), tmp_path / "net", "onnx")
    old = before.file.read_bytes()
    with pytest.raises(UsageError, match="holds an export"):
        export_for_runtime(small, list("abc"), tmp_path / "net", "onnx")

    def fails(*_):
        raise RuntimeError("no such operation\nin a second line")

    with monkeypatch.context() as patch:
        patch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], write=fails))
        with pytest.raises(RunError, match=r"cannot be written as LiteRT.*RuntimeError: no such"):
            export_for_runtime(small, list("abc"), tmp_path / "net", "litert", overwrite=True)
    assert before.file.read_bytes() == old
    export_for_runtime(small, list("abc"), tmp_path / "net", "litert", overwrite=True)
    names = sorted(path.name for path in (tmp_path / "net").iterdir())
    assert names == ["README.md", "labels.txt", "model.tflite", "preprocessing.json"]


def test_a_network_in_mixed_precision_becomes_float32(small, rng, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = models.build("cifar10_quick", input_shape=(8, 8, 3), classes=3)
    finally:
        keras.config.set_dtype_policy(before)
    mixed.set_weights(small.get_weights())
    found = export_for_runtime(mixed, list("abc"), tmp_path / "net", "onnx")
    images = rng.uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    [probabilities] = run("onnx", found.folder, images, "probabilities")
    np.testing.assert_allclose(probabilities, small(images, training=False).numpy(), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_boxes_of_a_localizer(tmp_path, format):
    from tests.helpers.boxes import square_finder, square_image

    network = square_finder("per-class")
    found = export_for_runtime(network, ("nothing", "square"), tmp_path / "boxes", format)
    image = square_image(16, 16, 4, 6)[None].astype(np.float32)
    scores, boxes = run(format, found.folder, image, "probabilities", "boxes")
    expected = network(image, training=False).numpy()
    np.testing.assert_allclose(scores, expected[:, :2], atol=1e-5)
    np.testing.assert_allclose(boxes.reshape(1, -1), expected[:, 2:], atol=1e-5)


def test_labels_must_fit(small, tmp_path):
    with pytest.raises(UsageError, match="`labels` must hold one name for each of the 3 classes"):
        export_for_runtime(small, ["a"], tmp_path / "net", "onnx")


def test_the_command(small, tmp_path, capsys):
    small.save(tmp_path / "small.keras")
    words = ["export", str(tmp_path / "small.keras"), "--format", "litert", "--quantize", "int8"]
    assert main([*words, "--output", str(tmp_path / "net")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "ai-edge-litert" in first and "on 8 photographs" in first
    assert second.startswith("same class on 8 of 8 photographs")
    assert main([*words, "--output", str(tmp_path / "net"), "--overwrite", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["file"] == str(tmp_path / "net" / "model.tflite")
    assert document["quantize"] == "int8" and document["agreeing"] == 8
