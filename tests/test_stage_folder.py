"""Folders of several stages: created whole, replaced only when asked."""

import pytest

from cnnkit.errors import RunError, UsageError
from cnnkit.models.loading import model_file
from cnnkit.recipes import TrainingStage
from cnnkit.run_folder import RunFolder
from cnnkit.stage_folder import has_stages, read_stages, write_stages
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
