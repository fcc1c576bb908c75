"""HandleReloadConfigRequest: change models, versions and labels without a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import grpc

from cnnkit.errors import CnnkitError, UsageError
from cnnkit.server.model_config import ModelConfig, parse_model_configs
from cnnkit.server.repository import LabelError, ModelRepository
from cnnkit.server.status_error import StatusError, invalid_argument, redact_paths
from cnnkit.wire import cnnkit_serving_pb2 as pb


def apply_reload(
    request: pb.ReloadConfigRequest, repository: ModelRepository, folders: Sequence[Path]
) -> pb.ReloadConfigResponse:
    """Applies a reload request atomically: if it fails, the served models do not change.

    Args:
        request: The configuration of all models.
        repository: The models to change.
        folders: Allowed folders: a model folder must be one of them or inside one, so that a client
            cannot make the server read other files.

    Returns:
        The response of a model server: a status, OK or the error.

    Raises:
        StatusError: If the request holds no list of models.

    Example:
        >>> apply_reload(request, repository, [Path("models")]).status.error_code  # doctest: +SKIP
        0
    """
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    response = pb.ReloadConfigResponse()
    response.status.SetInParent()
    try:
        configs = parse_model_configs(request.config.model_config_list, folders[0])
        _check_folders(configs, folders)
        repository.replace(configs)
    except LabelError as error:
        response.status.error_code = pb.FAILED_PRECONDITION
        response.status.error_message = (
            f"Request to assign label to version {error.received} of model {error.name}, "
            "which is not currently available for inference"
        )
    except CnnkitError as error:
        is_usage_error = isinstance(error, UsageError)
        response.status.error_code = (
            pb.INVALID_ARGUMENT if is_usage_error else pb.FAILED_PRECONDITION
        )
        response.status.error_message = redact_paths(error.problem)
    return response


def reject_reload(request: pb.ReloadConfigRequest) -> NoReturn:
    """Refuses a reload request, which would change only one of several processes.

    Args:
        request: The request; it is ignored.

    Raises:
        StatusError: Always.
    """
    raise StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "This server runs several processes, and the request has reached one of them. Change its "
        "models.config, which all of them read again, or start it as one process",
    )


def _check_folders(configs: Sequence[ModelConfig], folders: Sequence[Path]) -> None:
    allowed = [folder.resolve() for folder in folders]
    for config in configs:
        if not any(config.folder.resolve().is_relative_to(folder) for folder in allowed):
            raise UsageError(
                f"The base_path of model {config.name!r} is outside of the server's model folders"
            )
