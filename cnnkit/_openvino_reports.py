"""Keep OpenVINO from reporting what is done with it to its maker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# OpenVINO and NNCF report each conversion over the network, except where these are set.
_UNATTENDED = {"CI": "true", "NNCF_CI": "true"}


@contextmanager
def without_reports() -> Iterator[None]:
    """Set the environment variables with which OpenVINO and NNCF report nothing, for a block.

    What is imported or converted first inside such a block stays silent afterwards.

    Example:
        >>> with without_reports():
        ...     os.environ["CI"]
        'true'
    """
    before = {name: os.environ.get(name) for name in _UNATTENDED}
    os.environ.update(_UNATTENDED)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
