"""The command `cnnkit data`."""

import json

import pytest
from PIL import Image

from cnnkit.cli.main import main
from tests.helpers.images import write_flawed_folder


@pytest.fixture
def flawed_folder(tmp_path):
    return write_flawed_folder(tmp_path)


def test_check_on_the_command_line(flawed_folder, capsys):
    words = ["data", "check", f"folder:{flawed_folder}"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "2 unreadable" in text and "train/dark/6.jpg" in text and "notes.txt" in text
    assert "test/light/same.png is train/light/4.jpg" in text
    assert "train: height 12 to 12 pixels, median 12" in text
    assert main([*words, "--strict", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["sound"] is False
    assert document["splits"]["train"]["classes"] == {"dark": 6, "light": 6}
    assert main(["data", "check", "digits", "--strict"]) == 0
    assert "0 unreadable\n0 test images that are training images" in capsys.readouterr().out


def test_shard_on_the_command_line(image_folder, tmp_path, capsys):
    words = ["data", "shard", f"folder:{image_folder}", "--output", str(tmp_path / "s")]
    assert main(words) == 0
    expected = f"shards:{tmp_path / 's'}: 32 training and 8 test images\n"
    captured = capsys.readouterr()
    assert captured.out == expected
    assert captured.err == ""
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "t"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == {"train": 32, "test": 8}


def test_data_sample_writes_files(tmp_path, capsys):
    arguments = ["data", "sample", "digits", "--count", "3", "--output", str(tmp_path / "s")]
    assert main(arguments) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 3
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (8, 8)
        assert path.rpartition("-label-")[2].removesuffix(".png") in "0123456789"
    assert main(arguments) == 2
    assert "exists. Remove it or use another --output" in capsys.readouterr().err
