"""Zip archives of strangers."""

import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit._untrusted import zip_archives
from cnnkit._untrusted.zip_archives import (
    check_paths,
    open_member,
    open_zip,
    read_member,
    stored_start,
)
from cnnkit.errors import CnnkitError, DataError


def write(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_whole_and_at_any_position(tmp_path, method):
    path = write(tmp_path / "a.zip", {"x": b"0123456789" * 100, "y": b""}, method)
    with open_zip(path) as archive:
        assert read_member(archive, "x", max_bytes=1000) == b"0123456789" * 100
        with open_member(archive, "x") as member:
            assert member.seek(995) == 995 and member.read() == b"56789"
        with pytest.raises(DataError, match="x in .* is too large.*at most 999"):
            read_member(archive, "x", max_bytes=999)
        with pytest.raises(DataError, match="has no z"):
            read_member(archive, "z", max_bytes=1)


def test_a_stored_member_begins_behind_its_name_and_its_extra_field(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for length in (5, 300):
            # An extra field: its kind, its length, its content.
            extra = struct.pack("<HH", 0x7777, length) + b"e" * length
            info = zipfile.ZipInfo("n" * length)
            info.extra = extra
            archive.writestr(info, b"content")
    with open_zip(path) as archive:
        for info in archive.infolist():
            start = stored_start(archive, info)
            assert path.read_bytes()[start : start + 7] == b"content"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\..\\x", "C:\\x"])
def test_members_outside_of_the_archive_are_found(tmp_path, name):
    path = write(tmp_path / "a.zip", {"layers/..conv../x": b"", name: b""})
    with open_zip(path) as archive, pytest.raises(DataError, match="outside of the archive"):
        check_paths(archive)
    with open_zip(write(tmp_path / "b.zip", {"layers/..conv../x": b""})) as archive:
        check_paths(archive)


def test_a_bomb_is_refused_before_it_unfolds(tmp_path):
    path = write(tmp_path / "a.zip", {"x": bytes(65 << 20)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="unfolds to an absurd size.*68,157,440"), open_zip(path):
        pass


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.zip", dict.fromkeys(map(str, range(10)), b""))
    monkeypatch.setattr(zip_archives, "MAX_ZIP_MEMBERS", 9)
    with pytest.raises(DataError, match="too many members"), open_zip(path):
        pass
    monkeypatch.setattr(zip_archives, "MAX_ZIP_MEMBERS", 10)
    with open_zip(path) as archive:
        assert len(archive.namelist()) == 10
    monkeypatch.setattr(zip_archives, "MAX_ZIP_DIRECTORY_BYTES", 100)
    with pytest.raises(DataError, match="absurd length"), open_zip(path):
        pass


def changed(path, old, new, count=-1):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


def test_overlapping_members_are_refused(tmp_path):
    path = write(tmp_path / "a.zip", {"x": b"1" * 100, "y": b"2" * 100})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DataError, match="overlap"), open_zip(path):
        pass


def test_repeated_names_passwords_and_other_compressions_are_refused(tmp_path):
    path = write(tmp_path / "a.zip", {"x": b"1", "y": b"2"})
    changed(path, b"y", b"x")
    with pytest.raises(DataError, match="two members of the same name"), open_zip(path):
        pass
    path = write(tmp_path / "b.zip", {"x": b"1" * 100}, zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match="compression that is not read"), open_zip(path):
        pass
    path = write(tmp_path / "c.zip", {"x": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"), open_zip(path):
        pass


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    return write(path, {"x": b"1" * 50, "folder/y": b"22"}, zipfile.ZIP_DEFLATED).read_bytes()


@settings(max_examples=50)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_damaged_archives_give_a_value_or_a_clear_error(valid, tmp_path_factory, place, value, cut):
    data = bytearray(valid)
    data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(data[: len(data) - cut % 2 * (cut % len(data))])
    try:
        with open_zip(path) as archive:
            for name in archive.namelist():
                read_member(archive, name, max_bytes=100)
                with open_member(archive, name) as member:
                    member.read()
    except CnnkitError:
        pass


def state_size(path, field, size):
    """Write another size, packed or unfolded, of the last member into the directory."""
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02") + {"packed": 20, "unfolded": 24}[field]
    data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


def test_a_member_that_is_shorter_than_stated_is_damaged(tmp_path):
    path = write(tmp_path / "a.zip", {"x": b"1" * 100}, zipfile.ZIP_DEFLATED)
    with (
        open_zip(state_size(path, "unfolded", 101)) as archive,
        pytest.raises(DataError, match="x in .* is damaged or incomplete"),
    ):
        read_member(archive, "x", max_bytes=1000)


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_members_end_before_the_end_of_the_archive(tmp_path, more, fits):
    path = write(tmp_path / "a.zip", {"x": b"1" * 100}, zipfile.ZIP_DEFLATED)
    size = path.stat().st_size
    # Behind the head of 30 bytes and the name.
    state_size(path, "packed", size - 31 + more)
    if fits:
        with open_zip(path):
            return
    with pytest.raises(DataError, match="is damaged or incomplete"), open_zip(path):
        pass


@pytest.mark.parametrize(
    ("free", "ratio", "fits"), [(300, 0, True), (299, 0, False), (0, 1, True), (299, 1, True)]
)
def test_members_unfold_to_a_limit(tmp_path, monkeypatch, free, ratio, fits):
    path = write(tmp_path / "a.zip", {"x": b"1" * 100, "y": b"2" * 200})
    monkeypatch.setattr(zip_archives, "FREE_UNFOLDED_BYTES", free)
    monkeypatch.setattr(zip_archives, "MAX_ZIP_RATIO", ratio)
    if fits:
        with open_zip(path) as archive:
            assert len(archive.namelist()) == 2
        return
    with pytest.raises(DataError, match="unfolds to an absurd size"), open_zip(path):
        pass


@pytest.mark.parametrize("damage", ["compressed", "mark", "end"])
def test_the_place_of_a_stored_member_is_checked(tmp_path, damage):
    method = zipfile.ZIP_DEFLATED if damage == "compressed" else zipfile.ZIP_STORED
    path = write(tmp_path / "a.zip", {"x": b"1" * 100}, method)
    data = bytearray(path.read_bytes())
    if damage == "mark":
        data[0] = 0
    elif damage == "end":
        # A longer extra field, behind which the content begins.
        data[28:30] = struct.pack("<H", len(data))
    path.write_bytes(data)
    message = "must not be compressed" if damage == "compressed" else "is damaged or incomplete"
    with open_zip(path) as archive, pytest.raises(DataError, match=f"x in .* {message}"):
        stored_start(archive, archive.getinfo("x"))


def test_a_closed_archive_has_no_members(tmp_path):
    with open_zip(write(tmp_path / "a.zip", {"x": b"1"})) as archive:
        info = archive.getinfo("x")
    with pytest.raises(DataError, match="a.zip was closed"):
        stored_start(archive, info)
