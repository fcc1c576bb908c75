"""Loaded versions that several models share."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.server.version_folders import Fingerprint, version_fingerprint

if TYPE_CHECKING:
    from cnnkit.server.load_trial import LoadTrial
    from cnnkit.server.servable import SavedModelServable


class SharedVersions:
    """Loads versions. Models of the same folder share one copy of each version in memory.

    A version whose files have changed is another one.

    Args:
        load: Loads a servable from (name, version, folder).

    Attributes:
        trial: Tries to load each version first, if it is given.

    Example:
        >>> shared = SharedVersions(SavedModelServable)  # doctest: +SKIP
        >>> shared.load("digits", 1, Path("models/digits/1")).name  # doctest: +SKIP
        'digits'
    """

    def __init__(self, load: Callable[[str, int, Path], SavedModelServable]) -> None:
        self.trial: LoadTrial | None = None
        self._load = load
        self._loaded: weakref.WeakValueDictionary[tuple[Path, Fingerprint], SavedModelServable]
        self._loaded = weakref.WeakValueDictionary()

    def load(self, name: str, version: int, folder: Path) -> SavedModelServable:
        """Returns a version under a name, loaded unless a model has it.

        Args:
            name: Name of the model.
            version: Number of the version.
            folder: The SavedModel.

        Raises:
            RunError: If it cannot be loaded.
        """
        # The files as they are before they are read: files that change meanwhile are not shared.
        key = (folder.resolve(), version_fingerprint(folder))
        loaded = self._loaded.get(key)
        if loaded is None:
            with self.trial.admit(name, version, folder) if self.trial else nullcontext():
                loaded = self._loaded[key] = self._load(name, version, folder)
        if loaded.name == name:
            return loaded
        renamed = copy.copy(loaded)
        renamed.name = name
        # The first one stays in the dictionary, and its temporary files on disk, until the last
        # model has unloaded the version.
        renamed.shared = loaded
        return renamed
