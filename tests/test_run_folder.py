"""Run folders: creation, interrupted or not, and what is read from them."""

import pytest

from cnnkit.errors import DataError, RunError
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
