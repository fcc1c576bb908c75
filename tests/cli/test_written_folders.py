"""Types of arguments that name folders of other commands."""

import argparse

import pytest

from cnnkit.cli.written_folders import exported_folder, feature_store, saved_classifier


@pytest.mark.parametrize(
    ("kind", "file", "command"),
    [
        (exported_folder, "1/saved_model.pb", "cnnkit export"),
        (exported_folder, "saved_model.pb", "cnnkit export"),
        (saved_classifier, "transfer.json", "cnnkit transfer --save"),
        (feature_store, "index.json", "cnnkit features"),
    ],
)
def test_a_folder_needs_the_file_that_its_command_writes(kind, file, command, tmp_path):
    with pytest.raises(argparse.ArgumentTypeError, match=f"that `{command}` wrote, received /"):
        kind(str(tmp_path))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert kind(str(tmp_path)) == str(tmp_path)
