"""Run folders: creation, interrupted or not, and what is read from them."""

import pytest

from cnnkit import run_folder
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


def test_a_kill_while_the_folder_is_made_leaves_the_path_free(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    for name in ("write_text", "write_config"):
        target = run_folder if name == "write_text" else RunFolder

        def stop(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(target, name, stop)
            # What a kill leaves, too.
            patch.setattr("shutil.rmtree", lambda *args, **options: None)
            run.create(CONFIG, ["a"], {})
        assert not run.path.exists()
        run.check_available(overwrite=False)
    run.create(CONFIG, ["a"], {})
    assert run.class_names == ("a",)


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
