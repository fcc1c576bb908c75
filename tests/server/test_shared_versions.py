"""Models of the same folder share one copy of each version."""

import gc
import os

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
