"""HandleReloadConfigRequest: change models, versions and labels without a restart."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc

from cnnkit._untrusted.damage import damage_as_error
from cnnkit.errors import CnnkitError, UsageError
from cnnkit.server.model_config import LabelError, ModelConfig, parse_model_configs
from cnnkit.server.repository import ModelRepository
from cnnkit.server.status_error import StatusError, invalid_argument, quote_name, redact_paths
from cnnkit.wire import cnnkit_serving_pb2 as pb

# gRPC's name of the caller's certificate.
_CERTIFICATE = "x509_pem_cert"


class ReloadService:
    """Decides who may send reload requests, and applies them one at a time in its own thread.

    Args:
        repository: The models to change.
        folders: Allowed folders; see `apply_reload`.
        allowed: Whether requests are accepted, from this machine and from clients with a
            certificate.
        max_models: Largest number of models of a request.

    Example:
        >>> service = ReloadService(
        ...     repository, [Path("models")], allowed=True, max_models=32
        ... )  # doctest: +SKIP
        >>> service.authorize(context)  # doctest: +SKIP
        >>> response = await service.apply(request)  # doctest: +SKIP
    """

    def __init__(
        self,
        repository: ModelRepository,
        folders: Sequence[Path],
        *,
        allowed: bool,
        max_models: int,
    ) -> None:
        self._repository = repository
        self._folders = folders
        self._allowed = allowed
        self._max_models = max_models
        self._thread = futures.ThreadPoolExecutor(1, "cnnkit-reload")
        self._current: futures.Future[pb.ReloadConfigResponse] | None = None

    def authorize(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Raises an error unless the caller may send reload requests.

        Args:
            context: The call; its message is not read yet.

        Raises:
            StatusError: PERMISSION_DENIED, if the caller may not.
        """
        if not self._allowed:
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                "Reload requests are off. Change the server's models.config, or start it with "
                "`cnnkit serve --allow-reload`",
            )
        # gRPC has verified the certificate: it asks for one only with the authority of the clients.
        if not (is_local_caller(context.peer()) or _CERTIFICATE in context.auth_context()):
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                "Reload requests are accepted from the server's machine and from clients with a "
                "certificate only",
            )

    async def apply(self, request: pb.ReloadConfigRequest) -> pb.ReloadConfigResponse:
        """Applies a request; see `apply_reload`.

        Args:
            request: The configuration of all models.

        Raises:
            StatusError: If another request is being applied, or this one is invalid.
        """
        models = len(request.config.model_config_list.config)
        if models > self._max_models:
            raise invalid_argument(
                f"A reload request names {models} models, and may name {self._max_models}"
            )
        # A client that does not wait for its response does not end its request.
        if self._current is not None and not self._current.done():
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "Another reload request is being applied"
            )
        self._current = self._thread.submit(apply_reload, request, self._repository, self._folders)
        return await asyncio.shield(asyncio.wrap_future(self._current))

    def shut_down(self) -> None:
        """Refuses further requests; does not wait for a running one."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def is_local_caller(peer: str) -> bool:
    """Returns True if a caller is on this machine.

    Args:
        peer: The caller as gRPC names it, with its port.

    Example:
        >>> is_local_caller("ipv4:127.0.0.1:40001"), is_local_caller("ipv6:%5B2001:db8::1%5D:40001")
        (True, False)
    """
    kind, _, address = unquote(peer).partition(":")
    if kind == "unix":
        return True
    try:
        found = ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


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
            f"Request to assign label to version {error.received} of model "
            f"{quote_name(error.name)}, which is not currently available for inference"
        )
    except CnnkitError as error:
        is_usage_error = isinstance(error, UsageError)
        response.status.error_code = (
            pb.INVALID_ARGUMENT if is_usage_error else pb.FAILED_PRECONDITION
        )
        response.status.error_message = quote_name(redact_paths(error.problem))
    # After the errors, whose tracebacks keep what was loaded for a request that failed.
    gc.collect()
    return response


def _check_folders(configs: Sequence[ModelConfig], folders: Sequence[Path]) -> None:
    allowed = [folder.resolve() for folder in folders]
    for config in configs:
        with damage_as_error(
            f"The base_path of model {config.name!r}", UsageError, "cannot be read"
        ):
            folder = config.folder.resolve()
        if not any(folder.is_relative_to(parent) for parent in allowed):
            raise UsageError(
                f"The base_path of model {config.name!r} is outside of the server's model folders"
            )
