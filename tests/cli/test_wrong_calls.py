"""Every command is called wrongly: one line, exit code 2, nothing started, nothing written.

The commands, their options and wrong values of them are found in the parsers, so that a new command
is held too. What only concerns several options together stands in `COMBINATIONS`.
"""

import argparse
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli import quiet_tensorflow
from cnnkit.cli.main import all_command_names, build_parser, command_names, main
from cnnkit.cli.network_words import network_outline
from cnnkit.cli.parser import leaf_parsers, options_of
from cnnkit.cli.values import classifier_path, network_path
from cnnkit.errors import UsageError
from tests.helpers.run_folders import write_metrics_run

LEAVES = {
    leaf.prog.removeprefix("cnnkit "): leaf
    for leaf in leaf_parsers(build_parser(commands=all_command_names()))
}
# In the order in which a right value of an argument is looked for, and wrong ones.
RIGHT = (
    "{new}/out", "{new}/out.png", "{new}/out.keras", "1", "digits", "{run}", "{image}", "{labels}",
    "{folder}", "alexnet", "0/2", "localhost:1", "{exported}", "{classifier}", "{features}",
)  # fmt: skip
WRONG = (
    "nonsense \x1b[2K\rcnnkit: done\n", "{none}", "{labels}/sub", "-1", "0", "1.5", "nan", "inf",
    "9" * 400, "folder:", "folder:{none}", "shards:", "{folder}", "{labels}", "/proc/x", "{image}",
)  # fmt: skip
# Wrong values of one option that are tried, at most: parsing takes milliseconds.
MOST = 5
# Options that name files or folders, and numbers, have a type that checks them.
CHECKED = {"output", "dataset", "image", "images", "network", "networks", "models", "labels",
           "results", "query", "index", "save", "figure"}  # fmt: skip

