"""A client of a server whose model tells bright images from dark ones."""

import pytest

from cnnkit.client import Client
from tests.helpers.fake_servers import Brightness, fake_server


@pytest.fixture
def model():
    return Brightness()


@pytest.fixture
def client(model):
    with fake_server(model) as address, Client(address) as opened:
        yield opened
