"""Types of arguments that name what commands of cnnkit wrote, checked before TensorFlow starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from cnnkit._file_tree import CLASSIFIER_FILE, FEATURE_INDEX, is_exported
from cnnkit.cli.values import input_folder


def exported_folder(text: str) -> str:
    """Return the path of a model folder, or of a version in it.

    Raises:
        argparse.ArgumentTypeError: If it holds no SavedModel.
    """
    return _check(text, is_exported(Path(text)), "cnnkit export")


def saved_classifier(text: str) -> str:
    """Return the path of a classifier of features.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    return _check(text, Path(text, CLASSIFIER_FILE).is_file(), "cnnkit transfer --save")


def feature_store(text: str) -> str:
    """Return the path of a folder of features.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    return _check(text, Path(text, FEATURE_INDEX).is_file(), "cnnkit features")


def _check(text: str, passed: bool, command: str) -> str:
    input_folder(text)
    if not passed:
        raise argparse.ArgumentTypeError(
            f"must be a folder that `{command}` wrote, received {text}"
        )
    return text