COMBINATIONS = """
train --resume
train --resume --overwrite --output {new}
train --keep-epochs 99 --output {new}
train --scale 1 2 3 --output {new}
train --scale 20 10 --output {new}
train --model-option dropout --output {new}
train --strategy default --replicas 2 --output {new}
train --jit-compile --strategy mirrored --output {new}
train --init-option preprocessing=caffe --output {new}
train --background red --output {new}
train --checkpoint-every 5x --output {new}
train --recipe dmo --output {new}
train --workers localhost:1 --recipe vgg-d-staged --output {new}
train --resume --output {folder}
train --output {run}
train --freeze conv9 --output {new}
train --freeze * --output {new}
train --model vgg16 --freeze conv1 --output {new}
train --recipe vgg-d-staged --freeze conv1 --output {new}
train --lr-multiplier conv9/*=2 --output {new}
train --weight-decay-multiplier conv9/*=2 --output {new}
train --model-option dropot=0 --output {new}
train --init-from {text} --output {new}
finetune {weights} digits --model alexnet --freeze conv9 --output {new}
finetune {weights} digits --model alexnet --model-option dropot=1 --output {new}
finetune {text} digits --output {new}
finetune {weights} digits --model alexnet --model-option classes=3 --output {new}
finetune {weights} digits --model-option include_top=false --output {new}
finetune {weights} digits --model alexnet --image-size 63 --output {new}
finetune {weights}
train --model-option classes=3 --output {new}
train --model-option omit_layers=["conv9"] --output {new}
train --model vgg16 --model-option omit_layers=["conv3"] --output {new}
train --init-option preprocessing=nope --init-from {weights} --output {new}
train --model-option activation=nope --output {new}
train --model-option initializer=nope --output {new}
train --model-option dropout=2 --output {new}
train --model alexnet --model-option groups=3 --output {new}
predict {weights} {image} --model alexnet --model-option hidden_units=0
features random --model zfnet --model-option filters=[1,2] --dataset digits --output {new}
train --dataset boxes:{image} --output {new}
train --dataset boxes:{folder} --output {new}
train --dataset imagenet:{folder} --output {new}
data check imagenet:{folder}
export {keras} --scale 7 --output {new}
train --task localize --output {new}
finetune {weights} digits --task localize --output {new}
weights convert {weights} --model alexnet --model-option input_shape=[9,9,3] --output {new}.keras
train --model vgg16 --image-size 31 --output {new}
train --init-from {weights} --model-option include_preprocessing=false --output {new}
models alexnet --image-size 63
models --image-size 66
visualize occlusion {keras} {image} --square 9 --output {new}.png
visualize occlusion random {image} --model zfnet --square 225 --output {new}.png
visualize filters random --model zfnet --model-option input_shape=[63,63,3] --output {new}.png
visualize activation-maximization {keras} --image-size 9 --output {new}.png
features {keras} --dataset digits --layer conv1 --image-size 9 --output {new}
predict {keras} {image} --image-size 9
serve {versions} --version-labels stable=7
serve {versions} --versions 7
data shard digits --output {run}
transfer {keras} --dataset digits --layer conv1 --exclude-overlap folder:{folder}
train --dataset folder:{folder} --output {new}
finetune {weights} digits --output {run}
finetune {weights} digits --lr-find {image}
finetune {weights} --resume --output {run}
finetune --resume --overwrite --output {run}
weights inspect {labels}
finetune imagenet digits
finetune imagenet digits --model alexnet
train --init-from imagenet --output {new}
predict imagenet {image}
predict imagenet {image} --model alexnet
predict imagenet {image} --model vgg16 --model-option classes=10
weights inspect imagenet
weights convert imagenet --model alexnet --output {new}.keras
predict {text} {image}
predict {keras} {image} --background red
predict {versions} {image} --labels {labels}
predict {versions} {image} --panel {new}.png --explain occlusion
predict {versions} {image} --panel {new}.png --explain deconvnet --target 1
predict {run} {image} --dpi 80
predict {run} {image} --panel {image}
predict random {image}
predict {keras} {image} --model-option a
transfer {keras} {keras} --dataset digits --layer fc7
transfer {keras} --dataset digits --layer conv1 --scales 64 --pool flatten
features {keras} --dataset digits --layer conv1 --scales 64 --image-size 32 --output {new}
features random --model vgg16 --model-option dropot=1 --dataset digits --output {new}
features random --model vgg16 --layer conv5 --dataset digits --output {new}
visualize layer2 {keras} digits --output {new}.png
visualize layer2 {keras} digits --layer conv1 --unit 4 --output {new}.png
visualize top9 {keras} digits --layer conv1 --split validation --output {new}.png
visualize invariance {keras} {image} --target 1 2 --output {new}.png
visualize activation-maximization {keras} --unit bird --output {new}.png
visualize activation-maximization {keras} --layer conv1 --unit cat --output {new}.png
visualize deconvnet random {image} --model zfnet --layer conv5 --unit 256 --output {new}.png
plot {run} --kind confusion --output {new}.png
export {keras} --signatures explain_bytes_conv9 --output {new}
features {run} --output {new}
features merge --output {new}
features merge {folder} --output {new}
features {run} {run} --dataset digits --output {new}
evaluate {run} {run}
evaluate {run} --scales 16,16
evaluate {run} --replicas 2
evaluate {run} --model-option a=1
export {run} --model-option a=1 --output {new}
export {run} --version 1 --output {versions}
data check shards:{folder}
evaluate {weights} --protocol center
plot {run} --kind curves --results {labels} --output {new}.png
neighbors {run} --query {image} --index {features} --dpi 100
plot {run} --output {image}
visualize occlusion {run} {image} --fill 1 2 --output {new}.png
visualize filters random --output {new}.png
features random --dataset digits --output {new}
transfer {run} --dataset digits --model alexnet,zfnet
plot {run} {run} --kind confusion --output {new}.png
transfer {run} --layer fc7
transfer {run} --dataset digits --metric area
transfer {run} --dataset digits --train-split a
transfer {run} --dataset digits --overlap-threshold 0.5
transfer {run} --dataset digits --save {new} --layer fc6 fc7
transfer {run} --dataset digits --figure {new}.png
transfer predict {classifier}
transfer predict {classifier} {image} --dataset digits
transfer predict {classifier} {image} --split test
weights inspect {weights} --mean 1,2
weights inspect {weights} --std a
weights convert {weights} --model alexnet --model-option dropout --output {new}.keras
bench localhost --model m
bench example.org:1 --model m
query --model m
query {none} --model m
query {folder} --model m
query {image} --model m --server localhost
query {image} --model m --layer conv5
query - - --model m
serve {none}
serve {folder}
serve {run} --versions foo
serve {versions} --versions foo
serve {versions} --version-labels stable
serve {versions} --tls-cert {labels}
serve {versions} --tls-client-names a
serve {versions} --allow-reload --workers 2
serve {versions} --engine openvno
recipes nope
runs --folder {none}
export {folder} --output {new}
visualize
data
weights
trian
train --epohs 3
train --epochs
visualize gradcam {run} {image} --output {new}.png --json=1
query {image} --model m --model-version 1 --version-label a
models alexnet vgg16
models --ver
help trian
--nope
--max-image-pixels 0 models
""".strip().splitlines()


