"""The models that are served, found by what a request asks for."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from cnnkit.errors import CnnkitError, UsageError
from cnnkit.server.model import ServedModel, VersionState
from cnnkit.server.model_config import ModelConfig
from cnnkit.server.status_error import StatusError, invalid_argument
from cnnkit.wire import cnnkit_serving_pb2 as pb

if TYPE_CHECKING:
    from cnnkit.server.servable import SavedModelServable

_LOG = logging.getLogger(__name__)


class LabelError(UsageError):
    """A label is for a version that is not served: `received` is the version.

    Args:
        name: The model.
        label: The label.
        version: Its version.
        served: The versions that are.
    """

    def __init__(self, name: str, label: str, version: int, served: str) -> None:
        super().__init__(
            f"Label {label!r} of model {name!r} is for a version that is not served",
            expected=f"one of {served}",
            received=version,
        )
        self.name = name


class ModelRepository:
    """The models that are loaded, found by what a request asks for.

    Args:
        configs: The models to load.
        load: Makes a servable of (name, version, folder).

    Raises:
        UsageError: A folder holds no model, or a label names a version that is not served.
        RunError: No version of a model can be loaded.

    Example:
        >>> configs = [ModelConfig("digits", Path("models/digits"))]
        >>> ModelRepository(configs, Servable).loaded("digits")  # doctest: +SKIP
        [1]
    """

    def __init__(
        self, configs: Iterable[ModelConfig], load: Callable[[str, int, Path], SavedModelServable]
    ) -> None:
        self._load = load
        self._changing = threading.Lock()
        self._told: dict[str, str] = {}
        # Replaced as a whole: readers need no lock.
        self._models: dict[str, ServedModel] = {}
        self.replace(configs)

    def replace(self, configs: Iterable[ModelConfig]) -> None:
        """Serves other models, or other versions of the same; all of them, or nothing changes.

        Raises:
            CnnkitError: One of them cannot be served as it is asked for.
        """
        with self._changing:
            models = {}
            for config in configs:
                before = self._models.get(config.name)
                model = before.changed_to(config) if before else ServedModel(config, self._load)
                model.refresh()
                _check_versions(model)
                models[config.name] = model
            self._models = models
        gc.collect()

    def refresh(self) -> None:
        """Looks once at every model's folder; what is wrong there is logged, once."""
        with self._changing:
            for name, model in self._models.items():
                before = model.servables
                try:
                    model.refresh(wait=True)
                    self._told.pop(name, None)
                # OSError: the folder went while it was read.
                except (CnnkitError, OSError) as error:
                    if self._told.get(name) != str(error):
                        _LOG.warning("Model %r stays as it is: %s", name, error)
                    self._told[name] = str(error)
                if set(before) - set(model.servables):
                    del before
                    # A loaded SavedModel refers to itself: only the collector frees its weights.
                    gc.collect()

    @property
    def configs(self) -> list[ModelConfig]:
        """What is served."""
        return [model.config for model in self._models.values()]

    def loaded(self, name: str) -> list[int]:
        """Returns the versions of a model that are loaded, the newest first."""
        return list(self._models[name].servables) if name in self._models else []

    def find(self, spec: pb.ModelSpec) -> SavedModelServable:
        """Returns the version that a request asks for.

        Raises:
            Refusal: There is none.
        """
        version = self._version(spec)
        servables = self._models[spec.name].servables if spec.name in self._models else {}
        if version is None:
            if servables:
                return servables[max(servables)]
            wanted = f"Latest({spec.name})"
        else:
            if version in servables:
                return servables[version]
            wanted = f"Specific({spec.name}, {version})"
        raise StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")

    def select(self, spec: pb.ModelSpec) -> dict[int, VersionState]:
        """Returns the states of the versions that a request asks for, the newest first.

        Raises:
            Refusal: There is none.
        """
        version = self._version(spec)
        states = self._models[spec.name].states if spec.name in self._models else {}
        if version is None:
            if states:
                return states
            text = f"Could not find any versions of model {spec.name}"
        else:
            if version in states:
                return {version: states[version]}
            text = f"Could not find version {version} of model {spec.name}"
        raise StatusError(grpc.StatusCode.NOT_FOUND, text)

    def _version(self, spec: pb.ModelSpec) -> int | None:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        chosen = spec.WhichOneof("version_choice")
        if chosen == "version":
            asked = spec.version.value
            # ovmsclient says 0 where it means none; TensorFlow Serving would look for version 0.
            return None if asked == 0 and 0 not in self.loaded(spec.name) else asked
        if chosen == "version_label":
            labels = self._models[spec.name].config.labels if spec.name in self._models else {}
            if spec.version_label not in labels:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            return labels[spec.version_label]
        return None


def _check_versions(model: ServedModel) -> None:
    name, config = model.config.name, model.config
    served = ", ".join(map(str, model.servables)) or "none"
    for version in config.versions.specific:
        if version not in model.servables:
            raise UsageError(
                f"Version {version} of model {name!r} cannot be served",
                expected=f"a SavedModel in {config.folder / str(version)}",
                received=f"versions {served}",
            )
    for label, version in config.labels.items():
        if version not in model.servables:
            raise LabelError(name, label, version, served)
