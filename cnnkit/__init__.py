"""cnnkit: AlexNet, VGG and the deconvnet on TensorFlow and Keras 3.

`import cnnkit` imports no TensorFlow: a public name is imported when it is first used. The names
stand in `cnnkit/__init__.pyi`.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from cnnkit._version import __version__ as __version__


def _read_stub() -> dict[str, str]:
    """Return the module that each public name is imported from."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        alias.name: str(node.module)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if not alias.name.startswith("_")
    }


_HOMES = _read_stub()

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnnkit' has no attribute {name!r}")
    if _HOMES[name] == "cnnkit":
        return importlib.import_module(f"cnnkit.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
