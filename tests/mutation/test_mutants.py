"""Breaks of a small module: one of each kind, and none of its texts."""

from tests.mutation.mutants import Edit, Mutant, changes_the_program, find_mutants

SOURCE = '''"""A module of 1 function, and nothing but it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    LIMIT = 3


def widest(sizes: "tuple[1, 2]", flip=True, name="is in a < b") -> "x < y":
    """Returns -1 if `sizes` < 3."""
    total = 0
    for size in sizes:
        if not size:
            continue
        total += size * 2
    if total < 3 and flip:
        raise ValueError(f"{total + 1} of é < 3", hint="é" + name)
    for one, two in zip(sizes, sizes, strict=True):
        return False
    return max(sizes, key=len, default=-1)
'''


def test_each_kind_of_break_and_no_text():
    found = {
        (mutant.kind, mutant.line, mutant.apply(SOURCE).splitlines()[mutant.line - 1].strip())
        for mutant in find_mutants("widest.py", SOURCE)
    }
    defined = SOURCE.splitlines()[8]
    returned = "return max(sizes, key=len, default=-1)"
    assert found == {
        ("True, False", 9, defined.replace("True", "False")),
        ("number", 11, "total = 1"),
        ("condition false", 13, "if False:"),
        ("condition negated", 13, "if not (not size):"),
        ("sign or not", 13, "if size:"),
        ("break, continue", 14, "break"),
        ("left out statement", 15, "pass"),
        ("arithmetic", 15, "total += size / 2"),
        ("number", 15, "total += size * 3"),
        ("condition false", 16, "if False:"),
        ("comparison", 16, "if total <= 3 and flip:"),
        ("number", 16, "if total < 4 and flip:"),
        ("and, or", 16, "if total < 3 or flip:"),
        ("left out statement", 17, "pass"),
        ("True, False", 19, "return True"),
        ("returns None", 20, "return None"),
        ("function", 20, returned.replace("max", "min")),
        ("left out keyword", 20, "return max(sizes, default=-1)"),
        ("left out keyword", 20, "return max(sizes, key=len)"),
        ("sign or not", 20, returned.replace("-1", "1")),
        ("number", 20, returned.replace("-1", "-2")),
    }


def test_a_break_changes_one_place():
    for mutant in find_mutants("widest.py", SOURCE):
        broken = mutant.apply(SOURCE)
        start, end, text = mutant.edit
        assert broken == SOURCE[:start] + text + SOURCE[end:]
        assert SOURCE.count("\n", 0, start) == mutant.line - 1


def test_a_break_is_python_and_another_program():
    for text, changes in (("3", True), ("(2)", False), ("2 +", False)):
        mutant = Mutant("value.py", 1, "number", Edit(8, 9, text), "value = 2")
        assert changes_the_program(mutant, "value = 2\n") is changes
