"""One served model: its loaded versions, kept in step with its folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.errors import CnnkitError
from cnnkit.server.free_memory import MemoryShortageError
from cnnkit.server.model_config import ModelConfig
from cnnkit.server.status_error import redact_paths
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

# Unloaded versions whose state GetModelStatus still reports.
_MAX_ENDED_VERSIONS = 16
# Time until a version that did not fit into memory is tried again.
_RETRY_SECONDS = 60.0
# Polls after which a version that is still being written is logged.
_MAX_CHANGING_POLLS = 30


@dataclass(frozen=True)
class VersionState:
    """State of a version.

    Attributes:
        state: A value of `ModelVersionStatus.State`.
        code: A value of `Code`; not OK if the version could not be loaded.
        details: The reason, without paths.
    """

    state: pb.ModelVersionStatus.State
    code: pb.Code = pb.OK
    details: str = ""


class ServedModel:
    """The versions of one model.

    Readers use `servables` and `states` without a lock: both dictionaries are replaced, never
    changed.

    Args:
        config: Name, folder and version policy.
        load: Loads a servable from (name, version, folder); raises a CnnkitError if it fails.

    Example:
        >>> config = ModelConfig("digits", Path("models/digits"))  # doctest: +SKIP
        >>> model = ServedModel(config, SavedModelServable)  # doctest: +SKIP
        >>> model.refresh()  # doctest: +SKIP
    """

    def __init__(
        self, config: ModelConfig, load: Callable[[str, int, Path], SavedModelServable]
    ) -> None:
        self.config = config
        self.servables: dict[int, SavedModelServable] = {}
        self.states: dict[int, VersionState] = {}
        self._load = load
        # Fingerprints of versions that failed to load, and of all versions at the last poll.
        self._failed: dict[int, Fingerprint] = {}
        # When to try a version again that did not fit into memory.
        self._retry_times: dict[int, float] = {}
        self._last_poll: dict[int, Fingerprint] = {}
        # Consecutive polls at which the files of a version have changed.
        self._polls: dict[int, int] = {}

    def with_config(self, config: ModelConfig) -> ServedModel:
        """Returns a model of another configuration that keeps the versions loaded so far."""
        model = ServedModel(config, self._load)
        if config.folder == self.config.folder:
            model.servables, model.states = self.servables, self.states
            model._failed, model._last_poll = dict(self._failed), dict(self._last_poll)
            model._polls, model._retry_times = dict(self._polls), dict(self._retry_times)
        return model

    def refresh(self, *, wait_until_stable: bool = False) -> None:
        """Loads new versions of the folder, then unloads the versions that are no longer served.

        The newest versions that can be loaded are served. A version that fails is not tried again
        until its files change, and the older ones stay. The last version stays even if its folder
        is removed.

        Args:
            wait_until_stable: Load a version only after its files were the same at two polls, since
                another process may still be writing them. Meanwhile the newest version that is
                complete is loaded: where a new version is added at every poll, the newest one never
                is.

        Raises:
            CnnkitError: If the folder holds no versions, or none of them can be loaded.
        """
        folders = version_folders(self.config.folder)
        count = self.config.versions.latest or len(folders)
        newest = max(self.servables, default=-1)
        chosen: list[int] = []
        pending: list[int] = []
        problem: CnnkitError | None = None
        for version in self.config.versions.candidates(folders):
            if len(chosen) == count:
                break
            if version in self.servables:
                chosen.append(version)
                continue
            files = version_fingerprint(folders[version])
            if files == self._failed.get(version) and not self._is_due(version):
                continue
            if wait_until_stable and self._is_changing(version, files):
                pending.append(version)
                continue
            if pending and version < newest:
                # An older version than the served ones would be unloaded when the pending one is
                # loaded.
                continue
            try:
                self._load_version(version, folders[version])
                chosen.append(version)
            except CnnkitError as error:
                problem = problem or error
                self._mark_failed(version, files, error)
        # A pending version is about to take a place that is still free.
        if chosen and (len(chosen) == count or not pending):
            for version in set(self.servables) - set(chosen):
                self._unload(version)
        for known in (self._last_poll, self._failed, self._polls, self._retry_times):
            for version in set(known) - set(folders):
                del known[version]
        if not self.servables and problem is not None:
            raise problem

    def _is_due(self, version: int) -> bool:
        return time.monotonic() >= self._retry_times.get(version, math.inf)

    def _is_changing(self, version: int, files: Fingerprint) -> bool:
        """Returns True if files differ from those at the last poll; logs if they do for long."""
        if files == self._last_poll.get(version):
            self._polls.pop(version, None)
            return False
        self._last_poll[version] = files
        polls = self._polls[version] = self._polls.get(version, 0) + 1
        if polls == _MAX_CHANGING_POLLS:
            _LOG.warning(
                "Model %r: version %d is not served yet: its files changed at each of %d polls",
                self.config.name,
                version,
                polls,
            )
        return True

    def _load_version(self, version: int, folder: Path) -> None:
        self._set_state(version, VersionState(pb.ModelVersionStatus.LOADING))
        check_version(folder)
        servable = self._load(self.config.name, version, folder)
        loaded = {**self.servables, version: servable}
        self.servables = dict(sorted(loaded.items(), reverse=True))
        self._set_state(version, VersionState(pb.ModelVersionStatus.AVAILABLE))
        _LOG.info("Model %r: version %d is served", self.config.name, version)

    def _mark_failed(self, version: int, files: Fingerprint, error: CnnkitError) -> None:
        self._failed[version] = files
        self._retry_times.pop(version, None)
        if isinstance(error, MemoryShortageError):
            self._retry_times[version] = time.monotonic() + _RETRY_SECONDS
        details = redact_paths(error.problem)
        state = VersionState(pb.ModelVersionStatus.END, pb.FAILED_PRECONDITION, details)
        self._set_state(version, state)
        _LOG.warning("Model %r: version %d is not served: %s", self.config.name, version, error)

    def _unload(self, version: int) -> None:
        # Running requests keep their reference to the servable.
        self.servables = {v: s for v, s in self.servables.items() if v != version}
        self._set_state(version, VersionState(pb.ModelVersionStatus.END))
        _LOG.info("Model %r: version %d is unloaded", self.config.name, version)

    def _set_state(self, version: int, state: VersionState) -> None:
        states = {**self.states, version: state}
        ended = sorted(v for v, known in states.items() if known.state == pb.ModelVersionStatus.END)
        for old in ended[:-_MAX_ENDED_VERSIONS]:
            del states[old]
        self.states = dict(sorted(states.items(), reverse=True))
