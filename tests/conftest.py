"""Shared by all tests: one strategy a process, a small folder of images, the real data."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As the commands do: see cnnkit.cli.quiet_tensorflow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import settings

from cnnkit.server import EmbeddedServer
from cnnkit.training import get_strategy
from tests.helpers.serving import save

# The same examples in every run: a failure is found again, and none comes and goes.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

# The CPU is split before anything else uses TensorFlow.
MIRRORED = get_strategy("mirrored", 2)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def mirrored():
    return MIRRORED


@pytest.fixture(scope="session")
def shared():
    """The folder of real data and independent numbers, where it lies beside the checkout."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{name} is not beside the checkout")
        return SHARED / name

    return path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Two classes of 20 images, bright above and bright below, in several formats and shapes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label, name in enumerate(("above", "below")):
        (root / name).mkdir()
        for i in range(20):
            image = random.integers(0, 60, (70 + i, 80, 3), np.uint8)
            half = slice(0, 35) if label == 0 else slice(35, None)
            image[half] += 180
            data = tf.io.encode_png(image) if i % 2 else tf.io.encode_jpeg(image)
            (root / name / f"{i:02d}.{'png' if i % 2 else 'jpg'}").write_bytes(data.numpy())
    return root


@pytest.fixture(scope="session")
def colors_folder(tmp_path_factory):
    """colors/1 (scale 32, takes arrays and bytes but names no labels) and colors/2 (scale 64)."""
    folder = tmp_path_factory.mktemp("models") / "colors"
    save(folder / "1", 32.0, "serving_default", "serving_bytes")
    save(folder / "2", 64.0, "serving_default", "serving_bytes", "classify_bytes", "two_inputs")
    (folder / "not-a-version").mkdir()
    return folder


@pytest.fixture(scope="session")
def colors_server(colors_folder):
    with EmbeddedServer(
        {"colors": colors_folder}, versions="all", labels={"colors": {"stable": 1}}
    ) as server:
        yield server


@pytest.fixture(scope="session")
def png():
    """Returns the bytes of an image of one color."""

    def encode(*color: int) -> bytes:
        return tf.io.encode_png(np.full((12, 20, 3), color, np.uint8)).numpy()

    return encode
