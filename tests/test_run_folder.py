"""Run folders: creation, interrupted or not, and what is read from them."""

import io
import itertools
import os
from contextlib import contextmanager

import pytest

from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.run_folder import RunFolder
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG


def test_an_unfinished_run_has_no_model(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    with pytest.raises(RunError, match="has no model yet.*Received: 0 epochs.*--resume"):
        run.finished_model()


def test_class_names_are_read_as_they_were_written(tmp_path):
    names = ("caf\u00e9", "one\u2028name", " spaces ", "x\x85y")
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, names, {})
    assert run.class_names == names
    with pytest.raises(DataError, match="contains a line break"):
        run.create(CONFIG, ["a\nb"], {})
    assert run.class_names == names


def test_a_folder_with_one_file_of_a_run_is_not_emptied(tmp_path):
    """The labels of a user, in a folder of their own."""
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    run = RunFolder(tmp_path)
    with pytest.raises(UsageError, match="exists. It was never begun: --overwrite starts again"):
        run.check_available(overwrite=False)
    run.check_available(overwrite=True)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match="is not a run folder"):
        run.check_available(overwrite=True)
    assert (tmp_path / "labels.txt").exists()


class Killed(BaseException):
    """The process is dead: its cleanup does not run either."""


@contextmanager
def killed_after(calls, monkeypatch):
    """Kill the process at the call after so many that change the disk."""
    done = itertools.count()

    def mortal(function):
        def call(*args, **options):
            if next(done) >= calls:
                raise Killed
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "open", "fsync"):
            patch.setattr(os, name, mortal(getattr(os, name)))
        patch.setattr(io, "open", mortal(io.open))
        yield


@pytest.mark.parametrize(
    ("before", "can_exchange"), [(None, True), ("empty", True), ("run", True), ("run", False)]
)
def test_a_kill_at_any_moment_of_the_creation_leaves_the_path_usable(
    before, can_exchange, tmp_path, monkeypatch
):
    """The run that was there, the new one, or nothing; what is left over goes with the next."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # Slow.
    if not can_exchange:
        monkeypatch.setattr("ctypes.CDLL", object)
    for calls in itertools.count():
        run = RunFolder(tmp_path / str(calls) / "run")
        run.path.parent.mkdir()
        if before == "run":
            run.create(CONFIG, ["old"], {}, {"mean": [1]})
            (run.path / "epochs").mkdir()
            (run.path / "model.keras").touch()
        elif before:
            run.path.mkdir()
        try:
            with killed_after(calls, monkeypatch):
                run.create(CONFIG, ["new"], {}, {"mean": [1]})
            break
        except Killed:
            pass
        if run.exists():
            assert run.config == CONFIG
            assert run.class_names in [("new",), ("old",)]
            assert run.statistics["mean"].tolist() == [1]
            RunFolder.open(run.path).remove_partial_files()
            assert [entry.name for entry in run.path.parent.iterdir()] == ["run"]
            with pytest.raises(UsageError, match="--resume continues it, --overwrite starts"):
                run.check_available(overwrite=False)
        else:
            assert before != "run" or not can_exchange
            run.check_available(overwrite=False)
            with pytest.raises(UsageError, match="No run folder"):
                RunFolder.open(run.path)
        run.check_available(overwrite=True)
        run.create(CONFIG, ["again"], {})
        assert run.class_names == ("again",)
        assert [entry.name for entry in run.path.parent.iterdir()] == ["run"]
    assert calls > 20
    assert run.class_names == ("new",)


def test_a_run_whose_deletion_was_not_finished_can_be_started_again(tmp_path):
    """By version 0.1.0, which deleted the old run before it created the new one."""
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    (run.path / "model.keras").touch()
    (run.path / "config.json").unlink()
    with pytest.raises(UsageError, match="is not a run folder"):
        run.check_available(overwrite=True)
    (run.path / ".lock").touch()
    with pytest.raises(UsageError, match="--overwrite starts again"):
        run.check_available(overwrite=False)
    with pytest.raises(UsageError, match="No run folder .* never begun: start without --resume"):
        RunFolder.open(run.path)
    run.check_available(overwrite=True)


def test_a_folder_that_appeared_since_the_check_is_kept(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.check_available(overwrite=False)
    run.path.mkdir()
    (run.path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not a run folder"):
        run.create(CONFIG, ["a"], {}, overwrite=True)
    assert (run.path / "thesis.tex").exists()
    elsewhere = RunFolder(tmp_path / "elsewhere")
    elsewhere.create(CONFIG, ["a"], {})
    with pytest.raises(UsageError, match="--overwrite starts again"):
        elsewhere.create(CONFIG, ["b"], {}, overwrite=False)
    assert elsewhere.class_names == ("a",)


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    run = RunFolder(tmp_path / "run")
    run.path.symlink_to(tmp_path / "disk")
    for _ in range(2):
        run.create(CONFIG, ["a"], {})
        assert run.path.is_symlink()
        assert (tmp_path / "disk" / "config.json").is_file()
    assert {entry.name for entry in tmp_path.iterdir()} == {"disk", "run"}


def test_a_run_that_is_replaced_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(RunError, match="could not be written"):
        patch.setattr(RunFolder, "write_config", full)
        run.create(CONFIG, ["b"], {})
    assert run.class_names == ("a",)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    empty = RunFolder(tmp_path / "empty")
    empty.path.mkdir()
    with monkeypatch.context() as patch, pytest.raises(RunError, match="could not be written"):
        patch.setattr(RunFolder, "write_config", full)
        empty.create(CONFIG, ["b"], {})
    empty.check_available(overwrite=False)
    run.create(CONFIG, ["b"], {})
    assert run.class_names == ("b",)
