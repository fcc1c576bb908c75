"""The program that loads a version and prints the memory that it takes."""

import resource

import pytest
import tensorflow as tf

from cnnkit.server import load_trial_worker, servable
from cnnkit.server.load_trial_worker import confine, run_trial, select_loader
from cnnkit.server.warmup import load_and_warm_up


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


def test_the_memory_is_the_most_that_was_used(colors_folder, monkeypatch):
    """The largest so far, less what the process took before; never less than nothing."""
    for before, most, taken in ((100, 350, 250), (None, 350, 350), (100, 50, 0), (100, None, 0)):
        sizes = {"VmRSS": before, "VmHWM": most}
        monkeypatch.setattr(load_trial_worker, "read_status", sizes.__getitem__)
        monkeypatch.setattr(load_trial_worker, "select_loader", lambda engine: lambda *given: given)
        assert run_trial("tensorflow", "m", 1, colors_folder / "1") == {"bytes": taken}


def test_the_loader_of_each_engine():
    assert select_loader("tensorflow") is load_and_warm_up
    pytest.importorskip("openvino")
    assert select_loader("openvino").__name__ == "load_openvino"


@pytest.mark.parametrize(
    ("hard", "free", "used", "limit"),
    [
        (resource.RLIM_INFINITY, 1000, 500, 1500),
        (1501, 1000, 500, 1500),
        # The limit that holds already is not widened.
        (1500, 1000, 500, None),
        (700, 1000, 500, None),
        # The system does not say.
        (resource.RLIM_INFINITY, None, 500, None),
        (resource.RLIM_INFINITY, 1000, None, None),
    ],
)
def test_a_trial_takes_what_is_free_and_no_more(tmp_path, monkeypatch, hard, free, used, limit):
    limits = []
    monkeypatch.setattr(load_trial_worker, "Path", lambda name: tmp_path / name.replace("/", "-"))
    monkeypatch.setattr(load_trial_worker, "find_free_memory", lambda: free)
    monkeypatch.setattr(load_trial_worker, "read_status", {"VmData": used}.__getitem__)
    monkeypatch.setattr(resource, "getrlimit", lambda name: (5, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *given: limits.append(given))
    confine()
    assert limits == ([] if limit is None else [(resource.RLIMIT_DATA, (limit, hard))])
    # 1000 is the largest: the system ends this process before any other.
    assert (tmp_path / "-proc-self-oom_score_adj").read_text() == "1000"
