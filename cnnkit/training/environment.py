"""What a run ran on, for whoever wants to run it again."""

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
from cnnkit.training.distribute import devices

SECONDS_FOR_GIT = 5


def describe_environment(
    source: Dataset, seed: int, strategy: tf.distribute.Strategy
) -> dict[str, Any]:
    """Returns versions, devices, the command, the source's commit and the dataset's fingerprint."""
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
        "devices": devices(strategy),
        "dataset": {
            "spec": source.spec,
            "fingerprint": source.fingerprint,
            "images": {name: len(split) for name, split in source.splits.items()},
            "unreadable": list(source.unreadable),
        },
    }


def git_commit(folder: Path) -> str | None:
    """Returns the git commit of `folder`, with `-dirty` behind it where files have changed.

    None where `folder` is in no checkout: an installed package has a version instead.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"]
    try:
        for words in (tracked, command):
            done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS_FOR_GIT)
            if done.returncode != 0:
                return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
