"""Files that appear complete or not at all, and JSON texts."""

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnkit
from cnnkit._files import append_line, join_lines, json_text, make_folder, read_lines, write_text
from cnnkit._staging import write_error
from cnnkit.errors import DataError, RunError
from tests.helpers.damage import damaged, reads_or_refuses


def test_lines_are_appended(tmp_path):
    append_line(tmp_path / "lines", "a")
    append_line(tmp_path / "lines", "b")
    assert (tmp_path / "lines").read_text() == "a\nb\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (
        lambda: write_text(tmp_path / "none" / "file", ""),
        lambda: append_line(tmp_path / "none" / "file", ""),
        lambda: make_folder(tmp_path / "file" / "folder"),
    ):
        with pytest.raises(RunError, match="could not be written. Received: No.*Write to another"):
            write()


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "No space left on device. Make room there; files"),
        (errno.EROFS, "Read-only file system. Write to another folder"),
        (errno.EBUSY, "Device or resource busy. A mount point cannot be replaced: use a folder"),
    ],
)
def test_the_hint_fits_the_error_of_the_system(number, hint):
    error = write_error(Path("a"), OSError(number, os.strerror(number)))
    assert hint in str(error)


def test_json_has_no_numbers_that_are_not_finite():
    document = {
        "a": math.nan, "b": [1.5, -math.inf, (np.float32("nan"), np.int64(3))], "c": "NaN",
        "d": np.array([1.0, np.inf]), "e": {"f": None, "g": True}, 3: 1e-300,
    }  # fmt: skip

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(json_text(document, indent=1), parse_constant=refuse) == {
        "a": None, "b": [1.5, None, [None, 3]], "c": "NaN", "d": [1.0, None],
        "e": {"f": None, "g": True}, "3": 1e-300,
    }  # fmt: skip


# Digests, messages between processes, words of the command line, and answers over REST, which name
# NaN as TensorFlow Serving does; their texts are not documents of users, or are refused.
NOT_DOCUMENTS = {
    "_files.py", "_untrusted/json_documents.py", "config.py", "config_fields.py",
    "stage_folder.py", "cli/option_names.py", "client/channel.py", "data/sources/tfrecord.py",
    "evaluation/result_store.py",
    "export/isolated_model.py", "export/isolated_worker.py", "features/extractor.py",
    "features/index.py", "models/weights/output_fingerprint.py",
    "server/access_log.py", "server/load_trial_worker.py", "server/rest_json.py",
    "training/checkpoint.py",
    "training/distribute.py", "training/train.py", "transfer/linear_probe.py",
}  # fmt: skip


def test_documents_are_written_by_json_text():
    package = Path(cnnkit.__file__).parent
    files = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if "json.dump" in file.read_text()
    }
    assert files <= NOT_DOCUMENTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_read_in_the_encoding_that_the_file_names(tmp_path, encoding, end):
    # U+0085, U+2028 and the form feed are line breaks of str.splitlines, but not of text files.
    names = ["cat", "caf\u00e9 \u732b", "", "one\u0085\u2028\x0cname"]
    (tmp_path / "file").write_bytes(end.join([*names, ""]).encode(encoding))
    assert read_lines(tmp_path / "file") == names
    (tmp_path / "file").write_bytes(end.join(names).encode(encoding))
    assert read_lines(tmp_path / "file") == names


@pytest.mark.parametrize("mark", ["fffe", "feff"])
def test_lines_are_read_in_both_byte_orders(tmp_path, mark):
    order = {"fffe": "le", "feff": "be"}[mark]
    (tmp_path / "file").write_bytes(bytes.fromhex(mark) + "cat\ndog\n".encode(f"utf-16-{order}"))
    assert read_lines(tmp_path / "file") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("chat\nbo\u00e9\n".encode("latin-1"), "the byte 0xe9 in line 2. Save it in UTF-8.*iconv"),
        ("cat\n".encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfec", "UTF-16 with a byte order mark"),
    ],
)
def test_an_unknown_encoding_is_not_guessed(tmp_path, data, text):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataError, match=text):
        read_lines(tmp_path / "file")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="must be a regular file. Received: a folder"):
        read_lines(tmp_path)


def test_a_line_break_in_a_name_is_refused():
    assert join_lines(["a\u2028b", ""]) == "a\u2028b\n\n"
    with pytest.raises(DataError, match=r"The name 'a\\nb' contains a line break"):
        join_lines(["a\nb"])


@settings(max_examples=100)
@given(
    data=st.one_of(
        *(
            damaged(text.encode(e))
            for text in ("cat\ndog\n", "a\r\n\u732b\r\n")
            for e in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
        )
    )
)
def test_any_lines_are_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "lines.txt"
    file.write_bytes(data)
    reads_or_refuses(lambda: read_lines(file))


def test_lines_have_limits(tmp_path):
    file = tmp_path / "lines.txt"
    for size, text in ((10 << 30, "is too large"), (100_000, "at most 65,536 characters each")):
        file.write_bytes(b"a" * min(size, 100_000))
        os.truncate(file, size)
        with pytest.raises(DataError, match=text):
            read_lines(file)
    file.write_bytes(b"\n" * 3_000_000)
    with pytest.raises(DataError, match="too many lines. Expected: 2000000. Received: 3,000,000"):
        read_lines(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="must be a regular file"):
        read_lines(file)
