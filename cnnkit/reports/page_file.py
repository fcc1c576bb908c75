"""The file of a report's page, checked before anything slow is done."""

from __future__ import annotations

import os
from pathlib import Path

from cnnkit.errors import UsageError
from cnnkit.figures.canvas import check_free, require_matplotlib
from cnnkit.run_folder import RunFolder

FOLDER, PAGE = "report", "index.html"
ENDINGS = (".html", ".htm")


def check_page(
    run: RunFolder,
    output: str | Path | None = None,
    *,
    overwrite: bool = False,
    option: str | None = None,
) -> Path:
    """Check that a report of a run can be written, and return the file of its page.

    Args:
        run: The run.
        output: A folder, or a file whose name ends in .html; None is `report` in the run.
        overwrite: Whether the page may exist.
        option: The option of the command line that named the output; None for an argument.

    Raises:
        UsageError: If the page exists and may not be replaced, its folder cannot be written, or
            matplotlib is not installed.
        RunError: If the run is not finished.
    """
    name = option or "`output`"
    page = run.path / FOLDER if output is None else Path(output)
    if page.suffix.lower() not in ENDINGS:
        page = page / PAGE
    folder = next(one for one in page.absolute().parents if one.exists())
    if page.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{name} must be a file .html, or a folder, that you may write to",
            received=page if output is None else output,
        )
    if not overwrite:
        check_free(page, option, "output")
    require_matplotlib()
    run.finished_model()
    return page
