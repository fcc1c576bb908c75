"""Which models are served, which versions of each, and their labels.

`models.config` is TensorFlow Serving's file: a `ModelServerConfig` in protobuf's text format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from cnnkit.errors import UsageError
from cnnkit.wire import cnnkit_serving_pb2 as pb


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions of a model's folder are served.

    Attributes:
        newest: How many, counted from the newest; None for every one.
        specific: These alone, where there are any.
    """

    newest: int | None = 1
    specific: tuple[int, ...] = ()

    def candidates(self, found: Iterable[int]) -> list[int]:
        """Returns the versions that may be served, those to be preferred first.

        Example:
            >>> VersionPolicy(specific=(1, 2)).candidates([3, 2, 1])
            [2, 1]
        """
        wanted = set(found) & set(self.specific) if self.specific else set(found)
        return sorted(wanted, reverse=True)


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: The name that requests ask for.
        folder: NAME/ with its integer versions.
        versions: Which of them.
        labels: Versions by label.
    """

    name: str
    folder: Path
    versions: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)


def parse_version_policy(text: str) -> VersionPolicy:
    """Reads a choice of versions: "latest", "latest:N", "all", or numbers such as "1,3".

    Raises:
        UsageError: It is none of these.

    Example:
        >>> parse_version_policy("latest:2").newest, parse_version_policy("1,3").specific
        (2, (1, 3))
    """
    if text == "all":
        return VersionPolicy(newest=None)
    kind, _, count = text.partition(":")
    if kind == "latest" and (count.isdecimal() and int(count) > 0 or text == "latest"):
        return VersionPolicy(newest=int(count or 1))
    numbers = text.split(",")
    if all(number.isdecimal() for number in numbers):
        return VersionPolicy(newest=None, specific=tuple(map(int, numbers)))
    raise UsageError(
        "Unknown choice of versions",
        expected="latest, all, latest:N, or numbers such as 1,3",
        received=text,
    )


def read_models_config(file: Path) -> list[ModelConfig]:
    """Reads TensorFlow Serving's `models.config`.

    Args:
        file: The file. A `base_path` that is not absolute starts from the file's folder.

    Raises:
        UsageError: The file cannot be read, or asks for what there is not.

    Example:
        >>> read_models_config(Path("serving/models.config"))[0].name  # doctest: +SKIP
        'digits'
    """
    try:
        config = text_format.Parse(file.read_text(encoding="utf-8"), pb.ModelServerConfig())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "The file of models cannot be read", expected=file, received=error
        ) from error
    except text_format.ParseError as error:
        raise UsageError(
            f"{file} is no file of models",
            expected="model_config_list { config { name: ... base_path: ... } }",
            received=error,
        ) from error
    return model_configs(config.model_config_list, file.parent)


def model_configs(config: pb.ModelConfigList, folder: Path) -> list[ModelConfig]:
    """Returns what a list of models in TensorFlow Serving's words asks for.

    Args:
        config: The list, from a file or from a request.
        folder: Where a `base_path` that is not absolute starts.

    Raises:
        UsageError: It asks for what there is not.

    Example:
        >>> message = pb.ModelConfigList()
        >>> _ = message.config.add(name="digits", base_path="digits")
        >>> model_configs(message, Path("/models"))[0].folder
        PosixPath('/models/digits')
    """
    configs: dict[str, ModelConfig] = {}
    for given in config.config:
        if not given.name or not given.base_path:
            raise UsageError("A model lacks a name or a base_path", received=given)
        if given.model_platform not in ("", "tensorflow"):
            raise UsageError(
                f"Model {given.name!r} is of a kind that cannot be served",
                expected="model_platform: tensorflow",
                received=given.model_platform,
            )
        if given.name in configs:
            raise UsageError("Two models have the same name", received=given.name)
        configs[given.name] = ModelConfig(
            given.name,
            folder / given.base_path,
            _policy(given.model_version_policy),
            dict(given.version_labels),
        )
    if not configs:
        raise UsageError("No model is named", expected="one config { ... } at least")
    return list(configs.values())


def _policy(given: pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> VersionPolicy:
    chosen = given.WhichOneof("policy_choice")
    if chosen == "all":
        return VersionPolicy(newest=None)
    if chosen == "specific":
        if not given.specific.versions:
            raise UsageError("A policy of specific versions names none")
        return VersionPolicy(newest=None, specific=tuple(given.specific.versions))
    return VersionPolicy(newest=given.latest.num_versions or 1)
