"""Public names of cnnkit: which modules are public, what they export, what is documented.

`docs/build_site.py` builds the API reference from this list, and `tests/test_public_api.py`
compares it with the recorded API.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# Every module that users import from. A name is public if one of these modules exports it.
PUBLIC_MODULES = (
    "cnnkit",
    "cnnkit.client",
    "cnnkit.config",
    "cnnkit.data",
    "cnnkit.errors",
    "cnnkit.evaluation",
    "cnnkit.export",
    "cnnkit.features",
    "cnnkit.figures",
    "cnnkit.layers",
    "cnnkit.models",
    "cnnkit.papers",
    "cnnkit.recipes",
    "cnnkit.reproduction",
    "cnnkit.server",
    "cnnkit.training",
    "cnnkit.transfer",
    "cnnkit.visualize",
)

# A reference to one of cnnkit's own names in a docstring, such as `cnnkit.data.load_source`.
_REFERENCE = re.compile(r"`(cnnkit(?:\.\w+)+)(?:\(\))?`")


def public_names(module: ModuleType) -> list[str]:
    """Return the sorted public names of `module`.

    The names are those of `__all__`. A module without `__all__` exports what it defines without a
    leading underscore and what it imports in the form `from x import name as name`.
    """
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    names: set[str] = set()
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom):
            names.update(alias.name for alias in node.names if alias.asname == alias.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        else:
            names.update(_targets(node))
    return sorted(name for name in names if not name.startswith("_"))


def public_methods(cls: type) -> Iterator[tuple[str, object]]:
    """Yield the name and the raw attribute of each public method and property of `cls`.

    Members inherited from classes outside cnnkit are left out.
    """
    found: dict[str, object] = {}
    for base in cls.__mro__:
        if _is_ours(base.__module__):
            for name, member in vars(base).items():
                if not name.startswith("_") and _is_method(member):
                    found.setdefault(name, member)
    yield from sorted(found.items())


def constant_documentation(module: ModuleType, name: str) -> str:
    """Return the documentation of the constant `name` of `module`, or an empty string.

    A string literal below the definition documents a constant. So does a comment above it, or above
    the group of definitions without blank lines that it belongs to. The search follows re-exports
    to the defining module.
    """
    tree, lines = _tree(module), _source(module).splitlines()
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return constant_documentation(importlib.import_module(node.module), alias.name)
        if name in _targets(node):
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                return inspect.cleandoc(str(following.value.value))
            return _comment_above(lines, node.lineno - 1)
    return ""


def undocumented_names() -> list[str]:
    """Return the public names without documentation, methods and modules included."""
    missing = []
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        if not inspect.getdoc(module):
            missing.append(module_name)
        for name in public_names(module):
            missing.extend(_undocumented(module, name))
    return missing


def broken_references() -> list[str]:
    """Return the references in public docstrings that name nothing in cnnkit."""
    broken = []
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        documented: list[tuple[str, object]] = [(module_name, module)]
        for name in public_names(module):
            value = getattr(module, name)
            documented.append((f"{module_name}.{name}", value))
            if inspect.isclass(value):
                documented += [
                    (f"{module_name}.{name}.{key}", member) for key, member in public_methods(value)
                ]
        for name, value in documented:
            for reference in _REFERENCE.findall(_own_docstring(value)):
                if not _resolves(reference):
                    broken.append(f"{name}: `{reference}`")
    return broken


def is_constant(value: object) -> bool:
    """Return whether `value` is a plain value: not a class, a function or a module."""
    return not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value))


def _undocumented(module: ModuleType, name: str) -> Iterator[str]:
    value, full = getattr(module, name), f"{module.__name__}.{name}"
    if is_constant(value):
        if not constant_documentation(module, name):
            yield full
        return
    if not _own_docstring(value):
        yield full
    if inspect.isclass(value):
        for key, member in public_methods(value):
            # Keras documents its own hooks, such as `call` and `compute_output_shape`.
            overrides = any(
                hasattr(base, key) for base in value.__mro__ if not _is_ours(base.__module__)
            )
            if not overrides and not inspect.getdoc(member):
                yield f"{full}.{key}"


def _own_docstring(value: object) -> str:
    """Return the docstring of `value` itself; a class does not inherit one."""
    return inspect.cleandoc(getattr(value, "__doc__", None) or "")


def _resolves(reference: str) -> bool:
    parts = reference.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            # The fields of a dataclass without a default are annotations only.
            if not hasattr(value, part) and part not in getattr(value, "__annotations__", {}):
                return False
            value = getattr(value, part, None)
        return True
    return False


def _is_ours(module_name: str) -> bool:
    return module_name.partition(".")[0] == "cnnkit"


def _is_method(member: object) -> bool:
    return inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod)


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(_source(module))


def _targets(node: ast.stmt) -> list[str]:
    """Return the names that an assignment defines."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _comment_above(lines: list[str], index: int) -> str:
    """Return the nearest comment above line `index` with no blank line in between."""
    comment: list[str] = []
    for line in reversed(lines[:index]):
        if line.startswith("#"):
            comment.insert(0, line.removeprefix("#").strip())
        elif comment or not line.strip():
            break
    return " ".join(comment)
