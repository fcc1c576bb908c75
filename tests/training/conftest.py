"""The network `tiny` and its configuration, for the tests of training."""

import pytest

from cnnkit import models
from tests.helpers.tiny_network import tiny


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "tiny", tiny)
