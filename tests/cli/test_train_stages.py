"""Lists of the stages of a training."""

import json

import pytest
from hypothesis import given, settings

from cnnkit.cli.train_stages import STAGES_FILE, read_stages, write_stages
from cnnkit.errors import RunError, UsageError
from cnnkit.recipes import TrainingStage
from tests.helpers.damage import changed_json, reads_or_refuses
from tests.helpers.tiny_network import DIGITS_CONFIG

STAGES = [TrainingStage("first", DIGITS_CONFIG), TrainingStage("second", DIGITS_CONFIG, True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("stages") / "run"
    write_stages(path, STAGES)
    return path


def test_stages_are_read_as_they_were_written(folder):
    assert read_stages(folder) == STAGES
    with pytest.raises(UsageError, match="exists"):
        write_stages(folder, STAGES)


def test_a_stage_is_a_folder_within_the_training(tmp_path):
    """A name with `..` would train, and write, in any folder of the user."""
    write_stages(tmp_path / "run", STAGES)
    file = tmp_path / "run" / STAGES_FILE
    rows = json.loads(file.read_text())
    for name in ("../other", "/tmp/other", "..", ".", "a\\b", "", "\x1b[2J", 5, "x" * 300):
        file.write_text(json.dumps([{**rows[0], "name": name}]))
        with pytest.raises(RunError, match=r"name"):
            read_stages(tmp_path / "run")
    file.write_text(json.dumps(rows[1:]))
    with pytest.raises(RunError, match="a first one that follows"):
        read_stages(tmp_path / "run")
    for text in ("[]", "{}", "5", "[5]", "[" * 2000):
        file.write_text(text)
        with pytest.raises(RunError, match=STAGES_FILE):
            read_stages(tmp_path / "run")


def test_any_list_is_read_or_refused(folder):
    file = folder / STAGES_FILE

    @settings(max_examples=50)
    @given(data=changed_json(json.loads(file.read_text())))
    def check(data):
        file.write_bytes(data)
        reads_or_refuses(lambda: read_stages(folder))

    check()
