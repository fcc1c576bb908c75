"""All files below a folder, and why some are no images."""

import os

import pytest

from cnnkit._file_tree import (
    check_version_free,
    count_left_out,
    find_files,
    find_image_files,
    is_exported,
    is_ordinary,
    newest_results,
    printable_name,
    why_no_weights,
)
from cnnkit.errors import UsageError
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


def test_what_is_left_out_is_counted_by_its_reason():
    assert count_left_out({"hidden": 1}) == "1 file left out: 1 hidden"
    counts = {"b": 2, "a": 2, "of other types": 1000, "none": 0}
    assert count_left_out(counts) == "1,004 files left out: 1,000 of other types, 2 a, 2 b"


def test_image_files_are_those_with_the_names_of_images(tmp_path):
    names = ["b.JPG", "a.png", "c.txt", ".d.png", "deep/e.webp"]
    write_files(tmp_path, names)
    found, left_out = find_image_files(tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in found] == ["a.png", "b.JPG", "deep/e.webp"]
    assert left_out == {"of other types": 1, "hidden": 1}
    with pytest.raises(UsageError, match=r"has no image files. Expected: files \.bmp \.gif"):
        find_image_files(write_files(tmp_path / "none", ["a.txt"]))


def test_an_exported_network_has_versions_or_is_one(tmp_path):
    assert not is_exported(tmp_path) and not is_exported(tmp_path / "none")
    write_files(tmp_path, ["net/1/saved_model.pb", "other/one/saved_model.pb"])
    assert is_exported(tmp_path / "net") and is_exported(tmp_path / "net" / "1")
    assert not is_exported(tmp_path / "other")


def test_a_version_is_free_or_refused(tmp_path):
    write_files(tmp_path, ["net/2/saved_model.pb", "file"])
    for version in (None, 1, 3):
        check_version_free(tmp_path / "net", version)
    for output, version, text in (
        ("net", 2, "Version 2 exists in"),
        ("net", 0, "`version` must be 1 or more. Received: 0"),
        ("file", None, "`output` must be a model folder, not a file"),
    ):
        with pytest.raises(UsageError, match=text):
            check_version_free(tmp_path / output, version)


def test_the_newest_results_of_a_run_are_taken(tmp_path):
    with pytest.raises(UsageError, match="has not been evaluated yet. Run `cnnkit evaluate"):
        newest_results(tmp_path)
    write_files(tmp_path, ["evaluations/a.json", "evaluations/b.json", "evaluations/c.txt"])
    for name, second in (("a.json", 20), ("b.json", 10), ("c.txt", 30)):
        os.utime(tmp_path / "evaluations" / name, (second, second))
    assert newest_results(tmp_path).name == "a.json"


def test_files_that_hold_no_weights_are_told(tmp_path):
    for data, why in (
        (b"", "empty"),
        (b"hello, world\n", "text"),
        # The head of a .safetensors file, and bytes of others.
        (b'\x08\0\0\0\0\0\0\0{"a":1}', None),
        (b'12345678{"a":1}', None),
        (b"text\xff", None),
    ):
        (tmp_path / "x").write_bytes(data)
        assert why_no_weights(tmp_path / "x") == why
