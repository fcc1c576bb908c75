"""The files of an OpenVINO export, as OpenVINO reads them."""

import os

import keras
import pytest

from cnnkit.export import export_for_runtime
from cnnkit.export.formats.openvino import openvino_runner
from cnnkit.export.formats.photographs import own_photographs
from tests.helpers.exported_network import LABELS

openvino = pytest.importorskip("openvino")


def test_inputs_and_outputs_have_names(model, tmp_path):
    found = export_for_runtime(model, LABELS, tmp_path / "animals", "openvino")
    read = openvino.Core().read_model(str(found.file))
    assert [one.any_name for one in (*read.inputs, *read.outputs)] == ["images", "probabilities"]
    assert str(read.inputs[0].partial_shape) == "[?,64,64,3]"
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "README.md", "labels.txt", "model.bin", "model.xml", "preprocessing.json",
    ]  # fmt: skip


def test_nothing_is_reported_while_it_is_converted(model, tmp_path, monkeypatch):
    seen = []
    monkeypatch.delenv("CI", raising=False)
    convert = openvino.convert_model

    def watched(*args, **options):
        seen.append(os.environ.get("CI"))
        return convert(*args, **options)

    monkeypatch.setattr(openvino, "convert_model", watched)
    export_for_runtime(model, LABELS, tmp_path / "animals", "openvino")
    assert seen == ["true"] and "CI" not in os.environ
    assert openvino_runner(tmp_path / "animals", ["probabilities"])


@pytest.mark.parametrize("quantize", ["int8", "int8-static"])
def test_int8_rounds_activations_only_if_it_is_static(model, tmp_path, quantize):
    pytest.importorskip("nncf")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, photograph in enumerate(own_photographs(64)):
        keras.utils.save_img(photos / f"{i}.png", photograph)
    found = export_for_runtime(
        model, LABELS, tmp_path / "animals", "openvino", quantize=quantize, photos=photos
    )
    operations = openvino.Core().read_model(str(found.file)).get_ops()
    rounds = "FakeQuantize" in {one.get_type_name() for one in operations}
    assert rounds == (quantize == "int8-static")
    stored = [one for one in operations if one.get_type_name() == "Constant"]
    kernels = [one for one in stored if one.data.size > 10_000]
    assert kernels and {one.data.dtype.itemsize for one in kernels} == {1}
