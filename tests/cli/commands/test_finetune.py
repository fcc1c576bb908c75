"""`cnnkit finetune`: what it prints, resumes and exports, and wrong arguments."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from cnnkit.cli.commands import finetune as command
from cnnkit.cli.main import main
from cnnkit.config import TrainingConfig
from cnnkit.data import Decoding, load
from cnnkit.figures import learning_rates
from cnnkit.recipes import TrainingStage
from cnnkit.run_folder import RunFolder
from cnnkit.stage_folder import read_stages
from cnnkit.training import train
from cnnkit.training.finetune import finetuning_stages
from cnnkit.training.inputs import held_out_augmentation

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    config = TrainingConfig(
        model="cifar10_quick", image_size=32, epochs=1, batch_size=64, learning_rate=0.001
    )
    return str(train(config, tmp_path_factory.mktemp("runs") / "digits").path)


def test_photos_are_learned_by_one_command(digits, image_folder, tmp_path, capsys, monkeypatch):
    exported = []

    def export(model, labels, folder, **options):
        exported.append((labels, folder, options))
        return folder

    monkeypatch.setattr("cnnkit.export.export", export)
    opened, open_dataset = [], load._open_dataset
    monkeypatch.setattr(
        load, "_open_dataset", lambda *args: opened.append(args[0]) or open_dataset(*args)
    )
    output, picture = tmp_path / "photos", tmp_path / "rates.png"
    words = ["finetune", digits, f"folder:{image_folder}", "--output", str(output)]
    words += ["--epochs", "1", "--batch-size", "16", "--lr-find", str(picture)]
    words += ["--early-stopping-patience", "3", "--background", "#000009"]
    words += ["--export", str(tmp_path / "served")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    # For the rate, the sweep and two stages.
    assert opened == [f"folder:{image_folder}"]
    assert lines[0] == "part 1 of 2: classifier"
    assert not [line for line in lines if line.startswith("deviates")]
    assert "note: 16 training images of each class" in lines
    [found] = [line for line in lines if line.startswith("learning rate ")]
    stages = read_stages(output)
    rate = stages[1].config.learning_rate
    assert found == f"learning rate {rate:g}, of a sweep: {picture}"
    # The classifier keeps its own rate.
    [factor] = stages[1].config.lr_multipliers.values()
    assert factor * rate == pytest.approx(stages[0].config.learning_rate)
    with Image.open(picture) as image:
        assert image.size[0] > 300
    assert lines[-3].startswith(f"done: {output}, 0.0% error on the held-out images, the lowest of")
    [(labels, folder, options)] = exported
    assert (labels, folder) == (("above", "below"), str(tmp_path / "served"))
    assert options["origin"].error == 0
    assert options["decoding"] == Decoding(background=(0, 0, 9))
    assert options["augmentation"] == held_out_augmentation(RunFolder(output).config)
    assert RunFolder(output).environment["recipe"] == "finetune"
    assert main(["finetune", "--resume", "--output", str(output), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"] == str(output)
    assert document["val_accuracy"] == 1


def test_an_interrupted_run_goes_on_with_its_second_stage(digits, image_folder, tmp_path, capsys):
    """The first stage is finished, and the second one has not begun."""
    from cnnkit.stage_folder import write_stages

    output = tmp_path / "photos"
    stages = finetuning_stages(
        digits, f"folder:{image_folder}", epochs=1, batch_size=16, early_stopping_patience=1
    )
    write_stages(output, stages)
    run = train(stages[0].config, output / stages[0].name)
    assert main(["finetune", "--resume", "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "part 2 of 2: finetuned"
    assert len(RunFolder(output).metrics) == len(run.metrics) + 1


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Returns a function that calls the command, whose training ends with an exit code."""
    monkeypatch.chdir(tmp_path)
    exported = []
    monkeypatch.setattr(command, "_export", lambda output, folder, out: exported.append(folder))

    def call(code, *words):
        monkeypatch.setattr(command, "train_and_report", lambda args, output, work: code)
        return main(["finetune", *words]), exported

    return call


def test_what_comes_after_the_training(trained, digits, tmp_path, capsys):
    words = [digits, "digits", "--export", "served"]
    assert trained(0, *words) == (0, ["served"])
    assert capsys.readouterr().out.startswith("ask it about a photo: cnnkit predict runs/digits ")
    # Of a training that was stopped there is nothing yet.
    assert trained(130, *words) == (130, ["served"])
    assert capsys.readouterr().out == ""
    # The document is alone on standard output.
    assert trained(0, digits, "digits", "--json")[0] == 0
    assert capsys.readouterr() == ("", "")


