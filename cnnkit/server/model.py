"""One model: which of its versions are in memory, kept in step with its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.errors import CnnkitError
from cnnkit.server.model_config import ModelConfig
from cnnkit.server.status_error import without_paths
from cnnkit.server.version_folders import (
    Fingerprint,
    check_version,
    version_fingerprint,
    version_folders,
)
from cnnkit.wire import cnnkit_serving_pb2 as pb

if TYPE_CHECKING:
    from cnnkit.server.servable import SavedModelServable

_LOG = logging.getLogger(__name__)

# Versions that have left are remembered for those who ask for their state; so many of them.
_REMEMBERED = 16


@dataclass(frozen=True)
class VersionState:
    """Where a version is in its life.

    Attributes:
        state: A number of `ModelVersionStatus.State`.
        code: A number of `Code`; not OK where the version could not be loaded.
        text: Why, without a path.
    """

    state: int
    code: int = pb.OK
    text: str = ""


class ServedModel:
    """The versions of one model.

    Readers use `servables` and `states` without a lock: both are replaced, never changed.

    Args:
        config: Its name, its folder, which versions.
        load: Makes a servable of (name, version, folder); raises a CnnkitError where it cannot.

    Example:
        >>> model = ServedModel(ModelConfig("digits", Path("models/digits")), Servable)  # doctest: +SKIP
        >>> model.refresh()  # doctest: +SKIP
    """

    def __init__(
        self, config: ModelConfig, load: Callable[[str, int, Path], SavedModelServable]
    ) -> None:
        self.config = config
        self.servables: dict[int, SavedModelServable] = {}
        self.states: dict[int, VersionState] = {}
        self._load = load
        # What the files of a version were when they could not be loaded, and at the last look.
        self._refused: dict[int, Fingerprint] = {}
        self._seen: dict[int, Fingerprint] = {}

    def changed_to(self, config: ModelConfig) -> ServedModel:
        """Returns a model of another configuration that starts with the versions of this one."""
        model = ServedModel(config, self._load)
        if config.folder == self.config.folder:
            model.servables, model.states = self.servables, self.states
            model._refused, model._seen = dict(self._refused), dict(self._seen)
        return model

    def refresh(self, *, wait: bool = False) -> None:
        """Loads what has come into the folder, then lets go what should leave.

        The newest versions that can be loaded are served. A version that cannot be is left alone
        until its files change, and the older ones stay. The last version stays even when its
        folder goes.

        Args:
            wait: Leave a version alone until its files are the same at two looks: somebody may
                still be writing them.

        Raises:
            CnnkitError: The folder holds no versions, or there is still none to serve.
        """
        folders = version_folders(self.config.folder)
        most = self.config.versions.newest or len(folders)
        chosen: list[int] = []
        pending = False
        problem: CnnkitError | None = None
        for version in self.config.versions.candidates(folders):
            if len(chosen) == most:
                break
            if version in self.servables:
                chosen.append(version)
                continue
            files = version_fingerprint(folders[version])
            if files == self._refused.get(version):
                continue
            if wait and files != self._seen.get(version):
                # It takes its place already: no older one is loaded, and none leaves.
                self._seen[version] = files
                pending = True
                chosen.append(version)
                continue
            try:
                self._take(version, folders[version])
                chosen.append(version)
            except CnnkitError as error:
                problem = problem or error
                self._refuse(version, files, error)
        if chosen and not pending:
            for version in set(self.servables) - set(chosen):
                self._drop(version)
        for memory in (self._seen, self._refused):
            for version in set(memory) - set(folders):
                del memory[version]
        if not self.servables and problem is not None:
            raise problem

    def _take(self, version: int, folder: Path) -> None:
        self._set(version, VersionState(pb.ModelVersionStatus.LOADING))
        check_version(folder)
        servable = self._load(self.config.name, version, folder)
        loaded = {**self.servables, version: servable}
        self.servables = dict(sorted(loaded.items(), reverse=True))
        self._set(version, VersionState(pb.ModelVersionStatus.AVAILABLE))
        self._refused.pop(version, None)
        _LOG.info("Model %r: version %d is served", self.config.name, version)

    def _refuse(self, version: int, files: Fingerprint, error: CnnkitError) -> None:
        self._refused[version] = files
        text = without_paths(error.problem)
        self._set(version, VersionState(pb.ModelVersionStatus.END, pb.FAILED_PRECONDITION, text))
        _LOG.warning("Model %r: version %d is not served: %s", self.config.name, version, error)

    def _drop(self, version: int) -> None:
        # Requests that have found the servable keep it until they are answered.
        self.servables = {v: s for v, s in self.servables.items() if v != version}
        self._set(version, VersionState(pb.ModelVersionStatus.END))
        _LOG.info("Model %r: version %d has left", self.config.name, version)

    def _set(self, version: int, state: VersionState) -> None:
        states = {**self.states, version: state}
        ended = sorted(v for v, known in states.items() if known.state == pb.ModelVersionStatus.END)
        for old in ended[:-_REMEMBERED]:
            del states[old]
        self.states = dict(sorted(states.items(), reverse=True))
