"""The layout that model servers read: NAME/<integer>/saved_model.pb."""

from __future__ import annotations

from pathlib import Path

from cnnkit.errors import UsageError


def version_folders(folder: Path) -> dict[int, Path]:
    """Returns the versions in a model's folder by their numbers, the newest first.

    Names that are no integers are ignored, as TensorFlow Serving does.

    Args:
        folder: The model's folder, NAME/.

    Raises:
        UsageError: There is no such folder, it holds no version, or a version is incomplete.

    Example:
        >>> version_folders(Path("models/digits"))  # doctest: +SKIP
        {1: PosixPath('models/digits/1')}
    """
    if not folder.is_dir():
        raise UsageError(
            "There is no such model folder",
            expected="a folder that holds versions, such as models/digits with models/digits/1",
            received=folder,
        )
    if (folder / "saved_model.pb").is_file():
        raise UsageError(
            "This folder is one version of a model",
            expected="the folder that holds its versions",
            received=folder,
            hint=f"Use {folder.parent}" if folder.name.isdigit() else "Move it into NAME/1",
        )
    versions = {
        int(entry.name): entry
        for entry in folder.iterdir()
        if entry.is_dir() and entry.name.isascii() and entry.name.isdigit()
    }
    if not versions:
        raise UsageError(
            "This model folder holds no version",
            expected=f"a SavedModel in {folder}/1",
            received=folder,
            hint="Write one with `cnnkit export`",
        )
    for entry in versions.values():
        if not (entry / "saved_model.pb").is_file():
            raise UsageError(
                "This version of a model is incomplete",
                expected=f"a file {entry / 'saved_model.pb'}",
                received=entry,
                hint="Export it again, or remove the folder",
            )
    return dict(sorted(versions.items(), reverse=True))
