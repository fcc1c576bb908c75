"""Sections of a report about the training: its settings, its curves, how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnkit._html.elements import Content, element, folded, html_table
from cnnkit._html.run_summary import config_rows, progress_rows
from cnnkit.config import TrainingConfig
from cnnkit.figures import draw_training_curves
from cnnkit.reports.drawing import draw_inside
from cnnkit.reports.page import Section
from cnnkit.run_folder import RunFolder

# Method that explains the mistakes, if none is chosen.
EXPLAIN = "gradcam"


def training_sections(run: RunFolder) -> list[Section]:
    """Return the sections of the configuration and of the curves."""
    config, lines = run.config, run.metrics
    changed = TrainingConfig().differences(config)
    chosen = [(name, str(value)) for name, (_, value) in changed.items()]
    settings: list[Content] = [html_table([("model", config.model), ("dataset", config.dataset), *(
        row for row in chosen if row[0] not in ("model", "dataset"))])]  # fmt: skip
    settings.append(element("small", "Fields that differ from their defaults."))
    settings.append(folded("All fields", html_table(config_rows(config))))
    curves: list[Content] = [html_table(progress_rows(run))]
    if lines:
        words = "Loss and error by epoch, of the training images and of the held-out images"
        curves.append(draw_inside(draw_training_curves, {str(run.path): lines}, description=words))
    return [
        Section("configuration", "Configuration", settings),
        Section("curves", "Training", curves),
    ]


def reproduction_section(
    run: RunFolder,
    environment: Mapping[str, Any],
    results: Mapping[str, Any],
    file: Path,
    explain: str = EXPLAIN,
) -> Section:
    """Return the section of what is needed to repeat the training and the evaluation.

    Args:
        run: The run.
        environment: Its environment.
        results: Results of an evaluation.
        file: Their file.
        explain: Method that explains the mistakes.
    """
    place = shlex.quote(str(run.path))
    chosen = "" if explain == EXPLAIN else f" --explain {explain}"
    commands = [
        ("The training", _command(environment.get("command"))),
        ("The evaluation", f"cnnkit evaluate {place} --protocol {results['protocol']}"),
        ("This report", f"cnnkit report {place}{chosen}"),
    ]
    names = (
        "cnnkit", "commit", "tensorflow", "keras", "numpy", "python", "platform", "devices", "seed",
        "source",
    )  # fmt: skip
    facts = [(name, _words(environment[name])) for name in names if environment.get(name)]
    networks = results["networks"]
    facts += [
        ("dataset", results["dataset"]),
        ("fingerprint of the dataset", results["fingerprint"]),
        ("SHA-256 of the network", _words(networks)),
        ("results", str(file)),
    ]
    content: list[Content] = []
    for title, command in commands:
        if command:
            content += [element("h3", title), element("pre", element("code", str(command)))]
    content.append(html_table(facts))
    if deviations := environment.get("deviations"):
        rows = deviations if isinstance(deviations, list) else [deviations]
        listed = element("ul", *(element("li", str(one)) for one in rows))
        content.append(folded("Deviations from the paper", listed))
    return Section("reproduce", "How to reproduce it", content)


def _command(recorded: object) -> str | None:
    """Return the command of the training, by the name of the program instead of its path."""
    if not isinstance(recorded, str):
        return None
    program, _, rest = recorded.partition(" ")
    name = Path(program).name
    return f"{'cnnkit' if name == '__main__.py' else name} {rest}".strip() or None


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
