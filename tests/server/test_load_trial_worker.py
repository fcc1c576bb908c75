"""The program that loads a version and prints the memory that it takes."""

import tensorflow as tf

from cnnkit.server import servable
from cnnkit.server.load_trial_worker import run_trial


def test_a_version_that_can_be_loaded(colors_folder):
    [(name, taken)] = run_trial("tensorflow", "m", 1, colors_folder / "1").items()
    assert name == "bytes"
    assert taken >= 0


def test_a_version_that_cannot(model_folder):
    (model_folder / "1" / "saved_model.pb").write_bytes(b"")
    assert run_trial("tensorflow", "m", 1, model_folder / "1") == {
        "problem": "saved_model.pb must hold a graph with the tag 'serve'",
        "received": str(model_folder / "1"),
        "hint": "Export the model again",
        "shortage": False,
    }


def test_full_memory(colors_folder, monkeypatch):
    def load(folder, tags):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(servable.tf.saved_model, "load", load)
    assert run_trial("tensorflow", "m", 1, colors_folder / "1") == {
        "problem": "Version 1 of model 'm' cannot be loaded: memory is full",
        "received": None,
        "hint": None,
        "shortage": True,
    }
