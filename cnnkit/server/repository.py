"""The versions of models that are loaded, found by what a request asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import grpc

from cnnkit.errors import UsageError
from cnnkit.server.folders import version_folders
from cnnkit.server.refusal import Refusal, invalid
from cnnkit.server.servable import Servable
from cnnkit.wire import cnnkit_serving_pb2 as pb


class Repository:
    """The models that are loaded, found by what a request asks for.

    Args:
        models: Their folders by name.
        versions: "latest" loads the newest version of each, "all" every one.
        labels: For each model, version numbers by label.

    Raises:
        UsageError: A folder holds no model, or a label names a version that is not loaded.
        RunError: A version cannot be loaded.

    Example:
        >>> Repository({"digits": Path("models/digits")}).loaded("digits")  # doctest: +SKIP
        [1]
    """

    def __init__(
        self,
        models: Mapping[str, Path],
        *,
        versions: str = "latest",
        labels: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        if versions not in ("latest", "all"):
            raise UsageError(
                "Unknown choice of versions", expected="latest, all", received=versions
            )
        self._servables: dict[str, dict[int, Servable]] = {}
        self._labels = {name: dict(given) for name, given in (labels or {}).items()}
        found = {name: version_folders(Path(folder)) for name, folder in models.items()}
        for name, folders in found.items():
            wanted = list(folders) if versions == "all" else list(folders)[:1]
            self._check_labels(name, wanted)
            self._servables[name] = {
                version: Servable(name, version, folders[version]) for version in wanted
            }
        for name in self._labels:
            if name not in found:
                raise UsageError(
                    "A label is for a model that is not served",
                    expected=f"one of {', '.join(found)}",
                    received=name,
                )

    def loaded(self, name: str) -> list[int]:
        """Returns the versions of a model that are loaded, the newest first."""
        return list(self._servables.get(name, {}))

    def find(self, spec: pb.ModelSpec) -> Servable:
        """Returns the version that a request asks for.

        Raises:
            Refusal: There is none.
        """
        versions = self._servables.get(spec.name, {})
        version = self._version(spec)
        if version is None:
            if versions:
                return versions[max(versions)]
            wanted = f"Latest({spec.name})"
        else:
            if version in versions:
                return versions[version]
            wanted = f"Specific({spec.name}, {version})"
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")

    def select(self, spec: pb.ModelSpec) -> list[int]:
        """Returns the versions whose state a request asks for, the newest first.

        Raises:
            Refusal: There is none.
        """
        loaded = self.loaded(spec.name)
        version = self._version(spec)
        if version is None:
            if loaded:
                return loaded
            text = f"Could not find any versions of model {spec.name}"
        else:
            if version in loaded:
                return [version]
            text = f"Could not find version {version} of model {spec.name}"
        raise Refusal(grpc.StatusCode.NOT_FOUND, text)

    def _version(self, spec: pb.ModelSpec) -> int | None:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        chosen = spec.WhichOneof("version_choice")
        if chosen == "version":
            return spec.version.value
        if chosen == "version_label":
            labels = self._labels.get(spec.name, {})
            if spec.version_label not in labels:
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            return labels[spec.version_label]
        return None

    def _check_labels(self, name: str, loaded: list[int]) -> None:
        for label, version in self._labels.get(name, {}).items():
            if version not in loaded:
                raise UsageError(
                    f"Label {label!r} of model {name!r} is for a version that is not served",
                    expected=f"one of {', '.join(map(str, loaded))}",
                    received=version,
                )
