"""Opening regular files, and nothing else."""

import os

import pytest

from cnnkit._untrusted.regular_files import (
    FileRange,
    open_regular_file,
    read_bytes,
    read_text,
)
from cnnkit.errors import DataError

KINDS = {
    "fifo": "must be a regular file",
    "folder": "must be a regular file",
    "device": "must be a regular file",
    "missing": "cannot be read. Received: No such file or directory.$",
    "zero byte": "cannot be read. Received: embedded null byte.$",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "zero byte":
        path = "a\0b"
    with pytest.raises(DataError, match=KINDS[kind]):
        open_regular_file(path)


def test_links_to_files_are_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", max_bytes=3) == b"abc"


def test_a_file_larger_than_its_limit_is_not_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="too large.*at most 3 bytes.*1,099,511,627,776"):
        read_bytes(path, max_bytes=3)


@pytest.mark.parametrize("data", [b"caf\xe9", b"a\0b"])
def test_text_is_utf_8_without_zero_bytes(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(DataError, match="UTF-8.*byte"):
        read_text(path)


def test_the_line_of_a_byte_that_is_no_text_is_told(tmp_path):
    (tmp_path / "x").write_bytes(b"a\nb\ncaf\xe9\n\xff")
    with pytest.raises(DataError, match="Received: the byte 0xe9 in line 3"):
        read_text(tmp_path / "x")


def test_a_file_that_states_no_size_is_read_up_to_its_limit():
    """As those of the kernel, whose size is 0."""
    path = "/proc/self/stat"
    size = len(read_bytes(path, max_bytes=4096))
    assert size > 20
    with pytest.raises(DataError, match="too large. Expected: at most 9 bytes. Received: 10"):
        read_bytes(path, max_bytes=9)


def test_a_part_of_a_file_is_a_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"0123456789\nabc")
    with path.open("rb") as file:
        part = FileRange(file, 2, 10, max_read=8)
        buffer = bytearray(8)
        assert part.readinto(buffer) == 8 and bytes(buffer) == b"23456789"
        assert part.read(8) == b"\na" and part.read(1) == b""
        assert part.seek(0) == 0 and part.readline(-1) == b"23456789\n"
        assert part.seek(-1, os.SEEK_END) == 9
        with pytest.raises(ValueError, match="negative position -1"):
            part.seek(-11, os.SEEK_END)
        assert part.seek(-7, os.SEEK_CUR) == 2 and part.tell() == 2
        assert part.readline(3) == b"456" and part.readline(0) == b"" and part.tell() == 5
        with pytest.raises(DataError, match="absurd length.*at most 8.*9"):
            part.read(9)
        with pytest.raises(DataError, match="absurd length.*at most 8.*9"):
            part.readinto(bytearray(9))
        # Behind the end there is nothing.
        assert part.seek(12) == 12 and part.read(3) == part.readline() == b""
        assert part.readinto(buffer) == 0 and part.tell() == 12
        assert part.readable() and part.seekable()


def test_a_part_that_is_read_again_and_again_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        part = FileRange(file, max_total=16)
        for _ in range(2):
            assert part.seek(0) == 0 and part.read(8) == b"01234567"
        with pytest.raises(DataError, match="read again and again.*at most 16 bytes"):
            part.read(1)


@pytest.mark.parametrize("length", [1 << 16, (1 << 16) + 1])
def test_a_line_has_at_most_64_kib_with_its_end(tmp_path, length):
    path = tmp_path / "x"
    path.write_bytes(b"x" * (length - 1) + b"\n" + b"more")
    with path.open("rb") as file:
        if length == 1 << 16:
            assert len(FileRange(file).readline()) == length
        else:
            with pytest.raises(DataError, match="long line"):
                FileRange(file).readline()


def test_a_line_without_an_end_is_refused(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with path.open("rb") as file, pytest.raises(DataError, match="long line"):
        FileRange(file).readline()
