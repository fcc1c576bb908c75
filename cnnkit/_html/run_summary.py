"""The state of a training run as HTML, for notebooks."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cnnkit._html.elements import Content, element, folded, html_table, line_chart, to_html
from cnnkit.errors import CnnkitError

if TYPE_CHECKING:
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
        config, lines = run.config, run.metrics
    except CnnkitError as error:
        return to_html(element("div", title, f": {error}"))
    errors = [1 - line["val_accuracy"] for line in lines]
    training = [1 - line["accuracy"] for line in lines]
    content: list[Content] = [title, f": {config.model} on {config.dataset}"]
    content.append(html_table(progress_rows(config, lines, finished=run.model_file.is_file())))
    if len(lines) > 1:
        caption = (
            f"Error by epoch, from 0 to {max(errors + training):.1%}: held out, training dashed"
        )
        content.append(element("div", line_chart([training, errors])))
        content.append(element("small", caption))
    content.append(folded("Configuration", html_table(config_rows(config))))
    return to_html(element("div", *content))


def progress_rows(
    config: TrainingConfig, lines: list[dict[str, Any]], *, finished: bool
) -> list[tuple[str, str]]:
    """Return the progress and the errors of a run as rows of a table.

    Args:
        config: Its configuration.
        lines: Its metrics.
        finished: Whether it has its trained network.
    """
    state = "finished" if finished else "not finished"
    rows = [("epochs", f"{len(lines)} of {config.epochs}, {state}")]
    if lines:
        errors = [1 - line["val_accuracy"] for line in lines]
        best = errors.index(min(errors))
        rows += [
            ("error after the last epoch, held out", f"{errors[-1]:.2%}"),
            ("best error", f"{errors[best]:.2%} after epoch {lines[best]['epoch']}"),
            ("images per second", f"{lines[-1]['images_per_second']:,.0f}"),
        ]
    return rows


def config_rows(config: TrainingConfig) -> list[tuple[str, str]]:
    """Return the fields of a configuration as rows of a table."""
    return [(item.name, str(getattr(config, item.name))) for item in fields(config)]
