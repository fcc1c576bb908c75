"""Describe the environment of a run, so that it can be repeated."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnkit._version import __version__
from cnnkit.data import Dataset
from cnnkit.training.distribute import replica_devices

GIT_TIMEOUT = 5  # seconds


def describe_environment(
    dataset: Dataset, seed: int, strategy: tf.distribute.Strategy
) -> dict[str, Any]:
    """Return versions, devices, the command, the git commit and the fingerprint of the dataset."""
    return {
        "cnnkit": __version__,
        "commit": git_commit(Path(__file__).parents[1]),
        "command": shlex.join(sys.argv),
        "seed": seed,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": replica_devices(strategy),
        "dataset": {
            "spec": dataset.spec,
            "fingerprint": dataset.fingerprint,
            "images": {name: len(split) for name, split in dataset.splits.items()},
            "unreadable": list(dataset.unreadable),
            "left_out": {reason: len(names) for reason, names in dataset.left_out.items()},
            "empty_folders": list(dataset.empty_folders),
        },
    }


def git_commit(folder: Path) -> str | None:
    """Return the git commit of `folder`, followed by `-dirty` if tracked files have changed.

    The result is None if git does not track the package in `folder`: an installed package is
    identified by its version.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"]
    try:
        for words in (tracked, command):
            done = subprocess.run(words, capture_output=True, text=True, timeout=GIT_TIMEOUT)
            if done.returncode != 0:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
