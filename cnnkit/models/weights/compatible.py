"""Which networks a weights file fits."""

from __future__ import annotations

from dataclasses import dataclass

from cnnkit.errors import UsageError
from cnnkit.models import BUILDERS
from cnnkit.models.summary import build_without_weights
from cnnkit.models.weights.match import check_normalization_match, match_layers
from cnnkit.models.weights.weights_file import WeightsFile


@dataclass(frozen=True)
class Compatibility:
    """A network beside a weights file.

    Attributes:
        network: Name of the network, as `build` takes it.
        include_top: Whether the file has its dense layers too.
        problem: Why the file does not fit, or None where it does.
        matched: Layers of the file that have the shapes of the network's first ones.
    """

    network: str
    include_top: bool
    problem: str | None
    matched: int


def compatible_networks(file: WeightsFile) -> list[Compatibility]:
    """Compares a weights file with every network at its training size; the best come first.

    Shapes alone do not tell AlexNet's kin apart. Where the file declares its normalizations they
    decide; where it does not, networks of the world it comes from come first.
    """
    found = [_fit(name, file) for name in BUILDERS]
    of_caffe = file.channels == "BGR"
    return sorted(
        found,
        key=lambda fit: (
            fit.problem is not None,
            -fit.matched,
            of_caffe != ("caffe" in fit.network),
        ),
    )


def _fit(name: str, file: WeightsFile) -> Compatibility:
    has_top = file.classes is not None
    options = {"classes": file.classes} if has_top else {}
    with build_without_weights(name, include_top=has_top, **options) as model:
        problem = None
        try:
            match_layers(model, file)
            check_normalization_match(model, file)
        except UsageError as error:
            problem = str(error)
        shapes = [tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")]
    matched = 0
    for layer, shape in zip(file.layers, shapes, strict=False):
        if sorted(layer.kernel.shape) != sorted(shape):
            break
        matched += 1
    return Compatibility(name, has_top, problem, matched)
