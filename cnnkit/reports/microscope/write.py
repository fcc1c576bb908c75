"""Write the microscope: a folder of pages that show every unit of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cnnkit._files import json_text
from cnnkit._html.elements import Content, element
from cnnkit._html.run_summary import progress_rows
from cnnkit._progress import Progress, no_progress
from cnnkit._version import __version__
from cnnkit.data import Dataset, Split, load_dataset, report_undecodable
from cnnkit.errors import CnnkitError
from cnnkit.features.extractor import model_identity
from cnnkit.models import load_model
from cnnkit.models.graph import Graph, build_graph
from cnnkit.models.localizer import class_part
from cnnkit.reports.microscope.layer_page import index_script, render_layer
from cnnkit.reports.microscope.overview import render_overview
from cnnkit.reports.microscope.page import write_static_files
from cnnkit.reports.microscope.pictures import write_kernel, write_unit_pictures
from cnnkit.reports.microscope.site_folder import (
    FACTS,
    check_site,
    layer_folders,
    site_in_progress,
    write_quickly,
)
from cnnkit.reports.microscope.survey import RULE, LayerSurvey, choose_layers, survey
from cnnkit.reports.microscope.unit_page import SiteNames, render_unit, unit_file
from cnnkit.run_folder import RunFolder
from cnnkit.visualize import filters
from cnnkit.visualize.argument_checks import check_batch_size, check_whole_number
from cnnkit.visualize.top9 import UnitExamples, project_images, read_searched_images

# Units that are projected together.
UNITS_AT_ONCE = 16
# Bytes of the images that are read together.
MOST_BYTES = 200_000_000
# Projections that are computed together, and their pixels: small images would not fill a core.
MOST_PROJECTIONS, MOST_PIXELS = 72, 16 * 224**2
INDEX = "index.html"


def write_microscope(
    network: keras.Model | RunFolder | str | Path,
    dataset: Dataset | str,
    output: str | Path,
    *,
    layers: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
    images: int | None = None,
    split: str = "test",
    image_size: int | None = None,
    batch_size: int = 16,
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
        images: Number of images that are searched, evenly spaced in the split; None searches all.
        split: Split of the dataset: `"test"` or `"train"`.
        image_size: Side of the images, for a network that takes images of any size.
        batch_size: Images, and projections, at a time.
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
    if images is not None:
        check_whole_number("images", images)
    progress = progress or no_progress
    model, run = _open(network, run)
    graph = build_graph(model)
    chosen = choose_layers(graph, layers)
    seed = 0 if run is None else run.config.seed
    source = load_dataset(dataset, seed=seed) if isinstance(dataset, str) else dataset
    searched = _spread(source.splits[split], images)
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
        "rule": RULE,
        "image size": image_size,
        "cnnkit": __version__,
    }
    with progress(len(searched), "searching") as advance, report_undecodable(searched):
        found = survey(
            graph, searched, len(source.class_names), chosen, units,
            image_size=image_size, batch_size=batch_size, progress=advance,
        )  # fmt: skip
    key = json_text([facts, names.network, names.classes, list(model.input_shape)])
    with site_in_progress(path, key, overwrite=overwrite) as site:
        writer = _Writer(site, graph, searched, names, layer_folders(chosen), _kernels(model))
        total = sum(int((one.found.values[list(one.units)] > 0).sum()) for one in found)
        with progress(total, "projecting") as advance:
            for layer in found:
                for done in writer.write_units(layer, image_size, batch_size):
                    advance(done)
        writer.write_layers(found)
        rows = [(key, _words(value)) for key, value in facts.items() if value is not None]
        page = render_overview(
            model, found, writer.folders, names, rows, [] if run is None else progress_rows(run)
        )
        write_static_files(site)
        write_quickly(site / FACTS, json_text(facts, indent=2) + "\n")
        write_quickly(site / INDEX, page)
    return path / INDEX


@dataclass(frozen=True)
class _Writer:
    """Writes the pages of the layers and their units.

    Attributes:
        site: The folder.
        graph: The network.
        images: The images that were searched.
        names: Names of the network, its classes and images.
        folders: Names of the layers' folders.
        kernels: The layer and the kernels of the first convolution; none if it is not over colors.
    """

    site: Path
    graph: Graph
    images: Split
    names: SiteNames
    folders: Mapping[str, str]
    kernels: tuple[str, np.ndarray] | None

    def write_units(
        self, layer: LayerSurvey, image_size: int | None, batch_size: int
    ) -> Iterator[int]:
        """Write the units of a layer that are not written yet, and yield numbers of projections."""
        folder = self.site / self.folders[layer.name]
        folder.mkdir(exist_ok=True)
        units, values = list(layer.units), layer.found.values
        fires = values > 0
        missing = [one for one in units if not (folder / f"{unit_file(one)}.html").exists()]
        yield int(fires[units].sum() - fires[missing].sum())
        pixels = math.prod(one or image_size or 1 for one in self.graph.image_shape[:2])
        at_once = max(batch_size, min(MOST_PROJECTIONS, MOST_PIXELS // pixels))
        for together in _units_of_few_images(layer, missing, MOST_BYTES // (12 * pixels)):
            numbers = np.unique(layer.found.images[together][fires[together]])
            read = read_searched_images(self.graph, self.images, numbers, image_size)
            images = dict(zip(numbers.tolist(), read, strict=True))
            for start in range(0, len(together), UNITS_AT_ONCE):
                group = together[start : start + UNITS_AT_ONCE]
                shown = {
                    one: images[one]
                    for one in np.unique(layer.found.images[group][fires[group]]).tolist()
                }
                tops = project_images(self.graph, shown, layer.found, group, RULE, at_once)
                for unit, top in zip(group, tops, strict=True):
                    self._write_unit(folder, layer, unit, top, images)
                    yield int(fires[unit].sum())

    def _write_unit(
        self,
        folder: Path,
        layer: LayerSurvey,
        unit: int,
        top: UnitExamples,
        images: Mapping[int, np.ndarray],
    ) -> None:
        files = None
        if top.projections:
            files = write_unit_pictures(folder, unit_file(unit), top, images)
        if self.kernels is not None and self.kernels[0] == layer.name:
            write_kernel(folder, unit_file(unit), self.kernels[1][unit])
        page = render_unit(layer, unit, self.names, files)
        # Last, because it tells that the unit is done.
        write_quickly(folder / f"{unit_file(unit)}.html", page)

    def write_layers(self, layers: Sequence[LayerSurvey]) -> None:
        """Write the pages of the layers, and the index of the search."""
        pictures: dict[str, dict[int, str]] = {}
        for place, layer in enumerate(layers):
            folder = self.site / self.folders[layer.name]
            files = {
                unit: f"{unit_file(unit)}{ending}"
                for unit in layer.units
                for ending in (".jpg", ".png")
                if (folder / f"{unit_file(unit)}{ending}").exists()
            }
            kernels = {
                unit: f"{unit_file(unit)}-kernel.png"
                for unit in layer.units
                if (folder / f"{unit_file(unit)}-kernel.png").exists()
            }
            pictures[layer.name] = files
            others: list[Content] = []
            for step, relation, text in ((-1, "prev", "\u2190 {}"), (1, "next", "{} \u2192")):
                if 0 <= place + step < len(layers):
                    name = layers[place + step].name
                    address = f"../{self.folders[name]}/{INDEX}"
                    others += [element("a", text.format(name), href=address, rel=relation), " "]
            page = render_layer(layer, self.names, files, kernels, others)
            write_quickly(folder / INDEX, page)
        write_quickly(
            self.site / "units.js", index_script(layers, self.folders, self.names, pictures)
        )


def _units_of_few_images(
    layer: LayerSurvey, units: Sequence[int], most: int
) -> Iterator[list[int]]:
    """Yield units whose strongest images are at most `most` together, or one unit."""
    together: list[int] = []
    images: set[int] = set()
    for unit in units:
        found = layer.found
        more = set(found.images[unit, found.values[unit] > 0].tolist())
        if together and len(images | more) > most:
            yield together
            together, images = [], set()
        together.append(unit)
        images |= more
    if together:
        yield together


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


def _spread(split: Split, most: int | None) -> Split:
    """Return at most `most` images of a split, evenly spaced."""
    if most is None or len(split) <= most:
        return split
    return split.subset(np.linspace(0, len(split) - 1, most).round().astype(int))


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
