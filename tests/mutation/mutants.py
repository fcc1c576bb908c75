"""Small breaks of a module: each replaces one piece of its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# What replaces an operator, by its text.
COMPARISONS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "in": "not in",
    "not in": "in",
    "is": "is not",
    "is not": "is",
}
ARITHMETIC = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "//": "/",
    "%": "*",
    "**": "*",
    "@": "+",
    "&": "|",
    "|": "&",
    "^": "&",
    "<<": ">>",
    ">>": "<<",
}
CALLS = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "floor": "ceil",
    "ceil": "floor",
    "zeros": "ones",
    "ones": "zeros",
    "argmax": "argmin",
    "argmin": "argmax",
    "reduce_sum": "reduce_mean",
    "reduce_mean": "reduce_sum",
    "startswith": "endswith",
    "endswith": "startswith",
    "sorted": "list",
}
# Arguments that are texts for people.
TEXTS = {"expected", "received", "hint", "help", "metavar", "description", "epilog"}
BINARY_TOKENS = re.compile(r"\*\*|//|<<|>>|[-+*/%@&|^]")
COMPARISON_TOKENS = re.compile(r"not\s+in\b|is\s+not\b|\bin\b|\bis\b|<=|>=|==|!=|<|>")


class Edit(NamedTuple):
    """A piece of a module's text and what replaces it, in characters."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Mutant:
    """A break of one place.

    Attributes:
        file: The module, relative to the project.
        line: Line number of the first character that changes.
        kind: What was done, for example `"comparison"`.
        edit: The change.
        before: The line as it was.
    """

    file: str
    line: int
    kind: str
    edit: Edit
    before: str

    def apply(self, source: str) -> str:
        """Returns the text of the module with the break."""
        return source[: self.edit.start] + self.edit.text + source[self.edit.end :]


class _Module:
    """The text and the tree of a module, with positions in characters."""

    def __init__(self, source: str):
        self.source = source
        self.tree = ast.parse(source)
        self.lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        """Returns the position of a line and a column, which `ast` counts in bytes of UTF-8."""
        text = self.lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(text)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Returns the positions of the first character of a node and behind the last one."""
        return (
            self.offset(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            self.offset(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    def text(self, node: ast.AST) -> str:
        """Returns the text of a node."""
        start, end = self.span(node)
        return self.source[start:end]

    def between(
        self, left: ast.AST, right: ast.AST, tokens: re.Pattern[str]
    ) -> tuple[int, int] | None:
        """Returns the position of the operator between two nodes."""
        start, end = self.span(left)[1], self.span(right)[0]
        found = tokens.search(self.source, start, end)
        return found.span() if found else None


def find_mutants(file: str, source: str) -> list[Mutant]:
    """Returns every break of a module, in the order of its text.

    Texts, annotations, decorators and what only type checkers read stay as they are. So does what
    no test can notice in a right program: whether `zip` compares the lengths that are equal, and
    whether a function whose answer is False says None.

    Args:
        file: Path of the module.
        source: Its text.
    """
    module = _Module(source)
    found = []
    for kind, edit in _edits(module):
        line = source.count("\n", 0, edit.start) + 1
        found.append(Mutant(file, line, kind, edit, module.lines[line - 1].strip()))
    return sorted(found, key=lambda mutant: mutant.edit)


def changes_the_program(mutant: Mutant, source: str) -> bool:
    """Returns False for a break that is no Python, or the same program.

    Args:
        mutant: The break.
        source: Text of its module.
    """
    try:
        return ast.dump(ast.parse(mutant.apply(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _edits(module: _Module) -> Iterator[tuple[str, Edit]]:
    for node in _behavior(module.tree):
        yield from _operator_edits(module, node)
        yield from _value_edits(module, node)
        yield from _statement_edits(module, node)


def _behavior(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes of a tree that decide what the program does."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            # Texts, and imports for type checkers.
            if isinstance(child, ast.JoinedStr):
                continue
            if isinstance(child, ast.keyword) and child.arg == "strict" and _is_zip(node):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            yield from _behavior(child)


def _operator_edits(module: _Module, node: ast.AST) -> Iterator[tuple[str, Edit]]:
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        for left, right in zip(operands, operands[1:], strict=False):
            if place := module.between(left, right, COMPARISON_TOKENS):
                token = " ".join(module.source[slice(*place)].split())
                yield "comparison", Edit(*place, COMPARISONS[token])
    elif isinstance(node, ast.BinOp) and not isinstance(node.left, ast.JoinedStr):
        if _is_text(node.left) or _is_text(node.right):
            return
        if place := module.between(node.left, node.right, BINARY_TOKENS):
            yield "arithmetic", Edit(*place, ARITHMETIC[module.source[slice(*place)]])
    elif isinstance(node, ast.BoolOp):
        word, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            if place := module.between(left, right, re.compile(rf"\b{word}\b")):
                yield "and, or", Edit(*place, other)
    elif isinstance(node, ast.UnaryOp):
        start, _ = module.span(node)
        operand, _ = module.span(node.operand)
        if isinstance(node.op, ast.Not | ast.USub):
            yield "sign or not", Edit(start, operand, "")


def _is_zip(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _value_edits(module: _Module, node: ast.AST) -> Iterator[tuple[str, Edit]]:
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield "True, False", Edit(*module.span(node), str(not value))
        elif isinstance(value, int):
            yield "number", Edit(*module.span(node), str(value + 1))
        elif isinstance(value, float):
            yield "number", Edit(*module.span(node), repr(value * 1.5 or 0.5))
    elif isinstance(node, ast.Call):
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        if name in CALLS:
            _, end = module.span(function)
            yield "function", Edit(end - len(name), end, CALLS[name])
        yield from _dropped_keywords(module, node)


def _dropped_keywords(module: _Module, call: ast.Call) -> Iterator[tuple[str, Edit]]:
    arguments = sorted(
        [module.span(part) for part in [*call.args, *call.keywords]], key=lambda span: span[0]
    )
    for keyword in call.keywords:
        start, end = module.span(keyword)
        place = arguments.index((start, end))
        if keyword.arg is None or keyword.arg in TEXTS or len(arguments) == 1:
            continue
        if keyword.arg == "strict" and _is_zip(call):
            continue
        if place:
            yield "left out keyword", Edit(arguments[place - 1][1], end, "")
        else:
            yield "left out keyword", Edit(start, arguments[1][0], "")


def _statement_edits(module: _Module, node: ast.AST) -> Iterator[tuple[str, Edit]]:
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        start, end = module.span(node.test)
        if not isinstance(node, ast.While):
            yield "condition false", Edit(start, end, "False")
        if not isinstance(node.test, ast.Compare | ast.BoolOp):
            yield "condition negated", Edit(start, end, f"not ({module.text(node.test)})")
    elif isinstance(node, ast.Return):
        if node.value is not None and ast.unparse(node.value) not in ("None", "False"):
            yield "returns None", Edit(*module.span(node.value), "None")
    elif (
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        or isinstance(node, ast.AugAssign)
    ):
        yield "left out statement", Edit(*module.span(node), "pass")
    elif isinstance(node, ast.Break):
        yield "break, continue", Edit(*module.span(node), "continue")
    elif isinstance(node, ast.Continue):
        yield "break, continue", Edit(*module.span(node), "break")
