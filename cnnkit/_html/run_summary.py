"""The state of a training run as HTML, for notebooks."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from cnnkit._html.elements import Content, element, folded, html_table, line_chart, to_html
from cnnkit.errors import CnnkitError

if TYPE_CHECKING:
    from cnnkit._run_progress import RunProgress
    from cnnkit.config import TrainingConfig
    from cnnkit.run_folder import RunFolder


def run_summary(run: RunFolder) -> str:
    """Return the progress, the errors and the configuration of a run as HTML.

    A run that cannot be read is told in a line, because a notebook would hide an error of a
    representation.
    """
    title = element("b", f"Run {run.path}")
    try:
        if not run.exists():
            return to_html(element("div", title, ": no run yet"))
        config, found = run.config, run.progress
        lines, progress = found.lines, _rows(run, found)
    except CnnkitError as error:
        return to_html(element("div", title, f": {error}"))
    errors = [1 - line["val_accuracy"] for line in lines]
    training = [1 - line["accuracy"] for line in lines]
    content: list[Content] = [title, f": {config.model} on {config.dataset}"]
    content.append(html_table(progress))
    if len(lines) > 1:
        caption = (
            f"Error by epoch, from 0 to {max(errors + training):.1%}: held out, training dashed"
        )
        content.append(element("div", line_chart([training, errors])))
        content.append(element("small", caption))
    content.append(folded("Configuration", html_table(config_rows(config))))
    return to_html(element("div", *content))


def progress_rows(run: RunFolder) -> list[tuple[str, str]]:
    """Return the progress and the errors of a run as rows of a table.

    Args:
        run: The run.
    """
    return _rows(run, run.progress)


def _rows(run: RunFolder, found: RunProgress) -> list[tuple[str, str]]:
    lines, best = found.lines, found.best
    state = "finished" if run.model_file.is_file() else "not finished"
    rows = [("epochs", f"{len(lines)} of {run.config.epochs}, {state}")]
    if lines:
        error = 1 - lines[-1]["val_accuracy"]
        rows.append(("error after the last epoch, held out", f"{error:.2%}"))
    if best is not None:
        when = f"after epoch {best['epoch']}" if best["epoch"] else "before training"
        unknown = "; that before training is not recorded" if found.lacks_initial else ""
        rows.append(("best error", f"{1 - best['val_accuracy']:.2%} {when}{unknown}"))
    if lines:
        rows.append(("images per second", f"{lines[-1]['images_per_second']:,.0f}"))
    return rows


def config_rows(config: TrainingConfig) -> list[tuple[str, str]]:
    """Return the fields of a configuration as rows of a table."""
    return [(item.name, str(getattr(config, item.name))) for item in fields(config)]
