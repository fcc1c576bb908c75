"""Fixtures of the tests of datasets."""

import pytest

from tests.helpers.images import write_flawed_folder


@pytest.fixture
def flawed_folder(tmp_path):
    return write_flawed_folder(tmp_path)
