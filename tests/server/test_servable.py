"""Loading a SavedModel runs no code outside of its graph."""

import pickle
import shutil
from pathlib import Path

import pytest

from cnnkit.errors import RunError
from cnnkit.server import EmbeddedServer
from tests.helpers.busy_server import served


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self):
        return Path.write_text, (self._file, "unpickled")


def test_nothing_is_unpickled(tmp_path, colors_folder):
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    folder = tmp_path / "colors"
    shutil.copytree(colors_folder / "2", folder / "2")
    for name in (
        "model.pkl",
        "keras_metadata.pb",
        "assets/labels.pkl",
        "assets.extra/model.pickle",
        "variables/weights.npy",
    ):
        (folder / "2" / name).parent.mkdir(exist_ok=True)
        (folder / "2" / name).write_bytes(trap)
    with served(folder):
        pass
    (folder / "2" / "fingerprint.pb").write_bytes(trap)
    for name in ("assets.extra/tf_serving_warmup_requests", "saved_model.pb"):
        (folder / "2" / name).write_bytes(trap)
        with pytest.raises(RunError):
            EmbeddedServer({"colors": folder})
    assert not sprung.exists()
    pickle.loads(trap)
    assert sprung.read_text() == "unpickled"
