"""Writes the pages of a site: those of layers and units, of classes, and of images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from cnnkit._html.elements import Content, element
from cnnkit.data import Split
from cnnkit.models.graph import Graph
from cnnkit.reports.microscope.class_page import (
    CLASSES,
    find_mistakes,
    render_class,
    render_classes,
)
from cnnkit.reports.microscope.image_page import (
    IMAGES,
    NEAREST,
    image_page_file,
    render_image,
    render_images,
    study_image,
    write_image_pictures,
)
from cnnkit.reports.microscope.layer_page import index_script, render_layer
from cnnkit.reports.microscope.pictures import (
    write_kernel,
    write_rule_pictures,
    write_thumbnail,
    write_unit_pictures,
)
from cnnkit.reports.microscope.site_folder import (
    write_quickly,
)
from cnnkit.reports.microscope.survey import (
    RULE,
    LayerSurvey,
    Survey,
)
from cnnkit.reports.microscope.unit_page import (
    SiteNames,
    class_file,
    render_unit,
    unit_file,
)
from cnnkit.visualize.top9 import UnitExamples, project_images, read_searched_images

# Units that are projected together.
UNITS_AT_ONCE = 16
# Bytes of the images that are read together.
MOST_BYTES = 200_000_000
# Projections that are computed together, and their pixels: small images would not fill a core.
MOST_PROJECTIONS, MOST_PIXELS = 72, 16 * 224**2
INDEX = "index.html"


@dataclass(frozen=True)
class SiteWriter:
    """Writes the pages of the layers and their units.

    Attributes:
        site: The folder.
        graph: The network.
        images: The images that were searched.
        names: Names of the network, its classes and images.
        folders: Names of the layers' folders.
        kernels: The layer and the kernels of the first convolution; none if it is not over colors.
        rules: Backward rules that units are projected by as well.
    """

    site: Path
    graph: Graph
    images: Split
    names: SiteNames
    folders: Mapping[str, str]
    kernels: tuple[str, np.ndarray] | None
    rules: tuple[str, ...]

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
                tops = [
                    project_images(self.graph, shown, layer.found, group, rule, at_once)
                    for rule in (RULE, *self.rules)
                ]
                for unit, *by_rule in zip(group, *tops, strict=True):
                    self._write_unit(folder, layer, unit, by_rule, images)
                    yield int(fires[unit].sum())

    def _write_unit(
        self,
        folder: Path,
        layer: LayerSurvey,
        unit: int,
        tops: Sequence[UnitExamples],
        images: Mapping[int, np.ndarray],
    ) -> None:
        """Write the files of a unit, from its projections by the deconvnet and the other rules."""
        name, files, more = unit_file(unit), None, {}
        if tops[0].projections:
            files = write_unit_pictures(folder, name, tops[0], images)
            for rule, top in zip(self.rules, tops[1:], strict=True):
                more[rule] = write_rule_pictures(folder, name, top, rule)
        if self.kernels is not None and self.kernels[0] == layer.name:
            write_kernel(folder, name, self.kernels[1][unit])
        page = render_unit(layer, unit, self.names, files, more)
        # Last, because it tells that the unit is done.
        write_quickly(folder / f"{name}.html", page)

    def write_classes(self, result: Survey, image_size: int | None) -> None:
        """Write the pages of the classes, with small copies of the images that were mistaken."""
        folder = self.site / CLASSES
        folder.mkdir(exist_ok=True)
        pictures = {one.name: self._unit_pictures(one) for one in result.layers}
        for number in np.unique(self.names.labels).tolist():
            wrong = find_mistakes(self.names, result.predicted, number)
            pixels = read_searched_images(self.graph, self.images, wrong, image_size)
            thumbnails = {
                int(image): write_thumbnail(folder, f"image-{image}", one)
                for image, one in zip(wrong, pixels, strict=True)
            }
            page = render_class(
                number, result.layers, self.folders, self.names, pictures, result.predicted,
                thumbnails,
            )  # fmt: skip
            write_quickly(folder / f"{class_file(number)}.html", page)
        page = render_classes(result.layers, self.folders, self.names, result.predicted)
        write_quickly(folder / INDEX, page)

    def _unit_pictures(self, layer: LayerSurvey) -> dict[int, str]:
        """Return the names of the files of the units' pictures."""
        folder = self.site / self.folders[layer.name]
        return {
            unit: f"{unit_file(unit)}{ending}"
            for unit in layer.units
            for ending in (".jpg", ".png")
            if (folder / f"{unit_file(unit)}{ending}").exists()
        }

    def write_layers(self, layers: Sequence[LayerSurvey]) -> None:
        """Write the pages of the layers, and the index of the search."""
        pictures: dict[str, dict[int, str]] = {}
        for place, layer in enumerate(layers):
            folder = self.site / self.folders[layer.name]
            files = self._unit_pictures(layer)
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

    def write_images(
        self,
        model: keras.Model,
        result: Survey,
        captions: Sequence[str],
        image_size: int | None,
    ) -> Iterator[int]:
        """Write the pages of images, and yield 1 after each."""
        folder = self.site / IMAGES
        folder.mkdir(exist_ok=True)
        numbers = sorted(result.largest)
        thumbnails: dict[int, str] = {}
        for number in numbers:
            page = folder / f"{image_page_file(number)}.html"
            nearest = _nearest(result, number)
            wanted = np.array([number, *(one for one, _ in nearest)])
            pixels = read_searched_images(self.graph, self.images, wanted, image_size)
            for one, shown in zip(wanted.tolist(), pixels, strict=True):
                if one not in thumbnails:
                    name = f"{image_page_file(one)}-small"
                    thumbnails[one] = write_thumbnail(folder, name, shown)
            if not page.exists():
                study = study_image(model, number, pixels[0])
                text = render_image(
                    study,
                    write_image_pictures(folder, study),
                    self.names,
                    captions,
                    [self._strongest(layer, result.largest[number]) for layer in result.layers],
                    [(one, cosine, thumbnails[one]) for one, cosine in nearest],
                    numbers,
                    has_classes=result.predicted is not None,
                )
                write_quickly(page, text)
            yield 1
        write_quickly(folder / INDEX, render_images(numbers, thumbnails, self.names))

    def _strongest(
        self, layer: LayerSurvey, largest: Mapping[str, np.ndarray]
    ) -> tuple[LayerSurvey, str, int, float]:
        values = largest[layer.name]
        unit = max(layer.units, key=lambda one: float(values[one]))
        return layer, self.folders[layer.name], unit, float(values[unit])


def _nearest(result: Survey, number: int) -> list[tuple[int, float]]:
    """Return the sampled images that are most like an image in the last layer, with cosines."""
    layer = result.layers[-1]
    samples = np.stack(layer.statistics.samples).astype(np.float64)
    mine = np.maximum(result.largest[number][layer.name], 0).astype(np.float64)
    lengths = np.linalg.norm(samples, axis=1) * np.linalg.norm(mine)
    cosines = samples @ mine / np.where(lengths > 0, lengths, 1)
    order = np.argsort(-cosines, kind="stable")
    found = [(int(result.sampled[one]), float(cosines[one])) for one in order[: NEAREST + 1]]
    return [one for one in found if one[0] != number][:NEAREST]


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
