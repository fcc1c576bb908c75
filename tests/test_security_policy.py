"""SECURITY.md: every promise names the tests that hold it, and these exist."""

import ast
import functools
import re
from pathlib import Path

import pytest

from cnnkit._untrusted import limits

ROOT = Path(__file__).resolve().parents[1]
POLICY = (ROOT / "SECURITY.md").read_text()
# Sections that promise nothing of the code.
FREE = {"Supported versions", "Report a vulnerability", "What is a program", "Known limits"}
GUIDE = (ROOT / "docs/guide/limits.md").read_text()
LIMITS = re.findall(r"^\| .+? \| ([\d,]+)( MiB)? \| .*\| `(\w+)` \|$", GUIDE, re.MULTILINE)
UNITS = {"KIB", "MIB", "GIB"}
TESTS = re.compile(r"<!-- tests: (.*?) -->", re.DOTALL)


def promises():
    """Yield the text of each list item and table row of the sections that promise something."""
    for section in POLICY.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        if title in FREE:
            continue
        for item in re.split(r"\n(?=- |\| |\|-)|\n\n", text):
            if item.startswith(("- ", "| ")) and not item.startswith("| File"):
                yield item


@functools.cache
def functions_of(file):
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def named_tests(item):
    """Return the files and functions that a promise names."""
    words = " ".join(TESTS.findall(item)).replace(",", " ").split()
    return [tuple(word.partition("::")[::2]) for word in words]


@pytest.mark.parametrize("item", list(promises()), ids=lambda item: item[2:42])
def test_promises_name_tests_that_exist(item):
    named = named_tests(item)
    assert named, "the promise names no test: <!-- tests: FILE::NAME -->"
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).is_file() or name not in functions_of(file)
    ]
    assert missing == []


def test_limits_of_the_guide_are_those_of_the_code():
    listed = {
        name: int(number.replace(",", "")) << (20 if mebibytes else 0)
        for number, mebibytes, name in LIMITS
    }
    code = {n: v for n, v in vars(limits).items() if n.isupper() and n not in UNITS}
    assert listed == code


def test_promises_are_found():
    assert len(list(promises())) > 20
    assert named_tests("- a <!-- tests: a/b.py::c, d.py::e -->") == [("a/b.py", "c"), ("d.py", "e")]
