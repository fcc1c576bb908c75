"""Fixtures for the tests of the server and its client."""

import numpy as np
import pytest
import tensorflow as tf
from serving_helpers import save

from cnnkit.server import EmbeddedServer


@pytest.fixture(scope="session")
def colours_folder(tmp_path_factory):
    """colours/1 (scale 32, takes arrays and bytes but names no labels) and colours/2 (scale 64)."""
    folder = tmp_path_factory.mktemp("models") / "colours"
    save(folder / "1", 32.0, "serving_default", "serving_bytes")
    save(folder / "2", 64.0, "serving_default", "serving_bytes", "classify_bytes", "two_inputs")
    (folder / "not-a-version").mkdir()
    return folder


@pytest.fixture(scope="session")
def colours_server(colours_folder):
    with EmbeddedServer(
        {"colours": colours_folder}, versions="all", labels={"colours": {"stable": 1}}
    ) as server:
        yield server


@pytest.fixture(scope="session")
def png():
    """Returns the bytes of an image of one colour."""

    def encode(*colour: int) -> bytes:
        return tf.io.encode_png(np.full((12, 20, 3), colour, np.uint8)).numpy()

    return encode
