"""Models of the same folder share one copy of each version."""

import contextlib
import gc
import os

import pytest

from cnnkit.errors import RunError
from cnnkit.server.model_config import ModelConfig
from cnnkit.server.repository import ModelRepository
from cnnkit.server.servable import SavedModelServable
from cnnkit.server.shared_versions import SharedVersions


class Loads:
    """Loads versions and counts them."""

    def __init__(self):
        self.names = []

    def __call__(self, name, version, folder):
        self.names.append(name)
        return SavedModelServable(name, version, folder)


def test_one_copy_answers_under_every_name(colors_folder):
    loads = Loads()
    shared = SharedVersions(loads)
    first, second = (shared.load(name, 2, colors_folder / "2") for name in ("a", "b"))
    assert (first.name, second.name, loads.names) == ("a", "b", ["a"])
    assert second.definitions is first.definitions
    # The copy stays while any model has it.
    del first
    gc.collect()
    assert shared.load("a", 2, colors_folder / "2").name == "a"
    assert loads.names == ["a"]
    del second
    assert shared.load("c", 2, colors_folder / "2").name == "c"
    assert loads.names == ["a", "c"]


def test_changed_files_are_loaded_again(model_folder):
    loads = Loads()
    shared = SharedVersions(loads)
    kept = shared.load("a", 1, model_folder / "1")
    os.utime(model_folder / "1" / "saved_model.pb", (1, 1))
    assert shared.load("b", 1, model_folder / "1").definitions is not kept.definitions
    assert loads.names == ["a", "b"]


class Trial:
    """Records the versions that are tried, and refuses some."""

    def __init__(self, *refused):
        self.tried = []
        self._refused = refused

    @contextlib.contextmanager
    def admit(self, name, version, folder):
        self.tried.append(version)
        if version in self._refused:
            raise RunError("It crashes")
        yield


def test_versions_are_tried_while_others_are_served(model_folder, add_version):
    trial, loads = Trial(2), Loads()
    repository = ModelRepository([ModelConfig("m", model_folder)], loads, trial)
    assert (trial.tried, loads.names) == ([], ["m"])
    for version in (2, 3):
        add_version(version)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cnnkit.server.model.ServedModel._is_changing", lambda *files: False)
            repository.refresh()
    assert trial.tried == [2, 3]
    assert loads.names == ["m", "m"]
    assert repository.versions("m") == [3]
