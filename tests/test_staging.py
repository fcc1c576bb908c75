"""Files and folders that appear complete or not at all, what a kill leaves, and locks."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cnnkit import _staging
from cnnkit._files import append_line, write_text
from cnnkit._staging import (
    STAGING_LOCK,
    STAGING_PREFIX,
    exclusive_lock,
    remove_abandoned,
    staged_file,
    staged_folder,
    staging_folder,
)
from cnnkit.errors import RunError


def test_other_users_cannot_plant_a_link_in_a_staging_folder(tmp_path):
    with staged_file(tmp_path / "one") as one, staged_file(tmp_path / "one") as other:
        for staging in (one, other):
            assert stat.S_IMODE(staging.parent.stat().st_mode) == 0o700
            assert [entry.name for entry in staging.parent.iterdir()] == [STAGING_LOCK]
            staging.touch()
        # Two machines with a shared disk, and two threads, have different names.
        assert one.parent != other.parent


def test_a_planted_name_is_not_used(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.mkdir()
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    with staging_folder(tmp_path) as folder:
        name = folder.name
    (tmp_path / name).symlink_to(secret)
    with pytest.raises(RunError, match="could not be written. Received: File exists"):
        write_text(tmp_path / "file", "new")
    assert list(secret.iterdir()) == []


WRITE = """
import sys, time
from pathlib import Path
from cnnkit._staging import staging_folder
with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print(folder.name, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_goes_and_what_a_live_one_writes_stays(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        name = writer.stdout.readline().strip()
        with staged_file(tmp_path / "file") as mine:
            mine.touch()
            remove_abandoned(tmp_path)
            write_text(tmp_path / "other", "")
            assert (tmp_path / name / "half").exists()
            assert mine.exists()
        writer.kill()
    assert (tmp_path / name / "half").exists()
    write_text(tmp_path / "file", "")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "other"]


def leave(folder: Path, boot: str, machine: str) -> Path:
    """What a killed process leaves."""
    left = folder / f"{STAGING_PREFIX}{boot}-{machine}-{'7' * 16}"
    left.mkdir()
    (left / STAGING_LOCK).touch()
    return left


def test_what_another_machine_left_stays(tmp_path):
    """A lock on a disk of several machines may hold on one of them only."""
    boot, machine = _staging._boot(), _staging._machine()
    left = leave(tmp_path, "0123abcd", "4567abcd"), leave(tmp_path, "0123abcd", "0" * 8)
    remove_abandoned(tmp_path)
    assert all(entry.is_dir() for entry in left)
    gone = leave(tmp_path, boot, "4567abcd")
    remove_abandoned(tmp_path)
    assert not gone.exists()
    assert machine != boot


def test_what_was_left_before_this_machine_was_started_again_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(_staging, "_machine", lambda: "4567abcd")
    gone = leave(tmp_path, "0123abcd", "4567abcd")
    remove_abandoned(tmp_path)
    assert not gone.exists()
    # A machine without an identity cannot know.
    monkeypatch.setattr(_staging, "_machine", lambda: _staging.UNKNOWN_MACHINE)
    left = leave(tmp_path, "0123abcd", _staging.UNKNOWN_MACHINE)
    with _staging.staging_folder(tmp_path) as own:
        assert len(own.name) == len(left.name)
    remove_abandoned(tmp_path)
    assert left.exists()


def test_without_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    left = leave(tmp_path, _staging._boot(), _staging._machine())
    monkeypatch.setattr("fcntl.flock", refuse)
    write_text(tmp_path / "file", "")
    assert left.exists()


def test_a_kill_before_the_lock_was_made_or_after_it_was_deleted_leaves_nothing(tmp_path):
    left = leave(tmp_path, _staging._boot(), _staging._machine())
    (left / STAGING_LOCK).unlink()
    remove_abandoned(tmp_path)
    assert not left.exists()


def test_links_and_other_names_are_not_removed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / STAGING_LOCK).touch()
    link = tmp_path / f"{STAGING_PREFIX}{_staging._boot()}-{_staging._machine()}-{'7' * 16}"
    link.symlink_to(kept)
    others = [tmp_path / f"{STAGING_PREFIX}{name}" for name in ("99-file", "0123abcd", "x-y-z")]
    for other in others:
        other.mkdir()
    remove_abandoned(tmp_path)
    assert (kept / STAGING_LOCK).exists()
    assert all(other.exists() for other in others)
    remove_abandoned(tmp_path / "none")


def test_a_folder_that_was_taken_for_abandoned_before_its_lock_is_made_anew(tmp_path, monkeypatch):
    lock, taken = _staging._try_lock, []

    def first_too_late(file, *, wait=False):
        if wait and not taken:
            taken.extend(tmp_path.glob(f"{STAGING_PREFIX}*"))
            shutil.rmtree(taken[0])
        return lock(file, wait=wait)

    monkeypatch.setattr(_staging, "_try_lock", first_too_late)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert len(taken) == 1


def test_a_disk_that_becomes_read_only_does_not_hide_the_error(tmp_path, monkeypatch):
    """Where a disk reports an error, the system remounts it; files can then not be removed."""

    def refuse(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    write_text(tmp_path / "file", "old")
    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir", "fsync", "replace", "rename"):
            patch.setattr(os, name, refuse)
        patch.setattr(Path, "replace", refuse)
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(RunError, match="file could not be written. Received: Read-only file"):
            write_text(tmp_path / "file", "new")
        # The error of the block comes through, too.
        with pytest.raises(KeyError), staged_file(tmp_path / "file"):
            raise KeyError
    assert (tmp_path / "file").read_text() == "old"


def test_a_lock_and_a_log_follow_no_link(tmp_path):
    """A run folder of somebody else could name any file of the user."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match="link could not be written"):
        append_line(tmp_path / "link", "line")
    link_refused = pytest.raises(RunError, match="link could not be written")
    with link_refused, exclusive_lock(tmp_path / "link", "It"):
        pass
    os.mkfifo(tmp_path / "pipe")
    pipe_refused = pytest.raises(RunError, match="pipe could not be written")
    with pipe_refused, exclusive_lock(tmp_path / "pipe", "It"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")
    with pytest.raises(KeyError), staged_file(file) as staging:
        staging.write_text("new")
        assert file.read_text() == "old"
        assert staging.parent.parent == tmp_path
        assert staging.parent.name.startswith(STAGING_PREFIX)
        raise KeyError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    write_text(file, "new")
    assert file.read_text() == "new"


def test_a_new_file_has_the_permissions_that_the_user_asks_for(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "folder"
    with pytest.raises(KeyError), staged_folder(folder) as staging:
        (staging / "file").write_text("half")
        raise KeyError
    assert not list((tmp_path / "new").iterdir())
    with staged_folder(folder) as staging:
        (staging / "file").write_text("whole")
        assert not folder.exists()
    assert (folder / "file").read_text() == "whole"
    with pytest.raises(RunError, match="could not be written"), staged_folder(folder):
        pass
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["folder"]


HOLD = """
import sys, time
from pathlib import Path
from cnnkit._staging import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "It"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_until_its_process_ends_however_it_ends(tmp_path):
    file = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        number = rf"It is in use. Received: process {holder.pid} on "
        with pytest.raises(RunError, match=number), exclusive_lock(file, "It"):
            pass
        holder.kill()
    with exclusive_lock(file, "It"):
        assert file.read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(RunError, match="in use"), exclusive_lock(file, "It"):
            pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    said = pytest.warns(RuntimeWarning, match="It could not be locked.*do not start a second")
    with said, exclusive_lock(tmp_path / "lock", "It"):
        pass
