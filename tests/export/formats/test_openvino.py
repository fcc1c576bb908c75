"""The files of an OpenVINO export, as OpenVINO reads them."""

import os

import pytest

from cnnkit.export import export_for_runtime
from cnnkit.export.formats import openvino as openvino_format
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
    assert openvino_format.load(tmp_path / "animals", ["probabilities"])
