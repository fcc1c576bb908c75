"""HandleReloadConfigRequest: other models, or other versions and labels, without a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import grpc

from cnnkit.errors import CnnkitError, UsageError
from cnnkit.server.model_config import ModelConfig, model_configs
from cnnkit.server.repository import LabelError, ModelRepository
from cnnkit.server.status_error import StatusError, invalid_argument, without_paths
from cnnkit.wire import cnnkit_serving_pb2 as pb


def apply_reload(
    request: pb.ReloadConfigRequest, repository: ModelRepository, folders: Sequence[Path]
) -> pb.ReloadConfigResponse:
    """Serves what a request asks for; where that cannot be, all stays as it is.

    Args:
        request: The whole list of models.
        repository: Where they are changed.
        folders: A model's folder must be one of these or lie inside one: a client must not make
            the server read files that nobody meant to serve.

    Returns:
        A status that says how it went, as a model server answers.

    Raises:
        Refusal: The request holds no list.

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
        configs = model_configs(request.config.model_config_list, folders[0])
        _check_folders(configs, folders)
        repository.replace(configs)
    except LabelError as error:
        response.status.error_code = pb.FAILED_PRECONDITION
        response.status.error_message = (
            f"Request to assign label to version {error.received} of model {error.name}, "
            "which is not currently available for inference"
        )
    except CnnkitError as error:
        wrong = isinstance(error, UsageError)
        response.status.error_code = pb.INVALID_ARGUMENT if wrong else pb.FAILED_PRECONDITION
        response.status.error_message = without_paths(error.problem)
    return response


def reject_reload(request: pb.ReloadConfigRequest) -> NoReturn:
    """Refuses a request that would change one of several processes and not the others.

    Raises:
        Refusal: Always.
    """
    raise StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "This server is several processes, and the request has reached one of them. Change its "
        "models.config, which all of them read again, or start it as one process",
    )


def _check_folders(configs: Sequence[ModelConfig], folders: Sequence[Path]) -> None:
    allowed = [folder.resolve() for folder in folders]
    for config in configs:
        if not any(config.folder.resolve().is_relative_to(folder) for folder in allowed):
            raise UsageError(f"The base_path of model {config.name!r} is not the server's to read")
