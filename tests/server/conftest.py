"""Fixtures of the tests of the server."""

import shutil

import grpc
import pytest

from tests.helpers.held_server import Gate


@pytest.fixture
def gate(monkeypatch):
    """A gate that is opened at the end of the test at the latest."""
    held = Gate()
    held.watch(monkeypatch)
    yield held
    held.open.set()


@pytest.fixture
def model_folder(tmp_path, colors_folder):
    """A model folder with version 1."""
    shutil.copytree(colors_folder / "1", tmp_path / "colors" / "1")
    return tmp_path / "colors"


@pytest.fixture
def add_version(model_folder, colors_folder):
    """Adds whole versions: odd ones are colors/1 (scale 32), even ones colors/2 (scale 64)."""

    def copy(version):
        aside = model_folder / f"aside-{version}"
        shutil.copytree(colors_folder / str(2 - version % 2), aside)
        aside.rename(model_folder / str(version))

    return copy


CONFIG = """
# As for TensorFlow Serving.
model_config_list {{
  config {{
    name: "colors" base_path: "{colors}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 2 }}
  }}
  config {{ name: "tints" base_path: "colors" model_version_policy {{ latest {{ }} }} }}
}}
"""


@pytest.fixture
def models_config(tmp_path, model_folder, add_version):
    add_version(2)
    add_version(3)
    file = tmp_path / "models.config"
    file.write_text(CONFIG.format(colors=model_folder))
    return file


@pytest.fixture
def call_server(colors_server):
    """Sends a message without the checks of the client."""
    with grpc.insecure_channel(colors_server.address) as channel:

        def call(method, request, answer):
            return answer.FromString(
                channel.unary_unary(method)(request.SerializeToString(), timeout=20)
            )

        yield call
