"""TensorFlow Serving's own model server, run as a child process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from cnnkit.errors import RunError

BINARY = "tensorflow_model_server"


def find_model_server() -> Path | None:
    """Returns where TensorFlow Serving's model server is installed, or None.

    Example:
        >>> find_model_server()  # doctest: +SKIP
        PosixPath('/usr/bin/tensorflow_model_server')
    """
    found = shutil.which(BINARY)
    return None if found is None else Path(found)


class ModelServerProcess:
    """A running `tensorflow_model_server`; its log goes where this process's goes.

    It listens on every network interface: it has no option for one of them.

    Args:
        binary: The program.
        name: The name to serve the model under.
        folder: The model's folder, NAME/ with its integer versions.
        port: The port of its gRPC interface.

    Raises:
        RunError: The program cannot be started.

    Example:
        >>> with ModelServerProcess(binary, "digits", folder, 8500) as server:  # doctest: +SKIP
        ...     server.check()
    """

    def __init__(self, binary: Path, name: str, folder: Path, port: int) -> None:
        command = [
            str(binary),
            f"--port={port}",
            f"--model_name={name}",
            f"--model_base_path={folder.resolve()}",
        ]
        try:
            # In a session of its own: Ctrl-C reaches this process, which then ends that one.
            self._process = subprocess.Popen(command, start_new_session=True)
        except OSError as error:
            raise RunError(
                f"{BINARY} cannot be started",
                received=error.strerror,
                hint="Serve with --embedded",
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

    def check(self) -> None:
        """Raises a RunError where the server has ended by itself."""
        code = self._process.poll()
        if code is not None:
            raise RunError(
                f"{BINARY} ended by itself",
                received=f"exit code {code}",
                hint="Its log above says why; the embedded server is there with --embedded",
            )

    def stop(self, grace: float = 10.0) -> None:
        """Ends the server.

        Args:
            grace: Seconds it may take for that, before it is killed.
        """
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
