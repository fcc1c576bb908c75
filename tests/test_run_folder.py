"""Run folders: creation, interrupted or not, and what is read from them."""

import io
import itertools
import json
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit import _staging
from cnnkit._staging import STAGING_PREFIX
from cnnkit.errors import DataError, RunError, UsageError
from cnnkit.run_folder import RunFolder
from tests.helpers.damage import changed_json, damaged, reads_or_refuses
from tests.helpers.run_folders import write_metrics_run
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG
from tests.helpers.tiny_network import metrics_line

STORED = Path(__file__).parent / "data" / "saved_by_0_1_0" / "run.zip"
READERS = {
    "config.json": lambda run: run.config,
    "labels.txt": lambda run: run.class_names,
    "statistics.npz": lambda run: run.statistics,
    "environment.json": lambda run: run.environment,
    "metrics.jsonl": lambda run: run.metrics,
}


@pytest.fixture(scope="module")
def stored_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    with zipfile.ZipFile(STORED) as archive:
        archive.extractall(folder)
    return RunFolder(folder / "run")


def read_all(run):
    for name, read in READERS.items():
        assert read(run) is not None, name


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
    with pytest.raises(UsageError, match="exists. It was never begun: `overwrite` starts again"):
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
            with pytest.raises(UsageError, match="`resume` continues it, `overwrite` starts"):
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
    with pytest.raises(UsageError, match="`overwrite` starts again"):
        run.check_available(overwrite=False)
    with pytest.raises(UsageError, match="No run folder .* never begun: start without `resume`"):
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
    with pytest.raises(UsageError, match="`overwrite` starts again"):
        elsewhere.create(CONFIG, ["b"], {}, overwrite=False)
    assert elsewhere.class_names == ("a",)


def test_a_mount_point_is_refused_before_the_training(tmp_path, monkeypatch):
    """It cannot be exchanged with a new folder: the first training in it ended with EBUSY."""
    run = RunFolder(tmp_path / "volume")
    run.path.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == run.path)
    message = "volume is a mount point, which cannot be replaced. Use a folder in it, such as .*run"
    for write in (
        lambda: run.check_available(overwrite=True),
        lambda: run.create(CONFIG, ["a", "b"], {}),
    ):
        with pytest.raises(UsageError, match=message):
            write()
    assert {file.name for file in run.path.iterdir()} <= {".lock"}
    RunFolder(run.path / "run").create(CONFIG, ["a", "b"], {})


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


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_folder_of_version_0_1_0_is_read(stored_run):
    read_all(stored_run)
    assert [line["epoch"] for line in stored_run.metrics] == [1, 2]


@pytest.mark.parametrize("name", READERS)
def test_files_that_are_missing_or_never_end_are_not_opened(tmp_path, name):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    file = run.path / name
    file.unlink()

    def refused(text):
        with pytest.raises((RunError, DataError), match=text) as error:
            READERS[name](run)
        assert name in str(error.value)

    refused("No such file")
    os.mkfifo(file)
    refused("must be a regular file")
    file.unlink()
    file.symlink_to("/dev/zero")
    refused("must be a regular file")
    file.unlink()
    file.symlink_to(file)
    refused("Too many levels of symbolic links")
    file.unlink()
    file.write_bytes(b"")
    os.truncate(file, 10 << 30)
    refused("is too large|is damaged")


def test_statistics_are_not_unfolded_without_a_limit(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {}, {"mean": np.zeros(3)})
    assert list(run.statistics) == ["mean"]
    with zipfile.ZipFile(run.path / "statistics.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", bytes(100 << 20))
    with pytest.raises(RunError, match="unfolds to an absurd size"):
        _ = run.statistics


def test_metrics_are_lines_of_numbers(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    whole = metrics_line(1) + metrics_line(2, val_loss=float("nan"))
    run.metrics_file.write_text(whole + metrics_line(3)[:-9])
    assert [line["epoch"] for line in run.metrics] == [1, 2]
    assert run.metrics[1]["val_loss"] is None
    # The crash came before the end of the line.
    run.metrics_file.write_text(whole + metrics_line(3).rstrip())
    assert len(run.metrics) == 3
    for line in ("5\n", "{}\n", '{"epoch": 3}\n', metrics_line(3, val_accuracy="x"), "\0\n"):
        run.metrics_file.write_text(whole + line + metrics_line(4))
        with pytest.raises(RunError, match="line 3 of .*metrics.jsonl"):
            _ = run.metrics


def test_other_files_among_the_networks_of_epochs_are_left_out(tmp_path):
    (tmp_path / "epochs").mkdir()
    for name in ("0001.keras", "1x.keras", "notes.txt"):
        (tmp_path / "epochs" / name).touch()
    assert list(RunFolder(tmp_path).kept_epochs) == [1]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", READERS)
def test_any_content_is_read_or_refused(stored_run, name):
    file = stored_run.path / name
    whole = file.read_bytes()
    draws = damaged(whole)
    if name.endswith("json"):
        draws = st.one_of(draws, changed_json(json.loads(whole)))
    elif name.endswith("jsonl"):
        lines = changed_json(json.loads(whole.splitlines()[0]))
        draws = st.one_of(draws, lines.map(lambda line: line + b"\n" + whole))

    @settings(max_examples=40)
    @given(data=draws)
    def check(data):
        file.write_bytes(data)
        reads_or_refuses(lambda: READERS[name](stored_run))

    try:
        check()
    finally:
        file.write_bytes(whole)


def test_the_best_epoch(tmp_path):
    """A loss of 0 is the lowest one, and one that was not finite the highest."""
    run = write_metrics_run(tmp_path, [0.5, 0.25, 0.25, 0.25], restore_best=True)
    lines = run.metrics
    for losses, best in (((0.5, 0.0, 0.5), 3), ((None, 0.25, 0.5), 3), ((0.5, 0.25, 0.25), 3)):
        for line, loss in zip(lines[1:], losses, strict=True):
            line["val_loss"] = loss
        run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert run.best["epoch"] == run.result["epoch"] == best
    run.write_initial(0.75, 0.25)
    assert run.best == {"epoch": 0, "val_accuracy": 0.75, "val_loss": 0.25}
    run.write_initial(0.75, None)
    assert run.best["epoch"] == 3


def test_what_killed_processes_left_in_a_run_goes(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    (run.path / "epochs").mkdir()
    name = f"{STAGING_PREFIX}{_staging._boot()}-{_staging._machine()}-{'7' * 16}"
    for folder in (run.path, run.checkpoints, run.path / "epochs", tmp_path):
        (folder / name).mkdir()
        (folder / f"{STAGING_PREFIX}99-old.npz").touch()
    run.remove_partial_files()
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(f"{STAGING_PREFIX}*")}
    # The file beside the run may be of another one.
    assert left == {f"{STAGING_PREFIX}99-old.npz"}
