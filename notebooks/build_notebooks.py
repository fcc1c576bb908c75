"""Convert the scripts of this folder to notebooks and execute them.

Usage:
    python notebooks/build_notebooks.py [OUTPUT] [NAME ...]

Writes OUTPUT/NAME.ipynb with all outputs, by default all notebooks to build/notebooks, prints the
seconds of each, and exits with 1 if one of them fails.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).resolve().parent
SECONDS = 600


def names() -> list[str]:
    """Return the names of all notebooks, in their order."""
    return sorted(path.stem for path in HERE.glob("[0-9][0-9]_*.py"))


def build(name: str, output: Path) -> str | None:
    """Convert and execute one notebook, write it, and return the error of a cell or None."""
    notebook = jupytext.read(HERE / f"{name}.py", fmt="py:percent")
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(HERE)}})
    problem = None
    try:
        client.execute()
    except CellExecutionError as error:
        problem = str(error)
    # The first cell of code imports TensorFlow, which greets the reader with lines of its log.
    imports = next(cell for cell in notebook.cells if cell.cell_type == "code")
    imports.outputs = [one for one in imports.outputs if one.get("name") != "stderr"]
    nbformat.write(notebook, output / f"{name}.ipynb")
    return problem


def main(arguments: list[str]) -> int:
    """Build the notebooks and return the exit code."""
    output = Path(arguments[0]) if arguments else HERE.parent / "build" / "notebooks"
    output.mkdir(parents=True, exist_ok=True)
    # A notebook imports it from its own folder, when a reader runs it there.
    shutil.copyfile(HERE / "lecture.py", output / "lecture.py")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    failed = 0
    start = time.monotonic()
    for name in arguments[1:] or names():
        began = time.monotonic()
        problem = build(name, output)
        failed += problem is not None
        print(f"{name}: {time.monotonic() - began:.0f} s{' FAILED' if problem else ''}", flush=True)
        if problem:
            print(problem, file=sys.stderr)
    print(f"All: {time.monotonic() - start:.0f} s. The notebooks are in {output}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
