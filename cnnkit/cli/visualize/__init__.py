"""The pictures of `cnnkit visualize`, a module each.

A picture is a module here: its docstring's first line is the summary and the whole of it the
description; it has `add_arguments(parser)` and `draw(args) -> Drawn`. Its name on the command line
is the module's, with hyphens for underscores, or its `NAME`. Modules import TensorFlow inside
`draw` only, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def figure_commands() -> dict[str, ModuleType]:
    """Returns the pictures by their name on the command line, in alphabetical order."""
    modules = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            picture = importlib.import_module(f"{__name__}.{module.name}")
            if not hasattr(picture, "draw"):
                continue
            modules[getattr(picture, "NAME", module.name.replace("_", "-"))] = picture
    return dict(sorted(modules.items()))
