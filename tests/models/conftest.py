"""Fixtures of the tests of networks."""

import pytest

from tests.helpers.narrow_vgg import narrow_vgg


@pytest.fixture(scope="module")
def narrow():
    """Builds narrow VGG networks in all tests of a file."""
    with narrow_vgg():
        yield
