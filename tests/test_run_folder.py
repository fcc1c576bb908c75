"""Run folders: creation, interrupted or not, and what is read from them."""

import pytest

from cnnkit.errors import RunError
from cnnkit.run_folder import RunFolder
from tests.helpers.tiny_network import DIGITS_CONFIG as CONFIG


def test_an_unfinished_run_has_no_model(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(CONFIG, ["a"], {})
    with pytest.raises(RunError, match="has no model yet.*Received: 0 epochs.*--resume"):
        run.finished_model()
