"""Repository of the served models, which are looked up by a request's `model_spec`."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from cnnkit.errors import CnnkitError
from cnnkit.server.metrics import NO_METRICS, NoMetrics
from cnnkit.server.model import ServedModel, VersionState
from cnnkit.server.model_config import ModelConfig, check_served_versions
from cnnkit.server.shared_versions import SharedVersions
from cnnkit.server.status_error import StatusError, invalid_argument, quote_name
from cnnkit.wire import cnnkit_serving_pb2 as pb

if TYPE_CHECKING:
    from cnnkit.server.load_trial import LoadTrial
    from cnnkit.server.servable import SavedModelServable

_LOG = logging.getLogger(__name__)


class ModelRepository:
    """The loaded models.

    Args:
        configs: The models to load.
        load: Loads a servable from (name, version, folder).
        trial: Tries to load a version while others are served.
        metrics: Counts the versions that are loaded.

    Raises:
        UsageError: If a folder holds no model, or a label names a version that is not served.
        RunError: If no version of a model can be loaded.

    Example:
        >>> configs = [ModelConfig("digits", Path("models/digits"))]
        >>> ModelRepository(configs, SavedModelServable).versions("digits")  # doctest: +SKIP
        [1]
    """

    def __init__(
        self,
        configs: Iterable[ModelConfig],
        load: Callable[[str, int, Path], SavedModelServable],
        trial: LoadTrial | None = None,
        metrics: NoMetrics = NO_METRICS,
    ) -> None:
        shared = SharedVersions(load)

        def counted_load(name: str, version: int, folder: Path) -> SavedModelServable:
            loaded = False
            try:
                servable = shared.load(name, version, folder)
                loaded = True
                return servable
            finally:
                metrics.load_version(name, loaded=loaded)

        self._load = counted_load
        self._lock = threading.Lock()
        self._logged_errors: dict[str, str] = {}
        # Replaced as a whole, so that readers need no lock.
        self._models: dict[str, ServedModel] = {}
        self.replace(configs)
        # Nothing is served while the first models are loaded.
        shared.trial = trial

    def replace(self, configs: Iterable[ModelConfig]) -> None:
        """Serves the models of a new configuration; if one of them fails, nothing changes.

        Unloaded models stay in memory until `gc.collect` is called; see `refresh`.

        Args:
            configs: The new configuration.

        Raises:
            CnnkitError: If one of them cannot be served as configured.
        """
        with self._lock:
            self._models = {config.name: self._loaded_model(config) for config in configs}

    def refresh(self) -> None:
        """Refreshes every model from its folder; each new error is logged once."""
        with self._lock:
            for name, model in self._models.items():
                before = model.servables
                try:
                    model.refresh(wait_until_stable=True)
                    self._logged_errors.pop(name, None)
                # OSError: the folder was removed while it was read.
                except (CnnkitError, OSError) as error:
                    if self._logged_errors.get(name) != str(error):
                        _LOG.warning("Model %r is not refreshed: %s", name, error)
                    self._logged_errors[name] = str(error)
                if set(before) - set(model.servables):
                    del before
                    # A loaded SavedModel is part of a reference cycle: only gc frees its weights.
                    gc.collect()

    def _loaded_model(self, config: ModelConfig) -> ServedModel:
        before = self._models.get(config.name)
        model = before.with_config(config) if before else ServedModel(config, self._load)
        model.refresh()
        check_served_versions(model.config, model.servables)
        return model

    @property
    def configs(self) -> list[ModelConfig]:
        """Configurations of the served models."""
        return [model.config for model in self._models.values()]

    def versions(self, name: str) -> list[int]:
        """Returns the loaded versions of a model, the newest first; none for an unknown model."""
        return list(self._models[name].servables) if name in self._models else []

    def find(self, spec: pb.ModelSpec) -> SavedModelServable:
        """Returns the servable of a `model_spec`, by default of the newest version.

        Raises:
            StatusError: If there is no such model, version or label.
        """
        version = self._requested_version(spec)
        servables = self._models[spec.name].servables if spec.name in self._models else {}
        if version is None:
            if servables:
                return servables[max(servables)]
            wanted = f"Latest({quote_name(spec.name)})"
        else:
            if version in servables:
                return servables[version]
            wanted = f"Specific({quote_name(spec.name)}, {version})"
        raise StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")

    def version_states(self, spec: pb.ModelSpec) -> dict[int, VersionState]:
        """Returns the states of the versions of a `model_spec`, by default all, the newest first.

        A version label is ignored, as by TensorFlow Serving: a client that depends on it here would
        fail there.

        Raises:
            StatusError: If there is no such model or version.
        """
        by_label = spec.WhichOneof("version_choice") == "version_label"
        version = None if by_label and spec.name else self._requested_version(spec)
        states = self._models[spec.name].states if spec.name in self._models else {}
        if version is None:
            if states:
                return states
            text = f"Could not find any versions of model {quote_name(spec.name)}"
        else:
            if version in states:
                return {version: states[version]}
            text = f"Could not find version {version} of model {quote_name(spec.name)}"
        raise StatusError(grpc.StatusCode.NOT_FOUND, text)

    def _requested_version(self, spec: pb.ModelSpec) -> int | None:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        chosen = spec.WhichOneof("version_choice")
        if chosen == "version":
            version = spec.version.value
            # ovmsclient sends 0 for no version; TensorFlow Serving would look for version 0.
            return None if version == 0 and 0 not in self.versions(spec.name) else version
        if chosen == "version_label":
            labels = (
                self._models[spec.name].config.version_labels if spec.name in self._models else {}
            )
            if spec.version_label not in labels:
                label = quote_name(spec.version_label)
                raise invalid_argument(f"Unrecognized servable version label: {label}")
            return labels[spec.version_label]
        return None
