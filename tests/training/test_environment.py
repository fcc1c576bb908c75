"""The description of the environment, and the commit of a checkout."""

import subprocess
from pathlib import Path

import tensorflow as tf

import cnnkit
from cnnkit.data import Dataset, load_dataset
from cnnkit.training.environment import describe_environment, git_commit


def test_the_environment_names_versions_and_the_dataset():
    dataset = load_dataset("digits")
    facts = describe_environment(dataset, 7, tf.distribute.get_strategy())
    assert list(facts) == [
        "cnnkit", "commit", "command", "seed", "tensorflow", "keras", "numpy", "python",
        "platform", "devices", "dataset",
    ]  # fmt: skip
    assert (facts["seed"], facts["tensorflow"]) == (7, tf.__version__)
    assert facts["commit"] == git_commit(Path(cnnkit.__file__).parent)
    assert facts["dataset"]["fingerprint"] == dataset.fingerprint
    assert facts["dataset"]["images"] == {"train": 1438, "test": 359}


def test_the_environment_counts_what_the_dataset_left_out():
    left_out = {"unreadable": ("a/1.png",), "of other types": ("a/2.txt", "a/3.txt")}
    dataset = Dataset("x", ("a",), {}, "f", left_out, empty_folders=("b",))
    facts = describe_environment(dataset, 0, tf.distribute.get_strategy())["dataset"]
    assert facts == {
        "spec": "x", "fingerprint": "f", "images": {}, "unreadable": ["a/1.png"],
        "left_out": {"unreadable": 1, "of other types": 2}, "empty_folders": ["b"],
    }  # fmt: skip


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(Path(cnnkit.__file__).parent) is None


def test_a_commit_belongs_to_a_tracked_package(tmp_path):
    def git(*words):
        options = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *options, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "other.py").write_text("")
    git("add", "other.py")
    git("commit", "-q", "-m", "zero")
    (tmp_path / "__init__.py").write_text("")
    assert git_commit(tmp_path) is None  # Not tracked.
    git("add", "__init__.py")
    git("commit", "-q", "-m", "one")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "__init__.py").write_text("changed = True\n")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
