"""Write the microscope: a folder of pages that show every unit of a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._files import json_text
from cnnkit._html.run_summary import progress_rows
from cnnkit._progress import Progress, no_progress
from cnnkit._version import __version__
from cnnkit.data import Dataset, Split, load_dataset, report_undecodable
from cnnkit.errors import CnnkitError, unknown_name
from cnnkit.features.extractor import model_identity
from cnnkit.models import class_names, load_model
from cnnkit.models.graph import build_graph
from cnnkit.models.localizer import class_part
from cnnkit.reports.microscope.overview import render_overview
from cnnkit.reports.microscope.page import write_static_files
from cnnkit.reports.microscope.site_folder import (
    FACTS,
    check_site,
    layer_folders,
    site_in_progress,
    write_quickly,
)
from cnnkit.reports.microscope.site_writer import INDEX, SiteWriter
from cnnkit.reports.microscope.survey import (
    RULE,
    choose_layers,
    find_classifier,
    survey,
)
from cnnkit.reports.microscope.unit_page import (
    RULE_WORDS,
    SiteNames,
)
from cnnkit.run_folder import RunFolder
from cnnkit.visualize import filters
from cnnkit.visualize.argument_checks import check_batch_size, check_whole_number
from cnnkit.visualize.classifier import as_classifier
from cnnkit.visualize.deconvnet.project import check_projection


def write_microscope(
    network: keras.Model | RunFolder | str | Path,
    dataset: Dataset | str,
    output: str | Path,
    *,
    layers: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
    sample: int | None = None,
    images: int = 0,
    split: str = "test",
    image_size: int | None = None,
    batch_size: int = 16,
    rules: Sequence[str] = (),
    run: RunFolder | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a folder of pages that show what every unit of a network responds to.

    One pass over the images finds the nine that excite each unit of all layers most; memory does
    not grow with the dataset. Then each unit is projected to the pixels by the deconvnet (Zeiler &
    Fergus 2013, Fig. 2). The pages open from the folder: they need no server and no network. A
    unit's page has a stable address, `conv5/unit-0123.html`.

    Where the writing was interrupted, the same call goes on: units that are done stay.

    Args:
        network: A functional or sequential model over RGB images as `cnnkit.visualize.top9` takes
            it, a finished run, or the path of a run folder or a model's file.
        dataset: The images, or the text that `cnnkit.data.load_dataset` opens them with.
        output: The folder.
        layers: Names of layers; None takes all convolutions.
        units: Units of every layer that are shown; None shows all.
        sample: Number of images that are searched, evenly spaced in the split; None searches all.
        images: Number of the searched images that have pages of their own, evenly spaced: what a
            classifier takes them for, occlusion, saliency and Grad-CAM, and images like them.
        split: Split of the dataset: `"test"` or `"train"`.
        image_size: Side of the images, for a network that takes images of any size.
        batch_size: Images, and projections, at a time.
        rules: Further backward rules of the units' pages, `"guided"` and `"gradient"`. Each takes
            as long as the deconvnet, and up to 9 kB for each unit.
        run: The run that a model was loaded from, whose name and results are shown.
        overwrite: Whether a site in the folder is replaced.
        progress: Called with the number of images and the name of each piece of work that takes
            long. It returns a context that yields a function, which takes the number of images that
            were done since the last call.

    Returns:
        The file of the first page.

    Raises:
        UsageError: If the folder exists, a layer or a unit does not exist or cannot be projected,
            or the images do not fit.
        RunError: If a run is not finished, or a file cannot be written.
        DataError: If an image cannot be decoded, or values are not finite.

    Example:
        >>> from cnnkit import write_microscope
        >>> write_microscope("runs/demo", "digits", "site")  # doctest: +SKIP
        PosixPath('site/index.html')
    """
    path = check_site(output, overwrite=overwrite)
    check_batch_size(batch_size)
    if sample is not None:
        check_whole_number("sample", sample)
    check_whole_number("images", images, least=0)
    progress = progress or no_progress
    model, run = _open(network, run)
    graph = build_graph(model)
    chosen = choose_layers(graph, layers)
    for rule in rules:
        if rule not in RULE_WORDS:
            raise unknown_name("rules", rule, RULE_WORDS)
        check_projection(graph, chosen, rule)
    classes = as_classifier(model).classes if images else 0
    seed = 0 if run is None else run.config.seed
    source = load_dataset(dataset, seed=seed) if isinstance(dataset, str) else dataset
    searched = _spread(source.splits[split], sample)
    names = SiteNames(
        model.name if run is None else run.path.resolve().name,
        source.class_names,
        searched.names,
        searched.labels,
    )
    facts = {
        "network": model.name,
        "network digest": model_identity(model),
        "dataset": source.spec,
        "fingerprint": source.fingerprint,
        "split": split,
        "images": len(searched),
        "layers": chosen,
        "units": "all" if units is None else [int(one) for one in units],
        "rule": ", ".join([RULE, *rules]),
        "image size": image_size,
        "image pages": images,
        "cnnkit": __version__,
    }
    with progress(len(searched), "searching") as advance, report_undecodable(searched):
        result = survey(
            graph, searched, len(source.class_names), chosen, units,
            classifier=find_classifier(graph, source.class_names, _class_names(model, run)),
            kept=_evenly(len(searched), images).tolist(),
            image_size=image_size, batch_size=batch_size, progress=advance,
        )  # fmt: skip
    key = json_text([facts, names.network, names.classes, list(model.input_shape)])
    found = result.layers
    with site_in_progress(path, key, overwrite=overwrite) as site:
        writer = SiteWriter(
            site, graph, searched, names, layer_folders(chosen), _kernels(model), tuple(rules)
        )
        total = sum(int((one.found.values[list(one.units)] > 0).sum()) for one in found)
        with progress(total, "projecting") as advance:
            for layer in found:
                for done in writer.write_units(layer, image_size, batch_size):
                    advance(done)
        writer.write_layers(found)
        writer.write_classes(result, image_size)
        if images:
            known = _class_names(model, run)
            captions = known or [f"class {number}" for number in range(classes)]
            with progress(len(result.largest), "explaining") as advance:
                for done in writer.write_images(model, result, captions, image_size):
                    advance(done)
        rows = [(key, _words(value)) for key, value in facts.items() if value is not None]
        page = render_overview(
            model,
            found,
            writer.folders,
            names,
            rows,
            [] if run is None else progress_rows(run),
            images,
        )
        write_static_files(site)
        write_quickly(site / FACTS, json_text(facts, indent=2) + "\n")
        write_quickly(site / INDEX, page)
    return path / INDEX


def _open(
    network: keras.Model | RunFolder | str | Path, run: RunFolder | None
) -> tuple[keras.Model, RunFolder | None]:
    """Return the model, and the run that it is of, or None."""
    if isinstance(network, keras.Model):
        return network, run
    if isinstance(network, str | Path):
        if not Path(network).is_dir():
            return class_part(load_model(network)), run
        network = RunFolder.open(network)
    return class_part(load_model(network.finished_model())), network


def _class_names(model: keras.Model, run: RunFolder | None) -> Sequence[str] | None:
    return run.class_names if run is not None else class_names(model)


def _spread(split: Split, most: int | None) -> Split:
    """Return at most `most` images of a split, evenly spaced."""
    if most is None or len(split) <= most:
        return split
    return split.subset(_evenly(len(split), most))


def _evenly(count: int, most: int) -> np.ndarray:
    """Return at most `most` of `count` indices, evenly spaced, (n,) int."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _kernels(model: keras.Model) -> tuple[str, np.ndarray] | None:
    try:
        found = filters(model)
    except CnnkitError:
        return None
    return found.layer, found.kernels


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
