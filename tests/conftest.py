"""Fixtures of all tests. Those of the client and the wire format run without TensorFlow."""

import faulthandler
import gc
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As the commands do: see cnnkit.cli.quiet_tensorflow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import pytest
from hypothesis import settings

# The same examples in every run: a failure is found again, and none comes and goes.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.load_profile("fixed")

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parents[1] / "shared"

# The folders whose tests run without TensorFlow: make test-light.
LIGHT = ("_untrusted", "client", "wire")

# Folders whose files run in one process, one after the other.
TOGETHER = ("tests/export", "tests/models/weights", "tests/server/open_inference")

# Seconds after which a process of tests that no signal can end prints its threads and exits: more
# than a test and what it leaves behind may take, see `timeout` in setup.cfg.
STUCK = 300
STDERR = pytest.StashKey[int]()


def pytest_configure(config):
    # Not captured yet.
    config.stash[STDERR] = os.dup(2)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(config))


class Failures:
    """Prints each failure at once: a run that is ended before its summary has told it, too."""

    def __init__(self, config):
        self.config = config

    def pytest_runtest_logreport(self, report):
        if report.failed:
            terminal = self.config.pluginmanager.get_plugin("terminalreporter")
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when})", red=True)
            terminal.write_line(report.longreprtext)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps files together whose tests share an export or a server: each is made once."""
    from xdist.scheduler import LoadFileScheduling

    class SharedFolders(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            folder = file.rpartition("/")[0]
            return folder if folder in TOGETHER else file

    if config.getvalue("dist") == "loadfile":
        return SharedFolders(config, log)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    limit = item.get_closest_marker("timeout")
    seconds = limit.args[0] if limit else item.config.getini("timeout")
    exit_after(item.config, float(seconds) + STUCK)
    return (yield)


def pytest_sessionfinish(session):
    """Watches the end of a process too: it waits for threads, and for what TensorFlow holds."""
    exit_after(session.config, STUCK)


def exit_after(config, seconds):
    faulthandler.dump_traceback_later(seconds, file=config.stash[STDERR], exit=True)


def pytest_collectstart(collector):
    """Splits the CPU before the first module that may use TensorFlow is imported."""
    if isinstance(collector, pytest.Module):
        folder = collector.path.relative_to(TESTS).parts[0]
        if folder not in LIGHT:
            import tests.helpers.replicas  # noqa: F401


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Leaves what the imports make, 400,000 objects, out of the search for garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        # A traced graph is of 100,000 objects: by default garbage is searched for after each 700.
        gc.set_threshold(10_000, 10, 10)
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Seeds the generators of the process: Keras draws the seeds of weights from Python's.

    So a test gets the same weights whichever tests ran before it. A run has the seed 0 by default:
    with another one here, its new weights are not those that a test has built.
    """
    random.seed(1998)
    np.random.seed(1998)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Lets the graphs of a file's tests go after the last one: they would fill the memory."""
    result = yield
    if "tensorflow" in sys.modules and (nextitem is None or nextitem.path != item.path):
        from tests.helpers.gradient_registry import forget_functions

        forget_functions()
    return result


@pytest.fixture(scope="session")
def mirrored():
    from tests.helpers.replicas import MIRRORED

    return MIRRORED


@pytest.fixture(scope="session")
def shared():
    """The folder of real data and independent numbers, where it lies beside the checkout."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{name} is not beside the checkout")
        return SHARED / name

    return path


@pytest.fixture(scope="module")
def unoptimized():
    """Graphs of a file's tests run without TensorFlow's optimizer, which takes longer than they."""
    from tests.helpers.graph_optimizer import unoptimized_graphs

    with unoptimized_graphs():
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Two classes of 20 images, bright above and bright below, in several formats and shapes."""
    import tensorflow as tf

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
    from tests.helpers.serving import save

    folder = tmp_path_factory.mktemp("models") / "colors"
    save(folder / "1", 32.0, "serving_default", "serving_bytes")
    save(folder / "2", 64.0, "serving_default", "serving_bytes", "classify_bytes", "two_inputs")
    (folder / "not-a-version").mkdir()
    return folder


@pytest.fixture(scope="session")
def colors_server(colors_folder):
    from cnnkit.server import EmbeddedServer

    with EmbeddedServer(
        {"colors": colors_folder},
        versions="all",
        version_labels={"colors": {"stable": 1}},
        allow_reload=True,
    ) as server:
        yield server


@pytest.fixture(scope="session")
def png():
    """Returns the bytes of an image of one color."""
    import tensorflow as tf

    def encode(*color: int) -> bytes:
        return tf.io.encode_png(np.full((12, 20, 3), color, np.uint8)).numpy()

    return encode
