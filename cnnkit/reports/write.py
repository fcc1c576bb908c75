"""Write the report of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cnnkit._files import write_text
from cnnkit._html.elements import Content, element
from cnnkit._progress import Progress, no_progress
from cnnkit._staging import write_errors
from cnnkit.data import Dataset
from cnnkit.errors import unknown_name
from cnnkit.evaluation.ensemble import align_classes, held_out_images
from cnnkit.evaluation.run_results import evaluate_run, find_results
from cnnkit.models import load_model
from cnnkit.models.localizer import class_part
from cnnkit.reports.inside import filters_section, mistakes_section, searched_images, units_section
from cnnkit.reports.page import render_page
from cnnkit.reports.page_file import check_page
from cnnkit.reports.results import calibration_section, errors_section
from cnnkit.reports.settings import EXPLAIN, reproduction_section, training_sections
from cnnkit.run_folder import RunFolder
from cnnkit.training.inputs import held_out_augmentation
from cnnkit.visualize import EXPLANATION_METHODS


def write_report(
    run: RunFolder | str | Path,
    output: str | Path | None = None,
    *,
    dataset: str | None = None,
    explain: str = EXPLAIN,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a report of a training run: one HTML page that needs no network and no other file.

    It shows the configuration, the curves, the confusion matrix, the calibration, the worst
    mistakes with the names of their files and what speaks for each answer, the filters of the first
    layer, the images that activate a few units most, and how to reproduce the run.

    The newest results of `cnnkit evaluate` for the run are used. If it has none, it is evaluated
    with the center crop, and the results are stored in the run.

    Args:
        run: A finished run, or the path of its folder.
        output: A folder, in which `index.html` is written, or a file whose name ends in .html. None
            is the folder `report` in the run.
        dataset: Dataset of the test images; None for that of the run.
        explain: Method of `cnnkit.visualize.explain_class` that shows what speaks for the answers.
        overwrite: Whether to replace a page that exists.
        progress: Called with the number of images and the name of each piece of work that takes
            long. It returns a context that yields a function, which takes the number of images that
            were done since the last call.

    Returns:
        The file of the page.

    Raises:
        UsageError: If the run or the method does not exist, the page exists, or matplotlib is not
            installed.
        RunError: If the run is not finished, or a file cannot be written.
        DataError: If an image cannot be decoded, or results do not fit the run.

    Example:
        >>> from cnnkit import write_report
        >>> write_report("runs/demo", "report")  # doctest: +SKIP
        PosixPath('report/index.html')
    """
    if explain not in EXPLANATION_METHODS:
        raise unknown_name("method", explain, EXPLANATION_METHODS)
    progress = progress or no_progress
    run = run if isinstance(run, RunFolder) else RunFolder.open(run)
    page = check_page(run, output, overwrite=overwrite)
    source, seed = held_out_images([run], dataset)
    found = find_results(run, source)
    if found is None:
        with progress(len(source.splits["test"]), "evaluating") as advance:
            found = evaluate_run(run, source, seed, progress=advance)
    html = _render(run, source, *found, explain, progress)
    with write_errors(page):
        page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, html)
    return page


def _render(
    run: RunFolder,
    source: Dataset,
    file: Path,
    results: dict[str, Any],
    explain: str,
    progress: Progress,
) -> str:
    """Return the page of a run and its results."""
    model = class_part(load_model(run.finished_model(), preprocessing="raw"))
    matrix = _confusion_matrix(results)
    split = align_classes(source, run.class_names)
    augmentation = held_out_augmentation(run.config)
    mistakes = mistakes_section(
        model, split, results["mistakes"], run.class_names, augmentation, explain
    )
    with progress(len(searched_images(split)), "searching units") as advance:
        units = units_section(model, split, augmentation.image_size, advance)
    configuration, curves = training_sections(run)
    sections = [
        curves,
        errors_section(results, matrix),
        calibration_section(results),
        mistakes,
        filters_section(model),
        units,
        configuration,
        reproduction_section(run, run.environment, results, file, explain),
    ]
    lead = _lead(run, results, len(source.splits["train"]))
    return render_page(f"Report of {run.path.resolve().name}", lead, sections)


def _lead(run: RunFolder, results: dict[str, Any], images: int) -> list[Content]:
    """Return the result of a run in words.

    Args:
        run: The run.
        results: Results of its evaluation.
        images: Number of training images.
    """
    low, high = results["top1_interval"]
    wrong = round(results["top1_error"] * results["images"])
    sentence = element(
        "p",
        f"{run.config.model}, trained on {images:,} images of {run.config.dataset}"
        f" ({len(run.class_names)} classes), answers ",
        element("b", f"{results['top1_error']:.1%} of {results['images']:,} test images wrong"),
        f": {wrong:,} images. The 95 % interval is {low:.1%} to {high:.1%}, by the protocol"
        f" {results['protocol']}.",
    )
    return [sentence]


def _confusion_matrix(results: dict[str, Any]) -> np.ndarray:
    classes = len(results["classes"])
    matrix = np.zeros((classes, classes), int)
    for label, predicted, images in results["confusion"]:
        matrix[label, predicted] = images
    return matrix
