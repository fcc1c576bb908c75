"""Types of options: what they accept, and how they complete the sentence of an error."""

import argparse
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli import values
from cnnkit.cli.values import (
    DatasetSpec,
    Number,
    OutputFile,
    Whole,
    WholeNumbers,
    classifier_path,
    image_file,
    input_file,
    input_folder,
    network_name,
    network_names,
    network_path,
    new_folder,
    output_folder,
    run_folder,
)
from tests.helpers.run_folders import write_metrics_run


def refusal(type_, text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        type_(str(text))
    return str(error.value)


def test_numbers_are_finite_and_in_their_range():
    assert Whole(minimum=1)("32") == 32 and Number(above=0)("1e-3") == 1e-3
    assert Whole()("-5") == -5 and WholeNumbers(minimum=1)("256,384") == (256, 384)
    assert refusal(Whole(minimum=1), "abc") == "must be a whole number of at least 1, received abc"
    for text in ("0", "1.5", "", "1e3", "9" * 5000):
        assert "of at least 1, received" in refusal(Whole(minimum=1), text)
    for text in ("nan", "inf", "-inf", "0", "1e999", "1,5"):
        assert "a finite number of more than 0, received" in refusal(Number(above=0), text)
    for text in ("", "256,", "a", "1.5", "0,5"):
        assert "whole numbers with commas, each of at least 1" in refusal(
            WholeNumbers(minimum=1), text
        )


@pytest.mark.parametrize(
    ("kind", "allowed", "refused"),
    [
        (values.COUNT, ("1",), ("0",)),
        (values.INDEX, ("0",), ("-1",)),
        (values.SEED, ("0", "4294967295"), ("-1", "4294967296")),
        (values.LEVEL, ("0", "255"), ("-0.1", "255.1")),
        (values.SECONDS, ("0.01",), ("0",)),
    ],
)
def test_numbers_at_their_limits(kind, allowed, refused):
    for text in allowed:
        assert kind(text) == float(text)
    for text in refused:
        refusal(kind, text)


def test_datasets_must_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/cats").mkdir(parents=True)
    assert DatasetSpec()("folder:photos") == "folder:photos"
    assert DatasetSpec(voc=True)("voc:photos") == "voc:photos"
    assert "Did you mean folder:photos?" in refusal(DatasetSpec(), "photos")
    assert "`cnnkit transfer` supports it" in refusal(DatasetSpec(), "voc:photos")
    assert "No folder none" in refusal(DatasetSpec(voc=True), "voc:none")
    assert "a subfolder for each class" in refusal(DatasetSpec(), "folder:photos/cats")


def test_outputs_are_places_that_can_be_written(tmp_path):
    (tmp_path / "plain").write_text("x")
    for text in ("a", "a/b/c", "."):
        assert output_folder(str(tmp_path / text)) == str(tmp_path / text)
    assert OutputFile(".png")(str(tmp_path / "new/x.PNG")).endswith("x.PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain"]
    assert "received the file" in refusal(output_folder, tmp_path / "plain")
    for type_ in (output_folder, OutputFile()):
        assert "where plain is no folder" in refusal(type_, tmp_path / "plain/sub/x")
    assert "must be NAME.png or NAME.svg" in refusal(OutputFile(".png", ".svg"), "x.jpg")
    assert "received the folder" in refusal(OutputFile(), tmp_path)
    assert "which exists" in refusal(new_folder, tmp_path)
    assert new_folder(str(tmp_path / "new")) == str(tmp_path / "new")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert "where broken is no folder" in refusal(output_folder, tmp_path / "broken/x")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc of Linux")
def test_a_folder_of_the_system_is_told_by_its_reason():
    assert re.search("can be written, received /proc/x: .+", refusal(output_folder, "/proc/x"))


def test_inputs_are_what_the_argument_needs(tmp_path):
    write_metrics_run(tmp_path / "run", [0.5])
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "labels.txt").write_text("cat\n")
    os.mkfifo(tmp_path / "pipe")
    paths = {name: str(tmp_path / name) for name in ("run", "x.png", "labels.txt")}
    assert image_file(paths["x.png"]) == paths["x.png"]
    for type_ in (network_path, run_folder, input_folder):
        assert type_(paths["run"]) == paths["run"]
    assert network_path("random") == "random"
    # Weights have binary formats.
    assert "received the text file" in refusal(network_path, paths["labels.txt"])
    (tmp_path / "none.npz").touch()
    assert "received the empty file" in refusal(network_path, tmp_path / "none.npz")
    (tmp_path / "w.safetensors").write_bytes(b"@@@@@@@@{" + b" " * 300)
    (tmp_path / "w.caffemodel").write_bytes(b"\n\x07CaffeNet")
    for name in ("w.safetensors", "w.caffemodel"):
        assert network_path(str(tmp_path / name))
    # Swapped arguments are told by what they are.
    assert "received the image" in refusal(network_path, paths["x.png"])
    assert "received the run folder" in refusal(image_file, paths["run"])
    assert "received the folder" in refusal(image_file, tmp_path)
    assert "received the dataset digits" in refusal(network_path, "digits")
    assert "received the dataset digits" in refusal(image_file, "digits")
    assert "(JPEG, PNG, GIF, BMP or WebP)" in refusal(image_file, paths["labels.txt"])
    assert "must be an existing image file" in refusal(image_file, tmp_path / "none.png")
    assert "a regular file" in refusal(input_file, tmp_path / "pipe")
    assert "received the folder" in refusal(input_file, tmp_path)
    assert "received the file" in refusal(input_folder, paths["labels.txt"])
    assert "No run folder" in refusal(network_path, tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "pipeline.skops").touch()
    told = refusal(classifier_path, tmp_path / "saved")
    assert "received the classifier of features" in told
    assert f"Classify with: cnnkit transfer predict {tmp_path / 'saved'} IMAGE" in told


