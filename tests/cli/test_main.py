"""The commands as a user types them: output, texts of errors, exit codes."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnkit import __version__, alexnet
from cnnkit._untrusted.images import ENVIRONMENT_VARIABLE
from cnnkit.cli.commands import train as train_command
from cnnkit.cli.console import is_quiet
from cnnkit.cli.main import command_names, main, main_train
from cnnkit.cli.option_names import in_options
from cnnkit.errors import UsageError
from cnnkit.run_folder import RunFolder


@pytest.fixture(scope="module")
def run_folder(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--dataset", f"folder:{image_folder}", "--batch-size", "16", "--epochs", "2"]
    options += ["--image-size", "96", "--model-option", "hidden_units=64"]
    assert main(["train", *options, "--replicas", "2", "--output", str(folder)]) == 0
    return folder


def test_evaluate_agrees_with_the_metrics(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    last = RunFolder(run_folder).metrics[-1]
    assert document["top1_error"] == pytest.approx(1 - last["val_accuracy"], abs=1e-6)
    assert [row["label"] for row in document["classes"]] == ["above", "below"]
    assert main(["evaluate", str(run_folder)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:4] == ["class", "images", "top-1", "error"]
    assert [line.split()[0] for line in table[1:4]] == ["above", "below", "all,"]


def test_visualize_draws(run_folder, image_folder, tmp_path, capsys):
    picture = tmp_path / "x.png"
    arguments = [str(run_folder), str(image_folder / "above/01.png"), "--output", str(picture)]
    assert main(["visualize", "deconvnet", *arguments, "--layer", "conv5"]) == 0
    assert f"{picture}: conv5 unit" in capsys.readouterr().out
    pixels = np.asarray(Image.open(picture).convert("RGB"), float)
    assert pixels.shape[0] > 300
    # Two panels on white, neither of them flat.
    assert pixels[:, : pixels.shape[1] // 2].std() > 10
    assert pixels[:, pixels.shape[1] // 2 :].std() > 10
    # What was drawn lies beside the picture, and nothing else.
    beside = Path(f"{picture}.json"), Path(f"{picture}.npz")
    assert sorted(tmp_path.iterdir()) == sorted([picture, *beside])
    facts = json.loads(beside[0].read_text())
    assert (facts["layer"], facts["rule"]) == ("conv5", "deconvnet")
    with np.load(beside[1]) as arrays:
        lit = np.argwhere(arrays["projection"].any(axis=-1))
    top, left, bottom, right = facts["box"]
    assert (lit >= (top, left)).all() and (lit < (bottom, right)).all()


def test_visualize_takes_a_network_of_any_size(image_folder, tmp_path, capsys):
    alexnet(include_top=False, initializer="glorot").save(tmp_path / "free.keras")
    words = [str(tmp_path / "free.keras"), str(image_folder / "above/01.png"), "--layer", "pool2"]
    assert main(["visualize", "deconvnet", *words, "--output", str(tmp_path / "x.png")]) == 0
    assert "pool2 unit" in capsys.readouterr().out


def test_visualize_takes_a_network_without_a_file(tmp_path, capsys):
    words = ["random", "--model", "alexnet", "--model-option", "input_shape=[64,64,3]"]
    words += ["--model-option", "hidden_units=16", "--output", str(tmp_path / "x.png")]
    assert main(["visualize", "filters", *words]) == 0
    assert "96 kernels of conv1" in capsys.readouterr().out


def test_export_counts_versions(run_folder, tmp_path, capsys):
    (tmp_path / "m" / "6").mkdir(parents=True)
    assert main(["export", str(run_folder), "--output", str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'm' / '7'}: reloaded")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("train --model alexnett", 2, "--model must be one of alexnet, alexnet_caffe"),
        ("train --model vgg1", 2, "Did you mean vgg19 or vgg16 or vgg13?"),
        ("train --dataset digit", 2, "Unknown dataset 'digit'"),
        ("train --dataset folder:/no/such/folder", 2, "No folder /no/such/folder"),
        ("train --recipe dmo", 2, "Unknown recipe 'dmo'. Expected: one of demo, alexnet-paper"),
        ("train --image-size 32", 2, "at least 64. Received: 32 x 32"),
        ("train --epochs 0", 2, "--epochs must be a whole number of at least 1, received 0"),
        ("train --strategy default --replicas 2", 2, "--strategy mirrored"),
        ("train --model-option dropout", 2, "--model-option must be NAME=VALUE. Received: dropout"),
        ("train --model-option dropot=0", 2, "Did you mean dropout"),
        ("train --resume", 2, "--resume requires --output RUN"),
        ("train --resume --output {tmp}/none", 2, "No run folder"),
        ("train --output {run}", 2, "exists. --resume continues it, --overwrite starts again"),
        ("train --output {images}", 2, "exists and is not a run folder"),
        ("train --resume --output {run} --batch-size 8", 2, "batch_size 16, now 8"),
        (
            "train --resume --overwrite --output {run}",
            2,
            "--resume and --overwrite must not be given together",
        ),
        ("evaluate {tmp}", 2, "No run folder"),
        ("evaluate {run} --batch-size 0", 2, "--batch-size must be a whole number of at least 1"),
        ("export {tmp} --output {tmp}/m", 2, "No run folder"),
        ("visualize deconvnet {run} {tmp}/no.png --layer conv5 --output {tmp}/x.png", 2,
         "`IMAGE` must be an existing image file, received"),
        ("visualize deconvnet {run} {run}/labels.txt --layer conv5 --output {tmp}/x.png", 2,
         "`IMAGE` must be an image file (JPEG, PNG, GIF, BMP or WebP), received"),
        ("visualize deconvnet {run} {image} --layer conv6 --output {tmp}/x.png", 2,
         "Unknown layer 'conv6'"),
        ("visualize deconvnet {run} {image} --layer conv5 --unit 256 --output {tmp}/x.png", 2,
         "has no unit 256. Expected: 0 to 255"),
        ("visualize deconvnet {run} {image} --layer conv5 --rule guide --output {tmp}/x.png", 2,
         "Did you mean guided"),
        ("visualize deconvnet {run} {image} --layer conv5 --output {tmp}/x.jpg", 2,
         "--output must be NAME.png or NAME.svg or NAME.pdf, received"),
        ("visualize deconvnet {tmp}/m.keras {image} --layer c --output {tmp}/x.png", 2,
         "`MODEL` must be an existing run folder, model or weights file"),
        ("data sample digits --count 0 --output {tmp}/s", 2,
         "--count must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run_folder, image_folder, tmp_path, capsys, arguments, code, text):
    places = {"run": run_folder, "tmp": tmp_path, "images": image_folder,
              "image": image_folder / "above/01.png"}  # fmt: skip
    before = sorted(run_folder.rglob("*"))
    words = [word.format(**places) for word in arguments.split()]
    if words[0] == "train" and "--output" not in words:
        words += ["--output", str(tmp_path / "new")]
    capsys.readouterr()
    if "--resume" in words and words[-1] == str(tmp_path / "new"):
        words = words[:-2]
    assert main(words) == code
    error = capsys.readouterr().err
    assert error.startswith("cnnkit: error: ")
    assert text in error
    assert error.count("\n") == 1
    assert sorted(run_folder.rglob("*")) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "models/digits", "--tls-key={}"],
        ["query", "7.png", "--tls-key", "{}"],
        ["query", "7.png", "--token-file", "{}"],
    ],
)
def test_a_private_key_on_the_command_line_is_one_line(capsys, words):
    key = "-----BEGIN PRIVATE KEY" + "-----\nc2VjcmV0\n"
    assert main([word.format(key) for word in words]) == 2
    error = capsys.readouterr().err
    assert "An option must be the path of a file, received the text of a private key" in error
    assert "c2VjcmV0" not in error
    assert len(error.splitlines()) == 1


def test_no_words_print_the_help(capsys):
    assert main([]) == 2
    assert "usage: cnnkit" in capsys.readouterr().err


def test_help_and_version(capsys, monkeypatch):
    for words in (["--help"], ["train", "--help"], ["visualize", "deconvnet", "--help"]):
        assert main(words) == 0
    text = capsys.readouterr().out
    for command in command_names():
        assert command in text
    for words in (["--version"], ["train", "--version"], ["-q", "query", "--version"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"cnnkit {__version__}\n"
    monkeypatch.setattr(sys, "argv", ["cnnkit-train", "--version"])
    assert main_train() == 0
    assert capsys.readouterr().out == f"cnnkit {__version__}\n"


def test_a_package_that_is_missing_is_named(tmp_path):
    """As in the installation of a client, which has no TensorFlow."""
    program = "import sys; sys.modules['tensorflow'] = None; from cnnkit.cli.main import main; "
    program += f"sys.exit(main(['train', '--output', {str(tmp_path / 'run')!r}]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "cnnkit: error: This command needs the package tensorflow, which is not installed. "
    )
    assert "pip install tensorflow" in done.stderr
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(capsys):
    assert main(["evaluate", "/no/such/run", "--debug"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_unexpected_failures_and_interrupts(capsys, monkeypatch):
    def fail(_):
        raise ZeroDivisionError("by zero\nsecond line")

    monkeypatch.setattr(train_command, "run", fail)
    assert main(["train"]) == 1
    error = capsys.readouterr().err
    assert error == "cnnkit: error: ZeroDivisionError: by zero (--debug shows the traceback)\n"

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "run", interrupt)
    assert main(["train"]) == 130


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError(), 1, "error: Memory is full; a smaller --batch-size takes less."),
        (OSError("odd"), 1, "error: OSError: odd (--debug shows the traceback)"),
        (OSError(2, "No such file", b"a\xff"), 1, "cannot be used. Received: No such file."),
        (ModuleNotFoundError("No module", name="sklearn.svm"), 2,
         "needs the package sklearn, which is not installed. Install it: pip install scikit-learn"),
        (ModuleNotFoundError("No module", name="shtab"), 2, "Install it: pip install shtab."),
        (ModuleNotFoundError("No a", name="cnnkit.a"), 1, "error: ModuleNotFoundError: No a"),
        (ModuleNotFoundError("No module"), 1, "error: ModuleNotFoundError: No module"),
        (UsageError("wrong"), 2, "cnnkit: error: wrong.\n"),
        (KeyboardInterrupt(), 130, "cnnkit: interrupted\n"),
        (BrokenPipeError(), 1, ""),
        (SystemExit(3), 3, ""),
        (SystemExit("text"), 1, ""),
    ],
)  # fmt: skip
def test_how_a_command_ends(error, code, text, capsys, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr("cnnkit.cli.commands.recipes.run", fail)
    assert main(["recipes"]) == code
    said = capsys.readouterr().err
    assert text in said and said.count("\n") == bool(text)


@pytest.mark.parametrize("before", [None, "1234"])
def test_a_command_leaves_the_process_as_it_was(before, capsys, monkeypatch):
    if before is None:
        monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, before)
    seen, format_warning = [], warnings.formatwarning

    def look(_):
        seen.append((os.environ[ENVIRONMENT_VARIABLE], is_quiet(), in_options("`json`")))

    monkeypatch.setattr("cnnkit.cli.commands.recipes.run", look)
    assert main(["--quiet", "recipes", "--max-image-pixels", "5"]) == 0
    assert seen == [("5", True, "--json")]
    assert os.environ.get(ENVIRONMENT_VARIABLE) == before
    assert (is_quiet(), in_options("`json`")) == (False, "`json`")
    assert warnings.formatwarning is format_warning


@pytest.mark.parametrize(
    "module",
    [
        "cnnkit",
        "cnnkit.cli.main",
        "cnnkit.config",
        "cnnkit.recipes",
        "cnnkit.client",
        # `cnnkit query --explain` draws beside a client alone.
        "cnnkit.figures",
    ],
)
def test_light_modules_import_nothing_heavy(module):
    code = (
        f"import sys, {module}\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'matplotlib', 'tensorflow_datasets'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == ""
    if module == "cnnkit.cli.main":
        imports = "[cnnkit.cli.main._module(name) for name in cnnkit.cli.main.command_names()]"
        code = code.replace("heavy =", f"{imports}; heavy =")
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == ""


def test_former_names_of_a_run_are_noted_in_one_line(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    fields = {"epochs": 2, "drop_epochs": [2]}
    (run / "config.json").write_text(json.dumps(fields))
    (run / "labels.txt").write_text("a\n")
    (run / "metrics.jsonl").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "cnnkit", "runs", str(run)], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == (
        f"cnnkit: note: {run / 'config.json'} uses names of version 0.1.0, which work until 0.3.0: "
        "drop_epochs is now lr_milestones\n"
    )
