"""Forks see the files as they are, and end with all that they have started."""

import contextlib
import shutil
import time
from pathlib import Path

import pytest

from tests.mutation import forks as module
from tests.mutation.__main__ import failed_test
from tests.mutation.forks import PytestForks

TEST = """
import os, subprocess, sys, time
from cnnkit.value import VALUE

def test_value():
    assert VALUE == 3 and "json" in sys.modules

def test_forever():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open("child", "w") as file:
        file.write(str(child.pid))
    time.sleep(600)
"""


@pytest.fixture
def copy(tmp_path):
    copy = tmp_path / "project"
    for folder in ("cnnkit", "tests/mutation"):
        (copy / folder).mkdir(parents=True)
    shutil.copy(module.__file__, copy / "tests" / "mutation")
    (copy / "cnnkit" / "value.py").write_text("VALUE = 3\n")
    (copy / "tests" / "test_value.py").write_text(TEST)
    (copy / "setup.cfg").write_text("[tool:pytest]\n")
    return copy


def test_each_run_imports_the_project_anew(copy):
    source = copy / "cnnkit" / "value.py"
    words = ["-q", "-rfE", "-p", "no:cacheprovider", "tests/test_value.py::test_value"]
    with contextlib.closing(PytestForks(copy, ["json", "pytest"])) as forks:
        code, printed = forks.run(words, 60)
        assert code == 0 and "1 passed" in printed
        source.write_text("VALUE = 4\n")
        code, printed = forks.run(words, 60)
        assert code == 1 and "FAILED tests/test_value.py::test_value" in printed
        source.write_text("VALUE = \n")
        code, printed = forks.run(words, 60)
        assert code == 4 and "SyntaxError" in printed
        source.write_text("import os; os._exit(7)\n")
        assert forks.run(words, 60)[0] == 7
        source.write_text("VALUE = 3\n")
        assert forks.run(words, 60)[0] == 0
    assert not list(copy.rglob("*.pyc"))


def test_a_run_that_does_not_end_is_ended_with_its_processes(copy):
    words = ["-q", "-p", "no:cacheprovider", "tests/test_value.py::test_forever"]
    with contextlib.closing(PytestForks(copy, ["pytest"])) as forks:
        assert forks.run(words, 5)[0] is None
        child = Path("/proc", (copy / "child").read_text())
        end = time.monotonic() + 30
        while child.exists() and "zombie" not in (child / "status").read_text():
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize(
    "first", ["", "FAILED tests/test_a.py::test_b[a (b)] (call)\nassert 1 == 2\n"]
)
def test_the_name_of_a_failed_test_can_be_run_again(first):
    summary = "FAILED tests/test_a.py::test_b[a (b)] - assert 1 == 2\n1 failed in 0.1s\n"
    assert failed_test(first + summary) == "tests/test_a.py::test_b[a (b)]"
    assert failed_test("ERROR tests/test_c.py - SyntaxError: invalid\n") == "tests/test_c.py"
    assert failed_test("1 passed in 0.1s\n") == ""


def test_what_is_loaded_of_the_project_is_refused(copy):
    (copy / "cnnkit" / "__init__.py").touch()
    with (
        contextlib.closing(PytestForks(copy, ["cnnkit.value"])) as forks,
        pytest.raises(RuntimeError, match="The process of the tests ended: 1"),
    ):
        forks.run([], 5)
