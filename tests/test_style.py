"""Words of the house: what a stranger would stumble over fails here."""

import ast
import collections
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cnnkit"
MODULES = {
    path.relative_to(PACKAGE.parent): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.stem.endswith("_pb2")
}
# What every verb and every figure of the command line has.
HOOKS = {"add_arguments", "run", "draw"}
BRITISH = re.compile(
    r"colour|centre|grey|neighbour|behaviour|favour|label{2}(ed|ing)|model{2}(ed|ing)"
    r"|(normal|initial|serial|optim|visual|summar|recogn|maxim|minim)is(e|ing|ation)",
    re.IGNORECASE,
)
RIDDLES = re.compile(
    r"\bAs there\b|\bReturns (what|which|how|whether|with|where|who)\b"
    r"|\bTells (whether|which|what)\b"
)
MAXIM = re.compile(r"(An?|Every|Each|One|Of|What|Where|Who|Whoever) ")


def definitions(tree):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [n for n in tree.body if isinstance(n, kinds)]


def test_a_public_name_is_defined_in_one_module():
    homes = collections.defaultdict(list)
    for path, tree in MODULES.items():
        for node in definitions(tree):
            if not node.name.startswith("_") and node.name not in HOOKS:
                homes[node.name].append(str(path))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_public_names_are_spelled_as_in_america():
    found = [
        f"{path}:{node.lineno} {name}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        for name in [getattr(node, "name", None) or getattr(node, "arg", None)]
        if isinstance(name, str) and not name.startswith("_") and BRITISH.search(name)
    ]
    assert found == []


def documented(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def test_docstrings_name_the_thing():
    found = [
        f"{path}:{line} {text.splitlines()[0]}"
        for path, tree in MODULES.items()
        for line, text in documented(tree)
        if RIDDLES.search(text)
    ]
    assert found == []


def error_texts(tree):
    """Yield the line and the first text of every error made, and whether it contains a value."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        if called.endswith("Error") and called[0].isupper():
            text = node.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield node.lineno, text.value, False
            elif isinstance(text, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in text.values]
                yield node.lineno, "".join(parts), True


def is_maxim(text: str, has_value: bool) -> bool:
    """A truth in place of the fault: no argument, object or option is named."""
    names = has_value or re.search(r"`[^`]+`|--\w|'[^']+'|\b[A-Z]\w*_\w+|\w+\.\w+|\w+_\w+", text)
    return bool(MAXIM.match(text)) or not names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A batch holds images", True),
        ("An image has pixels", True),
        ("The strategy takes no replicas", True),
        ("`images` must hold at least one image", False),
        ("--output must end in .png", False),
    ],
)
def test_a_maxim_is_told_from_a_fault(text, expected):
    assert is_maxim(text, False) == expected


def test_errors_name_the_argument():
    found = [
        f"{path}:{line} {text}"
        for path, tree in MODULES.items()
        for line, text, has_value in error_texts(tree)
        if is_maxim(text, has_value)
    ]
    assert found == []


def public_functions(tree):
    """Yields the name of every public function and method, and the function."""
    for node in definitions(tree):
        if node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and (
                    method.name == "__init__" or not method.name.startswith("_")
                ):
                    yield f"{node.name}.{method.name}", method
        else:
            yield node.name, node


def unannotated(function) -> list[str]:
    """Returns the parameters without annotations, and `return` if the result has none."""
    given = function.args
    parameters = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    missing = [one.arg for one in parameters if one is not None and one.annotation is None]
    missing = [name for name in missing if name not in ("self", "cls")]
    return missing if function.returns is not None else [*missing, "return"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(a, *b, c, **d): ...", ["a", "b", "c", "d", "return"]),
        ("def f(self, a: int, *, c: int = 1) -> None: ...", []),
        ("async def f(cls, a: int, /, b) -> None: ...", ["b"]),
    ],
)
def test_unannotated_parameters_are_found(text, expected):
    assert unannotated(ast.parse(text).body[0]) == expected


def test_public_functions_are_annotated():
    found = [
        f"{path}:{function.lineno} {name}: {', '.join(unannotated(function))}"
        for path, tree in MODULES.items()
        for name, function in public_functions(tree)
        if unannotated(function)
    ]
    assert found == []
