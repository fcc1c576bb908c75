"""The public API is the recorded one: every public name with its kind and signature.

A change of the API shows up in the diff of tests/data/public_api.txt. Record it with
`python tests/test_public_api.py --write`.
"""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import cnnkit
from cnnkit.cli.main import all_command_names
from cnnkit.models.vgg import vgg16

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "data" / "public_api.txt"

sys.path.insert(0, str(ROOT / "docs"))

import public_names  # noqa: E402


def annotation_text(annotation):
    """Annotations are strings under `from __future__ import annotations`."""
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


def default_text(value):
    """The repr of a default, without the addresses that change from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def parameter_text(parameter):
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {annotation_text(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {default_text(parameter.default)}"
    return text


def signature_text(function, *, bound=False, returns=True):
    """The signature as Python writes it, one parameter a line if it is long."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    pieces = [parameter_text(parameter) for parameter in parameters]
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        pieces.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    if inspect.Parameter.POSITIONAL_ONLY in kinds:
        pieces.insert(kinds.count(inspect.Parameter.POSITIONAL_ONLY), "/")
    text = f"({', '.join(pieces)})"
    if len(text) > 80:
        text = "(\n" + "".join(f"    {piece},\n" for piece in pieces) + ")"
    if returns and signature.return_annotation is not signature.empty:
        text += f" -> {annotation_text(signature.return_annotation)}"
    return text


def constructor_text(cls):
    """The signature of `__init__`; Keras and Python add constructors of their own to a class."""
    if not inspect.isfunction(cls.__init__):
        return "()"
    return signature_text(cls.__init__, bound=True, returns=False)


def field_text(field):
    text = f"{field.name}: {annotation_text(field.type)}"
    if field.default is not dataclasses.MISSING:
        text += f" = {default_text(field.default)}"
    elif field.default_factory is not dataclasses.MISSING:
        text += " = ..."
    return text if field.init else f"{text} (no argument)"


def class_lines(name, cls):
    if issubclass(cls, BaseException):
        bases = ", ".join(base.__name__ for base in cls.__bases__)
        yield f"exception {name}{constructor_text(cls)}: {bases}"
    elif dataclasses.is_dataclass(cls):
        yield f"dataclass {name}"
        yield from (f"field {name}.{field_text(field)}" for field in dataclasses.fields(cls))
    else:
        yield f"class {name}{constructor_text(cls)}"
    for key, member in public_names.public_methods(cls):
        if isinstance(member, property):
            yield f"property {name}.{key}"
        elif isinstance(member, staticmethod):
            yield f"staticmethod {name}.{key}{signature_text(member.__func__)}"
        elif isinstance(member, classmethod):
            yield f"classmethod {name}.{key}{signature_text(member.__func__, bound=True)}"
        else:
            word = "async method" if inspect.iscoroutinefunction(member) else "method"
            yield f"{word} {name}.{key}{signature_text(member, bound=True)}"


def api_lines():
    for module_name in public_names.PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        yield ""
        yield f"# {module_name}"
        for key in public_names.public_names(module):
            name, value = f"{module_name}.{key}", getattr(module, key)
            if inspect.ismodule(value):
                yield f"module {name}"
            elif inspect.isclass(value):
                yield from class_lines(name, value)
            elif inspect.isroutine(value):
                yield f"function {name}{signature_text(value)}"
            else:
                yield f"constant {name}"


def api_text():
    return "\n".join(api_lines()).lstrip() + "\n"


def test_the_public_api_is_the_recorded_one():
    recorded, current = RECORDED.read_text(encoding="utf-8"), api_text()
    difference = "\n".join(
        difflib.unified_diff(
            recorded.splitlines(), current.splitlines(), "recorded", "current", n=0, lineterm=""
        )
    )
    if difference:
        pytest.fail(
            f"The public API changed:\n{difference}\nIf the change is intended, note it in "
            "CHANGELOG.md and run: python tests/test_public_api.py --write",
            pytrace=False,
        )


def test_every_module_in_the_list_of_the_package_is_public():
    package = importlib.import_module("cnnkit")
    modules = {
        f"cnnkit.{name}" for name in package.__all__ if inspect.ismodule(getattr(package, name))
    }
    assert modules <= set(public_names.PUBLIC_MODULES)


def test_public_names():
    assert cnnkit.vgg16 is vgg16
    assert set(cnnkit.__all__) <= set(dir(cnnkit))
    with pytest.raises(AttributeError, match="no attribute 'vgg17'"):
        _ = cnnkit.vgg17


def test_public_names_are_documented():
    assert public_names.undocumented_names() == []


def test_docstrings_refer_to_names_that_exist():
    assert public_names.broken_references() == []


def test_every_command_has_a_call():
    """The page names each command once, and calls that exist."""
    page = (ROOT / "docs" / "guide" / "python.md").read_text()
    rows = re.findall(r"^\| `cnnkit (\w+)` \| (.*) \|$", page, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(
        {name.split()[0] for name in all_command_names()} - {"completion"}
    )
    for name, calls in rows:
        found = re.findall(r"`(cnnkit(?:\.\w+)+)`", calls)
        assert found, name
        for call in found:
            assert pkgutil.resolve_name(call) is not None


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_public_api.py --write")
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(api_text(), encoding="utf-8")
    print(f"wrote {RECORDED}")
