"""The notebooks: their form, and that they run to their last check."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
# The quickest five, which run in every check.
QUICK = ("01_convolution", "02_alexnet", "03_overfitting", "05_vgg", "06_deconvnet")
# Modules that open connections, and words that would download.
NETWORK = re.compile(r"\b(urllib|requests|httpx|socket|http\.client|urlopen|download=True)\b")
ABSOLUTE = re.compile(r"""["'(\s](/(home|root|tmp|usr|opt|work|data|mnt|Users)\b|[A-Z]:\\)""")
LONGEST = 20


def cells(script: Path) -> list[tuple[str, list[str]]]:
    """Return the kind of each cell, markdown or code, and its lines without blank ends."""
    found = []
    for part in re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        assert head in ("", " [markdown]"), f"{script.name}: unknown cell {head!r}"
        found.append(("markdown" if head else "code", body.strip("\n").split("\n")))
    return found


def texts(script: Path) -> list[str]:
    """Return the markdown cells as their reader sees them."""
    kind = "markdown"
    return ["\n".join(line[2:] for line in body) for one, body in cells(script) if one == kind]


@pytest.fixture(params=SCRIPTS, ids=lambda script: script.stem)
def script(request):
    return request.param


def test_there_are_ten():
    assert [script.name[:2] for script in SCRIPTS] == [f"{number:02}" for number in range(1, 11)]
    assert set(QUICK) <= {script.stem for script in SCRIPTS}


def test_it_begins_with_a_title_and_the_sections_of_the_papers(script):
    kind, body = cells(script)[0]
    title, text = body[0], "\n".join(line[2:] for line in body)
    assert kind == "markdown"
    assert re.match(rf"# # {int(script.name[:2])}\. \S", title)
    assert re.search(r"\*\*Papers?:\*\*", text)
    assert "section" in text
    minutes = re.search(r"\*\*Reading time:\*\*\s(\d+) minutes", text)
    assert minutes and 5 <= int(minutes[1]) <= 15


def test_no_cell_is_long(script):
    long = [body[0] for _, body in cells(script) if len(body) > LONGEST]
    assert long == []


def test_imports_stand_in_the_first_cell(script):
    codes = [body for kind, body in cells(script) if kind == "code"]
    late = [line for body in codes[1:] for line in body if re.match(r"\s*(import|from) ", line)]
    assert late == []


def test_an_exercise_has_a_hidden_answer_for_each_question(script):
    [text] = [one for one in texts(script) if re.search(r"^## Exercises?$", one, re.MULTILINE)]
    questions, _, answers = text.partition("<details><summary>")
    assert answers.rstrip().endswith("</details>")
    numbers = [re.findall(r"^(\d)\. ", part, re.MULTILINE) for part in (questions, answers)]
    assert len(numbers[0]) >= 2
    assert numbers[0] == numbers[1]


def test_it_ends_with_a_number_compared_with_a_tolerance(script):
    (_, prose), (kind, body) = cells(script)[-2:]
    assert prose[0] == "# ## Check"
    assert kind == "code"
    asserts = [one for one in ast.parse("\n".join(body)).body if isinstance(one, ast.Assert)]
    assert asserts
    assert all(isinstance(one.msg, ast.Constant) for one in asserts)
    comparisons = [one.test for one in asserts if isinstance(one.test, ast.Compare)]
    assert any(
        isinstance(one.ops[0], ast.Lt) and isinstance(one.comparators[0], ast.Constant)
        for one in comparisons
    )


def test_it_shows_pictures_and_needs_no_network(script):
    source = "\n".join(line for kind, body in cells(script) if kind == "code" for line in body)
    assert "plt.show()" in source or "show_images(" in source
    assert not NETWORK.search(source)
    assert not ABSOLUTE.search(script.read_text(encoding="utf-8"))


def test_it_links_to_files_that_exist(script):
    for text in texts(script):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (FOLDER / target).exists()


def test_the_page_of_the_lectures_lists_all():
    page = (ROOT / "docs" / "guide" / "lectures.md").read_text(encoding="utf-8")
    assert re.findall(r"\(\.\./\.\./notebooks/(\w+)\.py\)", page) == [one.stem for one in SCRIPTS]
    for one in SCRIPTS:
        [minutes] = re.findall(r"\*\*Reading time:\*\*\s(\d+) minutes", "\n".join(texts(one)))
        row = next(line for line in page.splitlines() if f"/{one.name})" in line)
        assert f"| {minutes} min |" in row


def run_script(script: Path, monkeypatch) -> int:
    """Run a notebook's script to its end in this process, and return the number of pictures."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = []

    def show():
        for number in plt.get_fignums():
            figure = plt.figure(number)
            figure.canvas.draw()
            shown.append(number)
            if os.environ.get("CNNKIT_NOTEBOOK_PICTURES"):
                folder = Path(os.environ["CNNKIT_NOTEBOOK_PICTURES"])
                figure.savefig(folder / f"{script.stem}_{len(shown):02}.png")
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.delitem(sys.modules, "lecture", raising=False)
    runpy.run_path(str(script))
    monkeypatch.delitem(sys.modules, "lecture", raising=False)
    return len(shown)


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_one_runs_to_its_check(name, monkeypatch):
    assert run_script(FOLDER / f"{name}.py", monkeypatch) >= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [one.stem for one in SCRIPTS if one.stem not in QUICK])
def test_a_long_one_runs_to_its_check(name, monkeypatch):
    assert run_script(FOLDER / f"{name}.py", monkeypatch) >= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_without_real_data(script, monkeypatch, tmp_path, capsys):
    copy = tmp_path / "checkout" / "notebooks"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", copy.parent)
    run_script(copy / script.name, monkeypatch)
    assert "Real data" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_script_becomes_an_executed_notebook(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("jupytext")
    command = [sys.executable, FOLDER / "build_notebooks.py", tmp_path, "01_convolution"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / "01_convolution.ipynb", as_version=4)
    expected = [kind for kind, _ in cells(FOLDER / "01_convolution.py")]
    assert [cell.cell_type for cell in notebook.cells] == expected
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    assert [one.text for one in outputs if one.get("name") == "stderr"] == []
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(pictures) >= 3
    assert "81 % in the paper" in outputs[-1].text
