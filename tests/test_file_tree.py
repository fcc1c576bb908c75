"""All files below a folder, and why some are no images."""

import os

import pytest

from cnnkit._file_tree import find_files, is_ordinary, printable_name
from tests.helpers.images import write_files


def reasons_below(folder):
    return {file.name: file.reason for file in find_files(folder)}


def test_names_of_the_operating_system_and_hidden_ones_have_that_reason(tmp_path):
    names = [
        "cat/1.png",
        "cat/.DS_Store",
        ".git/objects/ab/cdef",
        "__MACOSX/cat/._1.png",
        "__MACOSX/cat/1.png",
        "cat/@eaDir/1.png",
        "Thumbs.db",
        "sub/Desktop.ini",
    ]
    write_files(tmp_path, names)
    assert reasons_below(tmp_path) == {
        "cat/1.png": None,
        "cat/.DS_Store": "hidden",
        ".git/objects/ab/cdef": "hidden",
        "__MACOSX/cat/._1.png": "of the operating system",
        "__MACOSX/cat/1.png": "of the operating system",
        "cat/@eaDir/1.png": "of the operating system",
        "Thumbs.db": "of the operating system",
        "sub/Desktop.ini": "of the operating system",
    }
    assert not is_ordinary(".x")
    assert is_ordinary("x.")


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    root = write_files(tmp_path / "root", ["cat/1.png", "dog/2.png"])
    write_files(tmp_path / "elsewhere", ["3.png", "deep/4.png"])
    (root / "cat" / "file.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    (root / "cat" / "gone.png").symlink_to(tmp_path / "gone.png")
    (root / "cat" / "itself.png").symlink_to("itself.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "up").symlink_to(root)
    (root / "dog" / "cat").symlink_to(root / "cat")
    assert reasons_below(root) == {
        "cat/1.png": None,
        "cat/file.png": None,
        "cat/gone.png": "behind broken links",
        "cat/itself.png": "behind broken links",
        "cat/up": "behind cyclic links",
        "dog/2.png": None,
        "dog/cat/1.png": None,
        "dog/cat/file.png": None,
        "dog/cat/gone.png": "behind broken links",
        "dog/cat/itself.png": "behind broken links",
        "dog/cat/up": "behind cyclic links",
        "linked/3.png": None,
        "linked/deep/4.png": None,
    }


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert reasons_below(tmp_path) == {"pipe.png": "special (pipe, socket or device)"}


def test_sizes_are_those_behind_the_links(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert [file.size for file in find_files(tmp_path)] == [5, 5]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_without_permission_is_named(tmp_path):
    write_files(tmp_path, ["shut/1.png"])
    (tmp_path / "shut").chmod(0)
    assert reasons_below(tmp_path) == {"shut": "in folders without permission"}
    (tmp_path / "shut").chmod(0o700)


def test_names_that_are_not_utf8_can_be_printed():
    assert printable_name(os.fsdecode(b"caf\xe9/\xff.png")) == r"caf\xe9/\xff.png"
    assert printable_name("caf\u00e9/\u732b.png") == "caf\u00e9/\u732b.png"
