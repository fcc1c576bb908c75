"""Files that appear complete or not at all."""

import pytest

from cnnkit._files import STAGING_PREFIX, append_line, make_folder, staged_file, write_text
from cnnkit.errors import RunError


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")
    with pytest.raises(KeyError), staged_file(file) as staging:
        staging.write_text("new")
        assert file.read_text() == "old"
        assert staging.parent == tmp_path
        assert staging.name.startswith(STAGING_PREFIX)
        raise KeyError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    write_text(file, "new")
    assert file.read_text() == "new"


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
        with pytest.raises(RunError, match="could not be written. Received: No.*Make room there"):
            write()
