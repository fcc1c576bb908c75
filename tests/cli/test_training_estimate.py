"""`cnnkit train --estimate`: the lines, the document, and what it refuses."""

import json

import pytest

from cnnkit import training
from cnnkit.cli.main import main
from cnnkit.cli.training_estimate import duration_text
from tests.helpers.training_estimate import ESTIMATE


@pytest.fixture
def asked(monkeypatch):
    """The configurations that were measured, each with its seconds."""
    calls = []

    def estimate(config, *, seconds, download, report):
        calls.append((config, seconds))
        report("the first step is done")
        return ESTIMATE.with_images(128_000, 5000)

    monkeypatch.setattr(training, "estimate_training", estimate)
    return calls


def test_a_recipe_on_other_images_tells_the_time_on_imagenet(asked, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--recipe", "alexnet-paper", "--dataset", "digits", "--estimate"]
    assert main(words) == 0
    text, error = capsys.readouterr()
    assert "the first step is done; measuring for 60 s" in error
    assert [(config.dataset, seconds) for config, seconds in asked] == [("digits", 60.0)]
    assert "128,000 training and 5,000 held-out images, 1000 classes, 90 epochs of 1,000" in text
    # 7 + 128 + 90 x (1,000 x 0.5 + 5,000 x 0.002 + 3) s = 46,305 s, and so on for ImageNet.
    assert "12.9 h" in text
    assert "with ImageNet's 1,281,167 training and 50,000 held-out images: 5.3 days" in text
    assert "known times: the paper: 5 to 6 days on two GTX 580" in text
    assert list(tmp_path.iterdir()) == []


def test_an_option_changes_what_is_measured(asked, capsys):
    words = ["train", "--recipe", "alexnet-paper", "--batch-size", "32", "--estimate", "2.5"]
    assert main([*words, "--json"]) == 0
    [(config, seconds)] = asked
    assert (config.batch_size, seconds) == (32, 2.5)
    document = json.loads(capsys.readouterr().out)
    assert document["total_seconds"] == pytest.approx(46_305)
    [stage] = document["stages"]
    assert (stage["images_per_second"], stage["epoch_seconds"]) == (256, 513)
    # ImageNet itself needs no second table.
    assert "imagenet" not in document


def test_stages_share_the_time_and_add_up(asked, capsys):
    words = ["train", "--recipe", "vgg-d-staged", "--dataset", "digits", "--estimate", "8"]
    assert main(words) == 0
    assert [config.model for config, _ in asked] == ["vgg11", "vgg16", "vgg16", "vgg16"]
    assert [seconds for _, seconds in asked] == [2, 2, 2, 2]
    lines = capsys.readouterr().out.splitlines()
    assert "all stages: 2.1 days" in lines
    assert [line for line in lines if line.startswith("with ImageNet's")][0].endswith("21.3 days")


def test_weights_to_begin_with_are_not_needed_but_layers_are(asked, capsys):
    assert main(["train", "--recipe", "vgg-d-384", "--estimate"]) == 0
    assert main(["train", "--recipe", "alexnet-22k", "--estimate"]) == 2
    assert "--model-option sixth_conv=VALUE" in capsys.readouterr().err
    assert [config.model for config, _ in asked] == ["vgg16"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--estimate", "0"], "--estimate must be"),
        (["--estimate", "--resume"], "--resume and --estimate must not be given together"),
        (["--estimate", "--output", "runs/x"], "--output and --estimate must not be given"),
        (["--estimate", "--workers", "a:1,b:1"], "--workers and --estimate must not be given"),
        (["--estimate", "--recipe", "alexnt"], "alexnt"),
    ],
)
def test_what_cannot_be_estimated_is_one_line(words, text, asked, capsys):
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not asked


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"), (0.999, "999.0 ms"), (1, "1.0 s"), (59.9, "59.9 s"), (60, "1.0 min"),
        (3600, "1.0 h"), (86_400, "1.0 days"), (86_399, "24.0 h"),
    ],
)  # fmt: skip
def test_durations_have_units(seconds, text):
    assert duration_text(seconds) == text
