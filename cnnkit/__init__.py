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
    is_module = _HOMES[name] == "cnnkit"
    home = f"cnnkit.{name}" if is_module else _HOMES[name]
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if not home.startswith(f"{error.name}") or error.name == "cnnkit":
            raise
        raise ImportError(
            f"`cnnkit.{name}` must be imported where cnnkit is installed: cnnkit-client holds"
            " `cnnkit.client` only. Install cnnkit in its place.",
            name=error.name,
        ) from None
    return module if is_module else getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
