"""Folders of several stages: created whole, replaced only when asked."""

import json

import pytest

from cnnkit.errors import CnnkitError, RunError, UsageError
from cnnkit.models.loading import model_file
from cnnkit.recipes import TrainingStage
from cnnkit.run_folder import RunFolder
from cnnkit.stage_folder import has_stages, open_stage_runs, read_stages, write_stages
from tests.helpers.tiny_network import DIGITS_CONFIG

STAGES = [TrainingStage("first", DIGITS_CONFIG, False)]


def test_a_kill_before_the_stages_are_written_leaves_the_path_free(tmp_path, monkeypatch):
    """An empty folder was left, which was refused, also with --overwrite."""

    def killed(*args):
        raise KeyboardInterrupt

    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cnnkit.stage_folder.write_text", killed)
        write_stages(folder, STAGES)
    assert not folder.exists()
    folder.mkdir()
    write_stages(folder, STAGES)
    assert read_stages(folder) == STAGES


def test_stages_are_replaced_only_when_asked_and_when_nobody_trains_in_them(tmp_path):
    folder = tmp_path / "run"
    write_stages(folder, STAGES)
    run = RunFolder(folder / "first")
    run.create(DIGITS_CONFIG, ["a"], {})
    with pytest.raises(UsageError, match="`resume` continues it, `overwrite` starts again"):
        write_stages(folder, STAGES)
    with run.lock(), pytest.raises(RunError, match="is in use"):
        write_stages(folder, STAGES, overwrite=True)
    assert run.exists()
    write_stages(folder, STAGES, overwrite=True)
    assert has_stages(folder)
    assert not run.path.exists()
    with pytest.raises(UsageError, match="is not a folder of stages"):
        write_stages(tmp_path, STAGES, overwrite=True)


@pytest.mark.parametrize("open_folder", [RunFolder.open, model_file])
def test_a_folder_of_stages_that_is_no_run_says_what_to_do(tmp_path, open_folder):
    folder = tmp_path / "run"
    write_stages(folder, STAGES)
    go_on = f"`cnnkit train --resume --output {folder}` continues its stages."
    with pytest.raises(UsageError) as error:
        open_folder(folder)
    assert str(error.value).endswith(f"run folder. {go_on}" if open_folder is model_file else go_on)
    for name in ("first", "second"):
        (folder / name).mkdir()
        (folder / name / "model.keras").touch()
    with pytest.raises(UsageError) as error:
        open_folder(folder)
    names = f"{folder / 'first'}, {folder / 'second'}"
    assert f"Name one of its stages, {names}; or {go_on}" in str(error.value)


def row(name="a", follows=False, **fields):
    return {
        "name": name, "config": json.loads(DIGITS_CONFIG.to_json()), "follows": follows, **fields
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "is not a list of stages"),
        ({}, "is not a list of stages"),
        ([5], "must be a JSON object"),
        ([row(follows=True)], "is not a list of stages. Received: a first one that follows"),
        ([row(follows=1)], "`stage.follows` in .* must be true or false"),
        ([row(config={"epochs": 0})], "`epochs` must be an integer of at least 1"),
        ([row("x" * 101)], "`stage.name` in .* at most 100 characters"),
        *(
            ([row(name)], "`stage.name` in .* must be the name of a folder")
            for name in ("", ".", "..", "a/b", "a\\b", "a\x1b")
        ),
    ],
)
def test_stages_that_are_none_are_refused(tmp_path, rows, text):
    """A folder of somebody else could name any folder of the user."""
    (tmp_path / "parts.json").write_text(json.dumps(rows))
    with pytest.raises(CnnkitError, match=text):
        read_stages(tmp_path)


def test_names_at_their_limits_are_read(tmp_path):
    names = ["x" * 100, "...", "caf\u00e9"]
    (tmp_path / "parts.json").write_text(json.dumps([row(name) for name in names]))
    assert [stage.name for stage in read_stages(tmp_path)] == names


def test_runs_of_stages_stand_for_their_folder(tmp_path):
    write_stages(tmp_path / "stages", [*STAGES, TrainingStage("second", DIGITS_CONFIG, True)])
    for name in ("stages/first", "alone"):
        RunFolder(tmp_path / name).create(DIGITS_CONFIG, ["a"], {})
    found = open_stage_runs([tmp_path / "stages", tmp_path / "alone"])
    assert [run.path.name for run in found] == ["first", "alone"]
    with pytest.raises(UsageError, match="No run folder"):
        open_stage_runs([tmp_path / "none"])
