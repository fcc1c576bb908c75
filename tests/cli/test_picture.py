"""Options of picture files: every command that draws has them and refuses to replace a file."""

import argparse

import pytest

from cnnkit.cli.main import main
from cnnkit.cli.picture import (
    add_picture_arguments,
    check_picture_arguments,
    picture_options,
    refuse_picture_options,
)
from cnnkit.errors import UsageError
from tests.helpers.run_folders import write_metrics_run, write_two_runs


def parse(*words, option="--output"):
    parser = argparse.ArgumentParser()
    add_picture_arguments(parser, option)
    return parser.parse_args(words)


def test_a_picture_that_exists_is_refused_with_the_option_that_replaces_it(tmp_path):
    path = str(tmp_path / "x.svg")
    assert check_picture_arguments(parse("--output", path)) == tmp_path / "x.svg"
    (tmp_path / "x.svg").touch()
    refused = r"--figure must be a new file, and .* `overwrite=True` replaces"
    with pytest.raises(UsageError, match=refused):
        check_picture_arguments(parse("--figure", path, option="--figure"), "--figure")
    args = parse("--output", path, "--overwrite", "--dpi", "300")
    assert check_picture_arguments(args) == tmp_path / "x.svg"
    assert picture_options(args) == {"dpi": 300, "overwrite": True}


def test_files_beside_a_picture_are_not_replaced_either(tmp_path):
    (tmp_path / "x.png.json").touch()
    args = parse("--output", str(tmp_path / "x.png"))
    check_picture_arguments(args)
    with pytest.raises(UsageError, match=r"x\.png\.json exists"):
        check_picture_arguments(args, beside=(".json", ".npz"))


def test_options_of_a_picture_require_it():
    refuse_picture_options(parse(), "--figure")
    for words, name in ((["--dpi", "90"], "--dpi"), (["--overwrite"], "--overwrite")):
        with pytest.raises(UsageError, match=f"{name} requires --figure PICTURE"):
            refuse_picture_options(parse(*words), "--figure")


def test_missing_matplotlib_is_told_before_the_slow_part(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="`matplotlib` is not installed"):
        check_picture_arguments(parse("--output", str(tmp_path / "x.png")))


# The files that are named are empty: the picture is looked at first.
COMMANDS = {
    "plot": "plot {run} --output {}",
    "filters": "visualize filters {net} --output {}",
    "top9": "visualize top9 {net} digits --layer conv1 --output {}",
    "neighbors": "neighbors {net} --query {image} --index {run} --output {}",
    "transfer": "transfer {net} --dataset digits --per-class 1,2 --figure {}",
    "query": "query {image} --server localhost:1 --model none --explain {}",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_replaces_a_picture(tmp_path, capsys, command):
    picture, image, net = (tmp_path / name for name in ("mine.png", "image.png", "net.keras"))
    picture.write_bytes(b"mine")
    image.write_bytes(b"\x89PNG")
    net.write_bytes(b"PK\3\4")
    run = write_metrics_run(tmp_path / "run", [0.5]).path
    # Of features, for --index.
    (run / "index.json").touch()
    words = COMMANDS[command].format(picture, image=image, net=net, run=run).split()
    assert main(words) == 2
    assert f"must be a new file, and {picture} exists. --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--dpi", "5"]) == 2
    assert "--dpi must be a whole number of at least 10 and at most 1200" in capsys.readouterr().err
    assert picture.read_bytes() == b"mine"


def test_a_command_replaces_a_picture_when_told(tmp_path):
    run, _ = write_two_runs(tmp_path / "runs")
    picture = tmp_path / "curves.svg"
    words = ["plot", str(run.path), "--output", str(picture)]
    assert main(words) == 0
    picture.write_bytes(b"old")
    assert main(words) == 2
    assert main([*words, "--overwrite"]) == 0
    assert picture.read_bytes().startswith(b"<?xml")
