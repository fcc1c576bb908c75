"""The command `cnnkit data`."""

import json
import os

import pytest
from PIL import Image

from cnnkit.cli.commands import data
from cnnkit.cli.main import main
from tests.helpers.images import write_files, write_flawed_folder

pytestmark = pytest.mark.usefixtures("unoptimized")


@pytest.fixture
def flawed_folder(tmp_path):
    return write_flawed_folder(tmp_path)


def test_check_on_the_command_line(flawed_folder, capsys):
    words = ["data", "check", f"folder:{flawed_folder}"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "22 files found: 19 images used, 3 left out\n1 of other types\n" in text
    assert "2 unreadable\n  train/dark/torn.jpg\n  train/dark/6.jpg\n" in text
    assert "test/light/same.png is train/light/4.jpg" in text
    assert "train: height 12 to 12 pixels, median 12" in text
    assert main([*words, "--strict", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["sound"] is False
    assert document["splits"]["train"]["classes"] == {"dark": 6, "light": 6}
    assert main(["data", "check", "digits", "--strict"]) == 0
    assert "0 unreadable\n0 test images that are training images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("add", "line"),
    [
        (lambda root: None, ""),
        (lambda root: write_files(root, ["train/dark/.DS_Store"], b""), "1 hidden"),
        (lambda root: write_files(root, ["Thumbs.db"], b""), "1 of the operating system"),
        (lambda root: write_files(root, ["train/dark/a.txt"], b"text"), "1 of other types"),
        (lambda root: write_files(root, ["train/dark/a.jpg"], b"torn"), "1 unreadable"),
        (lambda root: write_files(root, ["train/a.png"]), "1 outside the class folders"),
        (lambda root: write_files(root, ["train/annotations/a.xml"], b""), "1 of annotations"),
        (lambda root: write_files(root, ["val/dark/a.png"]), "1 in the unused split val"),
        (lambda root: (root / "train/dark/x.jpg").symlink_to("none"), "1 behind broken links"),
        (lambda root: (root / "train/dark/up").symlink_to(root), "1 behind cyclic links"),
        (lambda root: os.mkfifo(root / "train/dark/x.jpg"), "1 special (pipe, socket or device)"),
        (lambda root: (root / "train/light2").mkdir(), "1 class folders without images"),
    ],
)
def test_strict_fails_on_everything_that_is_left_out(tmp_path, capsys, add, line):
    names = [
        f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("dark", "light") for i in (1, 2)
    ]
    write_files(tmp_path, names)
    add(tmp_path)
    words = ["data", "check", f"folder:{tmp_path}"]
    assert main([*words, "--strict"]) == (1 if line else 0)
    text = capsys.readouterr().out
    assert not line or line in text.splitlines()
    found = sum(len(files) for _, _, files in os.walk(tmp_path))
    found += sum(path.is_symlink() and path.is_dir() for path in tmp_path.rglob("*"))
    assert f"{found} files found: 8 images used, {found - 8} left out" in text


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


def test_samples_of_the_same_name_in_several_folders(tmp_path, capsys):
    write_files(tmp_path / "set", [f"{c}/{s}/1.png" for c in ("a", "b" * 120) for s in "xyz"])
    words = ["data", "sample", f"folder:{tmp_path / 'set'}", "--count", "4", "--split", "train"]
    assert main([*words, "--output", str(tmp_path / "s")]) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == len(set(paths)) == 4
    # A long name of a class is cut.
    for path, label in zip(paths, ("a", "a", "b" * 100, "b" * 100), strict=True):
        assert path.endswith(f"-1-label-{label}.png")


def test_ten_files_are_listed(capsys):
    data._print_list("ten", list("abcdefghij"))
    assert capsys.readouterr().out.splitlines() == ["ten", *(f"  {one}" for one in "abcdefghij")]
    data._print_list("eleven", list("abcdefghijk"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["  j", "  and 1 more: --json names all"] and len(lines) == 12


def test_more_samples_than_images_are_refused(tmp_path, capsys):
    words = ["data", "sample", "digits", "--output", str(tmp_path / "s"), "--count"]
    assert main([*words, "360"]) == 2
    assert (
        "The split test of digits has 359 images. Expected: --count of 1 to 359. Received: 360"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "s").exists()


def test_files_left_out_are_told_beside_the_shards(tmp_path, capsys):
    write_files(tmp_path / "set", [f"{c}/{i}.png" for c in "ab" for i in range(5)])
    write_files(tmp_path / "set", ["a/notes.txt"], b"text")
    words = ["data", "shard", f"folder:{tmp_path / 'set'}", "--output", str(tmp_path / "s")]
    assert main(words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("8 training and 2 test images") and second.startswith("1 file left out")
    assert main([*words[:-1], str(tmp_path / "t"), "--json"]) == 0
    files = list((tmp_path / "t").glob("*.tfrecord"))
    assert json.loads(capsys.readouterr().out)["files"] == len(files) > 0
