"""TensorFlow Serving's `tensorflow_model_server` as a child process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from cnnkit.errors import RunError

BINARY = "tensorflow_model_server"
# Calls at the same time; further ones are refused. The program's default is four for each core, so
# that eight callers of a machine with two cores fail most of the time.
GRPC_MAX_THREADS = 64


def find_model_server() -> Path | None:
    """Returns the path of TensorFlow Serving's model server, or None if it is not installed.

    Example:
        >>> find_model_server()  # doctest: +SKIP
        PosixPath('/usr/bin/tensorflow_model_server')
    """
    found = shutil.which(BINARY)
    return None if found is None else Path(found)


class ModelServerProcess:
    """A running `tensorflow_model_server`, which writes its log to this process's output.

    It listens on every network interface; it has no option for a single one.

    Args:
        binary: Path of the program.
        name: Name of the model in requests.
        folder: The model folder, NAME/, with its integer versions.
        port: Port of its gRPC interface.

    Raises:
        RunError: If the program cannot be started.

    Example:
        >>> with ModelServerProcess(binary, "digits", folder, 8500) as server:  # doctest: +SKIP
        ...     server.check_running()
    """

    def __init__(self, binary: Path, name: str, folder: Path, port: int) -> None:
        command = [
            str(binary),
            f"--port={port}",
            f"--model_name={name}",
            f"--model_base_path={folder.resolve()}",
            f"--grpc_max_threads={GRPC_MAX_THREADS}",
        ]
        try:
            # In a session of its own, so that Ctrl-C reaches only this process, which then ends
            # the server.
            self._process = subprocess.Popen(command, start_new_session=True)
        except OSError as error:
            raise RunError(
                f"{BINARY} cannot be started",
                received=error.strerror,
                hint="`cnnkit serve --embedded` does without it",
            ) from error

    def __enter__(self) -> ModelServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def check_running(self) -> None:
        """Raises an error if the server has exited.

        Raises:
            RunError: If it has exited.
        """
        code = self._process.poll()
        if code is not None:
            raise RunError(
                f"{BINARY} exited",
                received=f"exit code {code}",
                hint="Read its log above, or take `cnnkit serve --embedded`",
            )

    def stop(self, grace: float = 10.0) -> None:
        """Ends the server.

        Args:
            grace: Seconds until it is killed.
        """
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