def test_an_image_is_checked_against_the_limit_of_the_command(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "x.png")
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "1599")
    assert "is too large" in refusal(image_file, tmp_path / "x.png")
    monkeypatch.setenv("CNNKIT_MAX_IMAGE_PIXELS", "1600")
    assert image_file(str(tmp_path / "x.png"))


def test_names_of_networks(monkeypatch):
    assert network_name("vgg16") == "vgg16" and network_names("vgg16,zfnet") == "vgg16,zfnet"
    assert "Did you mean alexnet" in refusal(network_name, "alexnett")
    assert "received zf" in refusal(network_names, "vgg16,zf")
    monkeypatch.setitem(sys.modules, "cnnkit.models.registry", None)
    assert network_name("zfnet") == "zfnet"


def test_names_of_the_command_line_are_those_of_the_functions():
    """The command line has copies of names, because the modules of these import TensorFlow."""
    from cnnkit._feature_options import AGGREGATES, POOLS
    from cnnkit.cli.main import all_command_names, build_parser
    from cnnkit.cli.parser import leaf_parsers
    from cnnkit.evaluation.protocols import AVERAGES, PROTOCOLS
    from cnnkit.export.classifier import DTYPES
    from cnnkit.export.signatures import SIGNATURES
    from cnnkit.layers.backward_rules import RULES
    from cnnkit.models import BUILDERS, PAPERS
    from cnnkit.transfer.average_precision import METRICS
    from cnnkit.transfer.linear_classifier import CLASSIFIERS

    leaves = {leaf.prog: leaf for leaf in leaf_parsers(build_parser(commands=all_command_names()))}

    def choices(command, flag):
        [found] = [one for one in leaves[command]._actions if flag in one.option_strings]
        return set(found.choices)

    assert set(PAPERS) == set(BUILDERS)
    assert choices("cnnkit evaluate", "--protocol") == set(PROTOCOLS)
    assert choices("cnnkit evaluate", "--average") == set(AVERAGES)
    assert choices("cnnkit export", "--dtype") == set(DTYPES)
    assert choices("cnnkit features", "--aggregate") == set(AGGREGATES)
    assert choices("cnnkit features", "--pool") == set(POOLS)
    assert choices("cnnkit transfer", "--classifier") == set(CLASSIFIERS)
    assert choices("cnnkit transfer", "--metric") == set(METRICS)
    assert choices("cnnkit visualize deconvnet", "--rule") == set(RULES)
    from cnnkit.cli.commands.export import SIGNATURES as COMMAND_SIGNATURES

    assert set(COMMAND_SIGNATURES) == set(SIGNATURES)
    assert values.RANDOM == "random"