def test_the_options_of_a_builder_count():
    assert network_outline("random", "vgg11", {"classes": 7}).classes == 7
    assert network_outline("random", "vgg11").classes is None
    with pytest.raises(UsageError, match="clases"):
        network_outline("random", "vgg11", {"clases": 7})


def write_network(file):
    """Writes the configuration of a network of three classes, which is all that is read of it."""
    layers = [
        ("InputLayer", {"name": "image", "batch_shape": [None, 8, 8, 3]}),
        ("Conv2D", {"name": "conv1", "filters": 4}),
        ("Flatten", {"name": "flatten"}),
        ("Dense", {"name": "fc8", "units": 3}),
        ("cnnkit>Probabilities", {"name": "probabilities", "class_names": ["cat", "dog", "fish"]}),
    ]
    config = {"name": "pets", "layers": [{"class_name": k, "config": c} for k, c in layers]}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": config}))
    return file


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("wrong")
    (root / "folder").mkdir()
    (root / "labels.txt").write_text("cat\ndog\n")
    write_metrics_run(root / "run", [0.5, 0.25]).model_file.write_bytes(b"")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "image.png")
    np.savez(root / "weights.npz", a=np.zeros(1))
    (root / "text.npz").write_text("no weights")
    (root / "models/1/assets").mkdir(parents=True)
    (root / "models/1/saved_model.pb").touch()
    (root / "models/1/assets/labels.txt").write_text("a\nb\nc\n")
    for name in ("exported/1/saved_model.pb", "classifier/transfer.json", "features/index.json"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    return {
        "new": str(root / "new"), "none": str(root / "none"), "folder": str(root / "folder"),
        "labels": str(root / "labels.txt"), "run": str(root / "run"),
        "image": str(root / "image.png"), "weights": str(root / "weights.npz"),
        "versions": str(root / "models"), "root": root, "exported": str(root / "exported"),
        "classifier": str(root / "classifier"), "features": str(root / "features"),
        "keras": str(write_network(root / "pets.keras")), "text": str(root / "text.npz"),
        "unfinished": str(write_metrics_run(root / "unfinished", [0.5]).path),
    }  # fmt: skip


@pytest.fixture
def refused(places, capsys, monkeypatch, tmp_path):
    """Returns a function that calls `main` and checks that it refuses the words in one line."""
    # `cnnkit runs` lists those of the current folder.
    monkeypatch.chdir(tmp_path)

    def started():
        raise AssertionError("TensorFlow was started")

    monkeypatch.setattr(quiet_tensorflow, "import_tensorflow", started)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    before = sorted(places["root"].rglob("*"))

    def call(words):
        code = main(words)
        out, err = capsys.readouterr()
        told = f"cnnkit {' '.join(map(repr, words))}: {code}\n{out}{err}"
        assert code == 2, told
        assert out == "", told
        assert err.startswith("cnnkit: error: ") and err.endswith("\n"), told
        assert err.count("\n") == 1 and err.rstrip("\n").isprintable(), told
        # An argument of Python, where the option of a command is meant.
        assert not re.search(r"`(?!random|cnnkit|auto)[a-z_]+(=[^`]*)?`", err), told
        assert "the traceback" not in err and "TensorFlow was started" not in err, told
        assert sorted(places["root"].rglob("*")) == before, told
        assert list(tmp_path.iterdir()) == [], told
        return err

    return call


def is_right(action, text):
    """Returns whether an argument takes a value, as its type and its choices say."""
    if action.choices is not None:
        return text in action.choices
    try:
        action.type(text)
    except (argparse.ArgumentTypeError, OSError, ValueError):
        return False
    return True


def arguments(leaf):
    """Returns the arguments of a command that take values."""
    return [
        action
        for action in options_of(leaf)
        if action.nargs != 0 and action.dest not in ("help", "version", "max_image_pixels")
    ]


def right_words(action, places):
    """Returns the words that give an argument a right value."""
    if action.choices is not None:
        value = next(iter(action.choices))
    elif action.type is None:
        value = "x"
    else:
        texts = [text.format(**places) for text in RIGHT]
        value = next(text for text in texts if is_right(action, text))
    return [*action.option_strings[-1:], value]


def required_words(leaf, places, without=None):
    """Returns the words that a command needs, without those of one argument."""
    words = []
    for action in arguments(leaf):
        if action is not without and action.required and action.nargs != "*":
            words += right_words(action, places)
    return words


def wrong_calls(name, leaf, places):
    """Yields calls of a command with one thing wrong."""
    command = name.split(" ")
    needed = required_words(leaf, places)
    yield [*command, *needed, "--no-such-option"]
    yield [*command, *needed, "--jso=1", "--outptu", "x"]
    for action in arguments(leaf):
        if isinstance(action, argparse.BooleanOptionalAction):
            yield [*command, *needed, f"{action.option_strings[0]}=1"]
            continue
        rest = required_words(leaf, places, without=action)
        flag = action.option_strings[-1:]
        if flag and action.nargs not in ("*", "?"):
            yield [*command, *rest, *flag]
        if action.required and not isinstance(action.nargs, int):
            yield [*command, *rest]
        if action.type is None and action.choices is None:
            continue
        texts = [text.format(**places) for text in WRONG]
        for text in [text for text in texts if not is_right(action, text)][:MOST]:
            # As one word where the value could be taken for an option.
            words = [f"{flag[0]}={text}"] if flag else [text]
            yield [*command, *rest, *words]


@pytest.mark.parametrize("name", LEAVES)
def test_a_command_refuses_wrong_words_before_it_starts(name, places, refused, monkeypatch):
    # Built once: the parser of `visualize` has all figures.
    parser = build_parser(name.split(" "))
    monkeypatch.setattr("cnnkit.cli.main.build_parser", lambda argv: parser)
    calls = list(wrong_calls(name, LEAVES[name], places))
    assert len(calls) >= 2
    for words in calls:
        refused(words)


def test_the_commands_are_called_wrongly_often(places):
    calls = sum(len(list(wrong_calls(name, leaf, places))) for name, leaf in LEAVES.items())
    assert {name.split(" ")[0] for name in LEAVES} == set(command_names())
    assert calls >= 500


@pytest.mark.parametrize("line", COMBINATIONS)
def test_wrong_combinations_are_refused_before_anything_starts(line, places, refused):
    words = [word.format(**places) for word in line.split(" ")]
    refused(words)


# Options that name a part of the network, a wrong value, and what is said of it.
PARTS = {
    "layer": ("conv9", "Unknown layer 'conv9'. Expected: one of conv1, flatten, fc8, prob"),
    "down_to": ("conv9", "Unknown layer 'conv9'"),
    "explain_layers": ("conv9", "Unknown layer 'conv9'"),
    "features_layer": ("conv9", "Unknown layer 'conv9'"),
    "unit": ("4", "has no "),
    "target": ("bird", "Unknown class 'bird'. Expected: one of cat, dog, fish"),
    "labels": ("{labels}", "must hold a name for each class of the network. Expected: 3 names"),
}  # fmt: skip


def wrong_parts():
    """Yields the commands of one network with an option that names a part of it."""
    for name, leaf in LEAVES.items():
        networks = [one for one in arguments(leaf) if one.type in (network_path, classifier_path)]
        if [one.metavar for one in networks] == ["MODEL"] or name == "export":
            yield from (
                (name, one.dest) for one in arguments(leaf)
                if one.dest in PARTS and name != "transfer"
            )  # fmt: skip


@pytest.mark.parametrize(("name", "dest"), list(wrong_parts()))
def test_parts_that_the_network_does_not_have_are_refused(name, dest, places, refused):
    leaf = LEAVES[name]
    by_dest = {one.dest: one for one in arguments(leaf)}
    [network] = [one for one in by_dest.values() if one.type in (network_path, classifier_path)]
    text, expected = PARTS[dest]
    words = [*name.split(" "), places["keras"]]
    for one in by_dest.values():
        if one.required and one not in (network, by_dest[dest]) and one.nargs != "*":
            given = ["--layer", "conv1"] if one.dest == "layer" else right_words(one, places)
            words += given
    if dest == "unit" and not by_dest["layer"].required:
        words += ["--layer", "conv1"]
    if name == "predict" and dest == "target":
        words += ["--panel", f"{places['new']}.png", "--explain", "gradcam"]
    if name in ("features", "evaluate"):
        words += ["--dataset", "digits"]
    words += [by_dest[dest].option_strings[0], text.format(**places)]
    assert expected in refused(words)


def test_many_commands_name_parts_of_a_network():
    assert len(list(wrong_parts())) >= 25
    assert {dest for _, dest in wrong_parts()} == set(PARTS)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("predict {unfinished} {image}", "has no model yet"),
        ("export {unfinished} --output {new}", "has no model yet"),
        ("features {unfinished} --layer fc7 --dataset digits --output {new}", "has no model yet"),
        ("visualize filters {unfinished} --output {new}.png", "has no model yet"),
        ("train --init-from {unfinished} --output {new}", "has no model yet"),
        ("finetune {unfinished} digits --output {new}", "has no model yet"),
        ("visualize evolution {run} --layer conv1 --output {new}.png", "kept no model of its"),
    ],
)
def test_runs_that_lack_a_network_are_refused(line, text, places, monkeypatch, capsys, tmp_path):
    """With the exit code of a run that cannot be used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quiet_tensorflow, "import_tensorflow", lambda: 1 / 0)
    assert main([word.format(**places) for word in line.split(" ")]) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", LEAVES)
def test_arguments_are_checked_by_their_types(name):
    """Numbers state their range, and names of files and datasets are looked at while parsing."""
    for action in arguments(LEAVES[name]):
        what = f"{name} {action.option_strings or action.dest}"
        assert action.type not in (int, float), f"{what}: use Whole or Number of cnnkit.cli.values"
        if action.dest in CHECKED and (name, action.dest) != ("serve", "models"):
            assert action.type or action.choices, f"{what}: use a type of cnnkit.cli.values"


def test_every_help_names_the_options_of_all_commands(capsys):
    for name, leaf in LEAVES.items():
        for option in ("--quiet", "--verbose", "--debug", "--max-image-pixels", "--version"):
            assert option in leaf.format_help(), name
    assert main(["help", "visualize", "gradcam"]) == 0
    shown = capsys.readouterr().out
    assert main(["visualize", "gradcam", "--help"]) == 0
    assert capsys.readouterr().out == shown and "--layer" in shown


def cnnkit_process(*words, **options):
    command = [sys.executable, "-m", "cnnkit", *words]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["recipes"], ["recipes", "demo", "--json"], ["--help"]])
def test_a_full_standard_output_is_one_line(words):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = cnnkit_process(*words, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "cnnkit: error: Standard output could not be written: No space left on device."
        " Make room there.\n"
    )


def test_closed_streams_lead_nowhere():
    shell = f'"{sys.executable}" -m cnnkit'
    for words, code in (("recipes >&-", 0), ("recipes 2>&- >&-", 0), ("recipes nope 2>&-", 2)):
        done = subprocess.run(f"{shell} {words}", shell=True, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, ""), words


@pytest.mark.parametrize("words", [["--version"], ["recipes", "--json"]])
def test_a_reader_that_is_gone_is_no_error(words):
    """A short text stays in the buffer, which Python would write again when it exits."""
    reader, writer = os.pipe()
    os.close(reader)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = cnnkit_process(*words, stdout=writer, env=env)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_locale_without_the_characters_of_a_name_shows_their_escapes(tmp_path):
    write_metrics_run(tmp_path / "r\u00e9seau", [0.5])
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = cnnkit_process("runs", "--folder", tmp_path, stdout=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"r\xe9seau" in done.stdout


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path, places, refused):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "can be written" in refused(["train", "--output", str(tmp_path / "new")])
    tmp_path.chmod(stat.S_IRWXU)


def test_a_path_below_proc_is_refused(refused):
    if shutil.disk_usage("/proc").total:
        pytest.skip("needs /proc of Linux")
    assert "--output must be in a folder that can be written" in refused(
        ["train", "--output", "/proc/x"]
    )
