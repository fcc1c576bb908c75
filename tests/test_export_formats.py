"""What an export for another runtime needs is checked without TensorFlow, in one line."""

import importlib.util

import pytest

from cnnkit._export_formats import FORMATS, check_format, check_free_folder, check_packages
from cnnkit.cli.main import main
from cnnkit.errors import UsageError


@pytest.fixture
def without(monkeypatch):
    """Returns a function that hides modules from the search for packages."""
    find = importlib.util.find_spec

    def hide(*names):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in names else find(name)
        )

    return hide


@pytest.mark.parametrize(
    ("format", "quantize", "hidden", "text"),
    [
        ("onnx", None, ["tf2onnx", "onnxruntime"], "onnxruntime tf2onnx"),
        ("litert", None, ["ai_edge_litert"], "ai-edge-litert"),
        ("openvino", None, ["openvino"], "openvino"),
        ("openvino", "int8", ["nncf"], "nncf"),
    ],
)
def test_missing_packages_are_named_together(without, tmp_path, capsys, format, quantize, hidden,
                                             text):  # fmt: skip
    without(*hidden)
    words = ["export", "random", "--model", "alexnet", "--format", format]
    quantized = [] if quantize is None else ["--quantize", quantize]
    assert main([*words, *quantized, "--output", str(tmp_path / "new")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(f"pip install {text}.")
    assert f"--format {format}" in line and "`" not in line
    assert not (tmp_path / "new").exists()


def test_nncf_is_needed_for_int8_alone(without):
    without("nncf")
    check_packages("openvino", None)
    check_packages("onnx", "int8")


def test_static_quantization_needs_photographs(tmp_path):
    with pytest.raises(UsageError, match=r"`photos`.*int8-static"):
        check_format("onnx", tmp_path, quantize="int8-static", photos=None, overwrite=False)


@pytest.mark.parametrize(
    ("format", "quantize", "text"),
    [("onx", None, "Did you mean onnx?"), ("onnx", "int4", "int8, int8-static")],
)
def test_unknown_words_are_refused(tmp_path, format, quantize, text):
    with pytest.raises(UsageError, match=text):
        check_format(format, tmp_path, quantize=quantize, photos=None, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "names",
    [["thesis.tex"], ["README.md", "labels.txt"], ["model.onnx"],
     ["preprocessing.json", "model.onnx", "thesis.tex"], ["1"]],
)  # fmt: skip
def test_other_files_are_never_replaced(tmp_path, names, overwrite):
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match="holds other files"):
        check_free_folder(tmp_path, overwrite=overwrite)


@pytest.mark.parametrize("spec", FORMATS.values(), ids=FORMATS)
def test_an_export_is_replaced_on_request(tmp_path, spec):
    for name in (*spec.files, "labels.txt", "preprocessing.json", "README.md"):
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=r"`overwrite=True` replaces it"):
        check_free_folder(tmp_path, overwrite=False)
    check_free_folder(tmp_path, overwrite=True)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a file"):
        check_free_folder(tmp_path / "file", overwrite=True)
    check_free_folder(tmp_path / "new" / "folder", overwrite=False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--quantize", "int8"], "--quantize is for --format onnx or litert or openvino"),
        (["--overwrite"], "--overwrite is for --format onnx or litert or openvino"),
        (["--format", "onnx", "--top", "3"], "--top is for --format saved_model"),
        (["--format", "onnx", "--version", "3"], "--version is for --format saved_model"),
        (["--format", "litert", "--dtype", "bfloat16"], "--dtype is for --format saved_model"),
        (["--format", "onnx", "--max-pixels", "9"], "--max-pixels is for --format saved_model"),
    ],
)
def test_options_of_another_format_are_refused(tmp_path, capsys, words, text):
    given = ["export", "random", "--model", "alexnet", "--output", str(tmp_path / "new")]
    assert main([*given, *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert text in line