def test_a_picture_is_replaced_and_packages_are_there_before_the_training(
    trained, digits, tmp_path, capsys, monkeypatch
):
    (tmp_path / "rates.png").touch()
    words = [digits, "digits", "--lr-find", "rates.png"]
    assert trained(0, *words)[0] == 2
    assert "rates.png exists" in capsys.readouterr().err
    assert trained(0, *words, "--overwrite")[0] == 0
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert trained(0, digits, "digits", "--tensorboard")[0] == 2
    assert "tensorboard" in capsys.readouterr().err


def test_a_sweep_comes_before_the_second_stage_begins(digits, tmp_path, monkeypatch):
    """It moves the layers below the classifier, which keeps its own rate."""
    monkeypatch.chdir(tmp_path)
    config = TrainingConfig(learning_rate=0.1, lr_multipliers={"fc8/*": 20.0})
    stages = [TrainingStage(name, config) for name in ("classifier", "finetuned")]
    calls = []

    def record(name, result=None):
        def call(*args, **options):
            calls.append((name, args, options))
            return result

        return call

    sweep = SimpleNamespace(rates=[0.2], losses=[1.0], suggestion=0.2)
    modules = sys.modules
    for module, name, result in (
        (modules["cnnkit.training.finetune"], "finetuning_stages", stages),
        (modules["cnnkit.training.learning_rate_sweep"], "sweep_learning_rate", sweep),
        (learning_rates, "draw_learning_rate_sweep", None),
        (command, "write_stages", None),
        (command, "replace_stages", None),
    ):
        monkeypatch.setattr(module, name, record(name, result))

    def train_stages(output, stages, train_stage, report):
        for stage in stages:
            for resume in (True, False):
                train_stage(stage.config, output / stage.name, resume)

    monkeypatch.setattr(command, "train_stages", train_stages)
    monkeypatch.setattr(
        command, "train_and_report", lambda args, output, work: work(record("train")) and 0
    )
    assert main(["finetune", digits, "digits", "--overwrite", "--lr-find", "rates.png"]) == 0
    named = {name: (args, options) for name, args, options in calls}
    assert named["write_stages"][1] == named["draw_learning_rate_sweep"][1] == {"overwrite": True}
    [[swept], _] = named["sweep_learning_rate"]
    assert swept == dataclasses.replace(config, lr_multipliers={"fc8/*": 0.0})
    found = dataclasses.replace(config, learning_rate=0.2, lr_multipliers={"fc8/*": 10.0})
    trained = [args for name, args, _ in calls if name == "train"]
    assert [(folder.name, resume, one) for one, folder, resume, _ in trained] == [
        ("classifier", True, config),
        ("classifier", False, config),
        ("finetuned", True, config),
        ("finetuned", False, found),
    ]
    assert {facts["recipe"] for *_, facts in trained} == {"finetune"}
    [[output, kept], _] = named["replace_stages"]
    assert [stage.config for stage in kept] == [config, found]
    assert output.name == "digits"


def test_the_run_has_the_name_of_the_folder():
    assert command._name("folder:some/photos/") == "photos"
    assert command._name("digits") == "digits"
    assert command._name("folder:/") == "finetuned"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "must be given"),
        (["nope.npz", "folder:x"], "must be an existing run folder, model or weights file"),
        (["folder:photos", "w.npz"], "received the dataset folder:photos"),
        (["--resume"], "Expected: cnnkit finetune --resume --output RUN"),
        (["{digits}", "photos"], "photos"),
        (["{digits}", "digits", "--output", "{digits}"], "is not a folder of stages"),
        (["{digits}", "digits", "--freeze", "conv9"], "--freeze must name layers of"),
        (
            ["{digits}", "digits", "--learning-rate", "0"],
            "--learning-rate must be a finite number of more than 0",
        ),
        (["{digits}", "digits", "--model", "vgg17"], "vgg17"),
        (
            ["{digits}", "digits", "--lr-find", "rates.txt"],
            "must be NAME.png or NAME.svg or NAME.pdf",
        ),
    ],
)
def test_wrong_calls_are_one_line_and_leave_nothing(
    words, text, digits, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", *(word.format(digits=digits) for word in words)]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
