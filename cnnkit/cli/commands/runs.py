"""List training runs, or compare some of them.

`cnnkit runs` lists the runs in the folder runs; `cnnkit runs RUN RUN ...` prints the fields in
which their configurations differ, and their errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cnnkit.cli.console import add_json_argument, print_json, print_table
from cnnkit.cli.values import run_folder
from cnnkit.errors import UsageError
from cnnkit.run_folder import RunFolder
from cnnkit.stage_folder import open_stage_runs

# Titles of columns whose fields have other names.
_TITLES = {
    "best_error": "best error",
    "best_epoch": "best epoch",
    "images_per_second": "images/s",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "runs", nargs="*", type=run_folder, metavar="RUN", help="run folders to compare"
    )
    parser.add_argument(
        "--folder", default="runs", help="folder of the runs to list (default: runs)"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print a table."""
    runs = open_stage_runs(args.runs) or find_run_folders(Path(args.folder))
    if not runs:
        raise UsageError(f"No runs in {args.folder}", expected="folders that `cnnkit train` wrote")
    rows = [summarize_run(one) for one in runs]
    if args.runs:
        for row, one in zip(rows, runs, strict=True):
            row.update({name: getattr(one.config, name) for name in differing_fields(runs)})
    if args.json:
        print_json(rows)
    else:
        shown = [_shown(row) for row in rows]
        print_table(transpose(shown) if args.runs else shown)
    return 0


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it is shown on a terminal."""
    epochs = f"{row['epochs']['done']}/{row['epochs']['of']}"
    row = {**row, "epochs": epochs, "finished": "yes" if row["finished"] else "no"}
    return {_TITLES.get(name, name): value for name, value in row.items()}


def transpose(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for every field and a column for every run: configurations have many fields."""
    names = [row["run"] for row in rows]
    return [
        {"run": field, **dict(zip(names, (row[field] for row in rows), strict=True))}
        for field in rows[0]
        if field != "run"
    ]


def find_run_folders(folder: Path) -> list[RunFolder]:
    """Find the runs in a folder and its subfolders."""
    configurations = sorted(folder.rglob("config.json")) if folder.is_dir() else []
    return [RunFolder(file.parent) for file in configurations]


def summarize_run(run: RunFolder) -> dict[str, Any]:
    """Return a run's model, dataset, progress and errors, fractions in 0..1, as a table row."""
    found, config = run.progress, run.config
    lines, best = found.lines, found.best
    return {
        "run": str(run.path),
        "model": config.model,
        "dataset": config.dataset,
        "epochs": {"done": len(lines), "of": config.epochs},
        "finished": run.model_file.is_file(),
        "error": round(1 - lines[-1]["val_accuracy"], 4) if lines else None,
        "best_error": None if best is None else round(1 - best["val_accuracy"], 4),
        "best_epoch": None if best is None else best["epoch"],
        "loss": None if not lines or lines[-1]["loss"] is None else round(lines[-1]["loss"], 4),
        "images_per_second": lines[-1]["images_per_second"] if lines else None,
    }


def differing_fields(runs: list[RunFolder]) -> list[str]:
    """Return the fields in which the configurations differ, except those in every table."""
    first = runs[0].config
    names: dict[str, None] = {}
    for one in runs[1:]:
        names.update(dict.fromkeys(first.differences(one.config)))
    return [name for name in names if name not in ("model", "dataset", "epochs")]
