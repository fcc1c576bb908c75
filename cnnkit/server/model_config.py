"""Configuration of the served models: folders, version policies, version labels.

`models.config` is TensorFlow Serving's file: a `ModelServerConfig` in protobuf's text format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from cnnkit._untrusted.damage import damage_as_error, shorten
from cnnkit._untrusted.regular_files import read_text
from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb

# A file of 1,000 models has 100 kB.
_MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class VersionPolicy:
    """Selection of the versions of a model folder.

    Attributes:
        latest: Number of newest versions; None for all.
        specific: Numbers of the only versions, if any are given.
    """

    latest: int | None = 1
    specific: tuple[int, ...] = ()

    def candidates(self, found: Iterable[int]) -> list[int]:
        """Returns the versions that may be served, the newest first.

        Args:
            found: Numbers of the versions in the folder.

        Example:
            >>> VersionPolicy(specific=(1, 2)).candidates([3, 2, 1])
            [2, 1]
        """
        wanted = set(found) & set(self.specific) if self.specific else set(found)
        return sorted(wanted, reverse=True)


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of one model.

    Attributes:
        name: Name of the model in requests.
        folder: The model folder, NAME/, with its integer versions.
        versions: Selection of its versions.
        version_labels: Version numbers by label.
    """

    name: str
    folder: Path
    versions: VersionPolicy = VersionPolicy()
    version_labels: Mapping[str, int] = field(default_factory=dict)


def parse_version_policy(text: str) -> VersionPolicy:
    """Returns the policy of a text: "latest", "latest:N", "all", or numbers such as "1,3".

    Raises:
        UsageError: If the text is none of these.

    Example:
        >>> parse_version_policy("latest:2").latest, parse_version_policy("1,3").specific
        (2, (1, 3))
    """
    if text == "all":
        return VersionPolicy(latest=None)
    kind, _, count = text.partition(":")
    if kind == "latest" and (count.isdecimal() and int(count) > 0 or text == "latest"):
        return VersionPolicy(latest=int(count or 1))
    numbers = text.split(",")
    if all(number.isdecimal() for number in numbers):
        return VersionPolicy(latest=None, specific=tuple(map(int, numbers)))
    raise UsageError(
        "`versions` must be latest, all, latest:N, or numbers such as 1,3", received=repr(text)
    )


def read_models_config(file: Path) -> list[ModelConfig]:
    """Reads TensorFlow Serving's `models.config`.

    Args:
        file: The file. A relative `base_path` starts from the file's folder.

    Returns:
        One configuration for each model.

    Raises:
        UsageError: If the file cannot be read, or a model in it cannot be served.

    Example:
        >>> read_models_config(Path("serving/models.config"))[0].name  # doctest: +SKIP
        'digits'
    """
    with damage_as_error(file, UsageError):
        text = read_text(file, max_bytes=_MAX_FILE_BYTES)
        try:
            config = text_format.Parse(text, pb.ModelServerConfig())
        except text_format.ParseError as error:
            raise UsageError(
                f"{file} is not a valid models.config",
                expected="model_config_list { config { name: ... base_path: ... } }",
                received=shorten(str(error)),
            ) from error
    return parse_model_configs(config.model_config_list, file.parent)


def parse_model_configs(config: pb.ModelConfigList, folder: Path) -> list[ModelConfig]:
    """Converts a `ModelConfigList` message of a file or a reload request.

    Args:
        config: The message.
        folder: Start of a relative `base_path`.

    Returns:
        One configuration for each model.

    Raises:
        UsageError: If a model cannot be served as configured, or there is none.

    Example:
        >>> message = pb.ModelConfigList()
        >>> _ = message.config.add(name="digits", base_path="digits")
        >>> parse_model_configs(message, Path("/models"))[0].folder
        PosixPath('/models/digits')
    """
    configs: dict[str, ModelConfig] = {}
    for given in config.config:
        if not given.name or not given.base_path:
            raise UsageError(
                "`config` must have a `name` and a `base_path`",
                received=shorten(str(given)),
            )
        if given.model_platform not in ("", "tensorflow"):
            raise UsageError(
                f"`model_platform` of model {given.name!r} must be tensorflow",
                received=given.model_platform,
            )
        if given.name in configs:
            raise UsageError("`name` must be different for every model", received=given.name)
        configs[given.name] = ModelConfig(
            given.name,
            folder / given.base_path,
            _version_policy(given),
            dict(given.version_labels),
        )
    if not configs:
        raise UsageError("`model_config_list` must hold one config { ... } at least")
    return list(configs.values())


def _version_policy(given: pb.ModelConfigList.ModelConfig) -> VersionPolicy:
    policy = given.model_version_policy
    chosen = policy.WhichOneof("policy_choice")
    if chosen == "all":
        return VersionPolicy(latest=None)
    if chosen == "specific":
        if not policy.specific.versions:
            raise UsageError(f"`specific` of model {given.name!r} must name a version")
        return VersionPolicy(latest=None, specific=tuple(policy.specific.versions))
    return VersionPolicy(latest=policy.latest.num_versions or 1)


class LabelError(UsageError):
    """A version label whose version is not served; `received` holds the version.

    Args:
        name: Name of the model.
        label: The version label.
        version: Number of its version.
        served: The versions that are served, as text.
    """

    def __init__(self, name: str, label: str, version: int, served: str) -> None:
        super().__init__(
            f"Label {label!r} of model {name!r} must name a version that is served",
            expected=f"one of {served}",
            received=version,
        )
        self.name = name


def check_served_versions(config: ModelConfig, served: Iterable[int]) -> None:
    """Check that the versions that a configuration names are served.

    Args:
        config: The configuration.
        served: Numbers of the versions that are served, or that may be.

    Raises:
        UsageError: If a version is missing.
        LabelError: If the version of a label is.
    """
    served = list(served)
    listed = ", ".join(map(str, served)) or "none"
    for version in config.versions.specific:
        if version not in served:
            raise UsageError(
                f"Version {version} of model {config.name!r} cannot be served",
                expected=f"a SavedModel in {config.folder / str(version)}",
                received=f"versions {listed}",
            )
    for label, version in config.version_labels.items():
        if version not in served:
            raise LabelError(config.name, label, version, listed)
